"""Random changes of a gallery of random features, the same for every store, and what an exact search returns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from pddm_lab.bench.search import Features, make_items, write_gallery
from pddm_lab.gallery.changes import NewItems, add, remove, update
from pddm_lab.gallery.gallery import Gallery

MOST = 5
"""Items of one change: from 1 to so many."""
FEWEST = 100
"""So many items always stay."""


class Churn:
    """Changes of one gallery."""

    def __init__(self, items: int, seed: int = 0) -> None:
        self._features = Features(items)
        self._items, self._next = items, items
        self._rng = np.random.default_rng(seed)
        self.removed: dict[str, Float[np.ndarray, " dim"]] = {}
        """Ids that were removed, with their last features."""

    def write(self, folder: Path) -> Path:
        """Write the gallery to start from."""
        return write_gallery(folder, self._features, self._items)

    def queries(self, count: int, seed: int) -> Float[np.ndarray, "queries dim"]:
        """New features of the gallery's classes."""
        labels = np.random.default_rng(seed).integers(0, self._features.classes, count)
        return self._features.sample(labels, seed + 1)

    def step(self, gallery: Gallery) -> Gallery:
        """Add, update or remove from 1 to `MOST` items: each of the three as often."""
        kind, count = self._rng.integers(0, 3), int(self._rng.integers(1, MOST + 1))
        if kind == 0:
            new = self._new(self._rng.integers(0, self._features.classes, count))
            return add(gallery, new)
        rows = np.sort(self._rng.choice(len(gallery), min(count, len(gallery)), replace=False))
        items = gallery.items.iloc[rows].reset_index(drop=True)
        if kind == 1 or len(gallery) <= FEWEST:
            new = self._new(self._rng.integers(0, self._features.classes, len(rows)))
            return update(gallery, NewItems(items, new.features, new.thumbs))
        self.removed |= dict(zip(items["id"], gallery.features_of(rows), strict=True))
        return remove(gallery, items["id"].tolist())

    def _new(self, labels: Int[np.ndarray, " items"]) -> NewItems:
        first, self._next = self._next, self._next + len(labels)
        return make_items(self._features, labels, first, seed=first)


def nearest(gallery: Gallery, queries: Float[np.ndarray, "queries dim"], k: int) -> Int[np.ndarray, "queries k"]:
    """Rows of the k nearest items of each query, by distances in float64 to all items."""
    points, rows = gallery.features.astype(np.float64), np.empty((len(queries), k), np.int64)
    every = (points**2).sum(1) - 2 * (
        queries.astype(np.float64) @ points.T
    )  # and the query's own square: the same order
    for place, distances in enumerate(every):
        few = np.argpartition(distances, k - 1)[:k]
        rows[place] = few[np.argsort(distances[few], kind="stable")]
    return rows
