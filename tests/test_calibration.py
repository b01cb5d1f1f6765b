"""Calibration against slow loops, and on pairs whose chances are known because they were made so."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from pddm_lab.analysis.calibration import Calibration, calibrate, first_half, probability, reliability, weights
from pddm_lab.metrics.density import DENSITIES


def made(pairs: int, curve: tuple[float, float], shifts: tuple[float, float, float] = (0, 0, 0)) -> pd.DataFrame:
    """Pairs that are positive with the chance a logistic curve gives, and scores that are moved from third to third."""
    random = np.random.default_rng(0)
    score, density = random.normal(size=pairs), random.integers(0, 3, pairs)
    positive = random.random(pairs) < probability(curve, score)
    score += np.array(shifts)[density]
    label = random.integers(0, 40, pairs)
    other = (label + 2 * random.integers(1, 20, pairs)) % 40
    return pd.DataFrame(
        {"positive": positive, "label_a": label, "label_b": np.where(positive, label, other), "density": density,
         "s": score}
    )  # fmt: skip


def calibrated(pairs: pd.DataFrame, share: float) -> Calibration:
    found = calibrate(pairs, "s", share=share)
    assert found is not None
    return found


def test_a_perfectly_calibrated_score_is_found_to_be_one() -> None:
    pairs = made(60_000, (2.0, -1.0))
    # Positives stay, three of four negatives lie across the halves of the classes: weighted back to their true share.
    found = calibrated(pairs, float(pairs["positive"].mean()))
    slope, intercept = found.curves["all"]
    assert slope == pytest.approx(2, abs=0.1) and intercept == pytest.approx(-1, abs=0.1)
    for name in ("platt", "isotonic"):
        assert found.maps[name].error < 0.02
        assert found.maps[name].skill == pytest.approx(found.maps["platt"].skill, abs=0.01)
    assert found.gap < 0.05
    assert found.even() == pytest.approx(0.5, abs=0.05)


def test_a_score_that_means_something_else_in_sparse_regions_is_found_out() -> None:
    found = calibrated(made(60_000, (2.0, 0.0), shifts=(-1.0, 0.0, 1.0)), 0.5)
    even = [found.even(third) for third in DENSITIES]
    assert even == sorted(even) and even[2] - even[0] == pytest.approx(2, abs=0.25)
    said = found.predicted_at_even
    for third, at in zip(DENSITIES, even, strict=True):
        slope, intercept = found.curves["all"]
        assert said[third] == pytest.approx(1 / (1 + math.exp(-(slope * at + intercept))))
    assert found.gap == pytest.approx(said["sparse"] - said["dense"]) and found.gap > 0.4
    assert found.thirds["dense"].error > 0.1 > found.maps["platt"].error


def test_no_class_is_both_fitted_and_evaluated() -> None:
    pairs = made(4000, (2.0, -1.0))
    found = calibrated(pairs, 0.5)
    half = set(first_half(np.arange(40), 0).tolist())
    sides = [(row.label_a in half) + (row.label_b in half) for row in pairs.itertuples()]
    assert (found.fitted, found.evaluated, found.total) == (sides.count(2), sides.count(0), 4000)
    assert found.classes == (20, 20) and len(half) == 20


def test_reliability_is_that_of_a_slow_loop() -> None:
    random = np.random.default_rng(1)
    said, positive = random.random(200).round(2), random.random(200) < 0.3
    share = 0.1
    found = reliability(said, positive, share, bins=5)
    weight = weights(positive, share)
    assert weight[positive].sum() / weight.sum() == pytest.approx(share)
    edges = np.unique(np.quantile(said, np.linspace(0, 1, 6)))
    bins: dict[int, list[int]] = {}
    for pair, value in enumerate(said):
        place = max(at for at in range(len(edges) - 1) if value >= edges[at])
        bins.setdefault(place, []).append(pair)
    error = brier = 0.0
    for number, place in enumerate(sorted(bins)):
        mass = sum(weight[pair] for pair in bins[place])
        mean = sum(weight[pair] * said[pair] for pair in bins[place]) / mass
        share_found = sum(weight[pair] * positive[pair] for pair in bins[place]) / mass
        assert (found.predicted[number], found.observed[number]) == pytest.approx((mean, share_found))
        assert found.pairs[number] == len(bins[place])
        error += mass * abs(mean - share_found)
    for pair in range(200):
        brier += weight[pair] * (said[pair] - positive[pair]) ** 2
    assert found.error == pytest.approx(error / weight.sum())
    assert found.brier == pytest.approx(brier / weight.sum())
    assert found.skill == pytest.approx(1 - brier / weight.sum() / (share * (1 - share)))


def test_without_pairs_of_both_kinds_there_is_nothing_to_calibrate() -> None:
    pairs = made(400, (2.0, 0.0))
    assert calibrate(pairs[pairs["positive"]], "s") is None
    assert calibrate(pairs.head(0), "s") is None
    lone = made(4000, (2.0, 0.0))
    found = calibrated(lone[lone["density"] < 2], 0.5)
    assert math.isnan(found.gap) and "sparse" not in found.thirds
