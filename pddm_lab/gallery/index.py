"""The index that finds a gallery's nearest items: exact up to 100 000 items, an inverted file of FAISS beyond.

It is made of the features whenever a gallery is first searched, never stored: an index file is untrusted input. And it
is never changed, so that searches need no lock: of changed items a changed copy is made, at a fraction of the time.

An item's number is its place in features.npy, which it keeps as long as it lives.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pddm_lab.errors import ConfigError

FLAT_ITEMS = 100_000
"""Up to here every item is compared with the query; beyond, those of the cells that lie nearest to it."""
FOUND = 0.98
"""Share of the nearest `NEAREST` that an inverted file is to find: so many cells are looked into."""
NEAREST = 100
TRIED = 100
"""Items whose neighbours are looked for, to see how many cells that takes."""
VARIABLE = "PDDM_LAB_INDEX"
_FEWEST_CELLS = 4
_TRAINED_ON = 40
"""Items a cell that the cells are laid out with: more take longer and place them no better."""
_ROUNDS = 6
_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class IndexChoice:
    """What index is to be built."""

    kind: str = "auto"
    """flat, ivf, or auto: by the number of items."""
    cells: int = 0
    """That an inverted file looks into; 0: as many as it takes to find `FOUND` of the nearest."""

    @staticmethod
    def of(text: str = "") -> IndexChoice:
        """From auto, flat, ivf or ivf:CELLS; empty: $PDDM_LAB_INDEX, else auto.

        Raises:
            ConfigError: anything else.
        """
        text = text or os.environ.get(VARIABLE, "") or "auto"
        kind, _, cells = text.partition(":")
        counted = text == kind or (kind == "ivf" and cells.isdecimal() and int(cells) > 0)
        if kind not in ("auto", "flat", "ivf") or not counted:
            raise ConfigError(f"The index ({VARIABLE}) expects auto, flat, ivf or ivf:CELLS, got {text!r}.")
        return IndexChoice(kind, int(cells or 0))

    def flat(self, items: int) -> bool:
        """Whether every item is compared, of so many."""
        return self.kind == "flat" or (self.kind == "auto" and items <= FLAT_ITEMS)


class Index:
    """The nearest of some items by Euclidean distance. Build one with `Index.of`."""

    def __init__(self, index: Any, places: Int[np.ndarray, " items"], choice: IndexChoice, laid_out: int) -> None:
        self._index, self._choice, self._laid_out = index, choice, laid_out
        self.places = places
        """Of the items it holds, ascending."""
        self.cells = 0
        """Looked into for each query; 0 where all items are compared."""

    @staticmethod
    def of(
        features: Float[np.ndarray, "places dim"], places: Int[np.ndarray, " items"], choice: IndexChoice
    ) -> Index:  # fmt: skip
        """Build the index of the items at some places.

        Args:
            features: of all places, memory-mapped: they are read in parts.
            places: ascending, one at least.
            choice: which index.
        """
        import faiss

        dim = features.shape[1]
        if choice.flat(len(places)):
            built = Index(faiss.IndexIDMap(faiss.IndexFlatL2(dim)), places, choice, len(places))
            built._add(features, places)
            return built
        # Half the memory in half precision: what it costs in order is far below what the cells leave out.
        count = max(min(round(2 * len(places) ** 0.5), len(places) // 2), 1)
        half = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexIVFScalarQuantizer(faiss.IndexFlatL2(dim), dim, count, half, faiss.METRIC_L2, False)
        index.cp.niter, index.cp.min_points_per_centroid = _ROUNDS, 1
        rng = np.random.default_rng(0)
        sample = np.sort(rng.choice(places, min(len(places), _TRAINED_ON * count), replace=False))
        index.train(np.ascontiguousarray(features[sample]))
        built = Index(index, places, choice, len(places))
        built._add(features, places)
        tried = np.sort(rng.choice(places, min(len(places), TRIED), replace=False))
        built.cells = min(choice.cells, count) or built._cells_needed(np.ascontiguousarray(features[tried]))
        return built

    def changed(self, features: Float[np.ndarray, "places dim"], places: Int[np.ndarray, " items"]) -> Index | None:
        """The index of other places of the same gallery: a copy, without what is gone and with what is new.

        None where it is better built anew: too much changed for the cells to lie well.
        """
        import faiss

        too_many = not self._laid_out / 2 <= len(places) <= 2 * self._laid_out
        if not len(places) or self._choice.flat(len(places)) == bool(self.cells) or (self.cells and too_many):
            return None
        gone = np.setdiff1d(self.places, places, assume_unique=True)
        other = Index(faiss.clone_index(self._index), places, self._choice, self._laid_out)
        other.cells = self.cells
        if len(gone):
            other._index.remove_ids(gone)
        other._add(features, np.setdiff1d(places, self.places, assume_unique=True))
        return other

    def search(
        self, queries: Float[np.ndarray, "queries dim"], k: int
    ) -> tuple[Float[np.ndarray, "queries k"], Int[np.ndarray, "queries k"]]:
        """Euclidean distances and places of the k nearest, nearest first; k is at most the number of items."""
        squares, found = self._look(queries, k, self.cells)
        if (found < 0).any():  # too few items in the cells looked into: look into all
            squares, found = self._look(queries, k, self._index.nlist)
        return np.sqrt(np.maximum(squares, 0)), found

    def _look(self, queries: np.ndarray, k: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
        import faiss

        if not cells:
            return self._index.search(queries, k)
        looked_into = faiss.SearchParametersIVF()
        looked_into.nprobe = cells
        # faiss's addition for torch, which other libraries switch on, keeps the search of arrays under this name.
        search = getattr(self._index, "search_numpy", self._index.search)
        return search(queries, k, params=looked_into)

    def _add(self, features: np.ndarray, places: np.ndarray) -> None:
        for start in range(0, len(places), _AT_ONCE):
            part = places[start : start + _AT_ONCE]
            self._index.add_with_ids(np.ascontiguousarray(features[part]), part)

    def _cells_needed(self, queries: Float[np.ndarray, "queries dim"]) -> int:
        nearest, every, cells = min(NEAREST, len(self.places)), self._index.nlist, min(_FEWEST_CELLS, self._index.nlist)
        _, exact = self._look(queries, nearest, every)
        while cells < every:
            _, found = self._look(queries, nearest, cells)
            if np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]) >= FOUND:
                break
            cells = min(2 * cells, every)
        return cells
