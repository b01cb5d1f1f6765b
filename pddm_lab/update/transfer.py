"""What several updates in a row did to each group of classes, from the matrix of accuracies.

R[t, j] is the accuracy on the classes of session j by the model after session t. Session 0 is the first training; with
T updates the matrix has T + 1 rows and columns.

    average accuracy   mean over j of R[T, j]
    forgetting         mean over j < T of max over j <= t < T of R[t, j], minus R[T, j] (Chaudhry et al., ECCV 2018)
    backward transfer  mean over j < T of R[T, j] - R[j, j]                       (Lopez-Paz and Ranzato, NIPS 2017)
    forward transfer   mean over j > 0 of R[j - 1, j] - b[j], with b by the pretrained features: what the training on
                       earlier classes is worth on those that it hasn't met
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def transfers(
    matrix: Float[np.ndarray, "sessions sessions"], untrained: Float[np.ndarray, " sessions"]
) -> dict[str, float]:
    """average, forgetting, backward and forward, as above.

    Args:
        matrix: R, of two sessions or more.
        untrained: b.
    """
    last = len(matrix) - 1
    earlier = np.arange(last)
    best = np.array([matrix[session:last, session].max() for session in earlier])
    return {
        "average": float(matrix[last].mean()),
        "forgetting": float((best - matrix[last, :last]).mean()),
        "backward": float((matrix[last, :last] - matrix[earlier, earlier]).mean()),
        "forward": float((matrix[earlier, earlier + 1] - untrained[1:]).mean()),
    }


def stability(curves: Sequence[Sequence[float]]) -> dict[str, float]:
    """The worst accuracy on earlier classes while updates are under way (De Lange et al., ICLR 2023).

    Args:
        curves: of each update, R@1 on all earlier classes before it and after every few steps.

    Returns:
        worst, the lowest of all; and gap, how far below its first value the lowest of an update lies, on average.
    """
    lowest = [min(curve) for curve in curves]
    gaps = [curve[0] - low for curve, low in zip(curves, lowest, strict=True)]
    return {"worst": float(min(lowest)), "gap": float(np.mean(gaps))}
