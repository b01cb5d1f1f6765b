"""What the pages list, count and filter, recomputed slowly."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from app_pages.runs import tables
from app_pages.similarity.text import Scale

from pddm_lab.analysis.pairs import Pairs
from pddm_lab.config import TrainConfig
from pddm_lab.metrics.separation import histogram
from pddm_lab.similarities import SIMILARITIES


class FakeGallery:
    """Labels and roles alone: what counting pairs needs."""

    def __init__(self, labels: list[int], roles: list[str], distributions: dict) -> None:
        self.items = pd.DataFrame({"label": labels, "role": roles})
        self.distributions = distributions


@pytest.mark.parametrize("roles", [["both"] * 6, ["query", "query", "query", "gallery", "gallery", "gallery"]])
def test_pairs_are_counted_as_the_protocol_counts_them(roles: list[str]) -> None:
    labels = [0, 0, 1, 0, 1, 2]
    every = list(combinations(range(6), 2) if roles[0] == "both" else product(range(3), range(3, 6)))
    pairs = Pairs.of(FakeGallery(labels, roles, dict.fromkeys(SIMILARITIES)))  # type: ignore[arg-type]
    assert pairs.positives == sum(labels[a] == labels[b] for a, b in every)
    assert pairs.positives + pairs.negatives == len(every)


def test_precision_is_that_of_all_pairs_where_a_sample_was_scored() -> None:
    positive, negative = np.linspace(0, 1, 100), np.linspace(-1, 0.5, 1000)
    pairs = Pairs({"pddm": histogram(positive, negative, 100_100)}, 1, 1, positives=100, negatives=100_000)
    tpr, fpr, precision = pairs.rates("pddm", 0.25)
    assert tpr == pytest.approx(0.75, abs=0.01)
    assert fpr == pytest.approx(1 / 6, abs=0.01)
    assert precision == pytest.approx(75 / (75 + 100_000 / 6), rel=0.02)
    assert np.isnan(pairs.rates("pddm", 2.0)[2])
    assert "1,100 were scored" in pairs.counted


@pytest.mark.parametrize("ends", [(0.0, 1.414), (-0.0151, 0.0233), (-812.3, 3500.0), (0.5, 1.5)])
def test_a_scale_holds_all_values_in_round_steps(ends: tuple[float, float]) -> None:
    scale = Scale.over(np.array(ends))
    assert scale.low <= ends[0]
    assert ends[1] <= scale.high
    assert 20 <= (scale.high - scale.low) / scale.step <= 5000
    assert scale.low <= scale.nearest(ends[0]) <= scale.nearest(ends[1]) <= scale.high
    assert round(scale.low, scale.decimals) == scale.low


def test_a_run_is_named_after_its_similarity_or_its_rival_loss() -> None:
    assert TrainConfig(similarity="mahalanobis").trained_by == "Mahalanobis"
    assert TrainConfig(loss="arcface").trained_by == "ArcFace"


def test_settings_that_differ_from_the_preset_leave_out_where_a_run_lies() -> None:
    config = TrainConfig.from_parameters({"preset": "quick", "steps": 7, "runs_root": "/somewhere", "run_name": "a"})
    changed = tables.changed_from_preset(config)
    assert changed["setting"].tolist() == ["steps"]
    assert changed["this run"].tolist() == ["7"]
