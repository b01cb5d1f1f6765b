"""The content of the Map page: one map or two, their colours, an anchor's neighbourhoods, a selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from app_pages.map import data
from app_pages.map.canvas import Panel, Ring
from app_pages.map.data import Layout
from app_pages.map.filters import Filter
from app_pages.map.lasso import Lasso
from app_pages.map.spots import spots
from shared import loaders

from pddm_lab import figures
from pddm_lab.analysis.pairs import most_similar
from pddm_lab.figures import Colouring, class_colour, shown
from pddm_lab.figures.maps import Key
from pddm_lab.figures.style import DARK
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.runs.run import Run
from pddm_lab.similarities import EVERY
from pddm_lab.wording import counted, natural

COLOURS = {
    "class": "Class",
    "error": "Error",
    "density": "Density",
    "trust": "Trust",
    "anchor": "Similarity to an anchor",
}
MEASURES = {"first": "first result", "ap": "AP@R"}
SCALES = {"value": "value", "rank": "rank"}
LAYERS = {"names": "names", "contours": "density contours", "pictures": "pictures"}
"""What may be drawn over the points; pictures appear when zoomed in."""
ORDERS = {"centre": "nearest to the centre first", "class": "by class"}
NAMED = 5
"""Classes that appear in the legend."""
MATES = 300
"""At most so many items of the anchor's class, and so many new ones, are ringed."""


@dataclass(frozen=True)
class Choice:
    """The colouring of a map."""

    colour: str
    by: str = "euclidean"
    """The similarity for ranking (error) or for colouring (anchor)."""
    measure: str = "first"
    scale: str = "value"
    near: int = 20
    """Number of the anchor's neighbours that are ringed."""


@dataclass(frozen=True, eq=False)
class Map:
    """One map of the page: a run's gallery, with rows in the order of the page's first run."""

    run: Run
    protocol: str
    layout: Layout
    order: np.ndarray
    """Row in this run's gallery for each row of the page."""

    @property
    def gallery(self) -> Gallery:
        """The run's gallery, with rows in its own order."""
        return loaders.gallery(self.run, self.protocol)

    @property
    def places(self) -> np.ndarray:
        """(items, 2) uint16 on the map's grid."""
        return self.layout.places[self.order]

    def spots(self, kept: np.ndarray | None) -> np.ndarray:
        """Where names are written, (spots, 3) uint32: among all items, or those of a class among those of a filter."""
        if kept is None or not self.run.is_labelled:
            return data.named_spots(self.run, self.protocol)[0]
        return spots(self.places[kept > 0], self.layout.labels[self.order][kept > 0])

    def similarity(self, anchor: int, by: str) -> np.ndarray:
        """The similarity of every item to an anchor, in the page's order."""
        return data.to_anchor(self.run, self.protocol, int(self.order[anchor]), by)[self.order]

    def nearest(self, anchor: int, by: str, count: int) -> np.ndarray:
        """Rows of the page most similar to an anchor, best first."""
        return most_similar(self.similarity(anchor, by), anchor, count)

    def query_errors(self, by: str) -> pd.DataFrame:
        """`data.query_errors` with a row of the page for each query."""
        errors = data.query_errors(self.run, self.protocol, by)
        return errors.assign(row=np.argsort(self.order)[errors["row"]])

    def trust(self) -> tuple[np.ndarray, np.ndarray]:
        """Local radius and overlap in the page's order; NaN where not measured."""
        trust = data.trust(self.run, self.protocol)
        return trust.radius[self.order], trust.overlap[self.order]


@dataclass(frozen=True, eq=False)
class MapView:
    """Everything that the page shows."""

    maps: Sequence[Map]
    """One, or two side by side: of two runs, or one map twice to compare two similarities."""
    choices: Sequence[Choice]
    """The colouring of each map."""
    anchor: int
    picked: int | None
    """Row of the picked item; None if the anchor is only the default, the first query."""
    lasso: Lasso | None
    order: str
    """Order of the selection, from `ORDERS`."""
    filter: Filter = field(default_factory=Filter)
    layers: Sequence[str] = tuple(LAYERS)
    """From `LAYERS`."""

    @property
    def first(self) -> Map:
        """The map of the page's run; its gallery defines the rows."""
        return self.maps[0]

    @property
    def items(self) -> pd.DataFrame:
        """id, label, class_name, role by row."""
        return self.first.gallery.items

    @cached_property
    def names(self) -> list[str]:
        """Of the classes; without labels also those of groups, the first map's before the second's."""
        groups = [] if self.first.run.is_labelled else [
            name for of in self.different for name in data.named_spots(of.run, of.protocol)[1]
        ]  # fmt: skip
        return [*self.first.layout.names, *groups]

    def spots(self, number: int) -> np.ndarray:
        """Where names are written on a map, (spots, 3) uint32; their numbers are places in `names`."""
        of = self.maps[number]
        if of.run.is_labelled:
            return of.spots(self.kept)
        earlier = [data.named_spots(one.run, one.protocol)[1] for one in self.different[: number * self.of_two_runs]]
        start = len(self.first.layout.names) + sum(map(len, earlier))
        return of.spots(self.kept) + np.array([0, 0, start], np.uint32)

    @property
    def colour(self) -> str:
        """The colouring of the maps, from `COLOURS`."""
        return self.choices[0].colour

    @property
    def of_two_runs(self) -> bool:
        return len(self.maps) == 2 and self.maps[0] is not self.maps[1]

    @property
    def different(self) -> Sequence[Map]:
        return self.maps if self.of_two_runs else self.maps[:1]

    @property
    def anchor_id(self) -> str:
        return str(self.items["id"].iloc[self.anchor])

    @property
    def anchor_class(self) -> str:
        return str(self.items["class_name"].iloc[self.anchor])

    @cached_property
    def kept(self) -> np.ndarray | None:
        """1 for each row that the filter leaves, (items,) uint8; None without a filter."""
        return self.filter.rows(self.first)

    @cached_property
    def rows(self) -> np.ndarray:
        """Rows inside the lasso that the filter leaves, in order."""
        if self.lasso is None or self.lasso.panel >= len(self.maps):
            return np.empty(0, np.int64)
        places = self.maps[self.lasso.panel].places
        rows = self.lasso.rows(places)
        if self.kept is not None:
            rows = rows[self.kept[rows] > 0]
        if self.order == "class":
            names = self.first.layout.names
            place = np.empty(len(names), int)
            place[sorted(range(len(names)), key=lambda label: natural(names[label]))] = np.arange(len(names))
            return rows[np.argsort(place[self.first.layout.labels[rows]], kind="stable")]
        middle = places[rows].mean(0) if len(rows) else 0
        return rows[np.argsort(((places[rows] - middle) ** 2).sum(1), kind="stable")]

    @cached_property
    def classes(self) -> list[tuple[str, int, int, int]]:
        """(class name, label, items selected, items in all) of each class in the selection, the largest first."""
        return self._count_classes(self.rows)

    @property
    def legend(self) -> list[Key]:
        """The largest classes of the selection, or of all that is drawn if nothing is selected, and how many more."""
        drawn = np.arange(len(self.items)) if self.kept is None else np.flatnonzero(self.kept)
        classes = self.classes or (self._count_classes(drawn) if self.first.run.is_labelled else [])
        keys = [Key(name, class_colour(label), count=count) for name, label, count, _ in classes[:NAMED]]
        return keys + (
            [Key(f"{counted(len(classes) - NAMED, 'more class', 'more classes')}", "", "none")]
            if classes[NAMED:]
            else []
        )

    def _count_classes(self, rows: np.ndarray) -> list[tuple[str, int, int, int]]:
        labels = self.items["label"].to_numpy()
        some, total = (np.bincount(some, minlength=1) for some in (labels[rows], labels))
        names = self.items.iloc[rows].drop_duplicates("label").set_index("label")["class_name"]
        order = sorted(np.flatnonzero(some).tolist(), key=lambda label: (-some[label], natural(str(names[label]))))
        return [(str(names[label]), label, int(some[label]), int(total[label])) for label in order]


def open_map(run: Run, protocol: str, first: Run | None = None) -> Map | None:
    """A run's map, in the order of another run's rows if one is given; None if it has none, or holds other items.

    Raises:
        RunError: the gallery or its map is damaged.
    """
    layout = data.layout(run, protocol)
    if layout is None:
        return None
    order = np.arange(len(layout)) if first is None else data.in_order_of(first, run, protocol)
    return None if order is None else Map(run, protocol, layout, order)


def colouring(of: Map, choice: Choice, anchor: int, keys: Sequence[Key] = ()) -> Colouring:
    """The colours of a map's items.

    Args:
        of: the map.
        choice: its colouring.
        anchor: row of the anchor; used by the colouring "anchor" only.
        keys: classes in the legend of the colouring "class".

    Raises:
        LabError: a file is missing or damaged.
    """
    items = len(of.layout)
    if choice.colour == "error":
        errors, title = of.query_errors(choice.by), EVERY[choice.by].title
        if choice.measure == "first":
            return replace(
                figures.colour_by_mistake(items, errors["row"].to_numpy(), errors["right"].to_numpy()),
                title=f"First result by {title}",
            )
        values = np.full(items, np.nan)
        values[errors["row"]] = errors["ap"]
        return figures.colour_by_value(f"AP@R by {title}", values, figures.RAMPS["trust"], ("0 %", "100 %"), 0, 1)
    if choice.colour == "density":
        radius = of.trust()[0]
        low, high = np.nanquantile(radius, [0.01, 0.99]) if np.isfinite(radius).any() else (0.0, 1.0)
        ends = (f"dense, {low:.2f}", f"sparse, {high:.2f}")
        return figures.colour_by_value("Local radius", radius, figures.RAMPS["density"], ends, low, high)
    if choice.colour == "trust":
        ends = ("0 %", "100 % kept")
        return figures.colour_by_value("Neighbours kept by the map", of.trust()[1], figures.RAMPS["trust"], ends, 0, 1)
    if choice.colour == "anchor":
        values = of.similarity(anchor, choice.by)
        return figures.colour_by_similarity(values, choice.by, anchor, ranks=choice.scale == "rank")
    labels = of.gallery.items["label"].to_numpy()[of.order]
    return replace(figures.colour_by_class(labels), title="Class", keys=tuple(keys))


def panels(scene: MapView) -> list[Panel]:
    """The maps as the canvas draws them, with colours and rings. Raises LabError as `colouring` does."""
    near: list[list[int]] = [
        of.nearest(scene.anchor, choice.by, choice.near).tolist() if choice.colour == "anchor" else []
        for of, choice in zip(scene.maps, scene.choices, strict=True)
    ]
    keys = scene.legend if scene.colour == "class" else []
    made = []
    for number, (of, choice) in enumerate(zip(scene.maps, scene.choices, strict=True)):
        look = colouring(of, choice, scene.anchor, keys)
        title = f"{of.run.name}: {look.title}" if scene.of_two_runs else look.title
        rings: list[Ring] = []
        if choice.colour == "anchor":
            rings = _rings(near[number], near[1 - number], choice.by)
        elif choice.colour == "class" and scene.picked is not None:
            rings = _mates(scene.items["label"].to_numpy(), scene.picked)
        if new := np.argsort(of.order)[of.layout.new].tolist():
            rings = [*rings, Ring(new[:MATES], DARK, "square", 8)]
        alt = (
            f"Map of {counted(len(of.layout), 'item')}. {title}. Arrow keys move between items, Enter picks one, plus "
            "and minus zoom, L draws a lasso, V selects the items in view, Escape clears the selection."
        )
        made.append(Panel(title, of.places, look, scene.spots(number), alt, rings))
    return made


def _rings(own: Sequence[int], other: Sequence[int], by: str) -> list[Ring]:
    """Rings around the nearest by one similarity; larger around those that are not among the other's nearest."""
    spec, shared = EVERY[by], set(map(int, other))
    parts = {6: [int(row) for row in own if row in shared], 9: [int(row) for row in own if row not in shared]}
    return [Ring(rows, spec.colour, spec.symbol, size) for size, rows in parts.items() if rows]


def _mates(labels: np.ndarray, row: int) -> list[Ring]:
    """Rings around the other items of an item's class."""
    rows = [int(other) for other in np.flatnonzero(labels == labels[row])[: MATES + 1] if other != row]
    return [Ring(rows[:MATES], class_colour(labels[row]), "circle", 7)] if rows else []


def neighbourhoods(scene: MapView) -> pd.DataFrame:
    """The items nearest to the anchor on either of two maps: row, id, class_name, and for n in 0 and 1 value_n (larger
    = more similar), rank_n (among all items) and near_n (whether it is one of the nearest)."""
    anchor, tables = scene.anchor, []
    for of, choice in zip(scene.maps, scene.choices, strict=True):
        values = of.similarity(anchor, choice.by)
        tables.append((values, most_similar(values, anchor, choice.near)))
    rows = np.union1d(*(near for _, near in tables))
    table = scene.items.iloc[rows][["id", "class_name"]].reset_index(drop=True)
    table.insert(0, "row", rows)
    for number, (values, near) in enumerate(tables):
        ordered = np.sort(np.delete(values, anchor))
        beyond = len(ordered) - np.searchsorted(ordered, values[rows], side="right") + 1
        place = {row: rank for rank, row in enumerate(near.tolist(), start=1)}  # breaks ties
        table[f"value_{number}"] = values[rows]
        table[f"rank_{number}"] = [place.get(row, int(rank)) for row, rank in zip(rows.tolist(), beyond, strict=True)]
        table[f"near_{number}"] = np.isin(rows, near)
    return table


def rows_by_id(scene: MapView, rows: Sequence[int] | np.ndarray) -> dict[str, int]:
    """Rows of items by their ids."""
    return dict(zip(scene.items["id"].iloc[rows].astype(str), map(int, rows), strict=True))


def selection_table(scene: MapView) -> pd.DataFrame:
    """The selected items for export, with their places and their values on the maps."""
    rows = scene.rows
    table = scene.items.iloc[rows][["id", "class_name", "role"]].reset_index(drop=True)
    table.insert(0, "row", rows)
    for at, of in enumerate(scene.different):
        frame, end = of.layout.frame.iloc[of.order[rows]], f"_{of.run.name}" if at else ""
        for column in frame:
            table[f"{column}{end}"] = frame[column].to_numpy()
    for at, (of, choice) in enumerate(zip(scene.maps, scene.choices, strict=True)):
        if choice.colour == "anchor":
            kind = "distance" if EVERY[choice.by].is_distance else "similarity"
            end = f"_{of.run.name}" if at and scene.of_two_runs else ""
            values = of.similarity(scene.anchor, choice.by)[rows]
            table[f"{choice.by}_{kind}_to_anchor{end}"] = shown(choice.by, values)
    return table


def settings(scene: MapView) -> dict[str, Any]:
    """The choices that led to a table, for its manifest; the lasso's corners in the map's own units."""
    choices: dict[str, Any] = {"protocol": scene.first.protocol, **vars(scene.choices[0]), "order": scene.order}
    choices |= {"filter": vars(scene.filter)} if scene.filter else {}
    if scene.colour == "anchor":
        choices |= {"anchor": scene.anchor_id, "by": [choice.by for choice in scene.choices]}
    if scene.lasso is not None and scene.lasso.panel < len(scene.maps):
        grid = scene.maps[scene.lasso.panel].layout.grid
        choices |= {"lasso_on": scene.maps[scene.lasso.panel].run.name}
        choices |= {"lasso": grid.corners_on_map(scene.lasso.corners).round(4).tolist()}
    return choices
