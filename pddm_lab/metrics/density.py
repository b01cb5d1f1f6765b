"""Neighbourhoods in a set of features: nearest items, and how dense or sparse the region around each item is.

The paper's claim is about these: a distance that is small in a sparse region can be large in a dense one.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

NEIGHBOURS = 10
"""Number of neighbours whose mean distance is an item's local radius."""
DENSITIES = ("dense", "middle", "sparse")
"""Thirds of the items by local radius, smallest first."""

_COMPARED_AT_ONCE = 50_000  # items whose neighbours are compared at a time: 11 MB


def nearest(
    features: Float[np.ndarray, "items dim"], count: int, rows: Int[np.ndarray, " rows"] | None = None
) -> tuple[Float[np.ndarray, "rows count"], Int[np.ndarray, "rows count"]]:
    """The exact nearest neighbours of items.

    Args:
        features: (items, dim) float32; coordinates on a map (dim 2 or 3) are faster.
        count: number of neighbours; fewer if there are fewer other items.
        rows: the items whose neighbours are wanted; None for all.

    Returns:
        Euclidean distances and rows, both (rows, count), nearest first.
    """
    features = np.ascontiguousarray(features, dtype=np.float32)
    rows = np.arange(len(features)) if rows is None else np.asarray(rows)
    count = max(min(count, len(features) - 1), 0)
    if not count or not len(rows):
        return np.empty((len(rows), count), np.float32), np.empty((len(rows), count), np.int64)
    search = _search_tree if features.shape[1] <= 3 else _search_all
    distances, neighbours = search(features, features[rows], count + 1)
    itself = neighbours == rows[:, None]
    itself[~itself.any(axis=1), -1] = True  # among equal items the item itself may be missing
    return distances[~itself].reshape(len(rows), count), neighbours[~itself].reshape(len(rows), count)


def _search_all(features: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    import faiss

    index = faiss.IndexFlatL2(features.shape[1])
    index.add(features)
    squares, neighbours = index.search(queries, count)
    return np.sqrt(np.maximum(squares, 0)), neighbours


def _search_tree(features: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    from scipy.spatial import cKDTree

    distances, neighbours = cKDTree(features).query(queries, count)
    return distances.astype(np.float32), neighbours.astype(np.int64)


def local_radius(
    features: Float[np.ndarray, "items dim"], rows: Int[np.ndarray, " rows"] | None = None
) -> Float[np.ndarray, " rows"]:
    """Mean Euclidean distance of each item to its `NEIGHBOURS` nearest: small in dense regions, 0 for a single item."""
    return radius_from(nearest(features, NEIGHBOURS, rows)[0])


def radius_from(distances: Float[np.ndarray, "items neighbours"]) -> Float[np.ndarray, " items"]:
    """Local radius of items, from the distances to their neighbours, nearest first."""
    near = distances[:, :NEIGHBOURS]
    return near.mean(axis=1) if near.shape[1] else np.zeros(len(distances), np.float32)


def shared(
    one: Int[np.ndarray, "items neighbours"], other: Int[np.ndarray, "items neighbours"]
) -> Float[np.ndarray, " items"]:
    """Share of each item's neighbours that are also in its other list, 0 to 1; 1 if it has no neighbours."""
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
