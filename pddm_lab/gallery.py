"""A gallery: the embedded items of one protocol, opened, searched and re-ranked. Its files: gallery_files.py.

The FAISS index is never stored: it is built again from features.npy, for an index file is untrusted input.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from PIL import Image

from pddm_lab.errors import RunError
from pddm_lab.gallery_files import WRITE_ANEW, Progress, fingerprint, read_manifest, write_files
from pddm_lab.maps import MapDrawing, start_map, write_map
from pddm_lab.separation import Distribution

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Gallery", "MapDrawing", "SearchResult", "start_map", "write_map"]

_FLAT_ITEMS = 100_000  # up to here every item is compared; beyond, an inverted file picks which


class Reranker(Protocol):
    """What is asked of a similarity here."""

    name: str

    def rerank(self, query: Tensor, gallery: Tensor, shortlist: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, eq=False)
class SearchResult:
    """One query's shortlist, ranked by Euclidean distance and by further similarities."""

    table: pd.DataFrame
    """The shortlist, nearest first: row, id, class_name, and for each similarity its value (larger = more similar, so
    that Euclidean's is -D) under its name and its rank from 1 under <name>_rank."""
    similarities: tuple[str, ...]
    """Those that ranked, euclidean first."""
    seconds: dict[str, float]
    """Time of each stage: search, and each re-ranking under its similarity's name."""

    def ranked(self, name: str, k: int | None = None) -> pd.DataFrame:
        """The best k by a similarity: rank, row, id, class_name, value, rank_change (places an item rises against the
        Euclidean ranking, negative where it falls)."""
        order = self.table.sort_values(f"{name}_rank")[:k]
        found = order[[f"{name}_rank", "row", "id", "class_name", name]].set_axis(
            ["rank", "row", "id", "class_name", "value"], axis=1
        )
        return found.assign(rank_change=order["euclidean_rank"] - order[f"{name}_rank"]).reset_index(drop=True)


class Gallery:
    """A stored gallery. Make one with `Gallery.write`, read one with `Gallery.open`."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest
        self.protocol = str(manifest["protocol"])
        self.features: Float[np.ndarray, "items dim"] = self._read("features.npy", _load_array)
        self.items: pd.DataFrame = self._read("items.parquet", pd.read_parquet)
        self._offsets: np.ndarray = self._read("thumbs.npy", _load_array)
        self._thumbs: np.ndarray = self._read("thumbs.bin", _map_bytes)
        self._lock = threading.Lock()
        self._index: Any = None
        if len({len(self.features), len(self.items), len(self._offsets) - 1}) != 1:
            raise RunError(f"{path} is torn: its files differ in how many items they hold. {WRITE_ANEW}.")

    @staticmethod
    def write(
        path: str | Path,
        protocol: str,
        features: Float[np.ndarray, "items dim"],
        items: pd.DataFrame,
        load_image: Callable[[int], Image.Image],
        distributions: Mapping[str, Distribution],
        progress: Progress | None = None,
    ) -> Gallery:
        """Store a gallery, in place of the one there was.

        Args:
            path: its folder.
            protocol: unseen or known.
            features: embeddings, a row per item.
            items: id (unique), label, class_name, role, a row per item.
            load_image: row -> RGB image; called from several threads.
            distributions: similarity -> distribution.
            progress: called with (thumbnails made, items, "thumbnails").

        Raises:
            ValueError: items and features don't fit together.
        """
        write_files(Path(path), protocol, features, items, load_image, distributions, progress)
        return Gallery.open(path)

    @classmethod
    def open(cls, path: str | Path, verify: bool = False) -> Gallery:
        """The gallery in a folder, memory-mapped.

        Args:
            path: its folder.
            verify: also compare every file's SHA-256 with the manifest's; without it, only the sizes.

        Raises:
            RunError: a file is missing, torn or foreign.
        """
        path = Path(path)
        manifest = read_manifest(path)
        for name, expected in manifest["files"].items():
            file = path / name
            size = file.stat().st_size if file.is_file() else None
            if size != expected["bytes"]:
                came = "nothing" if size is None else f"{size} bytes"
                raise RunError(f"{file} is torn: expected {expected['bytes']} bytes, got {came}. {WRITE_ANEW}.")
            if verify and fingerprint(file) != expected:
                raise RunError(f"{file} was changed: its SHA-256 is not the manifest's. {WRITE_ANEW}.")
        return cls(path, manifest)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def map(self) -> pd.DataFrame | None:
        """id, x, y, radius, overlap of every item, in their order (maps.py); None until the map is drawn.

        A map that an older lab drew has no radius and no overlap.
        """
        file = self.path / "map.parquet"
        return self._read("map.parquet", pd.read_parquet) if file.is_file() else None

    @property
    def distributions(self) -> dict[str, Distribution]:
        """Similarity -> distribution of its pairs."""
        frame = self._read("distributions.parquet", pd.read_parquet)
        return {
            str(name): Distribution(
                np.append(bins["left"], bins["right"].iloc[-1]),
                bins["positive"].to_numpy(),
                bins["negative"].to_numpy(),
                self.manifest["pairs"][name]["scored"],
                self.manifest["pairs"][name]["total"],
            )
            for name, bins in frame.groupby("similarity", sort=False)
        }

    @cached_property
    def _rows(self) -> dict[str, int]:
        # Made when first asked for: of a million items it takes a second and a half.
        rows = {str(name): row for row, name in enumerate(self.items["id"])}
        if len(rows) != len(self):
            raise RunError(f"{self.path / 'items.parquet'} is torn: it names an item twice. {WRITE_ANEW}.")
        return rows

    def thumb(self, row: int) -> bytes:
        """The JPEG of an item."""
        return self._thumbs[self._offsets[row] : self._offsets[row + 1]].tobytes()

    def rows(self, role: str) -> Int[np.ndarray, " rows"]:
        """Rows of the items that are queries ("query") or that are searched ("gallery"); "both" are either."""
        return np.flatnonzero(self.items["role"].isin([role, "both"]))

    def index_of(self, item: str) -> int:
        """The row of an id.

        Raises:
            RunError: no such item.
        """
        if item not in self._rows:
            raise RunError(
                f"{item!r} is not in the gallery {self.protocol!r}: expected one of its {len(self)} item ids."
            )
        return self._rows[item]

    def search(
        self, features: Float[np.ndarray, "queries dim"], k: int, exclude: int | None = None
    ) -> tuple[Int[np.ndarray, "queries k"], Float[np.ndarray, "queries k"]]:
        """The nearest items that are searched.

        Args:
            features: queries.
            k: how many; fewer come where there are fewer.
            exclude: a row to leave out: the query itself.

        Returns:
            Rows and Euclidean distances, nearest first.
        """
        index, rows = self._built_index()
        features = np.ascontiguousarray(features, dtype=np.float32)
        excluded = exclude is not None and exclude in rows
        squares, found = index.search(features, max(min(k + excluded, len(rows)), 1))
        if (found < 0).any() and hasattr(index, "nprobe"):  # too few items in the cells looked at: look at all
            index.nprobe = index.nlist
            squares, found = index.search(features, found.shape[1])
        found, distances = rows[found], np.sqrt(np.maximum(squares, 0))
        if excluded:  # left out of each line, or its last where it wasn't among them
            out = found == exclude
            out[~out.any(1), -1] = True
            found, distances = (values[~out].reshape(len(found), -1) for values in (found, distances))
        return found[:, :k], distances[:, :k]

    def search_by(
        self,
        query: Float[np.ndarray, " dim"],
        similarities: Sequence[Reranker],
        shortlist: int = 100,
        exclude: int | None = None,
    ) -> SearchResult:
        """Search by distance, then order the nearest anew by each of some similarities.

        Args:
            query: one feature.
            similarities: on the CPU; Euclidean needn't be among them.
            shortlist: how many of the nearest are ranked.
            exclude: a row to leave out: the query itself.
        """
        import torch

        query, similarities = (
            np.array(query, dtype=np.float32),
            [one for one in similarities if one.name != "euclidean"],
        )
        start = time.perf_counter()
        found, distances = (values[0] for values in self.search(query[None], shortlist, exclude))
        seconds = {"search": time.perf_counter() - start}
        places = np.arange(1, len(found) + 1)
        table = self.items.loc[found, ["id", "class_name"]].assign(row=found, euclidean=-distances)
        table["euclidean_rank"] = places
        nearest = torch.from_numpy(np.ascontiguousarray(self.features[found]))
        asked, every = torch.from_numpy(query), torch.arange(len(found))
        for similarity in similarities:
            start = time.perf_counter()
            ranked, scores = similarity.rerank(asked, nearest, every)
            seconds[similarity.name] = time.perf_counter() - start
            order = ranked.numpy().argsort()  # from the shortlist's order to this one's
            table[similarity.name], table[f"{similarity.name}_rank"] = scores.numpy()[order], places[order]
        return SearchResult(table.reset_index(drop=True), ("euclidean", *(one.name for one in similarities)), seconds)

    def _built_index(self) -> tuple[Any, np.ndarray]:
        with self._lock:
            if self._index is None:
                rows = self.rows("gallery")
                if not len(rows):
                    raise RunError(f"The gallery {self.protocol!r} has no item to search. {WRITE_ANEW}.")
                self._index = _make_index(np.ascontiguousarray(self.features[rows])), rows
            return self._index

    def _read(self, name: str, read: Callable[[Path], Any]) -> Any:
        try:
            return read(self.path / name)
        except Exception as error:  # numpy, pandas and pyarrow raise many kinds; all mean the same here
            reason = str(error).partition("\n")[0].rstrip(".")
            raise RunError(f"{self.path / name} is torn or foreign: {reason}. {WRITE_ANEW}.") from error


def _load_array(file: Path) -> np.ndarray:
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _map_bytes(file: Path) -> np.ndarray:
    # An empty file can't be mapped.
    return np.memmap(file, dtype=np.uint8, mode="r") if file.stat().st_size else np.empty(0, np.uint8)


def _make_index(features: Float[np.ndarray, "items dim"]) -> Any:
    """A FAISS index over Euclidean distance: exact up to 100 000 items, an inverted file beyond."""
    import faiss

    dim = features.shape[1]
    index: Any
    if len(features) <= _FLAT_ITEMS:
        index = faiss.IndexFlatL2(dim)
    else:
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, round(4 * len(features) ** 0.5))
        index.nprobe = max(index.nlist // 16, 8)
        index.train(features)
    index.add(features)
    return index
