"""What the Map page shows of a gallery's map: colourings, neighbourhoods, selections and what is told of an item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import loaders
import map_loading
import numpy as np
import pandas as pd
from canvas import Panel, Ring
from lasso import Lasso
from map_loading import Laid

from pddm_lab import figures
from pddm_lab.anchor import nearest_to
from pddm_lab.figures import Colouring, class_colour, shown, style_of
from pddm_lab.figures.maps import Key
from pddm_lab.gallery import Gallery
from pddm_lab.mistakes import SHORTLIST
from pddm_lab.neighbourhoods import DENSITIES, NEIGHBOURS, density_of
from pddm_lab.runs import Run

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
    laid: Laid
    order: np.ndarray
    """Row in this run's gallery of each row of the page."""

    @property
    def gallery(self) -> Gallery:
        """The run's gallery, rows in its own order."""
        return loaders.gallery(self.run, self.protocol)

    @property
    def places(self) -> np.ndarray:
        """(items, 2) uint16 on the map's grid."""
        return self.laid.places[self.order]

    def similarity(self, anchor: int, by: str) -> np.ndarray:
        """The similarity of every item to an anchor, by the page's rows."""
        return map_loading.to_anchor(self.run, self.protocol, int(self.order[anchor]), by)[self.order]

    def nearest(self, anchor: int, by: str, count: int) -> np.ndarray:
        """Rows of the page most similar to an anchor, best first."""
        return nearest_to(self.similarity(anchor, by), anchor, count)

    def judged(self, by: str) -> pd.DataFrame:
        """`map_loading.judged` with a row of the page for each query."""
        found = map_loading.judged(self.run, self.protocol, by)
        return found.assign(row=np.argsort(self.order)[found["row"]])

    def trust(self) -> tuple[np.ndarray, np.ndarray]:
        """Local radius and overlap by the page's rows; NaN where not measured."""
        found = map_loading.trust(self.run, self.protocol)
        return found.radius[self.order], found.overlap[self.order]


def open_map(run: Run, protocol: str, first: Run | None = None) -> Map | None:
    """A map, its rows in the order of another run's where one is given; None where none is drawn, or of other items.

    Raises:
        RunError: the gallery or its map is torn.
    """
    laid = map_loading.laid(run, protocol)
    if laid is None:
        return None
    order = np.arange(len(laid)) if first is None else map_loading.in_order_of(first, run, protocol)
    return None if order is None else Map(run, protocol, laid, order)


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
    items = len(of.laid)
    if choice.colour == "error":
        found, title = of.judged(choice.by), style_of(choice.by).title
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


def panel(of: Map, choice: Choice, anchor: int, rings: list[Ring], title: str, keys: Sequence[Key] = ()) -> Panel:
    """A map as the canvas draws it. Raises LabError as `colouring` does."""
    look = colouring(of, choice, anchor, keys)
    title = f"{title}: {look.title[:1].lower()}{look.title[1:]}" if title and choice.colour != "anchor" else (
        f"{title}: {look.title}" if title else look.title
    )  # fmt: skip
    alt = (
        f"Map of {len(of.laid):,} items of {of.run.name}, {title}. Arrow keys go from item to item, Enter chooses one, "
        "plus and minus zoom, L draws a lasso, V selects what is in view, Escape clears the selection."
    )
    return Panel(title, of.places, look, alt, rings)


def rings(own: Sequence[int], other: Sequence[int], by: str) -> list[Ring]:
    """The nearest to an anchor by one similarity, those that another doesn't have among its own the larger."""
    style, shared = style_of(by), set(map(int, other))
    parts = {6: [int(row) for row in own if row in shared], 9: [int(row) for row in own if row not in shared]}
    return [Ring(rows, style.colour, style.symbol, size) for size, rows in parts.items() if rows]


def mates(items: pd.DataFrame, row: int) -> list[Ring]:
    """The other items of an item's class, in its colour."""
    label = items["label"].iloc[row]
    rows = [int(other) for other in np.flatnonzero(items["label"].to_numpy() == label) if other != row]
    return [Ring(rows[:MATES], class_colour(label), "circle", 7)] if rows else []


def selected(lasso: Lasso | None, maps: Sequence[Map], by: str) -> np.ndarray:
    """Rows inside a lasso, in an order of `ORDERS`."""
    if lasso is None or lasso.panel >= len(maps):
        return np.empty(0, np.int64)
    of = maps[lasso.panel]
    places = of.places
    rows = lasso.rows(places)
    if by == "class":
        names = of.gallery.items["class_name"].to_numpy()[of.order]
        return rows[np.argsort(names[rows].astype(str), kind="stable")]
    middle = places[rows].mean(0) if len(rows) else np.zeros(2)
    return rows[np.argsort(((places[rows] - middle) ** 2).sum(1), kind="stable")]


def counts(items: pd.DataFrame, rows: np.ndarray) -> list[tuple[str, int, int, int]]:
    """(class name, label, items among the rows, items there are) of each class that has one, the largest first."""
    labels = items["label"].to_numpy()
    found, there = np.bincount(labels[rows], minlength=1), np.bincount(labels, minlength=1)
    names = items.iloc[rows].drop_duplicates("label").set_index("label")["class_name"]
    order = sorted(np.flatnonzero(found).tolist(), key=lambda label: (-found[label], str(names[label])))
    return [(str(names[label]), label, int(found[label]), int(there[label])) for label in order]


def neighbourhoods(maps: Sequence[Map], by: Sequence[str], anchor: int, count: int) -> pd.DataFrame:
    """The nearest to an anchor by either of two similarities: row, and for each of them rank_<n>, value_<n>, n 0 or 1.

    A rank beyond the count is given too, where the other has the item among its nearest.
    """
    values = [of.similarity(anchor, name) for of, name in zip(maps, by, strict=True)]
    near = [nearest_to(each, anchor, count) for each in values]
    rows = np.array(sorted(set(near[0].tolist()) | set(near[1].tolist())), dtype=np.int64)
    table = pd.DataFrame({"row": rows})
    for number, each in enumerate(values):
        others = np.delete(each, anchor)
        table[f"value_{number}"] = each[rows]
        table[f"rank_{number}"] = [1 + int((others > each[row]).sum()) for row in rows]
        place = {int(row): rank for rank, row in enumerate(near[number], start=1)}
        table[f"near_{number}"] = [place.get(int(row), 0) for row in rows]
    return table


def told_of(of: Map, row: int, choice: Choice, anchor: int, others: Sequence[tuple[str, np.ndarray]] = ()) -> list[str]:
    """What a map says of an item in a few short lines.

    Args:
        of: the map.
        row: of the item.
        choice: what the map is coloured by.
        anchor: row of the anchor.
        others: similarity names and their values to the anchor.
    """
    lines = []
    for name, values in others:
        rank = 1 + int((np.delete(values, anchor) > values[row]).sum())
        text = f"{letter_of(name)} {shown(name, values[row]):.3f}".replace("-", "−")
        lines.append(f"{text}, rank {rank:,}" if row != anchor else "the anchor")
    if choice.colour == "error":
        found = of.judged(choice.by).set_index("row")
        if row in found.index:
            right = "right" if found.at[row, "right"] else "wrong"
            lines += [f"first result {right}", f"AP@R {100 * found.at[row, 'ap']:.0f} %"]
        else:
            lines.append("not judged")
    if choice.colour in ("density", "trust"):
        radius, overlap = of.trust()
        if np.isfinite(overlap[row]):
            lines += [f"radius {radius[row]:.3f}", f"{100 * overlap[row]:.0f} % of neighbours kept"]
        else:
            lines.append("not measured")
    return list(dict.fromkeys(lines))


def letter_of(similarity: str) -> str:
    """D, S or s: what a similarity's values are called."""
    return "D" if style_of(similarity).distance else "S" if similarity == "pddm" else "s"


def facts(of: Map, row: int) -> dict[str, str]:
    """An item's facts for its card; density and trust where the map was stored with them."""
    items = of.gallery.items
    own = int(of.order[row])
    roles = {"both": "query and searched", "query": "query", "gallery": "searched"}
    told = {
        "Class": str(items["class_name"].iloc[own]), "Item": str(items["id"].iloc[own]),
        "Role": roles[str(items["role"].iloc[own])],
    }  # fmt: skip
    if of.laid.is_trusted:
        radius, overlap = of.trust()
        third = DENSITIES[int(density_of(radius)[row])]
        told["Radius"] = f"{radius[row]:.3f}, {third}"
        told["Trust"] = f"{100 * overlap[row]:.0f} % of neighbours kept"
    return told


def measured_words(of: Map, choice: Choice) -> str:
    """What the colours mean, and of how many items that was found out; empty where there is nothing to add."""
    items = len(of.laid)
    if choice.colour == "error":
        found, style = of.judged(choice.by), style_of(choice.by)
        queries = len(of.gallery.rows("query"))
        who = f"{len(found):,} of {queries:,} queries judged"
        how = "" if choice.by == "euclidean" else f", ordering the {SHORTLIST} nearest by Euclidean D anew"
        return (
            f"{who} by {style.title}{how}: the first result is right for **{100 * found['right'].mean():.1f} %**, "
            f"AP@R is {100 * found['ap'].mean():.1f} % on average."
        )
    if choice.colour == "density":
        known = int(np.isfinite(of.trust()[0]).sum())
        return (
            f"Local radius: the mean D of an item to its {NEIGHBOURS} nearest others in feature space, small where it "
            f"is dense. Measured for {known:,} of {items:,}."
        )
    return ""
