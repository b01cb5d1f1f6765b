"""How far windows of a stream are from a reference: two-sample statistics, all windows at once.

    KS     sup_x |F_window(x) - F_reference(x)|, of one signal (Kolmogorov, Smirnov)
    MMD^2  mean k(w, w') + mean k(r, r') - 2 mean k(w, r) over distinct pairs of points: unbiased, so it may be below 0
           (Gretton et al., JMLR 2012); k(a, b) = exp(-|a - b|^2 / 2 h^2) with the median distance as h
    chi^2  of the counts of classes in both

None of them is a p-value here: alarm.py says what is large, from streams without drift.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

_BANDWIDTH_POINTS = 1000


def ks(
    reference: Float[np.ndarray, " reference"], values: Float[np.ndarray, " queries"], spans: Int[np.ndarray, "spans 2"]
) -> Float[np.ndarray, " spans"]:
    """KS of each window of a signal against the reference.

    Args:
        reference: values of the signal.
        values: of the stream, in its order.
        spans: start and end of each window in the stream.
    """
    ordered = np.sort(reference)
    below = np.searchsorted(ordered, values, "left") / len(ordered)
    upto = np.searchsorted(ordered, values, "right") / len(ordered)
    largest = np.empty(len(spans))
    for size in np.unique(spans[:, 1] - spans[:, 0]):
        at = np.flatnonzero(spans[:, 1] - spans[:, 0] == size)
        rows = spans[at, :1] + np.arange(size)
        # Both shares rise with the value, so sorting them sorts the window.
        step = np.arange(1, size + 1) / size
        above = (step - np.sort(upto[rows], axis=1)).max(1)
        under = (np.sort(below[rows], axis=1) - step + 1 / size).max(1)
        largest[at] = np.maximum(above, under)
    return largest


def median_distance(points: Float[np.ndarray, "points dim"]) -> float:
    """The median distance of distinct points, of the first thousand; 1 if most of them are equal."""
    from scipy.spatial.distance import pdist

    median = float(np.median(pdist(points[:_BANDWIDTH_POINTS]))) if len(points) > 1 else 0.0
    return median or 1.0


def kernel(
    points: Float[np.ndarray, "points dim"], others: Float[np.ndarray, "others dim"], bandwidth: float
) -> Float[np.ndarray, "points others"]:
    """k of all pairs, float32."""
    from sklearn.metrics.pairwise import rbf_kernel

    return rbf_kernel(points.astype(np.float32), others.astype(np.float32), gamma=1 / (2 * bandwidth**2))


def squared_mmd(
    own: Float[np.ndarray, "queries queries"], toward: Float[np.ndarray, " queries"], inside: float,
    spans: Int[np.ndarray, "spans 2"],
) -> Float[np.ndarray, " spans"]:  # fmt: skip
    """MMD^2 of each window against the reference.

    Args:
        own: k of all pairs of the stream, in its order, with ones on the diagonal.
        toward: mean k of each query with the reference.
        inside: mean k of distinct pairs of the reference.
        spans: start and end of each window in the stream.
    """
    # Sums over the blocks between the ends of windows, and then over blocks: windows overlap.
    edges = np.unique(np.append(spans, 0))
    own = own[: edges[-1], : edges[-1]]
    upto = np.zeros((len(edges), len(edges)))
    blocks = np.add.reduceat(np.add.reduceat(own, edges[:-1], axis=0, dtype=float), edges[:-1], axis=1)
    upto[1:, 1:] = blocks.cumsum(0).cumsum(1)
    (start, end), size = np.searchsorted(edges, spans).T, spans[:, 1] - spans[:, 0]
    pairs = upto[end, end] - upto[start, end] - upto[end, start] + upto[start, start] - size
    cross = np.concatenate([[0.0], np.cumsum(toward, dtype=float)])
    return pairs / (size * (size - 1)) + inside - 2 * (cross[spans[:, 1]] - cross[spans[:, 0]]) / size


def mean_of_pairs(k: Float[np.ndarray, "points points"]) -> float:
    """Mean k of distinct pairs, from k of all pairs with ones on the diagonal."""
    count = len(k)
    return float((k.sum(dtype=float) - count) / (count * (count - 1)))


def mix(
    reference: Int[np.ndarray, " reference"], classes: Int[np.ndarray, " queries"], spans: Int[np.ndarray, "spans 2"]
) -> Float[np.ndarray, " spans"]:
    """Two-sample chi^2 of the counts of classes of each window against the reference.

    Args:
        reference: a class for each query.
        classes: of the stream, in its order.
        spans: start and end of each window in the stream.
    """
    names = np.unique(np.concatenate([reference, classes]))
    then = np.bincount(np.searchsorted(names, reference), minlength=len(names)).astype(float)
    place, values = np.searchsorted(names, classes), np.empty(len(spans))
    for row, (start, end) in enumerate(spans):
        now = np.bincount(place[start:end], minlength=len(names))
        balance, total = np.sqrt((end - start) / len(reference)), then + now
        parts = (now / balance - then * balance) ** 2 / np.maximum(total, 1)
        values[row] = parts.sum()
    return values
