"""Point sets: what trains, what is held out, and that they show what their descriptions say."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from pddm_lab.errors import ConfigError
from pddm_lab.teaching.point_sets import (
    EXTENT,
    HELD_OUT,
    LAYOUTS,
    TRAIN,
    PlaneConfig,
    PointSet,
    first_anchor,
    make_point_set,
    mesh,
    path,
    spans,
    vector,
    without,
)


@pytest.fixture(params=LAYOUTS)
def point_set(request: pytest.FixtureRequest) -> PointSet:
    return make_point_set(request.param, seed=3)


def test_every_class_is_held_out_in_part_and_some_never_train(point_set: PointSet) -> None:
    known, unseen = set(point_set.held_out("known")), set(point_set.held_out("unseen"))
    assert len(known) + len(unseen) + point_set.trains.sum() == len(point_set.points)
    assert not known & unseen
    never = set(point_set.labels[list(unseen)])
    assert never
    assert not never & set(point_set.labels[point_set.trains])
    for label in range(len(point_set.regions)):
        of_class = point_set.labels == label
        assert (of_class & ~point_set.trains).sum() == HELD_OUT
        assert (of_class & point_set.trains).sum() == (0 if label in never else TRAIN)
    assert set(point_set.region_of(np.arange(len(point_set.points)))) == set(point_set.regions)


def test_a_point_set_lies_within_what_is_drawn(point_set: PointSet) -> None:
    for axis, (low, high) in enumerate(EXTENT):
        assert low < point_set.points[:, axis].min() < point_set.points[:, axis].max() < high
        assert low < path(point_set)[:, axis].min() <= path(point_set)[:, axis].max() < high
    x, y, points = mesh(40)
    assert points.shape == (len(y), 40, 2)
    assert points[3, 7].tolist() == [x[7], y[3]]
    assert x[1] - x[0] == pytest.approx(y[1] - y[0], rel=0.05)


def test_a_seed_draws_a_point_set_again() -> None:
    assert (make_point_set("density", 1).points == make_point_set("density", 1).points).all()
    assert (make_point_set("density", 1).points != make_point_set("density", 2).points).any()
    assert make_point_set("density").points.dtype == np.float32


def test_a_wide_class_reaches_further_than_small_classes_lie_apart() -> None:
    point_set = make_point_set("density")
    region = point_set.region_of(np.arange(len(point_set.points)))
    away = np.linalg.norm(point_set.points[:, None] - point_set.points[None], axis=-1)
    same = point_set.labels[:, None] == point_set.labels[None]
    within_sparse = away[same & (region == "sparse")[:, None]].max()
    between_dense = away[~same & (region == "dense")[:, None] & (region == "dense")[None]].min()
    assert within_sparse > 4 * between_dense


def test_the_first_anchor_is_held_out_and_of_a_known_class(point_set: PointSet) -> None:
    assert first_anchor(point_set) in point_set.held_out("known")


def test_a_difference_has_its_length_and_direction() -> None:
    assert vector(2.0, 90) == pytest.approx([0, 2])
    assert vector(1.0, 135) == pytest.approx([-(0.5**0.5), 0.5**0.5])


@pytest.mark.parametrize(
    "wrong", [{"scene": "moon"}, {"seed": -1}, {"hidden": 1}, {"steps": 0}, {"score_margin": 0.0}, {"steps": 10_000}]
)
def test_choices_out_of_range_are_named(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong)) if "scene" not in wrong else "moon"):
        PlaneConfig(**wrong)


def test_an_unknown_point_set_is_named() -> None:
    with pytest.raises(ConfigError, match="density, islands, grains"):
        make_point_set("moon")


def test_a_region_that_never_trains_keeps_what_it_is_measured_on() -> None:
    point_set = make_point_set("grains", 3)
    other = without(point_set, "upright")
    assert not (other.trains & (other.region_of(np.arange(len(other.points))) == "upright")).any()
    lying = point_set.region_of(np.arange(len(point_set.points))) == "lying"
    assert other.trains.sum() == (point_set.trains & lying).sum()
    known, unseen = other.held_out("known"), other.held_out("unseen")
    assert set(other.region_of(known)) == {"lying"}
    assert (other.region_of(unseen) == "upright").sum() == 7 * HELD_OUT
    assert len(known) + len(unseen) == (~point_set.trains).sum()


def test_how_far_a_ruler_must_reach_and_may() -> None:
    point_set = make_point_set("islands")
    for span in spans(point_set)[::5]:
        own = [point for point, label in zip(point_set.points, point_set.labels, strict=True) if label == span.label]
        others = [point for point, label in zip(point_set.points, point_set.labels, strict=True) if label != span.label]
        assert span.half == pytest.approx(np.median([np.linalg.norm(a - b) for a, b in combinations(own, 2)]), 1e-5)
        assert span.nearest == pytest.approx(min(np.linalg.norm(a - b) for a in own for b in others), rel=1e-5)
        assert span.region == point_set.regions[span.label]
