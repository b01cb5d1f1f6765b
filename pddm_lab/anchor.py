"""One item's neighbourhood by any similarity: how similar every other item is to it, and which are nearest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from pddm_lab.similarity import Similarity

_AT_ONCE = 1 << 14  # features copied at a time: 8 MB of 128 dimensions


def similarity_to(
    features: Float[np.ndarray, "items dim"], anchor: int, similarity: Similarity
) -> Float[np.ndarray, " items"]:
    """The similarity of every item to the anchor, larger = more similar; the anchor's own included.

    Args:
        features: of all items; may be memory-mapped.
        anchor: its row.
        similarity: on the CPU.
    """
    import torch

    centre = torch.from_numpy(np.array(features[anchor], dtype=np.float32))
    values = np.empty(len(features), np.float32)
    for at in range(0, len(features), _AT_ONCE):
        part = torch.from_numpy(np.array(features[at : at + _AT_ONCE], dtype=np.float32))
        values[at : at + _AT_ONCE] = similarity.pairs(centre.expand_as(part), part).numpy()
    return values


def nearest_to(values: Float[np.ndarray, " items"], anchor: int, count: int) -> Int[np.ndarray, " nearest"]:
    """Rows of the items most similar to the anchor, best first, itself left out; equal ones by row.

    Args:
        values: of every item, as `similarity_to` gives them.
        anchor: its row.
        count: how many; fewer come where there are fewer.
    """
    others = np.where(np.arange(len(values)) == anchor, -np.inf, values)
    count = max(min(count, len(values) - 1), 0)
    if not count:
        return np.empty(0, np.int64)
    bound = np.partition(others, -count)[-count]
    able = np.flatnonzero(others >= bound)
    return able[np.argsort(-others[able], kind="stable")][:count]
