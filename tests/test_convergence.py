"""When a curve first reaches a share of its best, against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from pddm_lab.metrics.convergence import kept_value, since_start, speed


def curve(values: list[float], start: float = 60.0, similarity: str = "pddm", run: str = "a") -> pd.DataFrame:
    steps = np.arange(len(values)) * 10
    return pd.DataFrame(
        {"run": run, "step": steps, "seconds": start + steps / 5, "phase": "select", "protocol": "validation",
         "similarity": similarity, "metric": "map@r", "value": values}
    )  # fmt: skip


LOG = pd.concat([curve([0.1, 0.4, 0.39, 0.5, math.nan, 0.45]), curve([0.2, 0.3], 5.0, "euclidean", "b")])


@pytest.mark.parametrize(("share", "target"), [(1.0, 0.3), (0.8, 0.9), (0.78, math.nan)])
def test_the_first_step_that_reaches_it(share: float, target: float) -> None:
    actual = speed(LOG, "map@r", share, target).set_index("run")
    for run, rows in LOG.groupby("run"):
        values = rows["value"].tolist()
        best = max(value for value in values if not math.isnan(value))
        assert actual.loc[run, "best"] == best
        assert actual.loc[run, "best_step"] == 10 * values.index(best)
        for name, wanted in (("share", share * best), ("target", target)):
            first = next((10 * number for number, value in enumerate(values) if value >= wanted), math.nan)
            np.testing.assert_equal(actual.loc[run, f"{name}_step"], first)
            np.testing.assert_allclose(actual.loc[run, f"{name}_seconds"], first / 5)
    assert speed(LOG, "nmi").empty


def test_seconds_are_counted_from_the_first_row_of_a_phase() -> None:
    log = pd.concat([LOG, LOG.assign(phase="refit", seconds=LOG["seconds"] + 100)])
    actual = since_start(log)
    assert actual.groupby(["run", "phase"])["seconds"].min().eq(0).all()
    np.testing.assert_allclose(actual["seconds"], log["step"] / 5)
    alone = log[log["run"] == "a"].drop(columns="run")
    np.testing.assert_allclose(since_start(alone)["seconds"], alone["step"] / 5)


def test_the_kept_value_is_that_of_the_best_step_else_the_last() -> None:
    one = LOG[LOG["run"] == "a"]
    assert kept_value(one, "map@r", "pddm", 30) == 0.5
    assert kept_value(one, "map@r", "pddm", 7) == 0.45
    assert kept_value(one, "map@r", "pddm", None) == 0.45
    assert math.isnan(kept_value(one, "map@r", "cosine", 30))
