"""A link's view and lasso after a map was drawn anew: they are on its grid, which its outermost items determine."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from app_pages.map.lasso import Grid, Lasso

_VIEW = re.compile(r"-?\d{1,7}\.-?\d{1,7}\.\d{1,7}")


def moved_view(view: str, before: Sequence[Grid], now: Sequence[Grid]) -> str:
    """The text of a view (views.js) that shows the same part of each map on other grids; invalid parts show all."""
    return "_".join(_moved_part(part, old, new) for part, old, new in zip(view.split("_"), before, now, strict=False))


def _moved_part(part: str, old: Grid, new: Grid) -> str:
    if not _VIEW.fullmatch(part):
        return "all"
    x, y, span = map(int, part.split("."))
    left, bottom = _on(new, old.corners_on_map(np.array([x, y])))
    return f"{left}.{bottom}.{max(round(span * old.unit / new.unit), 1)}"


def moved_lasso(lasso: Lasso, before: Sequence[Grid], now: Sequence[Grid]) -> Lasso:
    """A lasso around the same part of its map."""
    return Lasso(_on(now[lasso.panel], before[lasso.panel].corners_on_map(lasso.corners)), lasso.panel)


def _on(grid: Grid, places: np.ndarray) -> np.ndarray:
    """Places in a map's own units on a grid, in whole steps."""
    return ((places - [grid.left, grid.bottom]) / grid.unit).round().astype(np.int64)
