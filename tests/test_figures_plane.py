"""Charts of the plane hold the numbers they were given, in the units their axes name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pddm_lab import figures
from pddm_lab.teaching.plane import Snapshot, inside, measure_distance, score, score_at, train_plane
from pddm_lab.teaching.point_sets import PlaneConfig, PointSet, first_anchor, make_point_set, mesh, path, spans, vector


@pytest.fixture(scope="module")
def trained() -> tuple[PointSet, list[Snapshot]]:
    point_set = make_point_set("density")
    return point_set, list(train_plane(point_set, PlaneConfig(steps=12)))


def test_contours_of_s_and_circles_of_d_lie_around_the_anchor(trained) -> None:
    point_set, snapshots = trained
    anchor = first_anchor(point_set)
    scores = score(snapshots[-1].unit, point_set.points[anchor], mesh()[2])
    hover = [f"point {row}" for row in range(len(point_set.points))]
    figure = figures.plane_neighbourhood(
        point_set, anchor, scores, 0.3, 0.5, pair=np.array([[0, 0], [1, 1]]), hover=hover
    )
    terrain, line, *others = figure.data
    assert np.array(terrain.z) == pytest.approx(scores)
    assert terrain.contours.start > scores.min()
    assert (line.contours.start, line.contours.end, line.name) == (0.3, 0.3, "S accepts")
    (circle,) = (one for one in others if one.name == "D accepts")
    away = np.hypot(circle.x - point_set.points[anchor, 0], circle.y - point_set.points[anchor, 1])
    assert away[:-1] == pytest.approx(0.5, abs=2e-3)
    drawn = {one.name: one for one in others if one.customdata is not None}
    rows = np.concatenate([np.ravel(one.customdata) for one in drawn.values()])
    assert sorted(rows) == list(range(len(point_set.points)))
    first = drawn["class never trains"]
    assert first.text[0] == f"point {first.customdata[0]}"
    assert all(symbol.endswith("-open") for symbol in first.marker.symbol)
    assert figure.layout.yaxis.scaleanchor == "x"
    assert len(json.dumps(figure.to_plotly_json(), default=str)) < 400_000


def test_before_there_is_a_unit_only_the_points_are_drawn() -> None:
    point_set = make_point_set("even")
    figure = figures.plane_neighbourhood(point_set, first_anchor(point_set), None, 0, 0)
    assert not [one for one in figure.data if one.type == "contour" or one.name == "D accepts"]


def test_one_difference_is_drawn_at_every_mean(trained) -> None:
    point_set, snapshots = trained
    scores = score_at(snapshots[-1].unit, mesh()[2], vector(0.4, 20))
    figure = figures.plane_everywhere(point_set, scores, 0.1)
    assert np.array(figure.data[0].z) == pytest.approx(scores)
    (way,) = (one for one in figure.data if one.name == "path of the mean")
    assert np.column_stack([way.x, way.y]) == pytest.approx(path(point_set, 2))


def test_along_the_path_s_changes_and_d_is_level(trained) -> None:
    point_set, snapshots = trained
    scores = score_at(snapshots[-1].unit, path(point_set), vector(0.42, 90))
    figure = figures.plane_along(point_set, scores, 0.2, 0.42, 0.37, 0.25)
    s, s_now, d, d_now = figure.data
    assert np.array(s.y) == pytest.approx(scores, abs=1e-4)
    assert np.array(s.x) == pytest.approx(np.arange(101))
    assert set(d.y) == {0.42}
    assert (s_now.x[0], s_now.y[0]) == (25, pytest.approx(scores[25], abs=1e-4))
    assert d_now.y[0] == 0.42
    assert figure.layout.yaxis2.range[0] > figure.layout.yaxis2.range[1]
    assert [shape.y0 for shape in figure.layout.shapes if shape.y0 == shape.y1][:2] == [0.2, 0.37]
    assert figure.layout.xaxis2.ticktext == ("dense", "the mean moves", "sparse")


def test_measures_through_the_training_are_those_of_the_snapshots(trained) -> None:
    point_set, snapshots = trained
    distance = measure_distance(point_set)
    figure = figures.plane_steps(snapshots, distance, 3)
    by_name = {one.name: one for one in figure.data}
    assert list(by_name["S, unseen classes"].y) == pytest.approx(
        [100 * snapshot.unseen.metrics["tpr@1%fpr"] for snapshot in snapshots], abs=1e-3
    )
    assert set(by_name["D, known classes"].y) == {round(100 * distance["known"].metrics["tpr@1%fpr"], 3)}
    assert figure.layout.shapes[0].x0 == 3


def test_rulers_reach_through_a_class_and_up_to_the_next() -> None:
    point_set = make_point_set("islands")
    figure = figures.plane_rulers(point_set, {"one": 0.2})
    own, other = figure.data
    found = sorted(spans(point_set), key=lambda span: span.half)
    assert list(own.x) == pytest.approx([span.half for span in found], abs=1e-4)
    assert list(other.base) == pytest.approx([span.nearest for span in found], abs=1e-4)
    assert list(figure.layout.yaxis.ticktext) == ["dense", "sparse"]
    (line,) = figure.layout.shapes
    assert line.x0 == 0.2


def test_pairs_are_drawn_with_their_difference_and_their_mean() -> None:
    ends = np.array([[0, 0], [1, 0.5]])
    figure = figures.plane_pairs(make_point_set("even"), {"A": ends, "B": ends[::-1]})
    legs, _ = (one for one in figure.data if one.name == "u")
    assert (list(legs.x), list(legs.y)) == ([0, 1, 1], [0, 0, 0.5])
    (mean,) = [one for one in figure.data if one.name == "v of A"]
    assert (mean.x[0], mean.y[0]) == (0.5, 0.25)
    sides = [one.textposition for one in figure.data if str(one.name).startswith("v of")]
    assert sides == ["middle right", "middle left"], "names of one place don't cover one another"


def test_the_inside_of_a_unit_is_drawn_row_by_row(trained) -> None:
    unit = trained[1][-1].unit
    steps = inside(unit, torch.zeros(2, 2), torch.ones(2, 2))
    weights = unit.score.weight[0].numpy()
    figure = figures.plane_unit(steps, weights, "AB")
    *_, joint, adds = figure.data
    assert np.array(joint.z) == pytest.approx(steps.joint.numpy(), abs=1e-4)
    assert np.array(adds.z).sum(1) + unit.score.bias.item() == pytest.approx(steps.score.numpy(), abs=0.01)
    assert adds.zmin == -adds.zmax


def test_a_training_is_drawn_step_by_step(trained) -> None:
    point_set, snapshots = trained
    figure = figures.plane_through(point_set, first_anchor(point_set), snapshots[:3], 0.4)
    assert [note.text for note in figure.layout.annotations] == [f"step {one.step}" for one in snapshots[:3]]
    lines = [one for one in figure.data if one.type == "contour" and one.name == "S accepts"]
    assert [one.contours.start for one in lines] == [one.known.threshold for one in snapshots[:3]]
    assert [one.showlegend for one in lines] == [True, False, False]
