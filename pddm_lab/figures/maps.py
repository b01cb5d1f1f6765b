"""Maps: the items of a gallery in two dimensions, coloured by class, by mistakes, or by a value from low to high.

A `Colouring` is one byte per item and the look of each byte; the dashboard's canvas draws from it too. Unimportant
items are translucent, which suits a light and a dark page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from pddm_lab.figures.style import RIGHT, WRONG, new_figure, shown, style_of

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Float, Int, UInt8

UNMEASURED = "#8A93A352"
RAMPS: dict[str, tuple[str, ...]] = {
    "trust": ("#C9463DE6", "#D98A2BE6", "#5E9E8FE6", "#2F78D0E6"),
    "density": ("#7A55D6E6", "#C2509AE6", "#E8833AE6", "#DDA52BE6"),
}
"""Colours from low to high, by what they show."""
KINDS = {
    "none": ("not judged", UNMEASURED, "dot"),
    "right": ("right", f"{RIGHT}D9", "dot"),
    "wrong": ("wrong", WRONG, "cross"),
}

_CLASS_COLOURS = 240  # beyond as many classes, colours repeat
_LEVELS = 255  # colours of a ramp; code 0 means no value


@dataclass(frozen=True)
class Key:
    """One entry of a legend."""

    title: str
    colour: str
    glyph: str = "dot"
    """dot or cross: distinguishable without colour."""
    count: int = 0


@dataclass(frozen=True, eq=False)
class Colouring:
    """The look of each item of a map."""

    title: str
    codes: UInt8[np.ndarray, " items"]
    palette: list[str]
    """A CSS colour, #RRGGBBAA, for each code."""
    keys: tuple[Key, ...] = ()
    ends: tuple[str, str] = ("", "")
    """What the lowest and the highest colour of a ramp mean; empty if the colours aren't a ramp."""
    layers: tuple[int, ...] = ()
    """The drawing order of each code: higher ones on top; empty: items in their own order."""

    @property
    def glyphs(self) -> list[str]:
        """dot or cross for each code."""
        marks = {key.colour: key.glyph for key in self.keys}
        return [marks.get(colour, "dot") for colour in self.palette]


def class_colour(label: int) -> str:
    """The colour of a class, the same everywhere; neighbouring labels are far apart on the colour wheel."""
    slot = int(label) % _CLASS_COLOURS
    return _oklch((0.62, 0.7, 0.54)[slot % 3], 0.14, slot * 0.618034 % 1)


def colour_by_class(labels: Int[np.ndarray, " items"]) -> Colouring:
    """A colour per class."""
    palette = [class_colour(slot) for slot in range(_CLASS_COLOURS)]
    codes = (np.asarray(labels) % _CLASS_COLOURS).astype(np.uint8)
    return Colouring("class", codes, palette)


def colour_by_mistake(items: int, rows: Int[np.ndarray, " queries"], right: Float[np.ndarray, " queries"]) -> Colouring:
    """Right and wrong queries.

    Args:
        right: 1 if a query's first result is of its class, else 0.
    """
    codes = np.zeros(items, np.uint8)
    codes[rows] = np.where(np.asarray(right) > 0, 1, 2)
    counts = np.bincount(codes, minlength=len(KINDS))
    keys = [Key(*look, int(count)) for look, count in zip(KINDS.values(), counts, strict=True)]
    shown = tuple(key for key in reversed(keys) if key.count)
    return Colouring("first result", codes, [key.colour for key in keys], shown, layers=(0, 1, 1))


def colour_by_value(
    title: str, values: Float[np.ndarray, " items"], colours: Sequence[str], ends: tuple[str, str] = ("", ""),
    low: float | None = None, high: float | None = None,
) -> Colouring:  # fmt: skip
    """A ramp of colours over values; NaN has no colour.

    Args:
        colours: from low to high, as those of `RAMPS`.
        ends: names of both ends; empty: their values.
        low: value of the first colour; None: the lowest.
        high: value of the last colour; None: the highest.
    """
    values = np.asarray(values, dtype=np.float64)
    known = values[np.isfinite(values)]
    low = float(known.min()) if low is None and len(known) else low or 0.0
    high = float(known.max()) if high is None and len(known) else high or 0.0
    level = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    codes = np.where(np.isfinite(values), 1 + np.nan_to_num(level * (_LEVELS - 1)).round(), 0).astype(np.uint8)
    words = (ends[0] or f"{low:.2f}", ends[1] or f"{high:.2f}")
    return Colouring(title, codes, [UNMEASURED, *_ramp(colours)], ends=words, layers=tuple(range(_LEVELS + 1)))


def colour_by_similarity(
    values: Float[np.ndarray, " items"], similarity: str, anchor: int, *, ranks: bool = False
) -> Colouring:
    """How similar each item is to an anchor: the stronger the similarity's colour, the more similar.

    Args:
        values: of the similarity, larger = more similar.
        anchor: the anchor's row; its own value doesn't affect the ramp.
        ranks: colour by the logarithm of the rank, which is comparable between similarities.
    """
    style, values = style_of(similarity), np.array(values, dtype=np.float64)
    colours = ("#8A93A340", "#8A93A366", f"{style.colour}B0", f"{style.colour}FF")
    others = np.delete(values, anchor)
    if ranks:
        place = np.empty(len(values))
        values[anchor] = np.inf
        place[np.argsort(-values, kind="stable")] = np.arange(len(values))
        steep = ("#8A93A340", f"{style.colour}48", f"{style.colour}A0", f"{style.colour}FF")
        ends = (f"rank {max(len(values) - 1, 1):,}", "rank 1")
        return colour_by_value(style.title, -np.log10(np.maximum(place, 1)), steep, ends)
    low, high = (float(others.min()), float(others.max())) if len(others) else (0.0, 0.0)
    far, near = (f"{style.letter} {shown(similarity, np.array(end)):.2f}".replace("-", "−") for end in (low, high))
    return colour_by_value(style.title, values, colours, (far, near), low, high)


def map_of(
    places: pd.DataFrame, colouring: Colouring, *, rings: Mapping[str, Sequence[int]] | None = None,
    anchor: int | None = None, title: str = "", height: int = 560,
) -> go.Figure:  # fmt: skip
    """The map as a figure with a point per item.

    Args:
        places: x, y, and id or class_name for hover texts; a row per item.
        rings: similarity -> rows to mark in its colour and shape, such as an anchor's nearest.
        anchor: a row to mark.
    """
    figure = new_figure(title, height)
    layers = np.array(colouring.layers or [0] * len(colouring.palette))
    order = np.argsort(layers[colouring.codes], kind="stable")
    looks, marks = np.array([_rgba(colour) for colour in colouring.palette]), np.array(colouring.glyphs)
    codes = colouring.codes[order]
    names = [column for column in ("class_name", "id") if column in places]
    texts = places[names].astype(str).agg(", ".join, axis=1) if names else places.index.astype(str).to_series()
    figure.add_scattergl(
        x=places["x"].to_numpy()[order].round(4), y=places["y"].to_numpy()[order].round(4), mode="markers",
        text=texts.to_numpy()[order], hovertemplate="%{text}<extra></extra>", name=colouring.title, showlegend=False,
        marker={"color": looks[codes], "size": 5, "symbol": np.where(marks[codes] == "cross", "x-thin-open", "circle")},
    )  # fmt: skip
    for key in colouring.keys:
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=f"{key.title} ({key.count:,})",
            marker={"color": _rgba(key.colour), "symbol": "x-thin-open" if key.glyph == "cross" else "circle"},
        )  # fmt: skip
    for size, (name, rows) in enumerate((rings or {}).items()):
        near, style = places.iloc[list(rows)], style_of(name)
        figure.add_scatter(
            x=near["x"], y=near["y"], mode="markers", name=f"nearest by {style.title}", hoverinfo="skip",
            marker={
                "symbol": f"{style.symbol}-open", "size": 11 + 4 * size, "color": style.colour,
                "line": {"color": style.colour, "width": 2},
            },
        )  # fmt: skip
    if anchor is not None:
        one = places.iloc[[anchor]]
        figure.add_scatter(
            x=one["x"], y=one["y"], mode="markers", name="anchor", hoverinfo="skip",
            marker={"symbol": "star", "size": 15, "color": "#6B7686", "line": {"color": "white", "width": 1}},
        )  # fmt: skip
    bare = {"showticklabels": False, "showgrid": False, "title": None}
    figure.update_layout(hovermode="closest")
    return figure.update_xaxes(**bare).update_yaxes(**bare, scaleanchor="x", scaleratio=1)


def _ramp(colours: Sequence[str]) -> list[str]:
    """`_LEVELS` colours, interpolated between those given."""
    stops = np.array([[int(one[at : at + 2], 16) for at in (1, 3, 5, 7)] for one in colours])
    at = np.linspace(0, len(stops) - 1, _LEVELS)
    levels = np.stack([np.interp(at, np.arange(len(stops)), channel) for channel in stops.T], axis=1)
    return ["#" + "".join(f"{round(part):02X}" for part in level) for level in levels.tolist()]


def _rgba(colour: str) -> str:
    red, green, blue, *alpha = (int(colour[at : at + 2], 16) for at in range(1, len(colour), 2))
    return f"rgba({red},{green},{blue},{(alpha or [255])[0] / 255:.2f})"


def _oklch(light: float, chroma: float, turn: float) -> str:
    """#RRGGBB of a colour given by lightness, chroma and hue in turns (OKLCH, B. Ottosson 2020)."""
    a, b = chroma * np.cos(2 * np.pi * turn), chroma * np.sin(2 * np.pi * turn)
    cones = np.array(
        [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.291485548]]
    )
    to_rgb = np.array([
        [4.0767416621, -3.3077115913, 0.2309699292], [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.707614701],
    ])  # fmt: skip
    linear = (to_rgb @ (cones @ [light, a, b]) ** 3).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * part):02X}" for part in encoded.tolist())
