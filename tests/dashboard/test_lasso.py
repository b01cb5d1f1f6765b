"""A lasso: the rows inside it against a slow loop over exact fractions, and to a link and back."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from app_pages.map.lasso import LAST, MOST_CORNERS, Grid, Lasso

RANDOM = np.random.default_rng(0)
# Some places lie on a coarse lattice, so that corners and edges meet them.
PLACES = np.concatenate([RANDOM.integers(0, LAST + 1, (300, 2)), RANDOM.integers(0, 12, (200, 2)) * 5000])


def is_inside(place: tuple[int, int], corners: list[tuple[int, int]]) -> bool:
    """How often a ray to the right crosses the line, edge by edge."""
    x, y = place
    crossings = 0
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (ay > y) != (by > y):
            crossings += x < ax + Fraction((y - ay) * (bx - ax), by - ay)
    return crossings % 2 == 1


@pytest.mark.parametrize("step", [1, 5000])
@pytest.mark.parametrize("corners", [3, 4, 9, 40])
def test_rows_inside_agree_with_a_loop(step: int, corners: int) -> None:
    for seed in range(5):
        random = np.random.default_rng(seed)
        line = random.integers(-20_000 // step, 90_000 // step, (corners, 2)) * step
        slow = [
            at for at, place in enumerate(PLACES.tolist()) if is_inside(tuple(place), [tuple(c) for c in line.tolist()])
        ]
        assert Lasso(line).rows(PLACES.astype(np.uint16)).tolist() == slow


def test_a_lasso_survives_a_link() -> None:
    lasso = Lasso(np.array([[-300, 7], [65_535, 0], [131_071, -65_536]]), 1)
    back = Lasso.parse(str(lasso))
    assert back is not None
    assert (back.corners.tolist(), back.panel) == (lasso.corners.tolist(), 1)
    assert str(lasso).replace("_", "").replace("-", "").replace(".", "").isalnum()


@pytest.mark.parametrize(
    "text", ["", "1.2_3.4", "1.2_3.4_5", "a.b_c.d_e.f", "1.2_3.4_5.6;", "1.2_3.4_1234567.8", "3_1.2_3.4_5.6",
             "_".join(["1.2"] * (MOST_CORNERS + 1)), "99999", "![x](http://example.com/a.png)"],
)  # fmt: skip
def test_an_invalid_lasso_is_none(text: str) -> None:
    assert Lasso.parse(text) is None


def test_a_grid_keeps_circles_round_and_holds_all_points() -> None:
    x, y = np.array([-2.0, 8.0, 3.0]), np.array([1.0, 2.0, 4.0])
    grid = Grid.over(x, y)
    places = grid.places(x, y)
    assert places.tolist() == [[0, 0], [LAST, round(LAST / 10)], [round(LAST / 2), round(3 * LAST / 10)]]
    np.testing.assert_allclose(grid.corners_on_map(places), np.column_stack([x, y]), atol=grid.unit)
    assert Grid.over(x[:1], y[:1]).places(x[:1], y[:1]).tolist() == [[0, 0]]
    assert Grid.over(x[:0], y[:0]).places(x[:0], y[:0]).shape == (0, 2)
