"""The replay buffer: a few old items of each class, which stand for all of them while a run trains on with new ones.

Herding (Welling, ICML 2009; as iCaRL uses it, Rebuffi et al., CVPR 2017): the items of a class are chosen one after the
other, each so that the mean of those chosen comes nearest to the mean of the class. The order says which to keep when
the buffer gets smaller for each class, because there are more classes.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.data.splits import by_class

FEWEST = 2
"""Items of a class at least: one alone has no positive pair."""


@torch.no_grad()
def herd(features: Float[Tensor, "items dim"], count: int) -> Int[Tensor, " chosen"]:
    """The rows whose mean stays nearest to the mean of all, in the order in which they are chosen.

    Args:
        features: of one class, of any length; their directions count.
        count: how many to choose; all, if there are fewer.
    """
    unit = F.normalize(features.double(), dim=1)
    mean, total = unit.mean(0), torch.zeros_like(unit[0])
    left = torch.ones(len(unit), dtype=torch.bool)
    chosen = []
    for size in range(1, min(count, len(unit)) + 1):
        distances = ((total + unit) / size - mean).norm(dim=1)
        row = int(distances.where(left, torch.inf).argmin())
        left[row] = False
        total = total + unit[row]
        chosen.append(row)
    return torch.tensor(chosen, dtype=torch.long)


def replay_items(
    features: Float[Tensor, "all dim"], labels: Int[np.ndarray, " all"], items: Int[np.ndarray, " old"], size: int
) -> Int[np.ndarray, " kept"]:
    """Old items to train on again, the same number of each class as far as it has them.

    Args:
        features: by which items are herded, such as those of the frozen trunk.
        labels: (all items,) class of each item.
        items: the old ones.
        size: items in all. With so many classes that fewer than `FEWEST` would be left of each, some classes, evenly
            spread, are left out.

    Returns:
        The chosen items, sorted.
    """
    members = list(by_class(labels, items).values())
    most = max(size // FEWEST, 1)
    if len(members) > most:
        members = [members[at] for at in np.linspace(0, len(members) - 1, most).astype(int)]
    share = _per_class([len(one) for one in members], size)
    chosen = [one[herd(features[torch.from_numpy(one)], share).numpy()] for one in members]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)


def _per_class(counts: list[int], size: int) -> int:
    """The largest number a class of which all classes together have at most `size` items; `FEWEST` at least."""
    share = FEWEST
    while sum(min(count, share + 1) for count in counts) <= size and share < max(counts, default=0):
        share += 1
    return share
