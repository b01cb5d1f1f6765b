"""Decisions: probabilities of classes and of none, checked against slow loops and ranges that lack the class."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pddm_lab.analysis import decision
from pddm_lab.analysis.decision import ClassScores, Decision, Range
from pddm_lab.applications.open_set import calibration_error, measure, open_set
from pddm_lab.errors import DataError, RunError
from pddm_lab.local.unit import LocalStructure
from pddm_lab.model.similarity import make_similarity


def classes(count: int = 12, each: int = 8, dim: int = 16, spread: float = 0.6) -> tuple[torch.Tensor, np.ndarray]:
    """Features of classes, and their labels."""
    draw = torch.Generator().manual_seed(0)
    labels = np.repeat(np.arange(count) * 3, each)
    centres = torch.randn(count, dim, generator=draw)
    points = centres.repeat_interleave(each, 0) + spread * torch.randn(count * each, dim, generator=draw)
    return F.normalize(points, dim=1), labels


@pytest.mark.parametrize("own", [True, False])
def test_class_scores_are_those_of_a_slow_loop(own: bool) -> None:
    features, labels = classes()
    of = Range.over(features, labels, make_similarity("euclidean", 16))
    rows = torch.tensor([0, 17, 40])
    best = of.best(features[rows], None, rows if own else None)
    for line, row in enumerate(rows.tolist()):
        expected: dict[int, float] = {}
        for item in range(len(features)):
            if not (own and item == row):
                score = -float((features[row] - features[item]).norm())
                expected[int(labels[item])] = max(expected.get(int(labels[item]), -math.inf), score)
        found = dict(zip(best.labels[line].tolist(), best.scores[line].tolist(), strict=True))
        assert found.keys() == expected.keys()
        assert [found[label] for label in expected] == pytest.approx(list(expected.values()), abs=2e-3)
        assert (np.diff(best.scores[line]) <= 0).all(), "the most similar first"


def test_a_class_that_is_taken_out_is_as_if_it_had_never_been_there() -> None:
    features, labels = classes()
    of = Range.over(features, labels, make_similarity("euclidean", 16))
    rows = np.array([3, 50])
    _, without = of.ask(rows)
    for line, row in enumerate(rows):
        lacking = of.keeping(labels != labels[row])
        expected = lacking.best(features[row : row + 1])
        order = np.argsort(-without.scores[line], kind="stable")[: expected.scores.shape[1]]
        assert without.labels[line][order].tolist() == expected.labels[0].tolist()
        np.testing.assert_allclose(without.scores[line][order], expected.scores[0], atol=1e-5)


def test_neighbourhoods_are_built_without_the_classes_that_are_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = classes(8, 10)
    structure = LocalStructure(16, False, 0.0, 1).eval()
    of = Range.over(features, labels, structure)
    monkeypatch.setattr(decision, "PARTS", 8)  # a class each
    rows = np.array([0, 33, 79])
    _, without = of.ask(rows, seed=1)
    for line, row in enumerate(rows):
        expected = of.keeping(labels != labels[row]).best(features[row : row + 1])
        assert labels[row] not in without.labels[line]
        np.testing.assert_allclose(without.scores[line][without.scores[line] > -np.inf], expected.scores[0], atol=1e-4)


def test_probabilities_add_up_and_follow_the_formula() -> None:
    fitted = Decision(0.5, -1.0, 0.4, 0.05, 0.9, 100)
    shares, none = fitted.probabilities(ClassScores(np.array([[0.0, -1.0, -np.inf]]), np.array([[4, 2, -1]])))
    parts = [math.exp(0 / 0.5), math.exp(-1 / 0.5), 0.0, math.exp(-1 / 0.5)]
    np.testing.assert_allclose([*shares[0], none[0]], np.array(parts) / sum(parts))
    assert fitted.in_range(np.array([0.39, 0.4])).tolist() == [True, False]


def test_the_fit_is_the_most_likely_one() -> None:
    features, labels = classes()
    of = Range.over(features, labels, make_similarity("cosine", 16))
    fitted = Decision.fit(of)
    whole, without = of.ask(np.arange(len(labels)))

    def loss(scale: float, none: float) -> float:
        one = Decision(scale, none, 1.0, 0.05, 0.0, 0)
        shares, _ = one.probabilities(whole)
        right = (shares * (whole.labels == labels[:, None])).sum(1)
        return float(-np.log(right).mean() - np.log(one.probabilities(without)[1]).mean())

    best = loss(fitted.scale, fitted.none)
    for factor in (0.8, 0.95, 1.05, 1.25):
        assert loss(fitted.scale * factor, fitted.none) > best - 1e-4
        assert loss(fitted.scale, fitted.none + (factor - 1) * fitted.scale) > best - 1e-4


@pytest.mark.parametrize("aim", [0.02, 0.1, 0.3])
def test_the_threshold_keeps_its_share_of_false_accepts(aim: float) -> None:
    features, labels = classes(60, 12)
    similarity = make_similarity("euclidean", 16)
    inside = labels < 90
    fitted = Decision.fit(Range.over(features[inside], labels[inside], similarity), aim)
    none = fitted.probabilities(Range.over(features[inside], labels[inside], similarity).best(features[~inside]))[1]
    assert fitted.in_range(none).mean() == pytest.approx(aim, abs=0.05 + 0.3 * aim)
    assert 0.7 < fitted.found <= 1


def test_too_few_items_decide_nothing() -> None:
    features, labels = classes(12, 1)
    with pytest.raises(DataError, match="Too few items to decide by"):
        Decision.fit(Range.over(features, labels, make_similarity("euclidean", 16)))
    features, labels = classes(1, 40)
    with pytest.raises(DataError, match="of two classes"):
        Decision.fit(Range.over(features, labels, make_similarity("euclidean", 16)))


def test_the_metrics_of_an_open_set_by_hand() -> None:
    known = np.array([True, True, True, False, False])
    right = np.array([True, True, False, False, False])
    none = np.array([0.1, 0.3, 0.5, 0.2, 0.9])
    found = measure(1 - none, none, right, known, 0.4)
    assert found["recall@1"] == pytest.approx(2 / 3) and found["found"] == pytest.approx(2 / 3)
    assert found["false_accepts"] == pytest.approx(1 / 2)
    assert found["auroc"] == pytest.approx((2 + 1 + 1) / 6)  # of six pairs 0.1 beats both, 0.3 and 0.5 one
    # (false accepts, found): 0.1 -> (0, 1/3), 0.2 -> (1/2, 1/3), 0.3 -> (1/2, 2/3), 0.5 -> the same, 0.9 -> (1, 2/3)
    assert found["oscr"] == pytest.approx(1 / 2 * 1 / 3 + 1 / 2 * 2 / 3)


def test_the_calibration_error_by_hand() -> None:
    predicted = np.repeat([0.2, 0.8], 150)
    observed = np.concatenate([np.arange(150) < 30, np.arange(150) < 90])  # 0.2 and 0.6 of them
    assert calibration_error(predicted, observed, np.ones(300)) == pytest.approx(0.1)
    assert calibration_error(predicted, observed, np.where(predicted < 0.5, 1.0, 3.0)) == pytest.approx(0.15)


def test_a_run_is_measured_by_each_of_its_similarities(local_run) -> None:
    table = open_set(local_run, draws=1, protocols=("unseen",))
    assert table["similarity"].tolist() == ["euclidean", "mahalanobis", "pddm", "local"]
    assert table[["auroc", "oscr", "found", "false_accepts", "ece"]].apply(lambda one: one.between(0, 1)).all(axis=None)
    assert (table["oscr"] <= table["recall@1"] + 1e-9).all() and (table["auroc"] > 0.6).all()


def test_without_labels_nothing_is_known_to_be_in_the_range(digits_run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(digits_run.info["dataset"], "labelled", False)
    with pytest.raises(RunError, match="have no labels"):
        open_set(digits_run)
