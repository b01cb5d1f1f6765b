"""The lesson's exercises: questions and answers against plain loops over the points."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from pddm_lab import figures
from pddm_lab.teaching import exercises, regions
from pddm_lab.teaching.plane import Snapshot, score, train_plane
from pddm_lab.teaching.point_sets import PlaneConfig, PointSet, make_point_set, mesh


@pytest.fixture(scope="module")
def stripes() -> PointSet:
    return make_point_set(exercises.STRIPES.scene, exercises.STRIPES.seed)


@pytest.fixture(scope="module")
def trained(stripes: PointSet) -> Snapshot:
    """Half of the steps of the page: it has learned the stripes by then."""
    return list(train_plane(stripes, PlaneConfig("fine", steps=150)))[-1]


def right_by_hand(point_set: PointSet, similarity) -> dict[int, bool]:
    """Whether the most similar other held-out point has the class, by row."""
    rows = [int(row) for row in point_set.held_out("known")]
    best = {row: max((other for other in rows if other != row), key=lambda other: similarity(row, other))
            for row in rows}  # fmt: skip
    return {row: bool(point_set.labels[row] == point_set.labels[other]) for row, other in best.items()}


def test_the_pair_misleads_d_and_lies_in_one_picture(stripes: PointSet) -> None:
    pair, points, labels = exercises.pair_to_judge(stripes), stripes.points, stripes.labels
    away = {row: math.dist(points[pair.query], points[row]) for row in stripes.held_out("known") if row != pair.query}
    assert pair.a == min((row for row in away if labels[row] == labels[pair.query]), key=away.__getitem__)
    assert pair.b == min((row for row in away if labels[row] != labels[pair.query]), key=away.__getitem__)
    assert away[pair.b] < away[pair.a] <= 0.6
    question = exercises.pair_exercise(stripes).question
    assert f"D is {away[pair.b]:.2f} to b and {away[pair.a]:.2f} to a" in question


def test_s_prefers_the_farther_point_of_the_stripe(stripes: PointSet, trained: Snapshot) -> None:
    pair, answer = exercises.pair_to_judge(stripes), exercises.pair_answer(stripes, trained.unit)
    s = [float(score(trained.unit, stripes.points[pair.query], stripes.points[row])) for row in (pair.a, pair.b)]
    assert s[0] > s[1]
    assert answer.choice == "a"
    values = [float(value.replace("−", "-")) for value in answer.values.values()]
    assert values[:2] == pytest.approx(s, abs=0.006)
    figure = figures.plane_pair(stripes, pair, score(trained.unit, stripes.points[pair.query], mesh()[2]), s[1])
    line, circle = (trace for trace in figure.data if trace.showlegend)
    assert (line.name, circle.name) == ("S: more similar than b", "D: more similar than b")
    assert line.contours.start == s[1]
    end = stripes.points[pair.b]
    assert min(np.hypot(circle.x[:-1] - end[0], circle.y[:-1] - end[1])) < 0.03, "the circle passes through b"


def test_r_at_1_tells_s_from_d_on_the_fine_stripes(stripes: PointSet, trained: Snapshot) -> None:
    rows, points = stripes.held_out("known"), stripes.points
    table = dict(zip(rows.tolist(), score(trained.unit, points[rows][:, None], points[rows]), strict=True))
    place = {int(row): at for at, row in enumerate(rows)}
    by_hand = {
        "D": right_by_hand(stripes, lambda a, b: -math.dist(points[a], points[b])),
        "S": right_by_hand(stripes, lambda a, b: table[a][place[b]]),
    }
    searches = exercises.searches_in(stripes, trained.unit)
    for name, search in searches.items():
        assert dict(zip(search.rows.tolist(), search.right.tolist(), strict=True)) == by_hand[name]
    s, d = (sum(by_hand[name].values()) for name in "SD")
    assert s > 1.1 * d
    answer = exercises.stripes_answer(stripes, trained.unit)
    assert answer.choice == "S"
    assert f"S is right for {s} of {len(rows)} points, D for {d}" in answer.result
    figure = figures.plane_searches(points, stripes.labels, searches)
    lines = {trace.name: trace for trace in figure.data if trace.showlegend}
    assert set(lines) == {f"D: {len(rows) - d} of {len(rows)} wrong", f"S: {len(rows) - s} of {len(rows)} wrong"}
    drawn = lines[f"D: {len(rows) - d} of {len(rows)} wrong"]
    assert np.count_nonzero(~np.isnan(drawn.x)) == 2 * (len(rows) - d)


def test_regions_on_one_plane_are_searched_each_in_itself() -> None:
    both = regions.make_regions(3)
    points, labels = exercises.on_one_plane(both)
    assert len(points) == len(labels) == 576
    assert not set(labels[:288]) & set(labels[288:])
    scores = [{"D": -torch.cdist(of.points, of.points), "S": torch.rand(288, 288)} for of in both]
    trained, new = exercises.searches_in_regions(scores, labels)
    for search, rows in ((trained["D"], range(288)), (new["D"], range(288, 576))):
        assert search.rows.tolist() == list(rows)
        for row in list(rows)[::37]:
            nearest = min(
                (other for other in rows if other != row), key=lambda other: math.dist(points[row], points[other])
            )
            assert search.nearest[row - rows[0]] == nearest
    answer = exercises.regions_answer(trained, new)
    assert answer.choice == "D", "random scores rank like nothing"
    assert answer.values["R@1 of D, new region"] == f"{100 * new['D'].right.mean():.0f} %"


def test_the_most_similar_of_the_second_act_are_counted() -> None:
    region = regions.make_regions(3)[1]
    scores = torch.rand(288, 288, generator=torch.Generator().manual_seed(1))
    right, count = exercises.right_among(scores, region), exercises.others_of_a_class(region)
    assert count == 23
    for row in (0, 100, 287):
        order = [other for other in scores[row].argsort(descending=True).tolist() if other != row][:count]
        assert right[row] == sum(int(region.labels[other] == region.labels[row]) for other in order)
    result, _ = exercises.neighbourhoods([{"D": 1, "S": 2, "L": 3}, {"D": 4, "S": 5, "L": 6.25}], count)
    assert re.findall(r"\d+\.\d", result) == ["6.2", "4.0", "5.0", "3.0", "1.0", "2.0"]


def test_nobody_is_ahead_with_equal_counts() -> None:
    one = exercises.search(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, 0]), np.array([0, 1]))
    assert exercises.regions_answer({"S": one, "D": one}, {"S": one, "D": one}).choice == "same"
