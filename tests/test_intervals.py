"""95 % intervals against values computed by hand, group by group, and without values."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from pddm_lab.metrics.intervals import (
    mean_interval,
    mean_intervals,
    percentile_interval,
    resampled_means,
    wilson_lower,
)


def test_a_t_interval_by_hand() -> None:
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)  # t(0.975, 2 degrees) sd / sqrt(n), sd 1
    assert math.isnan(mean_interval([1.0])[1]) and math.isnan(mean_interval([])[0])


def test_each_group_of_a_table_has_its_own_interval() -> None:
    table = pd.DataFrame({"method": list("bbbac"), "seed": [0, 1, 2, 0, 0], "value": [1.0, 2.0, 4.0, 5.0, 7.0]})
    groups = mean_intervals(table, ["method"], "value")
    assert groups["method"].tolist() == ["b", "a", "c"], "in the order of their first rows"
    assert groups["count"].tolist() == [3, 1, 1]
    assert (groups["mean"][0], groups["half"][0]) == pytest.approx(mean_interval([1.0, 2.0, 4.0]))
    assert groups["half"][1:].isna().all(), "one value has no interval"
    assert mean_intervals(table[:0], ["method"], "value").empty


def test_a_percentile_interval_leaves_out_nan() -> None:
    draws = np.column_stack([np.arange(1001.0), np.full(1001, np.nan)])
    draws[7, 0] = np.nan
    low, high = percentile_interval(draws)
    assert (low[0], high[0]) == pytest.approx((25, 975), abs=1)
    assert np.isnan([low[1], high[1]]).all()
    assert np.isnan(percentile_interval(draws[:0])).all()


def test_the_lower_end_of_wilsons_interval_by_hand() -> None:
    low = wilson_lower(np.array([0, 8, 10]), np.array([5, 10, 10]))
    assert low == pytest.approx([0, 0.4902, 0.7225], abs=1e-4)


def test_resampled_means_draw_groups_and_then_their_values() -> None:
    values, groups = np.array([1.0, 5.0, 2.0, 9.0, 4.0]), np.array([8, 2, 8, 2, 2])
    rng, expected = np.random.default_rng(3), []
    members = {group: [value for value, of in zip(values, groups, strict=True) if of == group] for group in (2, 8)}
    for _ in range(20):
        chosen = [[2, 8][at] for at in rng.integers(2, size=2)]
        places = iter(rng.random(sum(len(members[group]) for group in chosen)))
        drawn = [members[group][int(next(places) * len(members[group]))] for group in chosen for _ in members[group]]
        expected.append(sum(drawn) / len(drawn))
    np.testing.assert_allclose(resampled_means(values, groups, draws=20, seed=3), expected)
    assert np.ptp(resampled_means(np.full(7, 2.0), np.arange(7), draws=9)) == 0


def test_the_interval_is_wider_where_the_values_of_a_group_agree() -> None:
    values = np.random.default_rng(0).normal(size=20)
    alike, apart = np.repeat(values, 10), np.random.default_rng(1).normal(size=200)
    groups = np.repeat(np.arange(20), 10)
    widths = [np.ptp(percentile_interval(resampled_means(one, groups, draws=500))) for one in (alike, apart)]
    assert widths[0] > 2 * widths[1]
