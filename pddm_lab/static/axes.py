"""Where a figure's axes lie on the picture: from its own units to pixels, with ticks."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels."""


def values_of(data: Any) -> np.ndarray:
    """A trace's values, which plotly holds as a list or as base64; texts and gaps stay as they are."""
    if isinstance(data, Mapping) and "bdata" in data:
        kind = {"f8": "<f8", "f4": "<f4", "i4": "<i4", "i2": "<i2", "i1": "i1", "u4": "<u4", "u2": "<u2", "u1": "u1"}
        flat = np.frombuffer(base64.b64decode(data["bdata"]), dtype=kind.get(data["dtype"], data["dtype"]))
        shape = [int(part) for part in re.findall(r"\d+", str(data.get("shape", "")))]
        return flat.reshape(shape) if shape else flat
    return np.array([] if data is None else list(data), dtype=object)


class Axis:
    """One axis of a figure."""

    def __init__(self, layout: Mapping[str, Any], ends: tuple[float, float], values: Iterable[Any]) -> None:
        """Args:
        layout: the axis in the figure's layout.
        ends: the pixels at its start and its end.
        values: all that is drawn along it.
        """
        self.layout, self.ends = layout, ends
        values = list(values)
        self.names = list(dict.fromkeys(value for value in values if isinstance(value, str)))
        numbers = np.array([self.place(value) for value in values], dtype=float)
        numbers = numbers[np.isfinite(numbers)]
        low, high = (numbers.min(), numbers.max()) if len(numbers) else (0.0, 1.0)
        pad = 0.5 if self.names else 0.04 * (high - low) or 0.5
        self.range = [float(end) for end in layout.get("range") or (low - pad, high + pad)]
        if layout.get("autorange") == "reversed":
            self.range.reverse()

    def place(self, value: Any) -> float:
        """A value as a number along the axis: the position of a name, the exponent on a logarithmic axis."""
        if isinstance(value, str):
            return float(self.names.index(value)) if value in self.names else np.nan
        if value is None:
            return np.nan
        return float(np.log10(value)) if self.layout.get("type") == "log" and value > 0 else float(value)

    def pixel(self, value: Any) -> float:
        """Where a value lies."""
        start, end = self.range
        return self.ends[0] + (self.place(value) - start) / (end - start or 1) * (self.ends[1] - self.ends[0])

    def pixels(self, values: Iterable[Any]) -> np.ndarray:
        """Where values lie; NaN for gaps."""
        return np.array([self.pixel(value) for value in values], dtype=float)

    def ticks(self) -> list[tuple[float, str]]:
        """Pixels and texts of the ticks."""
        if self.layout.get("visible") is False:
            return []
        if self.layout.get("tickvals") is not None:
            places = list(values_of(self.layout["tickvals"]))
            texts = [str(text) for text in values_of(self.layout.get("ticktext"))] or [f"{place:g}" for place in places]
        elif self.names:
            places, texts = list(range(len(self.names))), self.names
        else:
            places = _even(*sorted(self.range))
            if self.layout.get("type") == "log":
                places = [10**place for place in places if place == int(place)]
            texts = [f"{place:g}" for place in places]
        hidden = self.layout.get("showticklabels") is False
        inside = sorted(self.ends)
        return [
            (at, "" if hidden else text.replace("-", "−"))
            for at, text in zip(self.pixels(places), texts, strict=False) if inside[0] - 1 <= at <= inside[1] + 1
        ]  # fmt: skip


def _even(low: float, high: float) -> list[float]:
    """Round numbers between two ends, about five."""
    if not high > low:
        return [low]
    raw = (high - low) / 5
    size = 10.0 ** np.floor(np.log10(raw))
    step = min((size * factor for factor in (1, 2, 2.5, 5, 10)), key=lambda one: abs(one - raw))
    return [round(float(number * step), 10) for number in range(int(np.ceil(low / step)), int(high / step + 1e-9) + 1)]


def axes_of(figure: Mapping[str, Any], frame: Box) -> dict[str, Axis]:
    """All axes of a figure by their names in its layout, xaxis, yaxis2, ...

    Args:
        frame: the plot's area on the picture, inside its margins.
    """
    layout, (left, top, right, bottom) = figure["layout"], frame
    axes: dict[str, Axis] = {}
    names = sorted({name for name in layout if re.fullmatch(r"[xy]axis\d*", name)} | {"xaxis", "yaxis"})
    for name in names:
        start, end = layout.get(name, {}).get("domain") or (0, 1)
        ends = (left, right) if name[0] == "x" else (bottom, top)
        pixels = (ends[0] + start * (ends[1] - ends[0]), ends[0] + end * (ends[1] - ends[0]))
        drawn = [
            value for trace in figure["data"] if axis_name(trace, name[0]) == name for value in _along(trace, name[0])
        ]
        axes[name] = Axis(layout.get(name, {}), pixels, drawn)
    for name in names:
        if partner := layout.get(name, {}).get("scaleanchor"):
            _equal_scales(axes[name], axes[f"{partner[0]}axis{partner[1:]}"])
    return axes


def axis_name(trace: Mapping[str, Any], direction: str) -> str:
    """The name in the layout of a trace's axis."""
    return f"{direction}axis{trace.get(f'{direction}axis', direction)[1:]}"


def _along(trace: Mapping[str, Any], direction: str) -> list[Any]:
    """The values that a trace draws along an axis."""
    values = list(values_of(trace.get(direction)))
    if trace["type"] == "heatmap":
        count = values_of(trace["z"]).shape[0 if direction == "y" else 1] if "z" in trace else 0
        values = values or list(range(count))
        return values if values and isinstance(values[0], str) else [min(values) - 0.5, max(values) + 0.5]
    if trace["type"] == "bar" and (trace.get("orientation") == "h") == (direction == "x"):
        base = values_of(trace.get("base"))
        return [0, *(np.array(values, float) + np.array(base, float) if len(base) else values)]
    return values


def _equal_scales(one: Axis, other: Axis) -> None:
    """Shrink the longer of two axes, so that a unit has the same length on both."""
    lengths = [abs(axis.ends[1] - axis.ends[0]) / (abs(axis.range[1] - axis.range[0]) or 1) for axis in (one, other)]
    for axis, length in zip((one, other), lengths, strict=True):
        start, end = axis.ends
        middle, half = (start + end) / 2, (end - start) / 2 * min(lengths) / length
        axis.ends = (middle - half, middle + half)
