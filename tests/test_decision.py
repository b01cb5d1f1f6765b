"""Decisions: probabilities of classes and of none, checked against slow loops and ranges that lack the class."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pddm_lab.analysis import decision
from pddm_lab.analysis.decision import Decision, Range, Shortlists, decision_of
from pddm_lab.applications.open_set import calibration_error, measure, open_set
from pddm_lab.errors import DataError, RunError
from pddm_lab.gallery import changes
from pddm_lab.local.unit import LocalStructure
from pddm_lab.model.similarity import make_similarity
from pddm_lab.runs.local import load_local
from pddm_lab.runs.model import load_similarities
from pddm_lab.runs.run import Run


def classes(count: int = 12, each: int = 8, dim: int = 16, spread: float = 0.6) -> tuple[torch.Tensor, np.ndarray]:
    """Features of classes, and their labels."""
    draw = torch.Generator().manual_seed(0)
    labels = np.repeat(np.arange(count) * 3, each)
    centres = torch.randn(count, dim, generator=draw)
    points = centres.repeat_interleave(each, 0) + spread * torch.randn(count * each, dim, generator=draw)
    return F.normalize(points, dim=1), labels


@pytest.mark.parametrize("own", [True, False])
def test_the_signs_are_those_of_a_slow_loop(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = classes()
    monkeypatch.setattr(decision, "FEWEST_NEAR", 60)
    of = Range.over(features, labels, make_similarity("euclidean", 16))
    rows = torch.tensor([0, 17, 40])
    near = of.nearest(features[rows], None, rows if own else None)
    signs = near.signs()
    for line, row in enumerate(rows.tolist()):
        scores = {item: -float((features[row] - features[item]).norm()) for item in range(len(features))}
        if own:
            del scores[row]
        order = sorted(scores, key=lambda item: -scores[item])[:60]
        first = labels[order[0]]
        mine = [scores[item] for item in order if labels[item] == first]
        others = [scores[item] for item in order if labels[item] != first]
        expected = [mine[0], mine[0] - others[0], mine[0] - float(np.mean(others[:20])), mine[1] - others[0]]
        assert near.first[line] == first
        np.testing.assert_allclose(signs[line], expected, atol=2e-3)


def test_signs_without_others_or_a_second_item_are_finite() -> None:
    lone = Shortlists.of(np.array([[1.0, 0.5]]), np.array([[3, 4]]))
    assert lone.signs().tolist() == [[1.0, 0.5, 0.5, 0.0]]
    same = Shortlists.of(np.array([[1.0, 0.5]]), np.array([[3, 3]]))
    assert np.isfinite(same.signs()).all()
    nothing = same.without(np.array([3]))
    assert np.isfinite(nothing.signs()).all()


def test_a_class_that_is_taken_out_is_as_if_it_had_never_been_there() -> None:
    features, labels = classes()
    of = Range.over(features, labels, make_similarity("euclidean", 16))
    rows = np.array([3, 50])
    _, without = of.ask(rows)
    for line, row in enumerate(rows):
        expected = of.keeping(labels != labels[row]).nearest(features[row : row + 1])
        there = without.scores[line] > -np.inf
        assert without.labels[line][there].tolist() == expected.labels[0].tolist()
        np.testing.assert_allclose(without.scores[line][there], expected.scores[0], atol=1e-5)


def test_neighbourhoods_are_built_without_the_classes_that_are_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = classes(8, 10)
    structure = LocalStructure(16, False, 0.0, 1).eval()
    of = Range.over(features, labels, structure)
    monkeypatch.setattr(decision, "PARTS", 8)  # a class each
    rows = np.array([0, 33, 79])
    _, without = of.ask(rows, seed=1)
    for line, row in enumerate(rows):
        expected = of.keeping(labels != labels[row]).nearest(features[row : row + 1])
        assert labels[row] not in without.labels[line]
        np.testing.assert_allclose(without.scores[line][without.scores[line] > -np.inf], expected.scores[0], atol=1e-4)


def test_the_probability_follows_the_formula() -> None:
    fitted = Decision((1.0, 2.0, 0.0, -1.0), 0.5, 0.9, 0.05, 0.9, 100)
    near = Shortlists.of(np.array([[0.2, 1.0, 0.6]]), np.array([[7, 5, 5]]))
    logit = 1.0 * 1.0 + 2.0 * (1.0 - 0.2) - 1.0 * (0.6 - 0.2) + 0.5
    assert fitted.probability(near) == pytest.approx([1 / (1 + math.exp(-logit))])
    assert fitted.in_range(np.array([0.91, 0.9])).tolist() == [True, False]


def test_the_fit_has_no_slope_left() -> None:
    """At the largest likelihood of a logistic function, the means of predicted and observed are equal."""
    features, labels = classes(20, 10, spread=0.9)
    of = Range.over(features, labels, make_similarity("cosine", 16))
    fitted = Decision.fit(of)
    whole, without = of.ask(np.arange(len(labels)))
    right = whole.first == labels
    predicted = np.concatenate([fitted.probability(whole), fitted.probability(without)])
    assert predicted.mean() == pytest.approx(right.mean() / 2, abs=1e-3)
    assert fitted.probability(whole).mean() > fitted.probability(without).mean() + 0.2


@pytest.mark.parametrize("aim", [0.02, 0.1, 0.3])
def test_the_threshold_keeps_its_share_of_false_accepts(aim: float) -> None:
    features, labels = classes(60, 12)
    similarity = make_similarity("euclidean", 16)
    inside = labels < 90
    fitted = Decision.fit(Range.over(features[inside], labels[inside], similarity), aim)
    near = Range.over(features[inside], labels[inside], similarity).nearest(features[~inside])
    assert fitted.in_range(fitted.probability(near)).mean() == pytest.approx(aim, abs=0.05 + 0.3 * aim)
    assert 0.7 < fitted.hits <= 1


def test_too_few_items_decide_nothing() -> None:
    features, labels = classes(12, 1)
    with pytest.raises(DataError, match="Too few items to decide by"):
        Decision.fit(Range.over(features, labels, make_similarity("euclidean", 16)))
    features, labels = classes(1, 40)
    with pytest.raises(DataError, match="of two classes"):
        Decision.fit(Range.over(features, labels, make_similarity("euclidean", 16)))


def test_where_no_item_gets_its_class_nothing_is_decided() -> None:
    """Two items of each class are at opposite places, and each is next to one of another class."""
    angles = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    features = torch.from_numpy(np.column_stack([np.cos(angles), np.sin(angles)])).float()
    of = Range.over(features, np.arange(20) % 10, make_similarity("euclidean", 2))
    with pytest.raises(DataError, match=r"Nothing to decide by: .* got none among 20"):
        Decision.fit(of)


def test_where_all_items_get_their_class_it_is_decided() -> None:
    features, labels = classes(12, 4, spread=0.01)
    fitted = Decision.fit(Range.over(features, labels, make_similarity("euclidean", 16)))
    assert fitted.hits == 1


@pytest.mark.parametrize("name", ["euclidean", "pddm", "local"])
def test_a_query_is_decided_on_among_as_many_items_as_were_looked_at(
    local_run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, gallery = load_local(local_run), local_run.gallery("unseen")
    by = local.structure if name == "local" and local else load_similarities(local_run)[name]
    monkeypatch.setattr(decision, "FEWEST_NEAR", 30)
    of, searched = Range.of(gallery, by), gallery.rows("gallery")
    fitted, rows, own = Decision.fit(of), searched[[3, 20, 41]], torch.tensor([3, 20, 41])
    near = of.nearest(of.features[own], None if of.pretrained is None else of.pretrained[own], own)
    assert near.scores.shape[1] == 30
    names = gallery.items.drop_duplicates("label").set_index("label")["class_name"]
    for at, row in enumerate(rows):
        first, probability, in_range = fitted.of_query(gallery, by, np.array(gallery.features[row]), int(row))
        assert first == names[near.first[at]]
        assert probability == pytest.approx(fitted.probability(near)[at], abs=1e-4)
        assert in_range == fitted.in_range(np.array([probability]))[0]


def test_the_metrics_of_an_open_set_by_hand() -> None:
    known = np.array([True, True, True, False, False])
    right = np.array([True, True, False, False, False])
    none = np.array([0.1, 0.3, 0.5, 0.2, 0.9])
    found = measure(1 - none, right, known, 0.6)
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


@pytest.mark.parametrize("name", ["euclidean", "local"])
def test_a_decision_is_kept_until_the_items_change(
    local_run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(local_run.path, tmp_path / "one", ignore=shutil.ignore_patterns("decision-*"))
    run, local = Run.open(tmp_path / "one"), load_local(local_run)
    by = local.structure if name == "local" and local else load_similarities(local_run)[name]
    first = decision_of(run, run.gallery("unseen"), name, by, 60)
    assert first is not None and first.items == 60
    monkeypatch.setattr(Decision, "fit", lambda *_, **__: pytest.fail("it was kept"))
    assert decision_of(run, run.gallery("unseen"), name, by, 60) == first

    def too_few(*_, **__) -> None:
        raise DataError("Too few items to decide by.")

    monkeypatch.setattr(Decision, "fit", too_few)
    assert decision_of(run, run.gallery("unseen"), name, by, 50) is None
    changes.remove(run.gallery("unseen"), [str(run.gallery("unseen").items["id"].iloc[0])])
    assert decision_of(run, run.gallery("unseen"), name, by, 60) is None
    (run.path / f"decision-unseen-{name}.json").write_text('{"key": "", "decision": {"weights": [1]}}')
    assert decision_of(run, run.gallery("unseen"), name, by, 60) is None
