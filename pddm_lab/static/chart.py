"""Draws a plotly figure with Pillow: the traces, shapes, texts and pictures that figures/ uses."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from pddm_lab.static.axes import Axis, Box, axes_of, axis_name, values_of
from pddm_lab.static.marks import dashed, outline

WIDTH, SCALE = 900, 2
"""Width of a chart, and pixels per unit of it."""
_INK, _GRID = (60, 70, 84, 255), (138, 147, 163, 70)
_TAGS = re.compile(r"<br\s*/?>|<[^>]+>")
_LETTERS = str.maketrans({
    "−": "-", "–": "-", "—": "-", "′": "'", "″": '"', "“": '"', "”": '"', "’": "'", "…": "...", "↑": "", "→": "to",
    "×": "x", "≤": "<=", "≥": ">=", "α": "alpha", "β": "beta", "γ": "gamma", "λ": "lambda", "\u2060": None,
})  # fmt: skip
_COLOURS = ("#2F78D0", "#D9570B", "#0E9470", "#7D55D9")


def png_of(figure: Mapping[str, Any]) -> bytes:
    """A figure as PNG on white, 900 units wide with two pixels each.

    Args:
        figure: as `go.Figure.to_dict()` gives it.
    """
    return _Chart(figure).png()


def colour_of(text: Any, opacity: float = 1.0) -> tuple[int, int, int, int]:
    """A CSS colour, #rrggbb, #rrggbbaa, a name or rgba(...), as red, green, blue and opacity, 0 to 255 each."""
    numbers = re.match(r"rgba?\(([^)]+)\)", str(text))
    if numbers:
        red, green, blue, *alpha = (float(part) for part in numbers[1].split(","))
        parts = (round(red), round(green), round(blue), 255 * (alpha[0] if alpha else 1))
    else:
        parts = ImageColor.getcolor(str(text), "RGBA")  # type: ignore[assignment]
    return (int(parts[0]), int(parts[1]), int(parts[2]), round(parts[3] * opacity))


def _plain(text: Any) -> str:
    """A text without its tags, and with the letters that Pillow's own font has; no other font is on every machine."""
    return _TAGS.sub(lambda tag: "\n" if tag[0].startswith("<br") else "", str(text or "")).translate(_LETTERS)


class _Chart:
    def __init__(self, figure: Mapping[str, Any]) -> None:
        self.figure, self.layout = figure, figure["layout"]
        self.height = float(self.layout.get("height") or 400)
        self.image = Image.new("RGBA", (WIDTH * SCALE, round(self.height * SCALE)), "white")
        margin = self.layout.get("margin", {})
        names = self._widest_name()
        bottom = 46 if any(self._axis_title(name) for name in self.layout if name.startswith("xaxis")) else 28
        self.frame: Box = (
            max(margin.get("l", 80), names) * SCALE, margin.get("t", 60) * SCALE,
            (WIDTH - max(margin.get("r", 20), 20)) * SCALE, (self.height - max(margin.get("b", 0), bottom)) * SCALE,
        )  # fmt: skip
        self.axes = axes_of(figure, self.frame)

    def png(self) -> bytes:
        self._grids()
        for trace in self.figure["data"]:
            if trace.get("visible", True) is True:
                {"scatter": self._scatter, "scattergl": self._scatter, "bar": self._bar, "heatmap": self._heatmap,
                 "contour": self._contour}[trace.get("type", "scatter")](trace)  # fmt: skip
        for shape in self.layout.get("shapes", ()):
            self._shape(shape)
        for picture in self.layout.get("images", ()):
            self._picture(picture)
        for note in self.layout.get("annotations", ()):
            x, y = self._at(note["x"], note.get("xref", "paper"), 0), self._at(note["y"], note.get("yref", "paper"), 1)
            anchor = {"left": "l", "right": "r"}.get(note.get("xanchor", ""), "m")
            anchor += {"top": "a", "bottom": "d"}.get(note.get("yanchor", ""), "m")
            self._text((x, y), note["text"], note.get("font", {}).get("size", 12), anchor)
        self._legend()
        title = self.layout.get("title", {})
        if title.get("text"):
            self._text((8 * SCALE, 8 * SCALE), title["text"], 16, "la")
        buffer = BytesIO()
        self.image.convert("RGB").save(buffer, "PNG", optimize=True)
        return buffer.getvalue()

    # Each part is drawn on a layer of its own, so that translucent colours mix.
    def _layer(self, box: Box | None = None) -> ImageDraw.ImageDraw:
        self._top, self._box = Image.new("RGBA", self.image.size), box
        return ImageDraw.Draw(self._top)

    def _merge(self) -> None:
        box = self._box or (0, 0, *self.image.size)
        left, top = max(0, round(box[0]) - 1), max(0, round(box[1]) - 1)
        self.image.alpha_composite(self._top.crop((left, top, round(box[2]) + 2, round(box[3]) + 2)), (left, top))

    def _text(
        self, at: tuple[float, float], text: Any, size: float = 12, anchor: str = "mm", turned: bool = False
    ) -> None:
        font, words, draw = ImageFont.load_default(size * SCALE), _plain(text), ImageDraw.Draw(self.image)
        if turned and words:
            box = draw.textbbox((0, 0), words, font)
            label = Image.new("RGBA", (int(box[2]) + 4, int(box[3]) + 4))
            ImageDraw.Draw(label).text((0, 0), words, _INK, font)
            label = label.rotate(90, expand=True)
            place = (max(0, round(at[0] - label.width / 2)), max(0, round(at[1] - label.height / 2)))
            self.image.alpha_composite(label, place)
        elif "\n" in words:
            draw.multiline_text(at, words, _INK, font, anchor, align="center")
        else:
            draw.text(at, words, _INK, font, anchor)

    def _axis_title(self, name: str) -> str:
        title = self.layout.get(name, {}).get("title", {})
        return str(title.get("text") or "") if isinstance(title, Mapping) else str(title or "")

    def _widest_name(self) -> float:
        """Room for the names at the left: the widest text of a vertical axis, and its title."""
        font, widest = ImageFont.load_default(11), 34.0
        for name, axis in self.layout.items():
            if re.fullmatch(r"yaxis\d*", name) and axis.get("visible") is not False:
                drawn = [trace.get("y") for trace in self.figure["data"] if axis_name(trace, "y") == name]
                texts = [*values_of(axis.get("ticktext")), *(text for of in drawn for text in values_of(of))]
                named = [font.getlength(_plain(text)) for text in texts if isinstance(text, str)]
                widest = max([widest, *(length + 16 for length in named)])
        return widest + (24 if any(self._axis_title(name) for name in self.layout if name.startswith("yaxis")) else 0)

    def _pair(self, trace: Mapping[str, Any]) -> tuple[Axis, Axis, Box]:
        x, y = self.axes[axis_name(trace, "x")], self.axes[axis_name(trace, "y")]
        return x, y, (min(x.ends), min(y.ends), max(x.ends), max(y.ends))

    def _grids(self) -> None:
        for name, axis in self.axes.items():
            partner = self.axes.get(f"{'y' if name[0] == 'x' else 'x'}{name[1:]}")
            if partner is None or axis.layout.get("visible") is False:
                continue
            draw, across = self._layer(), sorted(partner.ends)
            if axis.layout.get("showgrid") is not False:
                for at, _ in axis.ticks():
                    ends = [(at, across[0]), (at, across[1])] if name[0] == "x" else [(across[0], at), (across[1], at)]
                    draw.line(ends, _GRID, SCALE)
            self._merge()
            middle, size = sum(axis.ends) / 2, axis.layout.get("tickfont", {}).get("size", 11)
            for at, text in axis.ticks():
                if name[0] == "y":
                    self._text((across[0] - 6 * SCALE, at), text, size, "rm")
                else:
                    turned = axis.layout.get("tickangle") == -90
                    below = across[1] + (5 + (3.2 * len(text) if turned else 0)) * SCALE
                    self._text((at, below), text, size, "mm" if turned else "ma", turned)
            if title := self._axis_title(name):
                if name[0] == "y":
                    self._text((12 * SCALE, middle), title, 12, turned=True)
                else:
                    self._text((middle, self.image.height - 12 * SCALE), title, 12)

    def _scatter(self, trace: Mapping[str, Any]) -> None:
        x_axis, y_axis, box = self._pair(trace)
        x, y = x_axis.pixels(values_of(trace.get("x"))), y_axis.pixels(values_of(trace.get("y")))
        mode, opacity = trace.get("mode", "lines"), float(trace.get("opacity", 1))
        line, draw = trace.get("line", {}), self._layer(box)
        solid = np.isfinite(x) & np.isfinite(y)
        if trace.get("fill") and solid.sum() > 2:
            points = list(zip(x[solid], y[solid], strict=True))
            if trace["fill"] == "tozeroy":
                points = [(points[0][0], y_axis.pixel(0)), *points, (points[-1][0], y_axis.pixel(0))]
            draw.polygon(points, colour_of(trace.get("fillcolor", "rgba(138,147,163,.2)")))
        if "lines" in mode and float(line.get("width", 2)):
            colour = colour_of(line.get("color", _COLOURS[0]), opacity)
            for part in np.split(np.arange(len(x)), np.flatnonzero(~solid)):
                points = [(x[at], y[at]) for at in part if solid[at]]
                for ends in dashed(points, line.get("dash", "solid"), SCALE):
                    draw.line(ends, colour, max(1, round(float(line.get("width", 2)) * SCALE)), joint="curve")
        if "markers" in mode:
            self._markers(draw, trace, x, y, solid)
        self._merge()
        if "text" in mode:
            texts = [trace["text"]] * len(x) if isinstance(trace.get("text"), str) else values_of(trace.get("text"))
            for at, text in enumerate(texts):
                place = trace.get("textposition", "middle center")
                place = str(place if isinstance(place, str) else place[at])
                anchor = "r" if "left" in place else "l" if "right" in place else "m"
                anchor += "d" if "top" in place else "a" if "bottom" in place else "m"
                move = (9 if "right" in place else -9 if "left" in place else 0) * SCALE
                if solid[at]:
                    self._text((x[at] + move, y[at]), text, trace.get("textfont", {}).get("size", 12), anchor)

    def _markers(self, draw: ImageDraw.ImageDraw, trace: Mapping[str, Any], x: Any, y: Any, solid: np.ndarray) -> None:
        marker = trace.get("marker", {})
        if marker.get("opacity") == 0:
            return

        def each(key: str, default: Any) -> list[Any]:
            value = default if marker.get(key) is None else marker[key]
            return [value] * len(x) if isinstance(value, str | int | float) else list(values_of(value))

        of_line = trace.get("line", {}).get("color", _COLOURS[0])
        colours, symbols, sizes = each("color", of_line), each("symbol", "circle"), each("size", 6)
        opacities, border = each("opacity", 1), marker.get("line", {})
        if colours and not isinstance(colours[0], str):
            values = np.array(colours, float)
            scaled = _scaled(values, marker.get("colorscale"), marker.get("cmin"), marker.get("cmax"))
            fills = [(int(one[0]), int(one[1]), int(one[2]), int(one[3])) for one in scaled]
        else:
            fills = [colour_of(colour, float(share)) for colour, share in zip(colours, opacities, strict=False)]
        for at in np.flatnonzero(solid):
            fill, symbol, radius = fills[at], str(symbols[at]), float(sizes[at]) / 2 * SCALE
            points, closed = outline(symbol.removesuffix("-open"), float(x[at]), float(y[at]), radius)
            width = float(border.get("width", 1.5))
            edge = colour_of(border["color"]) if isinstance(border.get("color"), str) and width else None
            thick = max(1, round(width * SCALE)) if edge else 0
            if symbol.endswith("-open"):
                draw.line([*points, points[0]], fill, round(1.5 * SCALE))
            elif closed:
                draw.polygon(points, fill, edge, max(thick, 1))
            else:
                for start, end in zip(points[::2], points[1::2], strict=True):
                    draw.line([start, end], fill, max(thick, round(2 * SCALE)))

    def _bar(self, trace: Mapping[str, Any]) -> None:
        x_axis, y_axis, box = self._pair(trace)
        lying = trace.get("orientation") == "h"
        values, places = values_of(trace["x" if lying else "y"]), values_of(trace["y" if lying else "x"])
        base = values_of(trace["base"]) if trace.get("base") is not None else np.zeros(len(values))
        along, across = (x_axis, y_axis) if lying else (y_axis, x_axis)
        same = [one for one in self.figure["data"] if one["type"] == "bar" and one.get("xaxis") == trace.get("xaxis")]
        groups = 1 if self.layout.get("barmode") in ("overlay", "stack", "relative") else len(same)
        start, end = across.range
        unit = min(np.diff(sorted({across.place(place) for place in places})), default=1.0)
        slot = abs((across.ends[1] - across.ends[0]) / (end - start or 1)) * unit
        slot *= 1 - float(self.layout.get("bargap", 0.2))
        shift = (same.index(trace) - (groups - 1) / 2) * slot / groups if groups > 1 else 0.0
        colours = trace.get("marker", {}).get("color", _COLOURS[0])
        draw = self._layer(box)
        for at, (value, place) in enumerate(zip(values, places, strict=True)):
            ends = sorted((along.pixel(base[at]), along.pixel(base[at] + value)))
            middle = across.pixel(place) + shift
            sides = (middle - slot / groups / 2, middle + slot / groups / 2)
            colour = colour_of(colours if isinstance(colours, str) else colours[at])
            draw.rectangle(
                (ends[0], sides[0], ends[1], sides[1]) if lying else (sides[0], ends[0], sides[1], ends[1]), colour
            )
        self._merge()

    def _heatmap(self, trace: Mapping[str, Any]) -> None:
        x_axis, y_axis, box = self._pair(trace)
        z = np.array(values_of(trace["z"]).tolist(), dtype=float)
        x = list(values_of(trace.get("x"))) or range(z.shape[1])
        y = list(values_of(trace.get("y"))) or range(z.shape[0])
        colours = _scaled(z.ravel(), trace.get("colorscale"), trace.get("zmin"), trace.get("zmax"))
        x_at, y_at = x_axis.pixels(x), y_axis.pixels(y)
        width, height = (abs(at[1] - at[0]) / 2 if len(at) > 1 else 10 for at in (x_at, y_at))
        draw = self._layer(box)
        for number, value in enumerate(z.ravel()):
            row, column = divmod(number, z.shape[1])
            if np.isfinite(value):
                middle = (x_at[column], y_at[row])
                draw.rectangle(
                    (middle[0] - width + 1, middle[1] - height + 1, middle[0] + width - 1, middle[1] + height - 1),
                    tuple(int(part) for part in colours[number]),
                )  # fmt: skip
        self._merge()
        if trace.get("texttemplate"):
            for number, text in enumerate(np.array(values_of(trace["text"]).tolist(), dtype=object).ravel()):
                row, column = divmod(number, z.shape[1])
                self._text((x_at[column], y_at[row]), text, 12, "mm")

    def _contour(self, trace: Mapping[str, Any]) -> None:
        """Levels as areas of one colour; without colours only the line, where the values cross the level."""
        x_axis, y_axis, box = self._pair(trace)
        z = np.array(values_of(trace["z"]).tolist(), dtype=np.float32)
        x, y = (np.array(values_of(trace[name]), float) for name in "xy")
        ends = x_axis.pixel(x[0]), x_axis.pixel(x[-1]), y_axis.pixel(y[-1]), y_axis.pixel(y[0])
        size = (max(2, round(abs(ends[1] - ends[0]))), max(2, round(abs(ends[3] - ends[2]))))
        nodes = (0.5, 0.5, z.shape[1] - 0.5, z.shape[0] - 0.5)  # values belong to the middles of the pixels
        fine = np.asarray(Image.fromarray(z[::-1]).resize(size, Image.Resampling.BICUBIC, nodes))
        levels, line = trace["contours"], trace.get("line", {})
        if levels.get("coloring") == "none":
            values = np.array([levels["start"]])
            band = np.zeros((*fine.shape, 4), dtype=np.uint8)
        else:
            values = np.arange(levels["start"], levels["end"] + levels["size"] / 2, levels["size"])
            shares = np.searchsorted(values, fine.ravel()) / max(len(values), 1)
            band = _scaled(shares, trace.get("colorscale"), 0, 1).reshape(*fine.shape, 4)
        steps = np.searchsorted(values, fine.ravel()).reshape(fine.shape)
        edge = np.zeros(fine.shape, dtype=bool)
        edge[:-1] |= steps[:-1] != steps[1:]
        edge[:, :-1] |= steps[:, :-1] != steps[:, 1:]
        for _ in range(round(float(line.get("width", 1)) * SCALE / 2)):
            wider = edge.copy()
            wider[1:] |= edge[:-1]
            wider[:, 1:] |= edge[:, :-1]
            wider[:-1] |= edge[1:]
            wider[:, :-1] |= edge[:, 1:]
            edge = wider
        band[edge] = colour_of(line.get("color", _COLOURS[1]))
        self._layer(box)
        self._top.paste(Image.fromarray(band), (round(min(ends[:2])), round(min(ends[2:]))))
        self._merge()

    def _at(self, value: Any, reference: str, axis: int) -> float:
        """Pixels of a value of the paper, of an axis's domain or of an axis."""
        start, end = (self.frame[0], self.frame[2]) if axis == 0 else (self.frame[3], self.frame[1])
        if reference != "paper":
            name, _, of = reference.partition(" ")
            along = self.axes[f"{name[0]}axis{name[1:]}"]
            if not of:
                return along.pixel(value)
            start, end = along.ends
        return start + float(value) * (end - start)

    def _shape(self, shape: Mapping[str, Any]) -> None:
        x = [self._at(shape[key], shape.get("xref", "x"), 0) for key in ("x0", "x1")]
        y = [self._at(shape[key], shape.get("yref", "y"), 1) for key in ("y0", "y1")]
        line, draw = shape.get("line", {}), self._layer()
        colour, width = colour_of(line.get("color", "#3C4654")), round(float(line.get("width", 2)) * SCALE)
        if shape["type"] == "rect":
            fill = colour_of(shape["fillcolor"], float(shape.get("opacity", 1))) if shape.get("fillcolor") else None
            draw.rectangle((min(x), min(y), max(x), max(y)), fill, colour if width else None, max(width, 1))
        else:
            for ends in dashed([(x[0], y[0]), (x[1], y[1])], line.get("dash", "solid"), SCALE):
                draw.line(ends, colour, max(width, 1))
        self._merge()

    def _picture(self, picture: Mapping[str, Any]) -> None:
        data = re.match(r"data:image/\w+;base64,(.*)", str(picture.get("source", "")), re.S)
        if data is None:
            return
        sides = []
        for axis, name in enumerate("xy"):
            reference, size = picture.get(f"{name}ref", "paper"), float(picture[f"size{name}"])
            at, anchor = float(picture[name]), picture.get(f"{name}anchor", "left" if name == "x" else "top")
            share = {"left": 0, "center": 0.5, "middle": 0.5, "right": 1, "bottom": 0, "top": 1}[anchor]
            ends = [self._at(at + part * size, reference, axis) for part in (-share, 1 - share)]
            sides.append((min(ends), max(ends)))
        (left, right), (top, bottom) = sides
        self._layer()
        with Image.open(BytesIO(base64.b64decode(data[1])), formats=["PNG", "JPEG", "WEBP"]) as opened:
            image = opened.convert("RGBA")
            image.thumbnail((max(1, round(right - left)), max(1, round(bottom - top))), Image.Resampling.LANCZOS)
            self._top.paste(image, (round((left + right - image.width) / 2), round((top + bottom - image.height) / 2)))
        self._merge()

    def _legend(self) -> None:
        entries = [trace for trace in self.figure["data"] if trace.get("name") and trace.get("showlegend", True)]
        wanted = self.layout.get("showlegend", len(entries) > 1 or any(one.get("showlegend") for one in entries))
        if not wanted:
            return
        font, at = ImageFont.load_default(12 * SCALE), 10.0 * SCALE
        top = (34 if self.layout.get("title", {}).get("text") else 8) * SCALE
        for trace in entries:
            name = _plain(trace["name"])
            length = font.getlength(name) + 44 * SCALE
            if at + length > self.image.width:
                at, top = 10.0 * SCALE, top + 18 * SCALE
            marker, line, draw, y = trace.get("marker", {}), trace.get("line", {}), self._layer(), top + 8 * SCALE
            if "markers" in trace.get("mode", "") or trace["type"] == "bar":
                colour = marker.get("color", line.get("color", _COLOURS[0]))
                symbol = marker.get("symbol", "square" if trace["type"] == "bar" else "circle")
                symbol = symbol if isinstance(symbol, str) else "circle"
                points, closed = outline(symbol, at + 14 * SCALE, y, 5 * SCALE)
                shade = colour_of(colour if isinstance(colour, str) else "#8A93A3")
                if closed:
                    draw.polygon(points, shade)
                else:
                    for start, end in zip(points[::2], points[1::2], strict=True):
                        draw.line([start, end], shade, 2 * SCALE)
            if trace["type"] == "contour" or "lines" in trace.get("mode", ""):
                for ends in dashed([(at, y), (at + 28 * SCALE, y)], line.get("dash", "solid"), SCALE):
                    draw.line(ends, colour_of(line.get("color", _COLOURS[0])), round(2.5 * SCALE))
            self._merge()
            self._text((at + 34 * SCALE, y), name, 12, "lm")
            at += length + 10 * SCALE


def _scaled(values: np.ndarray, scale: Any, low: float | None, high: float | None) -> np.ndarray:
    """Values as colours of a scale, (values, 4) uint8."""
    stops = [(float(at), colour_of(colour)) for at, colour in (scale or ((0, "#E8EEF7"), (1, "#2F78D0")))]
    finite = values[np.isfinite(values)]
    low = float(low) if low is not None else float(finite.min()) if len(finite) else 0.0
    high = float(high) if high is not None else float(finite.max()) if len(finite) else 1.0
    shares = np.clip((np.nan_to_num(values, nan=low) - low) / (high - low or 1), 0, 1)
    places = [at for at, _ in stops]
    return np.stack(
        [np.interp(shares, places, [colour[part] for _, colour in stops]) for part in range(4)], axis=-1
    ).astype(np.uint8)
