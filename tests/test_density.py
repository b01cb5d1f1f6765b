"""Nearest items and local radius agree with a slow loop, also among equal items and in tiny sets."""

from __future__ import annotations

import numpy as np
import pytest

from pddm_lab.metrics.density import DENSITIES, NEIGHBOURS, density_of, local_radius, nearest, shared

POINTS = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)


@pytest.mark.parametrize("dim", [2, 8])
@pytest.mark.parametrize("rows_of", [None, [41, 7]])
def test_nearest_agrees_with_a_loop(dim: int, rows_of: list[int] | None) -> None:
    points = POINTS[:, :dim]
    distances, rows = nearest(points, 5, None if rows_of is None else np.array(rows_of))
    for at, item in enumerate(rows_of or range(len(points))):
        all_of_them = np.linalg.norm(points.astype(float) - points[item], axis=1)
        all_of_them[item] = np.inf
        expected = np.argsort(all_of_them)[:5]
        np.testing.assert_array_equal(rows[at], expected)
        np.testing.assert_allclose(distances[at], all_of_them[expected], atol=1e-5)


def test_shared_neighbours_are_counted_as_a_loop_counts_them() -> None:
    random = np.random.default_rng(3)
    one, other = (np.array([random.permutation(30)[:7] for _ in range(50)]) for _ in range(2))
    expected = [len(set(a) & set(b)) / 7 for a, b in zip(one.tolist(), other.tolist(), strict=True)]
    np.testing.assert_allclose(shared(one, other), expected, rtol=1e-6)
    assert shared(one[:, :0], other[:, :0]).tolist() == [1.0] * 50
    assert shared(one[:0], other[:0]).tolist() == []


@pytest.mark.parametrize("dim", [2, 8])
def test_an_item_is_never_its_own_neighbour_among_equals(dim: int) -> None:
    points = np.repeat(POINTS[:2, :dim], 20, axis=0)
    distances, rows = nearest(points, 10)
    assert not (rows == np.arange(40)[:, None]).any()
    # The squares are computed as |a|² + |b|² - 2ab, each part rounded.
    assert distances.max() < 4 * (np.finfo(np.float32).eps ** 0.5) * np.linalg.norm(points, axis=1).max()


@pytest.mark.parametrize("items", [0, 1, 3])
def test_a_set_smaller_than_the_neighbourhood(items: int) -> None:
    distances, rows = nearest(POINTS[:items], 10)
    assert distances.shape == rows.shape == (items, max(items - 1, 0))
    assert local_radius(POINTS[:items]).shape == (items,)


def test_dense_items_come_first() -> None:
    points = np.concatenate([0.1 * POINTS[:30], 5 + POINTS[30:]])
    radius = local_radius(points)
    np.testing.assert_allclose(radius, nearest(points, NEIGHBOURS)[0].mean(axis=1))
    thirds = density_of(radius)
    assert np.bincount(thirds).tolist() == [20, 20, 20]
    assert (thirds[:30] <= 1).all() and (thirds[30:] >= 1).all()
    assert radius[thirds == 0].max() <= radius[thirds == DENSITIES.index("sparse")].min()
