"""What the Map page shows: one map or two, what they are coloured by, an anchor's neighbourhoods, a selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from app_pages.map import data
from app_pages.map.canvas import Panel, Ring
from app_pages.map.data import Layout
from app_pages.map.lasso import Lasso
from shared import loaders

from pddm_lab import figures
from pddm_lab.analysis.pairs import most_similar
from pddm_lab.figures import Colouring, class_colour, shown, style_of
from pddm_lab.figures.maps import Key
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.runs.run import Run

COLOURS = {
    "class": "Class",
    "error": "Error",
    "density": "Density",
    "trust": "Trust",
    "anchor": "Similarity to an anchor",
}
MEASURES = {"first": "first result", "ap": "AP@R"}
SCALES = {"value": "value", "rank": "rank"}
ORDERS = {"centre": "nearest to the middle first", "class": "by class"}
NAMED = 5
"""Classes of a selection that the legend names."""
MATES = 300
"""Items of the anchor's class that are ringed at most."""


@dataclass(frozen=True)
class Choice:
    """What a map is coloured by."""

    colour: str
    by: str = "euclidean"
    """The similarity that ranks (error) or that is drawn (anchor)."""
    measure: str = "first"
    scale: str = "value"
    near: int = 20
    """How many of the anchor's nearest are ringed."""


@dataclass(frozen=True, eq=False)
class Map:
    """One map of the page: a run's gallery, its rows in the order of the page's first run."""

    run: Run
    protocol: str
    layout: Layout
    order: np.ndarray
    """Row in this run's gallery of each row of the page."""

    @property
    def gallery(self) -> Gallery:
        """The run's gallery, rows in its own order."""
        return loaders.gallery(self.run, self.protocol)

    @property
    def places(self) -> np.ndarray:
        """(items, 2) uint16 on the map's grid."""
        return self.layout.places[self.order]

    def similarity(self, anchor: int, by: str) -> np.ndarray:
        """The similarity of every item to an anchor, by the page's rows."""
        return data.to_anchor(self.run, self.protocol, int(self.order[anchor]), by)[self.order]

    def nearest(self, anchor: int, by: str, count: int) -> np.ndarray:
        """Rows of the page most similar to an anchor, best first."""
        return most_similar(self.similarity(anchor, by), anchor, count)

    def query_errors(self, by: str) -> pd.DataFrame:
        """`data.query_errors` with a row of the page for each query."""
        found = data.query_errors(self.run, self.protocol, by)
        return found.assign(row=np.argsort(self.order)[found["row"]])

    def trust(self) -> tuple[np.ndarray, np.ndarray]:
        """Local radius and overlap by the page's rows; NaN where not measured."""
        found = data.trust(self.run, self.protocol)
        return found.radius[self.order], found.overlap[self.order]


@dataclass(frozen=True, eq=False)
class Scene:
    """All that the page shows at a time."""

    maps: Sequence[Map]
    """One, or two beside each other: of two runs, or the same one twice to compare two similarities on it."""
    choices: Sequence[Choice]
    """What each is coloured by."""
    anchor: int
    picked: int | None
    """Row of the item that is looked at; None where the anchor is but the first query."""
    lasso: Lasso | None
    order: str
    """Of what is selected, from `ORDERS`."""

    @property
    def first(self) -> Map:
        """The map of the run that the page is about: rows are its gallery's."""
        return self.maps[0]

    @property
    def items(self) -> pd.DataFrame:
        """id, label, class_name, role by row."""
        return self.first.gallery.items

    @property
    def colour(self) -> str:
        """What the maps are coloured by, from `COLOURS`."""
        return self.choices[0].colour

    @property
    def of_two_runs(self) -> bool:
        """Whether the maps are of two runs."""
        return len(self.maps) == 2 and self.maps[0] is not self.maps[1]

    @property
    def different(self) -> Sequence[Map]:
        """The maps, one that is shown twice once."""
        return self.maps if self.of_two_runs else self.maps[:1]

    @property
    def anchor_id(self) -> str:
        """The anchor's item id."""
        return str(self.items["id"].iloc[self.anchor])

    @property
    def anchor_class(self) -> str:
        """The anchor's class."""
        return str(self.items["class_name"].iloc[self.anchor])

    @cached_property
    def rows(self) -> np.ndarray:
        """Rows inside the lasso, in order."""
        if self.lasso is None or self.lasso.panel >= len(self.maps):
            return np.empty(0, np.int64)
        places = self.maps[self.lasso.panel].places
        rows = self.lasso.rows(places)
        if self.order == "class":
            return rows[np.argsort(self.items["class_name"].iloc[rows].to_numpy(dtype=str), kind="stable")]
        middle = places[rows].mean(0) if len(rows) else 0
        return rows[np.argsort(((places[rows] - middle) ** 2).sum(1), kind="stable")]

    @cached_property
    def classes(self) -> list[tuple[str, int, int, int]]:
        """(class name, label, items selected, items there are) of each class that has one selected, the largest
        first."""
        labels = self.items["label"].to_numpy()
        found, there = np.bincount(labels[self.rows], minlength=1), np.bincount(labels, minlength=1)
        names = self.items.iloc[self.rows].drop_duplicates("label").set_index("label")["class_name"]
        order = sorted(np.flatnonzero(found).tolist(), key=lambda label: (-found[label], str(names[label])))
        return [(str(names[label]), label, int(found[label]), int(there[label])) for label in order]


def open_map(run: Run, protocol: str, first: Run | None = None) -> Map | None:
    """A map, its rows in the order of another run's where one is given; None where none is drawn, or of other items.

    Raises:
        RunError: the gallery or its map is torn.
    """
    layout = data.layout(run, protocol)
    if layout is None:
        return None
    order = np.arange(len(layout)) if first is None else data.in_order_of(first, run, protocol)
    return None if order is None else Map(run, protocol, layout, order)


def colouring(of: Map, choice: Choice, anchor: int, keys: Sequence[Key] = ()) -> Colouring:
    """What a map's items look like.

    Args:
        of: the map.
        choice: what it is coloured by.
        anchor: row of the anchor; used by the colour "anchor" alone.
        keys: classes that the legend names where it is coloured by class.

    Raises:
        LabError: what it takes is missing or torn.
    """
    items = len(of.layout)
    if choice.colour == "error":
        found, title = of.query_errors(choice.by), style_of(choice.by).title
        if choice.measure == "first":
            return replace(
                figures.colour_by_mistake(items, found["row"].to_numpy(), found["right"].to_numpy()),
                title=f"First result by {title}",
            )
        values = np.full(items, np.nan)
        values[found["row"]] = found["ap"]
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


def panels(scene: Scene) -> list[Panel]:
    """The maps as the canvas draws them: their colours, and the items that are ringed. Raises LabError as
    `colouring`."""
    near: list[list[int]] = [
        of.nearest(scene.anchor, choice.by, choice.near).tolist() if choice.colour == "anchor" else []
        for of, choice in zip(scene.maps, scene.choices, strict=True)
    ]
    keys = [Key(name, class_colour(label), count=count) for name, label, count, _ in scene.classes[:NAMED]]
    made = []
    for number, (of, choice) in enumerate(zip(scene.maps, scene.choices, strict=True)):
        look = colouring(of, choice, scene.anchor, keys)
        title = f"{of.run.name}: {look.title}" if scene.of_two_runs else look.title
        rings: list[Ring] = []
        if choice.colour == "anchor":
            rings = _rings(near[number], near[1 - number], choice.by)
        elif choice.colour == "class" and scene.picked is not None:
            rings = _mates(scene.items["label"].to_numpy(), scene.picked)
        alt = (
            f"Map of {len(of.layout):,} items. {title}. Arrow keys go from item to item, Enter chooses one, plus and "
            "minus zoom, L draws a lasso, V selects what is in view, Escape clears the selection."
        )
        made.append(Panel(title, of.places, look, alt, rings))
    return made


def _rings(own: Sequence[int], other: Sequence[int], by: str) -> list[Ring]:
    """The nearest by one similarity; those that the other doesn't have among its own are the larger."""
    style, shared = style_of(by), set(map(int, other))
    parts = {6: [int(row) for row in own if row in shared], 9: [int(row) for row in own if row not in shared]}
    return [Ring(rows, style.colour, style.symbol, size) for size, rows in parts.items() if rows]


def _mates(labels: np.ndarray, row: int) -> list[Ring]:
    """The other items of an item's class, in its colour."""
    rows = [int(other) for other in np.flatnonzero(labels == labels[row])[: MATES + 1] if other != row]
    return [Ring(rows[:MATES], class_colour(labels[row]), "circle", 7)] if rows else []


def neighbourhoods(scene: Scene) -> pd.DataFrame:
    """What is nearest to the anchor on either of two maps: row, id, class_name, and for n in 0 and 1 value_n (larger =
    more similar), rank_n (among all items) and near_n (whether it is one of the nearest)."""
    anchor, tables = scene.anchor, []
    for of, choice in zip(scene.maps, scene.choices, strict=True):
        values = of.similarity(anchor, choice.by)
        tables.append((values, most_similar(values, anchor, choice.near)))
    rows = np.union1d(*(near for _, near in tables))
    found = scene.items.iloc[rows][["id", "class_name"]].reset_index(drop=True)
    found.insert(0, "row", rows)
    for number, (values, near) in enumerate(tables):
        ordered = np.sort(np.delete(values, anchor))
        beyond = len(ordered) - np.searchsorted(ordered, values[rows], side="right") + 1
        place = {row: rank for rank, row in enumerate(near.tolist(), start=1)}  # parts those that are equal
        found[f"value_{number}"] = values[rows]
        found[f"rank_{number}"] = [place.get(row, int(rank)) for row, rank in zip(rows.tolist(), beyond, strict=True)]
        found[f"near_{number}"] = np.isin(rows, near)
    return found


def rows_by_id(scene: Scene, rows: Sequence[int] | np.ndarray) -> dict[str, int]:
    """Rows of items by their ids."""
    return dict(zip(scene.items["id"].iloc[rows].astype(str), map(int, rows), strict=True))


def selection_table(scene: Scene) -> pd.DataFrame:
    """The selected items for export: what they are, where they lie, and what the maps say of them."""
    rows = scene.rows
    table = scene.items.iloc[rows][["id", "class_name", "role"]].reset_index(drop=True)
    table.insert(0, "row", rows)
    for at, of in enumerate(scene.different):
        frame, end = of.layout.frame.iloc[of.order[rows]], f"_{of.run.name}" if at else ""
        for column in frame:
            table[f"{column}{end}"] = frame[column].to_numpy()
    for at, (of, choice) in enumerate(zip(scene.maps, scene.choices, strict=True)):
        if choice.colour == "anchor":
            kind = "distance" if style_of(choice.by).is_distance else "similarity"
            end = f"_{of.run.name}" if at and scene.of_two_runs else ""
            values = of.similarity(scene.anchor, choice.by)[rows]
            table[f"{choice.by}_{kind}_to_anchor{end}"] = shown(choice.by, values)
    return table


def settings(scene: Scene) -> dict[str, Any]:
    """The choices that led to a table, for its manifest; the lasso's corners in the map's own units."""
    told: dict[str, Any] = {"protocol": scene.first.protocol, **vars(scene.choices[0]), "order": scene.order}
    if scene.colour == "anchor":
        told |= {"anchor": scene.anchor_id, "by": [choice.by for choice in scene.choices]}
    if scene.lasso is not None and scene.lasso.panel < len(scene.maps):
        grid = scene.maps[scene.lasso.panel].layout.grid
        told |= {"lasso_on": scene.maps[scene.lasso.panel].run.name}
        told |= {"lasso": grid.corners_on_map(scene.lasso.corners).round(4).tolist()}
    return told
