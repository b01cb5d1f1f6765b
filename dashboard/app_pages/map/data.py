"""The cached calls of the Map page into pddm_lab, keyed as those of loaders.py are.

What takes a while on a large gallery is measured on a seeded sample of its items, and what was measured is told.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st
from app_pages.map.lasso import Grid
from shared import loaders
from shared.loaders import Stamp, _stamp

from pddm_lab.errors import RunError
from pddm_lab.runs.run import Run

COMPARED = 100_000_000
"""Distances computed at most to measure a map or to judge queries: two or three seconds of one core."""
SCORED = 500_000
"""Pairs scored at most to judge queries by a learned similarity."""
FEWEST = 200
"""Items in a sample at least."""


@dataclass(frozen=True, eq=False)
class Laid:
    """A gallery's map, ready to be drawn; shared, not to be changed."""

    frame: pd.DataFrame
    """x, y of each item, and radius and overlap where the map was stored with them."""
    grid: Grid
    places: np.ndarray
    """(items, 2) uint16, on the grid."""
    names: list[str]
    """Of the classes."""
    labels: np.ndarray
    """Class of each item, an index into `names`."""
    method: str
    """umap or pca."""
    reason: str
    """Why it isn't umap."""

    @property
    def is_trusted(self) -> bool:
        """Whether the map was stored with how far it can be trusted."""
        return "overlap" in self.frame

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(frozen=True, eq=False)
class Trust:
    """How dense the places of items are, and how far the map kept their neighbourhoods; NaN where not measured."""

    radius: np.ndarray
    overlap: np.ndarray

    @property
    def measured(self) -> int:
        """Items that were."""
        return int(np.isfinite(self.overlap).sum())


def _key(run: Run, protocol: str) -> tuple[str, str, Stamp]:
    return str(run.path), protocol, _stamp(run.path / "gallery" / protocol)


def laid(run: Run, protocol: str) -> Laid | None:
    """A gallery's map; None where none is drawn.

    Raises:
        RunError: the gallery or its map is torn.
    """
    return _laid(*_key(run, protocol))


@st.cache_resource(max_entries=6, show_spinner="Reading the map")
def _laid(path: str, protocol: str, stamp: Stamp) -> Laid | None:
    gallery = loaders._gallery(path, protocol, stamp)
    frame = gallery.map
    if frame is None:
        return None
    if len(frame) != len(gallery) or not {"x", "y"} <= set(frame) or not np.isfinite(frame[["x", "y"]]).all(axis=None):
        raise RunError(
            f"{gallery.path / 'map.parquet'} doesn't fit its gallery: expected x and y of {len(gallery)} items. "
            "`pddm-lab resume` writes a run's galleries anew."
        )
    labels, names = pd.factorize(gallery.items["class_name"], sort=True)
    grid = Grid.over(frame["x"].to_numpy(), frame["y"].to_numpy())
    told = gallery.manifest["map"] or {}
    return Laid(
        frame.drop(columns="id", errors="ignore"),
        grid,
        grid.places(frame["x"].to_numpy(), frame["y"].to_numpy()),
        [str(name) for name in names],
        labels,
        str(told.get("method", "umap")),
        str(told.get("reason", "")),
    )


def trust(run: Run, protocol: str) -> Trust:
    """How far a map can be trusted: as it was stored, or measured now."""
    return _trust(*_key(run, protocol))


@st.cache_resource(max_entries=6, show_spinner="Measuring how far the map can be trusted")
def _trust(path: str, protocol: str, stamp: Stamp) -> Trust:
    from pddm_lab.gallery.umap_layout import NEIGHBOURS, trust
    from pddm_lab.metrics.density import nearest

    gallery, map_ = loaders._gallery(path, protocol, stamp), _laid(path, protocol, stamp)
    assert map_ is not None
    if map_.is_trusted:
        return Trust(*(map_.frame[column].to_numpy(np.float32) for column in ("radius", "overlap")))
    rows = sample(np.arange(len(map_)), COMPARED // max(len(map_), 1))
    measured = trust(map_.frame[["x", "y"]].to_numpy(), *nearest(gallery.features, NEIGHBOURS, rows), rows)
    found = Trust(*(np.full(len(map_), np.nan, np.float32) for _ in measured))
    found.radius[rows], found.overlap[rows] = measured
    return found


def judged(run: Run, protocol: str, by: str) -> pd.DataFrame:
    """row, right and ap of a gallery's queries by a similarity, or of a sample of them: see `query_errors`."""
    return _judged(*_key(run, protocol), by, _stamp(run.path / "model.safetensors"))


@st.cache_resource(max_entries=12, show_spinner="Searching with every query")
def _judged(path: str, protocol: str, stamp: Stamp, by: str, weights: Stamp) -> pd.DataFrame:
    from pddm_lab.analysis.query_errors import SHORTLIST, judge

    gallery = loaders._gallery(path, protocol, stamp)
    queries, searched = gallery.rows("query"), gallery.rows("gallery")
    similarity = None if by == "euclidean" else loaders._similarities(path, weights)[by]
    most = min(COMPARED // max(len(searched), 1), SCORED // SHORTLIST if similarity else COMPARED)
    return judge(gallery.features, gallery.items["label"].to_numpy(), sample(queries, most), searched, similarity)


def to_anchor(run: Run, protocol: str, anchor: int, by: str) -> np.ndarray:
    """The similarity of every item to the anchor, (items,), larger = more similar."""
    return _to_anchor(*_key(run, protocol), anchor, by, _stamp(run.path / "model.safetensors"))


@st.cache_resource(max_entries=24, show_spinner="Comparing every item with the anchor")
def _to_anchor(path: str, protocol: str, stamp: Stamp, anchor: int, by: str, weights: Stamp) -> np.ndarray:
    from pddm_lab.analysis.pairs import similarity_to

    return similarity_to(
        loaders._gallery(path, protocol, stamp).features, anchor, loaders._similarities(path, weights)[by]
    )


def in_order_of(run: Run, other: Run, protocol: str) -> np.ndarray | None:
    """Rows of another run's gallery in the order of this one's items; None where it holds other items."""
    return _in_order_of(*_key(run, protocol), *_key(other, protocol))


@st.cache_resource(max_entries=8, show_spinner=False)
def _in_order_of(
    path: str, protocol: str, stamp: Stamp, other: str, other_protocol: str, other_stamp: Stamp
) -> np.ndarray | None:
    ids = loaders._gallery(path, protocol, stamp).items["id"]
    theirs = loaders._gallery(other, other_protocol, other_stamp).items["id"]
    if ids.equals(theirs):
        return np.arange(len(ids))
    rows = pd.Index(theirs).get_indexer(ids)
    return rows if len(ids) == len(theirs) and (rows >= 0).all() else None


def sample(rows: np.ndarray, most: int) -> np.ndarray:
    """All rows, or a seeded sample of them in their order, where there are more than so many."""
    most = max(most, FEWEST)
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
