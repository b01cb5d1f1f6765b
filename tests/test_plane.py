"""A unit trained on the plane: the same each time, better than D where it should be, and measured as it is said."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from reference import pddm_score

from pddm_lab.model.pddm import PDDM
from pddm_lab.model.similarity import PDDMSimilarity
from pddm_lab.teaching.plane import (
    ACCEPTED_NEGATIVES,
    Snapshot,
    accepted,
    inside,
    measure,
    measure_distance,
    score,
    score_at,
    snapshot_steps,
    table_of,
    train_plane,
)
from pddm_lab.teaching.point_sets import PlaneConfig, PointSet, make_point_set, mesh, path, vector, without


def trained(**choices) -> tuple[PointSet, list[Snapshot]]:
    config, threads = PlaneConfig(**choices), torch.get_num_threads()
    point_set = make_point_set(config.scene, config.seed)
    torch.set_num_threads(1)
    try:
        return point_set, list(train_plane(point_set, config))
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def density() -> tuple[PointSet, list[Snapshot]]:
    return trained(scene="density")


@pytest.fixture(scope="module")
def grains() -> tuple[PointSet, list[Snapshot]]:
    return trained(scene="grains", steps=250)


def test_snapshots_are_taken_ever_further_apart() -> None:
    for steps in (1, 2, 10, 400, 5000):
        taken = snapshot_steps(steps)
        assert taken[0] == 0
        assert taken[-1] == steps
        assert len(taken) <= 25
        assert taken == sorted(set(taken))
    gaps = np.diff(snapshot_steps(400))
    assert gaps[0] == 1
    assert gaps[-1] == gaps.max() > 50


def test_a_training_can_be_repeated_whatever_else_draws_numbers() -> None:
    _, first = trained(steps=12, seed=5)
    torch.rand(3)
    _, second = trained(steps=12, seed=5)
    _, other = trained(steps=12, seed=6)
    for one, two in zip(first, second, strict=True):
        assert all((two.unit.state_dict()[name] == value).all() for name, value in one.unit.state_dict().items())
        assert one.known == two.known
    assert not torch.equal(first[-1].unit.position.weight, other[-1].unit.position.weight)
    assert math.isnan(first[0].loss)
    assert all(math.isfinite(snapshot.loss) for snapshot in first[1:])


def test_a_training_ends_when_it_is_told_to() -> None:
    point_set, config = make_point_set("even"), PlaneConfig(scene="even", steps=50)
    asked = iter([False] * 17 + [True])
    snapshots = list(train_plane(point_set, config, lambda: next(asked)))
    assert [snapshot.step for snapshot in snapshots[-2:]] == [15, 17]


def test_s_finds_in_the_sparse_region_what_d_cannot(density) -> None:
    point_set, snapshots = density
    s, d = snapshots[-1].known, measure_distance(point_set)["known"]
    assert snapshots[-1].loss < 0.05 < snapshots[1].loss
    assert d.tpr_by_region["dense"] == 1
    assert d.tpr_by_region["sparse"] < 0.6
    assert s.tpr_by_region["dense"] > 0.95
    assert s.tpr_by_region["sparse"] > d.tpr_by_region["sparse"] + 0.3
    assert s.metrics["tpr@1%fpr"] > d.metrics["tpr@1%fpr"] + 0.15
    assert s.metrics["auc"] > d.metrics["auc"]


def test_s_has_a_ruler_for_each_of_two_grains(grains) -> None:
    point_set, snapshots = grains
    unit, known = snapshots[-1].unit, snapshots[-1].known
    assert known.metrics["tpr@1%fpr"] > measure_distance(point_set)["known"].metrics["tpr@1%fpr"] + 0.4
    left, right = path(point_set, 2)
    for angle, here, there in ((0, left, right), (90, right, left)):
        difference = vector(0.84, angle)
        assert score_at(unit, here, difference) > known.threshold > score_at(unit, there, difference)


def test_without_the_position_s_is_the_same_at_every_mean() -> None:
    _, snapshots = trained(position=False, steps=40)
    # Quarters, whose sums and differences a float holds exactly.
    means = np.stack(np.meshgrid(np.arange(-3, 3, 0.25), np.arange(-1.5, 1.5, 0.25)), axis=-1)
    difference = np.array([0.5, 1.0])
    for snapshot in snapshots:
        assert np.ptp(score_at(snapshot.unit, means, difference)) < 1e-5  # a product may round by its place
    anywhere = score_at(snapshots[-1].unit, mesh()[2], vector(0.7, 30))
    assert np.ptp(anywhere) < 1e-4
    assert score_at(snapshots[-1].unit, means[0, 0], 2 * difference) != score_at(
        snapshots[-1].unit, means[0, 0], difference
    )


def test_with_the_position_s_changes_where_d_does_not(density) -> None:
    point_set, snapshots = density
    scores = score_at(snapshots[-1].unit, path(point_set), vector(0.42, 90))
    assert scores[0] < snapshots[-1].known.threshold < scores[-1]


def test_u_forgets_along_which_diagonal_a_pair_lies(density) -> None:
    _, snapshots = density
    rising, falling = (score_at(snapshots[-1].unit, mesh()[2], vector(0.8, angle)) for angle in (45, 135))
    assert rising == pytest.approx(falling, abs=1e-4)


def test_scores_are_the_units(density) -> None:
    point_set, snapshots = density
    unit = snapshots[7].unit
    points = point_set.points[:5]
    scores = score(unit, points[:, None], points[None])
    for row, a in enumerate(points.tolist()):
        for column, b in enumerate(points.tolist()):
            assert scores[row, column] == pytest.approx(pddm_score(unit, a, b), abs=1e-4)
    mean, difference = (points[0] + points[1]) / 2, points[1] - points[0]
    assert score_at(unit, mean, difference) == pytest.approx(scores[0, 1], abs=1e-4)


@pytest.mark.parametrize("protocol", ["known", "unseen"])
def test_measures_are_those_of_a_slow_count(density, protocol: str) -> None:
    point_set, snapshots = density
    unit, rows = snapshots[4].unit, point_set.held_out(protocol)
    found = measure(PDDMSimilarity(unit), point_set, protocol)
    matrix = score(unit, point_set.points[rows][:, None], point_set.points[rows][None]).astype(float)
    labels, regions = point_set.labels[rows], point_set.region_of(rows)
    pairs = list(combinations(range(len(rows)), 2))
    positive = [(matrix[a, b], regions[a]) for a, b in pairs if labels[a] == labels[b]]
    negative = [matrix[a, b] for a, b in pairs if labels[a] != labels[b]]
    passed = sum(one > found.threshold + 1e-5 for one in negative)
    assert passed == pytest.approx(ACCEPTED_NEGATIVES * len(negative), abs=2)
    for region, share in found.tpr_by_region.items():
        of_region = [one for one, place in positive if place == region]
        assert share == pytest.approx(sum(one > found.threshold for one in of_region) / len(of_region), abs=0.01)
    above = sum(one > found.threshold for one, _ in positive) / len(positive)
    assert found.metrics["tpr@1%fpr"] == pytest.approx(above, abs=0.01)
    right = 0
    for a in range(len(rows)):
        nearest = max((b for b in range(len(rows)) if b != a), key=lambda b: matrix[a, b])
        right += labels[nearest] == labels[a]
    assert found.metrics["recall@1"] == pytest.approx(right / len(rows), abs=0.02)


def test_an_anchor_accepts_what_lies_above_the_threshold(density) -> None:
    point_set, _ = density
    for protocol in ("known", "unseen"):
        anchor = int(point_set.held_out(protocol)[5])
        distances = np.linalg.norm(point_set.points - point_set.points[anchor], axis=1)
        found = accepted(point_set, anchor, -distances, -0.4)
        counts = {True: [0, 0], False: [0, 0]}
        for row in point_set.held_out(protocol):
            if row != anchor:
                of = counts[bool(point_set.labels[row] == point_set.labels[anchor])]
                of[0] += distances[row] < 0.4
                of[1] += 1
        assert [found.own, found.own_total] == counts[True]
        assert [found.others, found.others_total] == counts[False]


def test_what_comes_to_each_layer_is_what_the_equations_say() -> None:
    unit = PDDM(2, 5).eval()
    a, b = torch.randn(4, 2), torch.randn(4, 2)
    steps = inside(unit, a, b)
    assert torch.equal(steps.u, (a - b).abs()) and torch.equal(steps.v, (a + b) / 2)
    for hidden, layer, values in (
        (steps.u_hidden, unit.difference, steps.u), (steps.v_hidden, unit.position, steps.v),
    ):  # fmt: skip
        assert torch.allclose(hidden, torch.nn.functional.normalize(layer(values).relu(), dim=-1))
    assert torch.allclose(steps.joint, unit.joint(torch.cat([steps.u_hidden, steps.v_hidden], -1)).relu())
    assert torch.equal(steps.score, unit(a, b))
    assert not any(layer._forward_pre_hooks for layer in unit.children())


def test_a_region_without_pairs_is_not_measured(recwarn: pytest.WarningsRecorder) -> None:
    measured = measure_distance(without(make_point_set("grains"), "upright"))
    assert list(measured["known"].tpr_by_region) == ["lying"]
    assert list(measured["unseen"].tpr_by_region) == ["lying", "upright"]
    assert not recwarn
    table = table_of({"euclidean": measured})
    (row,) = table[(table["protocol"] == "known") & (table["metric"] == "recall@1")].to_dict("records")
    assert (row["run"], row["similarity"]) == ("plane", "euclidean")
    assert row["value"] == measured["known"].metrics["recall@1"]
