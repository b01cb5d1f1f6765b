"""The neighbourhoods of a set of features: nearest items, and how dense or sparse the place of each item is.

The paper's claim is about these: a distance that is small in a sparse region can be large in a dense one.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

NEIGHBOURS = 10
"""Neighbours whose mean distance is an item's local radius."""
DENSITIES = ("dense", "middle", "sparse")
"""Thirds of the items by local radius, smallest first."""


def nearest(
    features: Float[np.ndarray, "items dim"], count: int
) -> tuple[Float[np.ndarray, "items count"], Int[np.ndarray, "items count"]]:
    """The nearest other items of every item, exactly.

    Args:
        features: (items, dim) float32.
        count: how many; fewer come where there are fewer others.

    Returns:
        Euclidean distances and rows, both (items, count), nearest first.
    """
    import faiss

    features = np.ascontiguousarray(features, dtype=np.float32)
    items, count = len(features), max(min(count, len(features) - 1), 0)
    if not count:
        return np.empty((items, 0), np.float32), np.empty((items, 0), np.int64)
    index = faiss.IndexFlatL2(features.shape[1])
    index.add(features)
    squares, rows = index.search(features, count + 1)
    itself = rows == np.arange(items)[:, None]
    itself[~itself.any(axis=1), -1] = True  # among equal items faiss may leave the item itself out
    squares, rows = (values[~itself].reshape(items, count) for values in (squares, rows))
    return np.sqrt(np.maximum(squares, 0)), rows


def local_radius(features: Float[np.ndarray, "items dim"]) -> Float[np.ndarray, " items"]:
    """The mean Euclidean distance of each item to its nearest others (`NEIGHBOURS` of them): small where it is dense.

    0 for a single item.
    """
    distances, _ = nearest(features, NEIGHBOURS)
    return distances.mean(axis=1) if distances.shape[1] else np.zeros(len(features), np.float32)


def density_of(radius: Float[np.ndarray, " items"]) -> Int[np.ndarray, " items"]:
    """The third that each item's local radius lies in, an index into `DENSITIES`: 0 is the densest."""
    bounds = np.quantile(radius, [1 / 3, 2 / 3]) if len(radius) else np.zeros(2)
    return np.searchsorted(bounds, radius, side="left").astype(np.int64)
