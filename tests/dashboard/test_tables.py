"""What the pages list, count and filter, recomputed slowly."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
import tables
from pairs import Pairs, Scale

from pddm_lab.config import TrainConfig
from pddm_lab.separation import histogram


def quadruplets() -> pd.DataFrame:
    random = np.random.default_rng(0)
    count = 40
    frame = pd.DataFrame({name: random.choice(list("abcdefgh"), count) for name in "ijkl"})
    frame.loc[frame["i"] == frame["j"], "j"] = "other"
    frame["step"], frame["phase"] = np.repeat(np.arange(1, 11), 4), "refit"
    for name in ("class_i", "class_k", "class_l"):
        frame[name] = random.choice(["x", "y", "z"], count)
    for name in ("s_ij", "slack_ik", "slack_jl"):
        frame[name] = random.normal(size=count)
    mirrored = frame.rename(
        columns={"i": "j", "j": "i", "k": "l", "l": "k", "slack_ik": "slack_jl", "slack_jl": "slack_ik"}
    )
    return pd.concat([frame, mirrored], ignore_index=True)[frame.columns]


def test_mirror_images_are_one_quadruplet() -> None:
    frame = quadruplets()
    keys = {(row.step, *sorted([(row.i, row.k), (row.j, row.l)])) for row in frame.itertuples()}
    assert len(tables.distinct(frame)) == len(keys)
    assert tables.distinct(frame).index.max() < 40  # the first of each pair stays


@pytest.mark.parametrize("order", list(tables.ORDERS))
def test_quadruplets_are_picked_and_ordered(order: str) -> None:
    frame = quadruplets()
    chosen = tables.pick_quadruplets(frame, "refit", (3, 7), ["x"], True, order)
    slow = [
        row.Index
        for row in frame.itertuples()
        if 3 <= row.step <= 7 and "x" in (row.class_i, row.class_k, row.class_l) and max(row.slack_ik, row.slack_jl) > 0
    ]
    assert sorted(chosen.index) == slow
    value = {
        "violation": -chosen[["slack_ik", "slack_jl"]].max(axis=1), "positive": chosen["s_ij"],
        "latest": -chosen["step"], "earliest": chosen["step"],
    }[order]  # fmt: skip
    assert value.is_monotonic_increasing


class FakeGallery:
    """Labels and roles alone: what counting pairs needs."""

    def __init__(self, labels: list[int], roles: list[str], distributions: dict) -> None:
        self.items = pd.DataFrame({"label": labels, "role": roles})
        self.distributions = distributions


@pytest.mark.parametrize("roles", [["both"] * 6, ["query", "query", "query", "gallery", "gallery", "gallery"]])
def test_pairs_are_counted_as_the_protocol_counts_them(roles: list[str]) -> None:
    labels = [0, 0, 1, 0, 1, 2]
    every = list(combinations(range(6), 2) if roles[0] == "both" else product(range(3), range(3, 6)))
    found = Pairs.of(FakeGallery(labels, roles, {}))  # type: ignore[arg-type]
    assert found.positives == sum(labels[a] == labels[b] for a, b in every)
    assert found.positives + found.negatives == len(every)


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


def test_choices_that_differ_from_the_preset_leave_out_where_a_run_lies() -> None:
    config = TrainConfig.from_parameters({"preset": "quick", "steps": 7, "runs_root": "/somewhere", "run_name": "a"})
    changed = tables.changed_from_preset(config)
    assert changed["choice"].tolist() == ["steps"]
    assert changed["this run"].tolist() == ["7"]
