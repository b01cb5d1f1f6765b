"""The index of a gallery's nearest items: exact up to 50 000 items, an inverted file of FAISS beyond.

It is built from the features at the first search and never stored, since an index file is untrusted input. It is never
changed either, so searches need no lock: when items change, a changed copy is made, in a fraction of the time.

An item's number is its place in features.npy, which it keeps until it is removed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pddm_lab.gallery.store import Contents, IndexChoice

RECALL = 0.99
"""Share of the nearest `NEAREST` items that an inverted file must return: this sets how many cells are searched."""
NEAREST = 100
RECALL_QUERIES = 100
"""Queries that measure this share."""
KEPT = 1.1
"""Factor of the number of items within which a changed index keeps its kind: building another takes seconds."""
_FEWEST_CELLS = 4
_TRAINED_ON = 40
"""Training items per cell: more take longer and place the cells no better."""
_ROUNDS = 6
_AT_ONCE = 1 << 16


class Index:
    """Nearest items by Euclidean distance. Build one with `Index.of`."""

    def __init__(self, index: Any, places: Int[np.ndarray, " items"], choice: IndexChoice, trained_for: int) -> None:
        self._index, self._choice, self._trained_for = index, choice, trained_for
        self.places = places
        """Places of the indexed items, ascending."""
        self.cells = 0
        """Cells searched for each query; 0 if the query is compared with all items."""

    @staticmethod
    def of(contents: Contents, choice: IndexChoice) -> Index:
        """Build the index of a gallery's searched items."""
        import faiss

        features, places = contents.features, contents.places
        dim = features.shape[1]
        if choice.flat(len(places)):
            built = Index(faiss.IndexIDMap(faiss.IndexFlatL2(dim)), places, choice, len(places))
            built._add(features, places)
            return built
        # Half precision halves the memory; the error is far below that of the cells left out.
        count = max(min(round(2 * len(places) ** 0.5), len(places) // 2), 1)
        half = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatL2(dim), dim, count, half, faiss.METRIC_L2, False)
        index.cp.niter, index.cp.min_points_per_centroid = _ROUNDS, 1
        rng = np.random.default_rng(0)
        sample = np.sort(rng.choice(places, min(len(places), _TRAINED_ON * count), replace=False))
        index.train(np.ascontiguousarray(features[sample]))
        built = Index(index, places, choice, len(places))
        built._add(features, places)
        queries = np.sort(rng.choice(places, min(len(places), RECALL_QUERIES), replace=False))
        built.cells = min(choice.cells, count) or built._cells_needed(np.ascontiguousarray(features[queries]))
        return built

    def changed(self, contents: Contents) -> Index | None:
        """A copy of the index without removed places and with new ones of the same gallery.

        None if it must be built again, since the kind of index changes or too many items changed for the cells.
        """
        import faiss

        features, places = contents.features, contents.places
        if np.array_equal(places, self.places):
            return self
        too_many = not self._trained_for / 2 <= len(places) <= 2 * self._trained_for
        # Its kind is kept a little beyond the number of items at which a new one would be of the other.
        at_least = round(len(places) * (KEPT if self.cells else 1 / KEPT))
        if not len(places) or self._choice.flat(at_least) == bool(self.cells) or (self.cells and too_many):
            return None
        removed = np.setdiff1d(self.places, places, assume_unique=True)
        other = Index(faiss.clone_index(self._index), places, self._choice, self._trained_for)
        other.cells = self.cells
        if len(removed):
            other._index.remove_ids(removed)
        other._add(features, np.setdiff1d(places, self.places, assume_unique=True))
        return other

    def search(
        self, queries: Float[np.ndarray, "queries dim"], k: int
    ) -> tuple[Float[np.ndarray, "queries k"], Int[np.ndarray, "queries k"]]:
        """Euclidean distances and places of the k nearest, nearest first; k is at most the number of items."""
        squares, places = self._search_cells(queries, k, self.cells)
        if (places < 0).any():  # too few items in these cells: search all
            squares, places = self._search_cells(queries, k, self._index.nlist)
        return np.sqrt(np.maximum(squares, 0)), places

    def _search_cells(self, queries: np.ndarray, k: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
        import faiss

        if not cells:
            return self._index.search(queries, k)
        parameters = faiss.SearchParametersIVF()
        parameters.nprobe = cells
        # faiss's torch support, which other libraries switch on, keeps the search of arrays under this name.
        search = getattr(self._index, "search_numpy", self._index.search)
        return search(queries, k, params=parameters)

    def _add(self, features: np.ndarray, places: np.ndarray) -> None:
        for start in range(0, len(places), _AT_ONCE):
            part = places[start : start + _AT_ONCE]
            self._index.add_with_ids(np.ascontiguousarray(features[part]), part)

    def _cells_needed(self, queries: Float[np.ndarray, "queries dim"]) -> int:
        nearest, every, cells = min(NEAREST, len(self.places)), self._index.nlist, min(_FEWEST_CELLS, self._index.nlist)
        _, exact = self._search_cells(queries, nearest, every)
        while cells < every:
            _, places = self._search_cells(queries, nearest, cells)
            if np.mean([np.isin(a, b).mean() for a, b in zip(exact, places, strict=True)]) >= RECALL:
                break
            cells = min(2 * cells, every)
        return cells
