"""A gallery: the embedded items of one protocol, opened, searched and re-ranked. Its files: gallery_files.py.

An open gallery never changes. What changes one on disk, and gives another to search: upkeep.py.
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
from pddm_lab.gallery.files import (
    WRITE_ANEW,
    Progress,
    check_files,
    items_name,
    map_array,
    map_bytes,
    read_items,
    read_manifest,
    write_files,
)
from pddm_lab.gallery.index import Index, IndexChoice
from pddm_lab.gallery.umap_layout import MapDrawing, start_map, write_map
from pddm_lab.metrics.separation import Distribution

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Gallery", "MapDrawing", "SearchResult", "start_map", "write_map"]


class Reranker(Protocol):
    """What is asked of a similarity here."""

    name: str

    def rerank(self, query: Tensor, gallery: Tensor, shortlist: Tensor) -> tuple[Tensor, Tensor]: ...


class BatchReranker(Protocol):
    """What is asked of a similarity that ranks the shortlists of many queries at once."""

    def candidates(self, queries: Tensor, gallery: Tensor, rows: Tensor) -> Tensor: ...


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

    def __init__(self, path: Path, manifest: dict[str, Any], choice: IndexChoice) -> None:
        self.path = path
        self.manifest = manifest
        self.protocol = str(manifest["protocol"])
        self._choice = choice
        size = {name: int(entry["bytes"]) for name, entry in manifest["files"].items()}
        # Items have rows, without gaps; features and thumbnails stay where they were written, at the items' places.
        self._stored: np.ndarray = self._read("features.npy", lambda file: map_array(file, size[file.name]))
        self._offsets: np.ndarray = self._read("thumbs.npy", lambda file: map_array(file, size[file.name]))
        self._thumbs: np.ndarray = self._read("thumbs.bin", lambda file: map_bytes(file, size[file.name]))
        self.items, self._places = self._read(items_name(manifest), lambda file: read_items(file.parent, manifest))
        self._lock = threading.Lock()
        self._index: Index | None = None
        items = len(self.items) if self._places is None else len(self._stored)
        if len({len(self._stored), items, len(self._offsets) - 1}) != 1:
            raise RunError(f"{path} is torn: its files differ in how many items they hold. {WRITE_ANEW}.")
        if self._places is not None and not _are_places(self._places, items):
            raise RunError(f"{path / items_name(manifest)} is torn: expected places from 0 to {items - 1}.")

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
    def open(cls, path: str | Path, verify: bool = False, index: str = "") -> Gallery:
        """The gallery in a folder, memory-mapped.

        Args:
            path: its folder.
            verify: also compare every file's SHA-256 with the manifest's; without it, only the sizes.
            index: auto, flat, ivf or ivf:CELLS (index.py); empty: $PDDM_LAB_INDEX, else auto.

        Raises:
            RunError: a file is missing, torn or foreign.
            ConfigError: no such index.
        """
        path, choice = Path(path), IndexChoice.of(index)
        while True:
            manifest = read_manifest(path)
            try:
                check_files(path, manifest, verify)
                return cls(path, manifest, choice)
            except RunError:
                if read_manifest(path) == manifest:  # else it was changed between
                    raise

    def reopened(self) -> Gallery:
        """The gallery as its files are now, with this one's index as `take_index` does; this one goes on as it is."""
        other = Gallery.open(self.path)
        other._choice = self._choice
        other.take_index(self)
        return other

    def take_index(self, before: Gallery) -> None:
        """Where this is the same gallery after some changes and the index of before is built: search by a changed copy
        of that, instead of building one."""
        index, mine, its = before._index, *(one.manifest["files"]["features.npy"] for one in (self, before))
        appended = its.get("appended", [])
        same = mine["sha256"] == its["sha256"] and mine.get("appended", [])[: len(appended)] == appended
        if index and same:
            self._index = index.changed(self._stored, self._places_of(self.rows("gallery")))

    @cached_property
    def features(self) -> Float[np.ndarray, "items dim"]:
        """A feature per item: memory-mapped, or read into memory where items were removed. Not to be written to."""
        if self._places is None or len(self._places) == len(self._stored):
            return self._stored
        features = self._stored[self._places]
        features.flags.writeable = False
        return features

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
        place = row if self._places is None else self._places[row]
        return self._thumbs[self._offsets[place] : self._offsets[place + 1]].tobytes()

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
        index = self._built_index()
        features = np.ascontiguousarray(features, dtype=np.float32)
        excluded = exclude is not None and bool(np.isin(self._places_of(np.array([exclude])), index.places)[0])
        distances, found = index.search(features, max(min(k + excluded, len(index.places)), 1))
        if self._places is not None:
            found = np.searchsorted(self._places, found)
        if excluded:  # left out of each line, or its last where it wasn't among them
            out = found == exclude
            out[~out.any(1), -1] = True
            found, distances = (values[~out].reshape(len(found), -1) for values in (found, distances))
        return found[:, :k], distances[:, :k]

    def rerank(
        self,
        queries: Float[np.ndarray, "queries dim"],
        found: Int[np.ndarray, "queries shortlist"],
        similarity: BatchReranker,
    ) -> tuple[Int[np.ndarray, "queries shortlist"], Float[np.ndarray, "queries shortlist"]]:
        """Order what `search` found for each query anew, by a similarity.

        Args:
            queries: features.
            found: rows of each query's shortlist.
            similarity: on the CPU.

        Returns:
            The same rows and their similarities, best first; equal ones keep the shortlist's order.
        """
        import torch

        used, place = np.unique(found, return_inverse=True)
        nearest = torch.from_numpy(self._features_of(used))
        asked = torch.from_numpy(np.array(queries, dtype=np.float32))
        scores = similarity.candidates(asked, nearest, torch.from_numpy(place.reshape(found.shape)))
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        return np.take_along_axis(found, order.numpy(), axis=1), scores.numpy()

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
        nearest = torch.from_numpy(self._features_of(found))
        asked, every = torch.from_numpy(query), torch.arange(len(found))
        for similarity in similarities:
            start = time.perf_counter()
            ranked, scores = similarity.rerank(asked, nearest, every)
            seconds[similarity.name] = time.perf_counter() - start
            order = ranked.numpy().argsort()  # from the shortlist's order to this one's
            table[similarity.name], table[f"{similarity.name}_rank"] = scores.numpy()[order], places[order]
        return SearchResult(table.reset_index(drop=True), ("euclidean", *(one.name for one in similarities)), seconds)

    def _built_index(self) -> Index:
        with self._lock:
            if self._index is None:
                places = self._places_of(self.rows("gallery"))
                if not len(places):
                    raise RunError(f"The gallery {self.protocol!r} has no item to search. {WRITE_ANEW}.")
                self._index = Index.of(self._stored, places, self._choice)
            return self._index

    def _places_of(self, rows: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
        return rows if self._places is None else self._places[rows]

    def _features_of(self, rows: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "rows dim"]:
        """A copy, whichever way they are stored."""
        return np.ascontiguousarray(self._stored[self._places_of(rows)])

    def _read(self, name: str, read: Callable[[Path], Any]) -> Any:
        try:
            return read(self.path / name)
        except Exception as error:  # numpy, pandas and pyarrow raise many kinds; all mean the same here
            reason = str(error).partition("\n")[0].rstrip(".")
            raise RunError(f"{self.path / name} is torn or foreign: {reason}. {WRITE_ANEW}.") from error


def _are_places(places: np.ndarray, count: int) -> bool:
    """Whether these are ascending, and all below a count."""
    return not len(places) or (places[0] >= 0 and places[-1] < count and bool((np.diff(places) > 0).all()))
