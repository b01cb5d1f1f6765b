"""What thresholds do to pairs agrees with counting them one by one, also with few, equal or no pairs of a kind."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from pddm_lab.analysis.thresholds import (
    QUADRANTS,
    _class_weights,
    around_threshold,
    by_density,
    clearest_first,
    quadrant_of,
    rates_by_density,
    threshold_at_fpr,
    who_is_right,
)
from pddm_lab.metrics.density import DENSITIES, local_radius
from pddm_lab.metrics.intervals import percentile_interval
from pddm_lab.model.similarity import Euclidean


def made_up(count: int = 600, classes: int = 7, seed: int = 0, decimals: int = 2) -> pd.DataFrame:
    """Pairs with many equal values, in classes that aren't numbered without gaps."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, classes, count)
    positive = rng.random(count) < 0.4
    b = np.where(positive, a, (a + rng.integers(1, classes, count)) % classes)
    density = rng.integers(0, 3, count)
    values = {name: (rng.normal(size=count) + positive - 0.4 * density).round(decimals) for name in ("d", "s")}
    frame = pd.DataFrame({"positive": positive, "label_a": 2 * a, "label_b": 2 * b, "density": density} | values)
    return frame.astype({"d": np.float32, "s": np.float32})


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.5])
def test_the_threshold_is_the_lowest_that_keeps_the_share(share: float) -> None:
    pairs = made_up()
    negative = pairs.loc[~pairs["positive"], "d"].to_numpy()
    at = threshold_at_fpr(pairs, "d", share)
    assert (negative >= at).mean() <= share
    lower = max(value for value in negative if value < at)
    assert (negative >= lower).mean() > share
    assert math.isnan(threshold_at_fpr(pairs[pairs["positive"]], "d", share))


def test_the_nearest_either_side() -> None:
    pairs = made_up(decimals=6)
    found = around_threshold(pairs, "s", 0.3, 4)
    assert len(found) == 16 and found["s"].is_monotonic_increasing
    for kind in (True, False):
        values = sorted(pairs.loc[pairs["positive"] == kind, "s"])
        below, above = [one for one in values if one < 0.3], [one for one in values if one >= 0.3]
        of_kind = found[found["positive"] == kind]
        assert list(of_kind["s"]) == below[-4:] + above[:4]
        assert list(of_kind["accepted"]) == 4 * [False] + 4 * [True]
    assert len(around_threshold(pairs, "s", 99, 4)) == 8
    assert around_threshold(pairs[:0], "s", 0.3, 4).empty


def test_quadrants_and_who_is_right_in_them() -> None:
    pairs = made_up()
    quadrant = quadrant_of(pairs, "d", "s", 0.5, 0.2)
    right: dict[bool, list[bool]] = {True: [], False: []}
    for code, row in zip(quadrant, pairs.itertuples(), strict=True):
        accepts = {"x": row.d >= np.float32(0.5), "y": row.s >= np.float32(0.2)}
        expected = {(0, 0): "neither", (1, 0): "x", (0, 1): "y", (1, 1): "both"}[accepts["x"], accepts["y"]]
        assert QUADRANTS[code] == expected
        if accepts["x"] != accepts["y"]:
            right[row.positive].append(accepts["y"] == row.positive)
    for kind, share in who_is_right(pairs, quadrant).items():
        assert share.pairs == len(right[kind])
        assert share.value == pytest.approx(np.mean(right[kind]))
        assert share.low < share.value < share.high
    nowhere = who_is_right(pairs, np.zeros(len(pairs), int))[True]
    assert nowhere.pairs == 0 and math.isnan(nowhere.value) and math.isnan(nowhere.low)


def test_the_clearest_are_far_from_both_thresholds() -> None:
    pairs = made_up()
    order = clearest_first(pairs, "d", "s", 0.5, 0.2)
    margins = [
        min(abs(row.d - 0.5) / pairs["d"].astype(float).std(ddof=0), abs(row.s - 0.2) / pairs["s"].std(ddof=0))
        for row in pairs.iloc[order].itertuples()
    ]
    assert margins == pytest.approx(sorted(margins, reverse=True))
    assert sorted(order) == list(range(len(pairs)))


def slowly(pairs: pd.DataFrame, share: float, weights: np.ndarray) -> dict[str, list[float]]:
    """Rates of each third, pair by pair, a class counting as often as its weight says."""
    classes = sorted({*pairs["label_a"], *pairs["label_b"]})
    weight_of = dict(zip(classes, weights, strict=True))
    rows = [
        (row.positive, row.density, float(row.d),
         weight_of[row.label_a] * (1 if row.positive else weight_of[row.label_b]))
        for row in pairs.itertuples()
    ]  # fmt: skip

    def threshold(negative: list[tuple]) -> float:
        """The value to stay above."""
        total = sum(row[3] for row in negative)
        for value in sorted({row[2] for row in negative if row[3]}):
            if sum(row[3] for row in negative if row[2] > value) <= share * total * (1 + 1e-9):
                return value
        return math.nan

    def rate(of: list[tuple], above: float) -> float:
        total = sum(row[3] for row in of)
        return sum(row[3] for row in of if row[2] > above) / total if total and not math.isnan(above) else math.nan

    found: dict[str, list[float]] = {"tpr": [], "fpr": [], "own_tpr": []}
    at = threshold([row for row in rows if not row[0]])
    for third in range(len(DENSITIES)):
        positive, negative = ([row for row in rows if row[0] == kind and row[1] == third] for kind in (True, False))
        found["tpr"].append(rate(positive, at))
        found["fpr"].append(rate(negative, at))
        found["own_tpr"].append(rate(positive, threshold(negative)))
    return found


@pytest.mark.parametrize("share", [0.01, 0.1])
@pytest.mark.parametrize("count", [40, 600])
def test_each_third_and_each_draw_is_counted_as_slowly(count: int, share: float) -> None:
    pairs = made_up(count)
    result = by_density(pairs, "d", share)
    classes = len({*pairs["label_a"], *pairs["label_b"]})
    for name, expected in slowly(pairs, share, np.ones(classes)).items():
        assert list(result.table[name]) == pytest.approx(expected)
    for draw, weights in enumerate(_class_weights(classes)[:12]):
        for name, expected in slowly(pairs, share, weights).items():
            np.testing.assert_allclose(result.draws[name][draw], expected, err_msg=f"{name}, draw {draw}")
    low, high = percentile_interval(result.draws["tpr"])
    assert list(result.table["tpr_low"]) == pytest.approx(low) and list(result.table["tpr_high"]) == pytest.approx(high)
    assert result.threshold == threshold_at_fpr(pairs, "d", share)
    positive = pairs[pairs["positive"]]
    assert result.tpr == pytest.approx((positive["d"] >= result.threshold).mean())
    for third in range(3):
        of = pairs[pairs["density"] == third]
        assert result.table["own"][third] == pytest.approx(threshold_at_fpr(of, "d", share))
        assert result.table["positives"][third] == of["positive"].sum()
        assert result.table["negatives"][third] == (~of["positive"]).sum()
    np.testing.assert_array_equal(result.gap("tpr"), result.draws["tpr"][:, 0] - result.draws["tpr"][:, 2])


def test_a_threshold_that_fails_where_it_is_sparse_is_found() -> None:
    """A distance that grows with the place's scale, and one that is measured in it."""
    rng = np.random.default_rng(1)
    count = 6000
    density, positive = np.repeat([0, 1, 2], count // 3), rng.random(count) < 0.5
    away = np.where(positive, 1.0, 2.0) + 0.2 * rng.normal(size=count)
    a = rng.integers(0, 50, count)
    b = np.where(positive, a, (a + rng.integers(1, 50, count)) % 50)
    pairs = pd.DataFrame({"positive": positive, "label_a": a, "label_b": b, "density": density})
    pairs = pairs.assign(local=-away.astype(np.float32), blind=-(away * 2.0**density).astype(np.float32))
    blind, local = (by_density(pairs, name) for name in ("blind", "local"))
    assert blind.table["tpr"][2] == 0 and blind.table["own_tpr"][2] > 0.95
    assert percentile_interval(blind.gap("tpr"))[0] > 0.9
    low, high = percentile_interval(local.gap("tpr"))
    assert low < 0 < high


@pytest.mark.parametrize(
    "some",
    [
        lambda pairs: pairs[:0],
        lambda pairs: pairs[pairs["positive"]],
        lambda pairs: pairs[~pairs["positive"]],
        lambda pairs: pairs[pairs["density"] == 1],
        lambda pairs: pairs[:1],
    ],
)
def test_what_is_not_there_is_nan(some) -> None:
    pairs = some(made_up())
    table = by_density(pairs, "d").table
    for row in table.itertuples():
        assert math.isnan(row.fpr) == (not row.negatives)
        assert math.isnan(row.tpr) == (not row.positives or pairs["positive"].all())
        assert math.isnan(row.own) == (not row.negatives)


def test_one_threshold_misses_the_sparse_pairs() -> None:
    """Two tight classes beside two wide ones: a global threshold accepts the tight ones' pairs alone."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 30)
    spread = np.where(labels < 2, 0.05, 1.0)[:, None]
    centres = np.eye(4)[labels] * 3
    features = torch.from_numpy((centres + spread * rng.normal(size=(120, 4))).astype(np.float32))
    found = rates_by_density(Euclidean(), features, features, labels, labels, True)
    assert found["tpr_dense"] == 1.0 and found["tpr_sparse"] < 0.6
    assert found["fpr_dense"] <= 0.05


@pytest.mark.parametrize("leave_one_out", [True, False])
def test_rates_of_an_embedding_are_those_of_a_slow_loop(leave_one_out: bool) -> None:
    rng = np.random.default_rng(2)
    query, query_labels = rng.normal(size=(40, 3)).astype(np.float32), rng.integers(0, 4, 40)
    gallery, labels = (query, query_labels) if leave_one_out else (query[::-1] + np.float32(0.1), query_labels[::-1])
    radius = local_radius(query if leave_one_out else np.concatenate([query, gallery]))
    places: dict[bool, list[float]] = {True: [], False: []}
    scores: dict[bool, list[float]] = {True: [], False: []}
    for i in range(40):
        for j in range(i + 1 if leave_one_out else 0, 40):
            kind = bool(query_labels[i] == labels[j])
            places[kind].append((radius[i] + radius[j if leave_one_out else 40 + j]) / 2)
            scores[kind].append(-float(np.linalg.norm(query[i].astype(float) - gallery[j])))
    highest = sorted(scores[False])[len(scores[False]) - 1 - len(scores[False]) // 100]
    bounds = np.quantile(np.array(places[True]), [1 / 3, 2 / 3])
    ends = torch.from_numpy(query), torch.from_numpy(gallery.copy())
    rates = rates_by_density(Euclidean(), *ends, query_labels, labels, leave_one_out)
    for rate, kind in (("tpr", True), ("fpr", False)):
        for third, name in enumerate(DENSITIES):
            passed = [score > highest + 1e-6 for score, place in zip(scores[kind], places[kind], strict=True)
                      if (place > bounds).sum() == third]  # fmt: skip
            assert rates[f"{rate}_{name}"] == pytest.approx(np.mean(passed))
