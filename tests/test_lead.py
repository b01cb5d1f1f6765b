"""The lead of a similarity over D: against the run's own metrics, plain loops, and sentences known by heart."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pddm_lab.analysis import lead as leads
from pddm_lab.analysis.lead import D, Judged, Lead, between, judge_queries, judged, kept, lead, sentence, strongest
from pddm_lab.metrics.intervals import percentile_interval, resampled_means
from pddm_lab.runs.compare import load_rivals, rivals_of
from pddm_lab.runs.run import Run

LABELS = np.array([3, 3, 3, 7, 7, 9, 9, 9, 9])
OURS = np.array([0.9, 0.2, 0.5, 1.0, 0.0, 0.4, 0.6, 0.5, 0.5])
THEIRS = np.array([0.5, 0.4, 0.5, 0.1, 0.3, 0.4, 0.1, 0.9, 0.3])
SMALL = Judged(np.arange(9), {D: THEIRS, "local": OURS}, {D: THEIRS > 0.35, "local": OURS > 0.35}, 12)  # type: ignore[dict-item]
AHEAD = Lead("local", 0.051, 0.039, 0.062, 30, 10, 50, 8)


@pytest.mark.parametrize("protocol", ["unseen", "known"])
def test_the_queries_average_to_what_the_run_measured(local_run, protocol: str) -> None:
    of, gallery = judge_queries(local_run.gallery(protocol), load_rivals(local_run)), local_run.gallery(protocol)
    measured, labels = local_run.info["metrics"][protocol], gallery.items["label"].to_numpy()
    assert rivals_of(local_run) == ("local", "pddm") and of.total == len(gallery.rows("query"))
    for name in (D, "local"):
        assert of.precision[name].mean() == pytest.approx(measured[name]["map@r"], abs=1e-4)
        assert of.right[name].mean() == pytest.approx(measured[name]["recall@1"], abs=1e-6)
    ahead = lead(of, labels, "local")
    assert ahead.difference == pytest.approx(measured["local"]["map@r"] - measured[D]["map@r"], abs=1e-4)
    assert ahead.low < ahead.difference < ahead.high and ahead.queries == len(of.rows)
    assert lead(of, labels, "local", "recall@1").difference == pytest.approx(
        measured["local"]["recall@1"] - measured[D]["recall@1"], abs=1e-6
    )


def test_what_was_computed_is_kept_until_the_items_or_the_weights_change(
    local_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(local_run.path, tmp_path / "local", ignore=shutil.ignore_patterns("lead-*"))
    run, by = Run.open(tmp_path / "local"), load_rivals(local_run)
    gallery, steps = run.gallery("unseen"), []
    assert kept(run, gallery, by) is None
    first = judged(run, gallery, by, lambda done, total, what: steps.append((done, total, what)))
    assert steps[-1][:2] == (3 * len(first.rows), 3 * len(first.rows)) and "Local structure" in {
        what.partition("by ")[2] for _, _, what in steps
    }
    monkeypatch.setattr(leads, "judge_queries", lambda *_: pytest.fail("it was kept"))
    again = judged(run, gallery, by)
    assert again.rows.tolist() == first.rows.tolist() and again.total == first.total
    for name in (D, *by):
        np.testing.assert_array_equal(again.precision[name], first.precision[name])
    assert kept(run, run.gallery("known"), by) is None
    assert kept(run, gallery, {"pddm": by["pddm"]}) is None
    file = run.path / "lead-unseen.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    assert kept(run, gallery, by) is None


def test_a_sample_of_many_queries_is_ranked(digits_run, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = digits_run.gallery("known")
    every, some = (judge_queries(gallery, {}, queries=leads.sample(gallery, most)) for most in (5000, 40))
    assert (len(some.rows), some.total) == (40, every.total) and set(some.rows) < set(every.rows)
    at = np.searchsorted(every.rows, some.rows)
    np.testing.assert_allclose(every.precision[D][at], some.precision[D])
    monkeypatch.setattr(leads, "MOST_DISTANCES", 1)
    monkeypatch.setattr(leads, "FEWEST_QUERIES", 7)
    assert len(judge_queries(gallery, {}).rows) == 7


@pytest.mark.parametrize("wins", [True, False])
@pytest.mark.parametrize("one_a_class", [True, False])
def test_the_strongest_queries_are_those_of_a_loop(wins: bool, one_a_class: bool) -> None:
    expected: list[int] = []
    for _ in range(3):
        best, chosen = 0.0, -1
        for at in range(9):
            gain = (OURS[at] - THEIRS[at]) * (1 if wins else -1)
            is_new = at not in expected and not (one_a_class and LABELS[at] in LABELS[expected])
            if is_new and gain > best:
                best, chosen = gain, at
        expected += [chosen] if chosen >= 0 else []
    assert strongest(SMALL, LABELS, "local", wins, 3, one_a_class).tolist() == expected


def test_the_lead_counts_queries_and_has_an_interval_over_classes() -> None:
    of = lead(SMALL, LABELS, "local")
    assert (of.better, of.worse, of.queries, of.classes) == (4, 3, 9, 3)
    assert of.difference == pytest.approx(sum(OURS - THEIRS) / 9)
    assert (of.low, of.high) == tuple(percentile_interval(resampled_means(OURS - THEIRS, LABELS)))
    last = {name: each[5:] for name, each in SMALL.precision.items()}
    one = lead(replace(SMALL, rows=np.arange(5, 9), precision=last), LABELS, "local")
    assert one.classes == 1 and math.isnan(one.low) and one.sign == 0


def test_sentences() -> None:
    unseen, known = "On classes it has never met", "On new pictures of its training classes"
    assert sentence(AHEAD, "unseen") == f"{unseen}, L finds 5.1 points (3.9 to 6.2) more MAP@R than D."
    behind = replace(AHEAD, similarity="pddm", difference=-0.012, low=-0.02, high=-0.003)
    assert sentence(behind, "known") == f"{known}, S finds 1.2 points (0.3 to 2.0) less MAP@R than D."
    level = replace(AHEAD, difference=0.004, low=-0.003, high=0.008)
    text = f"{unseen}, L and D are level: the difference in MAP@R lies between −0.3 and +0.8 points."
    assert sentence(level, "unseen") == text and (level.sign, behind.sign, AHEAD.sign) == (0, -1, 1)
    same = replace(AHEAD, similarity="pddm", difference=0.0, low=0.0, high=0.0, better=0, worse=0)
    assert sentence(same, "unseen") == f"{unseen}, S ranks as D does: no query of 50 has another MAP@R."
    alone = Lead(D, 0.351, 0.34, 0.362, 0, 0, 50, 8)
    assert sentence(alone, "unseen") == f"{unseen}, D reaches 35.1 % (34.0 to 36.2) MAP@R."
    one = replace(AHEAD, low=math.nan, high=math.nan, classes=1)
    assert sentence(one, "unseen") == f"{unseen} there is one class: L and D differ by +5.1 points of MAP@R on it."
    assert "nothing can be measured" in sentence(replace(AHEAD, queries=0, classes=0), "unseen")


def test_two_runs_are_compared_on_the_queries_that_both_have() -> None:
    ids, classes = [f"item-{at}" for at in range(9)], [f"class {label}" for label in LABELS]
    order = np.array([4, 0, 8, 7, 1, 2, 3])  # the other gallery has seven of the items, in another order
    other = Judged(np.arange(7), {D: OURS[order]}, {D: OURS[order] > 0.35}, 7)  # type: ignore[dict-item]
    made = between(SMALL, other, (ids, [ids[at] for at in order]), (D, D), classes)
    both = np.sort(order)
    assert (made.queries, made.classes, made.similarity) == (7, 3, D)
    assert made.difference == pytest.approx((THEIRS - OURS)[both].mean())
    ends = percentile_interval(resampled_means((THEIRS - OURS)[both], LABELS[both]))
    assert (made.low, made.high) == pytest.approx(tuple(ends))
    assert between(SMALL, other, (ids, ["x"] * 7), (D, D), classes).queries == 0
