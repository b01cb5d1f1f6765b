"""A lasso on a map: the rows inside it, and its text in a link.

Corners are whole numbers on the grid of the map's points. Without rounding, browser and server select the same rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

LAST = 65535
"""The largest coordinate of a point on the grid: 16 bits. A corner may lie outside the grid, by at most its width."""
MOST_CORNERS = 200

_CORNER = r"-?\d{1,6}\.-?\d{1,6}"
_LASSO = re.compile(f"(2_)?({_CORNER}(?:_{_CORNER}){{2,{MOST_CORNERS - 1}}})")


@dataclass(frozen=True)
class Grid:
    """The grid over a map, with one scale for both axes so that circles stay round."""

    left: float
    bottom: float
    unit: float
    """Map units per step of the grid."""

    @classmethod
    def over(cls, x: np.ndarray, y: np.ndarray) -> Grid:
        """The smallest grid that contains all points."""
        if not len(x):
            return cls(0.0, 0.0, 1.0)
        left, bottom = float(x.min()), float(y.min())
        return cls(left, bottom, max(float(x.max()) - left, float(y.max()) - bottom, 1e-9) / LAST)

    def places(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Points on the grid, (points, 2) uint16."""
        steps = np.column_stack([(x - self.left) / self.unit, (y - self.bottom) / self.unit])
        return steps.round().clip(0, LAST).astype(np.uint16)

    def corners_on_map(self, corners: np.ndarray) -> np.ndarray:
        """Corners in the map's own units."""
        return np.array([self.left, self.bottom]) + corners * self.unit


@dataclass(frozen=True, eq=False)
class Lasso:
    """A closed line around items of a map."""

    corners: np.ndarray
    """(corners, 2) int64, on the grid."""
    panel: int = 0
    """The map on which it is drawn: 0, or 1 for the second of two."""

    @classmethod
    def parse(cls, text: str) -> Lasso | None:
        """The lasso in a link; None if the text is invalid."""
        match = _LASSO.fullmatch(text)
        if not match:
            return None
        corners = np.array([corner.split(".") for corner in match[2].split("_")], dtype=np.int64)
        return cls(corners, 1 if match[1] else 0)

    def __str__(self) -> str:
        """The text that `parse` reads, in characters that URLs don't escape."""
        return ("2_" if self.panel else "") + "_".join(f"{x}.{y}" for x, y in self.corners.tolist())

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Rows of the places inside, by the even-odd rule; places on its left and lower edges are inside."""
        low, high = self.corners.min(0), self.corners.max(0)
        near = np.flatnonzero(((places >= low) & (places <= high)).all(axis=1))
        x, y = places[near].astype(np.int64).T
        inside = np.zeros(len(near), bool)
        for (ax, ay), (bx, by) in zip(self.corners, np.roll(self.corners, -1, axis=0), strict=True):
            crosses = (ay > y) != (by > y)
            left_of = (bx - ax) * (y - ay) - (x - ax) * (by - ay)
            inside ^= crosses & ((left_of > 0) if by > ay else (left_of < 0))
        return near[inside]
