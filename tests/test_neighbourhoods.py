"""Nearest items and local radius agree with a slow loop, also among equal items and in tiny sets."""

from __future__ import annotations

import numpy as np
import pytest

from pddm_lab.neighbourhoods import DENSITIES, NEIGHBOURS, density_of, local_radius, nearest

POINTS = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)


def test_nearest_agrees_with_a_loop() -> None:
    distances, rows = nearest(POINTS, 5)
    for item in range(len(POINTS)):
        all_of_them = np.linalg.norm(POINTS.astype(float) - POINTS[item], axis=1)
        all_of_them[item] = np.inf
        expected = np.argsort(all_of_them)[:5]
        np.testing.assert_array_equal(rows[item], expected)
        np.testing.assert_allclose(distances[item], all_of_them[expected], atol=1e-5)


def test_an_item_is_never_its_own_neighbour_among_equals() -> None:
    points = np.repeat(POINTS[:2], 20, axis=0)
    distances, rows = nearest(points, 10)
    assert not (rows == np.arange(40)[:, None]).any()
    assert distances.max() < 1e-3


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
