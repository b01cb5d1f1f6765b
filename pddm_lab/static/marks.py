"""Outlines of markers, and lines cut into dashes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

Point = tuple[float, float]
_REGULAR = {
    "circle": (24, 0.0, 1.0), "diamond": (4, 0.0, 1.25), "square": (4, 45.0, 1.3), "pentagon": (5, -90.0, 1.15),
    "hexagon": (6, 0.0, 1.1), "triangle-up": (3, -90.0, 1.25), "triangle-down": (3, 90.0, 1.25),
}  # fmt: skip
"""Corners, turn in degrees and size of each symbol."""
_DASHES = {"dash": (9, 5), "dot": (2, 4), "dashdot": (9, 4, 2, 4), "longdash": (14, 6), "longdashdot": (14, 5, 2, 5)}
"""Lengths of lines and gaps."""


def outline(symbol: str, x: float, y: float, radius: float) -> tuple[list[Point], bool]:
    """The corners of a symbol, and whether they enclose an area; otherwise each two of them are a line."""
    if symbol in ("x", "x-thin", "cross-thin"):
        ends = [(-1, -1), (1, 1), (-1, 1), (1, -1)] if symbol[0] == "x" else [(-1, 0), (1, 0), (0, -1), (0, 1)]
        return [(x + radius * across, y + radius * down) for across, down in ends], False
    if symbol == "cross":
        corners = [(-0.35, -1.0), (0.35, -1.0), (0.35, -0.35), (1.0, -0.35), (1.0, 0.35), (0.35, 0.35)]
        corners += [(-across, -down) for across, down in corners]  # the other half is the same, turned
        return [(x + radius * across, y + radius * down) for across, down in corners], True
    if symbol == "star":
        turns = [(math.radians(36 * number - 90), 1.35 if number % 2 == 0 else 0.6) for number in range(10)]
        return [(x + size * radius * math.cos(turn), y + size * radius * math.sin(turn)) for turn, size in turns], True
    count, turned, size = _REGULAR.get(symbol, _REGULAR["circle"])
    turns = [(math.radians(360 * number / count + turned), size) for number in range(count)]
    return [(x + size * radius * math.cos(turn), y + size * radius * math.sin(turn)) for turn, size in turns], True


def dashed(points: Sequence[Point], dash: str, scale: int) -> list[list[Point]]:
    """A line through points as the parts that are drawn; a solid one stays whole."""
    if len(points) < 2:
        return []
    lengths = _DASHES.get(dash)
    if lengths is None:
        return [list(points)]
    parts: list[list[Point]] = []
    place, left, drawn = 0, float(lengths[0] * scale), [points[0]]
    for (x, y), (to_x, to_y) in pairwise(points):
        whole = math.hypot(to_x - x, to_y - y)
        done = 0.0
        while whole - done > left:
            done += left
            here = (x + (to_x - x) * done / whole, y + (to_y - y) * done / whole)
            if place % 2 == 0:
                parts.append([*drawn, here])
            drawn, place = [here], place + 1
            left = float(lengths[place % len(lengths)] * scale)
        left -= whole - done
        drawn.append((to_x, to_y))
    if place % 2 == 0 and len(drawn) > 1:
        parts.append(drawn)
    return parts
