"""A gallery: the embedded items of one protocol, opened, searched and re-ranked. Its files: files.py.

An open gallery never changes. Functions that change one on disk and return a new one: changes.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from PIL import Image

from pddm_lab.errors import RunError
from pddm_lab.files import read_table
from pddm_lab.gallery.files import (
    COLUMNS,
    PRETRAINED,
    check_files,
    file_name,
    map_array,
    map_bytes,
    read_distributions,
    read_items,
    read_manifest,
    read_metadata,
    repair,
    thumbnail,
    write_files,
)
from pddm_lab.gallery.index import Index
from pddm_lab.gallery.milvus import MilvusStore
from pddm_lab.gallery.result import BatchReranker, Reranker, SearchResult
from pddm_lab.gallery.schema import MAP
from pddm_lab.gallery.store import Contents, IndexChoice, Store
from pddm_lab.gallery.umap_layout import MapDrawing, start_map, write_map
from pddm_lab.metrics.separation import Distribution
from pddm_lab.progress import Progress

if TYPE_CHECKING:
    from pddm_lab.gallery.reference import Reference
    from pddm_lab.local.unit import LocalStructure

__all__ = ["Gallery", "MapDrawing", "SearchResult", "start_map", "write_map"]


class Gallery:
    """A stored gallery. Make one with `Gallery.write`, read one with `Gallery.open`."""

    def __init__(self, path: Path, manifest: dict[str, Any], choice: IndexChoice) -> None:
        self.path, self.manifest = path, manifest
        self.protocol: str = manifest["protocol"]
        self._choice = choice
        size = {name: entry["bytes"] for name, entry in manifest["files"].items()}
        # Items have rows without gaps; features and thumbnails stay where they were written, at the items' places.
        self._stored: np.ndarray = self._read("features.npy", lambda file: map_array(file, size[file.name]))
        self._offsets: np.ndarray = self._read("thumbs.npy", lambda file: map_array(file, size[file.name]))
        self._thumbs: np.ndarray = self._read("thumbs.bin", lambda file: map_bytes(file, size[file.name]))
        listed = read_items(path, manifest)
        self.items, self._places = listed[COLUMNS], listed["place"].to_numpy() if "place" in listed else None
        self.pictures: pd.Series | None = listed.get("picture")
        """The file of each item's picture (`read_items` in files.py); None if none is listed."""
        # Neighbourhoods take seconds: a search by D doesn't wait for them.
        self._index_lock, self._reference_lock = threading.Lock(), threading.Lock()
        self._index: Store | None = None
        self._reference: Reference | None = None
        self._stored_pretrained: np.ndarray | None = None
        if file_name(manifest, PRETRAINED):
            self._stored_pretrained = self._read(PRETRAINED, lambda file: map_array(file, size[file.name]))
        items = len(self.items) if self._places is None else len(self._stored)
        if len({len(self._stored), items, len(self._offsets) - 1}) != 1 or len(listed) != manifest["items"]:
            raise RunError(f"{path} is damaged: its files have different numbers of items. {repair(self.path)}.")
        if self._stored.dtype != np.float32 or self._stored.shape[1:] != (manifest["dim"],):
            expected = f"expected {manifest['dim']} float32 values an item"
            raise RunError(f"{path / file_name(manifest, 'features.npy')} is damaged: {expected}. {repair(path)}.")
        for name, values in (("features.npy", self._stored), (PRETRAINED, self._stored_pretrained)):
            if values is not None and not _are_finite(values):
                file = path / file_name(manifest, name)
                raise RunError(f"{file} is damaged: expected finite values, got NaN, infinity or huge. {repair(path)}.")
        of_items = self._stored_pretrained
        if of_items is not None and (of_items.dtype != np.float32 or of_items.ndim != 2 or len(of_items) != items):
            file = path / file_name(manifest, PRETRAINED)
            raise RunError(f"{file} is damaged: expected a row of float32 values an item. {repair(path)}.")
        if not _are_offsets(self._offsets, len(self._thumbs)):
            file = path / file_name(manifest, "thumbs.npy")
            raise RunError(f"{file} is damaged: expected where each thumbnail begins. {repair(path)}.")
        if self._places is not None and not _are_places(self._places, items):
            file = path / file_name(manifest, "items.parquet")
            raise RunError(f"{file} is damaged: expected places from 0 to {items - 1}. {repair(path)}.")

    @staticmethod
    def write(
        path: str | Path, protocol: str, features: Float[np.ndarray, "items dim"], items: pd.DataFrame,
        load_image: Callable[[int], Image.Image], distributions: Mapping[str, Distribution],
        progress: Progress | None = None, pretrained: Float[np.ndarray, "items pretrained"] | None = None,
        model: str = "",
    ) -> Gallery:  # fmt: skip
        """Store a gallery; it replaces one in the same folder.

        Args:
            path: its folder.
            protocol: unseen or known.
            features: embeddings, a row per item.
            items: id (unique), label, class_name, role, a row per item.
            load_image: row -> RGB image; called from several threads.
            distributions: similarity -> distribution.
            progress: called with (thumbnails made, items, "thumbnails").
            pretrained: further features of the items, where a similarity on local structure uses them.
            model: stamp of what made the features.

        Raises:
            ValueError: items and features don't match.
        """
        write_files(
            Path(path), protocol, features, items, lambda row: thumbnail(load_image(row)), distributions, progress,
            None, pretrained, model,
        )  # fmt: skip
        return Gallery.open(path)

    @classmethod
    def open(cls, path: str | Path, verify: bool = False, index: str = "") -> Gallery:
        """The gallery in a folder, memory-mapped.

        Args:
            path: its folder.
            verify: also compare every file's SHA-256 with the manifest's, not only its size.
            index: auto, flat, ivf, ivf:CELLS or milvus:URI (store.py); empty: $PDDM_LAB_INDEX, else auto.

        Raises:
            RunError: a file is missing, damaged or not written by this lab.
            ConfigError: unknown index.
        """
        path, choice = Path(path), IndexChoice.of(index)
        while True:
            manifest = read_manifest(path)
            try:
                check_files(path, manifest, verify)
                return cls(path, manifest, choice)
            except RunError:
                if read_manifest(path) == manifest:  # else it was changed in the meantime
                    raise

    def reopened(self) -> Gallery:
        """The gallery as its files are now, with a changed copy of this one's index (`take_index`)."""
        with suppress(RunError):  # to open it tells what is wrong from what was changed in the meantime
            if read_manifest(self.path) == self.manifest:
                check_files(self.path, self.manifest, verify=False)
                return self
        other = Gallery.open(self.path)
        other._choice = self._choice
        other.take_index(self)
        return other

    def take_index(self, before: Gallery) -> None:
        """Use a changed copy of an earlier index instead of building one.

        Does nothing unless `before` is this gallery before some changes, and its index is built.
        """
        index, mine, its = before._index, *(_features_entry(one) for one in (self, before))
        appended = its.get("appended", [])
        same = mine["sha256"] == its["sha256"] and mine.get("appended", [])[: len(appended)] == appended
        if index and same:
            self._index = index.changed(self._contents())

    @cached_property
    def features(self) -> Float[np.ndarray, "items dim"]:
        """A feature per item, read-only: memory-mapped, or in memory if items were removed."""
        return self._of_items(self._stored)

    @cached_property
    def pretrained(self) -> Float[np.ndarray, "items pretrained"] | None:
        """Pretrained features of the items, like `features`; None if no similarity of the run uses them."""
        return None if self._stored_pretrained is None else self._of_items(self._stored_pretrained)

    def _of_items(self, stored: np.ndarray) -> np.ndarray:
        if self._places is None or len(self._places) == len(stored):
            return stored
        rows = stored[self._places]
        rows.flags.writeable = False
        return rows

    def __len__(self) -> int:
        return len(self.items)

    @property
    def map(self) -> pd.DataFrame | None:
        """id, x, y, radius, overlap of every item, in their order (umap_layout.py); None until the map is drawn.

        Maps of older versions have no radius and no overlap.
        """
        name = file_name(self.manifest, "map.parquet")
        file, redraw = self.path / name, "Redraw it with `pddm-lab gallery map RUN`."
        if not name or not file.is_file():
            return None
        frame = read_table(file, MAP, redraw, optional=("radius", "overlap"), finite=True).to_pandas()
        if not frame["id"].equals(self.items["id"]):
            raise RunError(f"{file} is damaged: expected the gallery's items. {redraw}")
        return frame.dropna(axis="columns", how="all")

    def metadata(self) -> pd.DataFrame:
        """What the data set says of each item beside its class, a column of texts for each name; often none."""
        return read_metadata(self.path, self.manifest)

    @property
    def distributions(self) -> dict[str, Distribution]:
        """Similarity -> distribution of its pairs."""
        return read_distributions(self.path, self.manifest)

    @cached_property
    def _rows(self) -> dict[str, int]:
        # Made at first use: it takes a second for a million items.
        rows = {name: row for row, name in enumerate(self.items["id"].tolist())}
        if len(rows) != len(self):
            raise RunError(f"{self.path / 'items.parquet'} is damaged: it names an item twice. {repair(self.path)}.")
        return rows

    def thumb(self, row: int) -> bytes:
        """The JPEG of an item."""
        place = row if self._places is None else self._places[row]
        return self._thumbs[self._offsets[place] : self._offsets[place + 1]].tobytes()

    def rows(self, role: str) -> Int[np.ndarray, " rows"]:
        """Rows of the items that are queries ("query") or that are searched ("gallery"); "both" counts as either."""
        return np.flatnonzero(self.items["role"].isin([role, "both"]))

    def index_of(self, item: str) -> int:
        """The row of an id.

        Raises:
            RunError: no such item.
        """
        if item not in self._rows:
            raise RunError(f"{item!r} is not in the {self.protocol} gallery: expected one of its {len(self)} item ids.")
        return self._rows[item]

    def search(
        self, features: Float[np.ndarray, "queries dim"], k: int, exclude: int | None = None
    ) -> tuple[Int[np.ndarray, "queries k"], Float[np.ndarray, "queries k"]]:
        """The nearest items among those that are searched.

        Args:
            features: queries.
            k: number of items; fewer if there are fewer.
            exclude: a row to leave out: the query itself.

        Returns:
            Rows and Euclidean distances, nearest first.
        """
        index = self._built_index()
        features = np.ascontiguousarray(features, dtype=np.float32)
        excluded = exclude is not None and bool(np.isin(self.places_of(np.array([exclude])), index.places)[0])
        distances, nearest = index.search(features, max(min(k + excluded, len(index.places)), 1))
        if self._places is not None:
            nearest = np.searchsorted(self._places, nearest)
        if excluded:  # drop it from each line, or the last item if it isn't there
            drop = nearest == exclude
            drop[~drop.any(1), -1] = True
            nearest, distances = (values[~drop].reshape(len(nearest), -1) for values in (nearest, distances))
        return nearest[:, :k], distances[:, :k]

    def rerank(
        self, queries: Float[np.ndarray, "queries dim"], shortlists: Int[np.ndarray, "queries shortlist"],
        similarity: BatchReranker,
    ) -> tuple[Int[np.ndarray, "queries shortlist"], Float[np.ndarray, "queries shortlist"]]:  # fmt: skip
        """Re-rank the shortlist of each query by a similarity.

        Args:
            queries: features.
            shortlists: rows, as `search` returns them.
            similarity: on the CPU.

        Returns:
            The same rows and their similarities, best first; equal ones keep the shortlist's order.
        """
        import torch

        used, place = np.unique(shortlists, return_inverse=True)
        features, rows = torch.from_numpy(self.features_of(used)), torch.from_numpy(place.reshape(shortlists.shape))
        scores = similarity.candidates(torch.from_numpy(np.array(queries, dtype=np.float32)), features, rows)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        return np.take_along_axis(shortlists, order.numpy(), axis=1), scores.numpy()

    def search_by(
        self, query: Float[np.ndarray, " dim"], similarities: Sequence[Reranker], shortlist: int = 100,
        exclude: int | None = None, local: LocalStructure | None = None,
        pretrained: Float[np.ndarray, " pretrained"] | None = None,
    ) -> SearchResult:  # fmt: skip
        """Search by distance, then re-rank the nearest by each similarity.

        Args:
            query: one feature.
            similarities: on the CPU; the Euclidean rank is always there.
            shortlist: how many of the nearest are ranked.
            exclude: a row to leave out: the query itself.
            local: rank by the run's similarity on local structure too, last.
            pretrained: the query's, where `local` uses it; None: that of the row `exclude`.
        """
        import torch

        query, similarities = np.array(query, np.float32), [one for one in similarities if one.name != "euclidean"]
        start = time.perf_counter()
        rows, distances = (values[0] for values in self.search(query[None], shortlist, exclude))
        seconds = {"search": time.perf_counter() - start}
        table = self.items.loc[rows, ["id", "class_name"]].assign(row=rows, euclidean=-distances)
        table["euclidean_rank"] = ranks = np.arange(1, len(rows) + 1)
        features, every = torch.from_numpy(self.features_of(rows)), torch.arange(len(rows))
        for similarity in similarities:
            start = time.perf_counter()
            ranked, scores = similarity.rerank(torch.from_numpy(query), features, every)
            seconds[similarity.name] = time.perf_counter() - start
            order = ranked.numpy().argsort()  # the rank of each item of the shortlist
            table[similarity.name], table[f"{similarity.name}_rank"] = scores.numpy()[order], ranks[order]
        names, note = ["euclidean", *(one.name for one in similarities)], ""
        if local is not None:
            start, reference = time.perf_counter(), self.reference(local)
            if pretrained is None and exclude is not None and self.pretrained is not None:
                pretrained = self.pretrained[exclude]
            values, note = reference.scores(query, pretrained, rows, exclude), reference.note
            seconds[local.name] = time.perf_counter() - start
            order = (-values).argsort(kind="stable").argsort()
            table[local.name], table[f"{local.name}_rank"] = values, ranks[order]
            names.append(local.name)
        return SearchResult(table.reset_index(drop=True), tuple(names), seconds, note)

    def reference(self, structure: LocalStructure) -> Reference:
        """The gallery as a similarity on local structure sees it; read or built at its first call; the last is kept.

        Raises:
            RunError: the gallery lacks the pretrained features that the similarity uses.
        """
        from pddm_lab.gallery.reference import Reference

        with self._reference_lock:
            if self._reference is None or self._reference.structure is not structure:
                rows, pretrained = self.rows("gallery"), self.pretrained
                if structure.weight and pretrained is None:
                    raise RunError(f"{self.path} lacks the pretrained features of its items. {repair(self.path)}.")
                further = pretrained[rows] if structure.weight and pretrained is not None else None
                dim = 0 if further is None else further.shape[1]
                stored = Reference.read(structure, self.path, self.manifest, rows, dim)
                self._reference = stored or Reference.of(structure, self.features[rows], further, rows, self.path)
            return self._reference

    def _built_index(self) -> Store:
        with self._index_lock:
            if self._index is None:
                contents = self._contents()
                if not len(contents.places):
                    raise RunError(f"The {self.protocol} gallery has no item to search. {repair(self.path)}.")
                self._index = (MilvusStore if self._choice.uri else Index).of(contents, self._choice)
            return self._index

    def _contents(self) -> Contents:
        return Contents(self.path, self.manifest, self._stored, self.places_of(self.rows("gallery")))

    def places_of(self, rows: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
        """Where the features and pictures of items lie in the files."""
        return rows if self._places is None else self._places[rows]

    def features_of(self, rows: Int[np.ndarray, " rows"]) -> Float[np.ndarray, "rows dim"]:
        """A copy of the features of some items."""
        return np.ascontiguousarray(self._stored[self.places_of(rows)])

    def _read(self, name: str, read: Callable[[Path], Any]) -> Any:
        file = self.path / file_name(self.manifest, name)
        try:
            return read(file)
        except Exception as error:  # numpy, pandas and pyarrow raise many kinds; all mean the same here
            reason = str(error).partition("\n")[0].rstrip(".")
            message = f"{file} is damaged or was not written by this lab: {reason}"
            raise RunError(f"{message}. {repair(self.path)}.") from error


def _features_entry(gallery: Gallery) -> dict[str, Any]:
    return gallery.manifest["files"][file_name(gallery.manifest, "features.npy")]


def _are_finite(values: np.ndarray) -> bool:
    """Whether all are, and their squares too; in parts of a few megabytes: 0.4 s for a million items of 128 values."""
    part = 1 << 14
    return all(bool((np.abs(values[start : start + part]) < 1e9).all()) for start in range(0, len(values), part))


def _are_offsets(offsets: np.ndarray, size: int) -> bool:
    """Whether these are where the parts of so many bytes begin, and where the last one ends."""
    is_list = offsets.ndim == 1 and offsets.dtype == np.int64
    return is_list and offsets[0] == 0 and offsets[-1] <= size and bool((offsets[1:] >= offsets[:-1]).all())


def _are_places(places: np.ndarray, count: int) -> bool:
    """Whether these are ascending and below a count."""
    return not len(places) or (places[0] >= 0 and places[-1] < count and bool((np.diff(places) > 0).all()))
