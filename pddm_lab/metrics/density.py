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

_COMPARED_AT_ONCE = 50_000  # items whose neighbours are compared with one another: 11 MB


def nearest(
    features: Float[np.ndarray, "items dim"], count: int, rows: Int[np.ndarray, " rows"] | None = None
) -> tuple[Float[np.ndarray, "rows count"], Int[np.ndarray, "rows count"]]:
    """The nearest other items of every item, exactly.

    Args:
        features: (items, dim) float32; places on a map (dim 2 or 3) will do, and are quicker.
        count: how many; fewer come where there are fewer others.
        rows: the items to find them for; None for all.

    Returns:
        Euclidean distances and rows, both (rows, count), nearest first.
    """
    features = np.ascontiguousarray(features, dtype=np.float32)
    rows = np.arange(len(features)) if rows is None else np.asarray(rows)
    count = max(min(count, len(features) - 1), 0)
    if not count or not len(rows):
        return np.empty((len(rows), count), np.float32), np.empty((len(rows), count), np.int64)
    distances, found = (_by_tree if features.shape[1] <= 3 else _by_comparing)(features, features[rows], count + 1)
    itself = found == rows[:, None]
    itself[~itself.any(axis=1), -1] = True  # among equal items the item itself may be left out
    return distances[~itself].reshape(len(rows), count), found[~itself].reshape(len(rows), count)


def _by_comparing(features: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    import faiss

    index = faiss.IndexFlatL2(features.shape[1])
    index.add(features)
    squares, found = index.search(queries, count)
    return np.sqrt(np.maximum(squares, 0)), found


def _by_tree(features: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    from scipy.spatial import cKDTree

    distances, found = cKDTree(features).query(queries, count)
    return distances.astype(np.float32), found.astype(np.int64)


def local_radius(
    features: Float[np.ndarray, "items dim"], rows: Int[np.ndarray, " rows"] | None = None
) -> Float[np.ndarray, " rows"]:
    """The mean Euclidean distance of each item to its nearest others (`NEIGHBOURS` of them): small where it is dense.

    0 for a single item.
    """
    return radius_from(nearest(features, NEIGHBOURS, rows)[0])


def radius_from(distances: Float[np.ndarray, "items neighbours"]) -> Float[np.ndarray, " items"]:
    """Local radius of items, from their distances to their nearest others, nearest first."""
    near = distances[:, :NEIGHBOURS]
    return near.mean(axis=1) if near.shape[1] else np.zeros(len(distances), np.float32)


def shared(
    one: Int[np.ndarray, "items neighbours"], other: Int[np.ndarray, "items neighbours"]
) -> Float[np.ndarray, " items"]:
    """The share of each item's neighbours that are among its neighbours in the other list, 0 to 1.

    1 where it has no neighbours.
    """
    if not one.shape[1]:
        return np.ones(len(one), np.float32)
    parts = [
        (one[at : at + _COMPARED_AT_ONCE, :, None] == other[at : at + _COMPARED_AT_ONCE, None, :]).any(2).mean(1)
        for at in range(0, len(one), _COMPARED_AT_ONCE)
    ]
    return np.concatenate([np.empty(0), *parts]).astype(np.float32)


def density_of(
    radius: Float[np.ndarray, " items"], among: Float[np.ndarray, " others"] | None = None
) -> Int[np.ndarray, " items"]:
    """The third that each local radius lies in, an index into `DENSITIES`: 0 is the densest.

    Args:
        radius: of items, or of pairs.
        among: the radii that the thirds hold equally many of; None: `radius` itself.
    """
    among = radius if among is None else among
    bounds = np.quantile(among, [1 / 3, 2 / 3]) if len(among) else np.zeros(2)
    return np.searchsorted(bounds, radius, side="left").astype(np.int64)
