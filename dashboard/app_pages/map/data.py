"""Cached calls of the Map page into pddm_lab.

On a large gallery, slow measurements use a seeded sample of its items, and the page says how many were measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from app_pages.map.lasso import Grid
from shared import loaders
from shared.cache import GALLERIES, LOCAL, MODEL, cached

from pddm_lab.errors import RunError
from pddm_lab.runs.run import Run

if TYPE_CHECKING:
    from pddm_lab.analysis.query_errors import PairsOfRows

MOST_DISTANCES = 100_000_000
"""Distances computed at most to measure a map or to evaluate queries: two or three seconds on one core."""
MOST_SCORES = 500_000
"""Pairs scored at most to evaluate queries by a learned similarity."""
SMALLEST_SAMPLE = 200
"""Items in a sample at least."""


@dataclass(frozen=True, eq=False)
class Layout:
    """A gallery's map, ready to be drawn; shared, not to be changed."""

    frame: pd.DataFrame
    """x, y of each item; radius and overlap too if the map was stored with them."""
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
    placed: int = 0
    """Items that were put between their neighbours since it was drawn."""

    @property
    def new(self) -> np.ndarray:
        """Rows of the items that were put between their neighbours, (new,)."""
        measured = self.frame.get("overlap")
        return np.flatnonzero(measured.isna()) if self.placed and measured is not None else np.empty(0, np.int64)

    @property
    def has_trust(self) -> bool:
        """Whether the map was stored with the share of neighbours that it keeps."""
        return "overlap" in self.frame

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(frozen=True, eq=False)
class Trust:
    """Local radius of each item, and the share of its neighbours that the map keeps; NaN where not measured."""

    radius: np.ndarray
    overlap: np.ndarray


@cached(*GALLERIES, max_entries=6, show_spinner="Reading the map")
def layout(run: Run, protocol: str) -> Layout | None:
    """A gallery's map; None if it has none.

    Raises:
        RunError: the gallery or its map is damaged.
    """
    gallery = loaders.gallery(run, protocol)
    frame = gallery.map
    if frame is None:
        return None
    if len(frame) != len(gallery) or not {"x", "y"} <= set(frame) or not np.isfinite(frame[["x", "y"]]).all(axis=None):
        raise RunError(
            f"{gallery.path / 'map.parquet'} doesn't fit its gallery: expected x and y of {len(gallery)} items. "
            f"Draw it again: `pddm-lab gallery map {run.name} --protocol {protocol}`."
        )
    labels, names = pd.factorize(gallery.items["class_name"], sort=True)
    x, y = (frame[axis].to_numpy() for axis in "xy")
    grid, info = Grid.over(x, y), gallery.manifest["map"] or {}
    return Layout(
        frame.drop(columns="id", errors="ignore"), grid, grid.places(x, y), [str(name) for name in names], labels,
        str(info.get("method", "umap")), str(info.get("reason", "")), int(info.get("placed", 0)),
    )  # fmt: skip


@cached(*GALLERIES, max_entries=6)
def named_spots(run: Run, protocol: str) -> tuple[np.ndarray, list[str]]:
    """Where names are written on a map, (spots, 3), and the names: of classes, or of groups of items without labels."""
    from app_pages.map.spots import named_groups, spots

    on_map, gallery = layout(run, protocol), loaders.gallery(run, protocol)
    assert on_map is not None
    if run.is_labelled:
        return spots(on_map.places, on_map.labels), on_map.names
    return named_groups(on_map.places, gallery.items["id"].astype(str).tolist(), gallery.metadata())


@cached(*GALLERIES, max_entries=6, show_spinner="Measuring how far the map can be trusted")
def trust(run: Run, protocol: str) -> Trust:
    """How far a map can be trusted: as stored with it, or measured now."""
    from pddm_lab.gallery.umap_layout import NEIGHBOURS, trust
    from pddm_lab.metrics.density import nearest

    on_map = layout(run, protocol)
    assert on_map is not None
    if on_map.has_trust:
        return Trust(*(on_map.frame[column].to_numpy(np.float32) for column in ("radius", "overlap")))
    rows = sample(np.arange(len(on_map)), MOST_DISTANCES // max(len(on_map), 1))
    features = loaders.gallery(run, protocol).features
    measured = trust(on_map.frame[["x", "y"]].to_numpy(), *nearest(features, NEIGHBOURS, rows), rows)
    result = Trust(*(np.full(len(on_map), np.nan, np.float32) for _ in measured))
    result.radius[rows], result.overlap[rows] = measured
    return result


@cached(*GALLERIES, MODEL, LOCAL, max_entries=12, show_spinner="Searching with every query")
def query_errors(run: Run, protocol: str, by: str) -> pd.DataFrame:
    """row, right and ap of (a sample of) a gallery's queries by a similarity: see `analysis.query_errors`."""
    from pddm_lab.analysis.query_errors import RERANKED, judge

    gallery = loaders.gallery(run, protocol)
    queries, searched = gallery.rows("query"), gallery.rows("gallery")
    score = None if by == "euclidean" else _scorer(run, protocol, by)
    most = min(MOST_DISTANCES // max(len(searched), 1), MOST_SCORES // RERANKED if score else MOST_DISTANCES)
    return judge(gallery.features, gallery.items["label"].to_numpy(), sample(queries, most), searched, score)


def _scorer(run: Run, protocol: str, by: str) -> PairsOfRows:
    """Scores pairs of a gallery's rows by a similarity."""
    from pddm_lab.analysis.local_pairs import score_local_pairs
    from pddm_lab.analysis.query_errors import by_features

    gallery, local = loaders.gallery(run, protocol), loaders.local(run) if by == "local" else None
    if local is None:
        return by_features(gallery.features, loaders.similarities(run)[by])
    return lambda a, b: score_local_pairs(gallery, local.structure, a, b)


@cached(*GALLERIES, MODEL, LOCAL, max_entries=24, show_spinner="Comparing every item with the anchor")
def to_anchor(run: Run, protocol: str, anchor: int, by: str) -> np.ndarray:
    """The similarity of every item to the anchor, (items,), larger = more similar.

    By local structure, items that are only queries can't be compared with another query: they get the lowest value.
    """
    from pddm_lab.analysis.local_pairs import local_similarity_to
    from pddm_lab.analysis.pairs import similarity_to

    local = loaders.local(run) if by == "local" else None
    if local is not None:
        values = local_similarity_to(loaders.gallery(run, protocol), local.structure, anchor)
        return np.where(np.isnan(values), np.nanmin(values), values)
    return similarity_to(loaders.gallery(run, protocol).features, anchor, loaders.similarities(run)[by])


@cached(*GALLERIES)
def in_order_of(run: Run, other: Run, protocol: str) -> np.ndarray | None:
    """Rows of another run's gallery in the order of this one's items; None if it holds other items."""
    ids, others = (loaders.gallery(one, protocol).items["id"] for one in (run, other))
    if ids.equals(others):
        return np.arange(len(ids))
    rows = pd.Index(others).get_indexer(ids)
    return rows if len(ids) == len(others) and (rows >= 0).all() else None


def sample(rows: np.ndarray, most: int) -> np.ndarray:
    """All rows, or a seeded sample of them, in their order, if there are more than `most`."""
    most = max(most, SMALLEST_SAMPLE)
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
