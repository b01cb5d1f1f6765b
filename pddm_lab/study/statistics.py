"""Statistics of a study's cells: means over seeds with 95 % t intervals, and paired tests with Holm's correction.

Seeds share the splits but differ in weights and batches. An interval therefore covers another training of the same
method on the same data, not other data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pddm_lab.errors import RunError
from pddm_lab.metrics.convergence import speed
from pddm_lab.metrics.intervals import mean_interval, mean_intervals
from pddm_lab.study.cells import Study
from pddm_lab.study.methods import METHODS
from pddm_lab.study.search import best_of

BASELINES = ("baseline", "untrained")
"""Families of methods that a PDDM method is compared with."""
_KEYS = ["dataset", "protocol", "method", "similarity", "metric"]


def paired_test(values: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Mean difference of pairs, half the width of its 95 % interval, and p of the paired t test.

    If all pairs differ by the same amount, p is 1 for a difference of 0, else 0.
    """
    from scipy import stats

    difference = np.asarray(values, dtype=float) - np.asarray(others, dtype=float)
    mean, width = mean_interval(difference.tolist())
    if len(difference) < 2:
        return mean, width, math.nan
    if np.ptp(difference) < 1e-12:
        return mean, width, 1.0 if abs(mean) < 1e-12 else 0.0
    return mean, width, float(stats.ttest_1samp(difference, 0.0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values after Holm's correction, which keeps the chance of any false alarm among all tests at that of one test.

    NaN stands for a test that could not be made, and doesn't count.
    """
    corrected = np.asarray(p_values, dtype=float)
    tested = np.flatnonzero(~np.isnan(corrected))
    order = tested[np.argsort(corrected[tested], kind="stable")]
    scaled = corrected[order] * (len(order) - np.arange(len(order)))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0) if len(order) else []
    return corrected.tolist()


def summary(table: pd.DataFrame, part: str) -> pd.DataFrame:
    """Mean over seeds of each measurement of a part in the result of `cells.table`.

    Returns:
        dataset, protocol, method, similarity, metric, value (the mean), half (of the 95 % interval), seeds.
    """
    means = mean_intervals(table[table["part"] == part], _KEYS, "value")
    return means.rename(columns={"mean": "value", "count": "seeds"})


def search_results(study: Study, part: str = "methods") -> pd.DataFrame:
    """The best configuration of each method among those searched so far.

    Returns:
        dataset, method, family, similarity (that chose), value (validation MAP@R at the chosen step), error, step,
        configurations (searched), settings, key (of the chosen cell).
    """
    cells: dict[tuple[str, str], list] = {}
    for cell in study.cells("search"):
        if cell["key"].startswith(f"search-{part}-"):
            cells.setdefault((cell["dataset"], cell["method"]), []).append(cell)
    rows = []
    for (dataset, method), group in cells.items():
        best = best_of(group)
        family = METHODS[method].family if part == "methods" and method in METHODS else part
        chosen = best["chosen"]
        rows.append((dataset, method, family, chosen["similarity"], chosen["map@r"], chosen["error"], chosen["step"],
                     len(group), best["settings"], best["key"]))  # fmt: skip
    columns = ["dataset", "method", "family", "similarity", "value", "error", "step", "configurations", "settings",
               "key"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def best_baseline(results: pd.DataFrame, dataset: str) -> pd.Series:
    """The row of `search_results` of the baseline with the best value, which is measured on held-out training classes.

    Raises:
        RunError: no baseline was searched on the data set.
    """
    if not has_baseline(results, dataset):
        raise RunError(f"No baseline was searched on {dataset}: run `pddm-lab compare --datasets {dataset}`.")
    rows = results[(results["dataset"] == dataset) & results["family"].isin(BASELINES)]
    return rows.loc[rows["value"].idxmax()]


def has_baseline(results: pd.DataFrame, dataset: str) -> bool:
    """Whether a baseline has been searched on a data set."""
    return bool(((results["dataset"] == dataset) & results["family"].isin(BASELINES)).any())


def compare_with_baseline(
    table: pd.DataFrame, results: pd.DataFrame, metrics: Sequence[str] = ("map@r", "recall@1")
) -> pd.DataFrame:
    """Each ranking of each method compared with the best baseline, seed by seed, on data sets that have a baseline.

    Args:
        table: the result of `cells.table`.
        results: the result of `search_results`.
        metrics: to compare; p values are corrected among the rankings of one data set, protocol and metric.

    Returns:
        dataset, protocol, method, similarity, metric, baseline, difference, half (of its 95 % interval), seeds, p,
        holm (p corrected).
    """
    rows: list[tuple[Any, ...]] = []
    chosen = table[(table["part"] == "methods") & table["metric"].isin(metrics)]
    for (dataset, protocol, metric), group in chosen.groupby(["dataset", "protocol", "metric"], sort=False):
        if not has_baseline(results, dataset):
            continue
        best = best_baseline(results, dataset)
        values = {
            key: one.set_index("seed")["value"] for key, one in group.groupby(["method", "similarity"], sort=False)
        }
        baseline = values.pop((best["method"], best["similarity"]), None)
        if baseline is None:
            continue
        compared = [
            (dataset, protocol, *key, metric, best["method"], *_difference(own, baseline))
            for key, own in values.items()
        ]
        corrected = holm([row[-1] for row in compared])
        rows += [(*row, value) for row, value in zip(compared, corrected, strict=True)]
    return pd.DataFrame(rows, columns=[*_KEYS, "baseline", "difference", "half", "seeds", "p", "holm"])


def compare_similarities(table: pd.DataFrame, part: str = "methods", metric: str = "map@r") -> pd.DataFrame:
    """S compared with D and with D_M of the same trainings, seed by seed, in the result of `cells.table`.

    Returns:
        dataset, protocol, method, similarity (that S is compared with), metric, value (of S), difference (S minus the
        other), half (of its 95 % interval), seeds, p.
    """
    rows: list[tuple[Any, ...]] = []
    chosen = table[(table["part"] == part) & (table["metric"] == metric)]
    for key, group in chosen.groupby(["dataset", "protocol", "method"], sort=False):
        values = {name: one.set_index("seed")["value"] for name, one in group.groupby("similarity")}
        for other in ("euclidean", "mahalanobis"):
            if {"pddm", other} <= set(values):
                own = _aligned(values["pddm"], values[other])[0].mean()
                rows.append((*key, other, metric, own, *_difference(values["pddm"], values[other])))
    return pd.DataFrame(rows, columns=[*_KEYS, "value", "difference", "half", "seeds", "p"])


def _difference(own: pd.Series, other: pd.Series) -> tuple[float, float, int, float]:
    one, two = _aligned(own, other)
    difference, half, p = paired_test(one.tolist(), two.tolist())
    return difference, half, len(one), p


def _aligned(own: pd.Series, other: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Both series' values at their common seeds; a single value, which depends on no seed, is repeated."""
    if len(own) == 1 or len(other) == 1:
        size = max(len(own), len(other))
        return np.resize(own.to_numpy(), size), np.resize(other.to_numpy(), size)
    seeds = own.index.intersection(other.index)
    return own[seeds].to_numpy(), other[seeds].to_numpy()


def curves(study: Study, results: pd.DataFrame) -> pd.DataFrame:
    """The curves of the chosen configurations, averaged over the folds, in the columns of a run's log.

    Returns:
        dataset, run (the method), phase, step, seconds, protocol, similarity, metric, value; step 0 has no value.
    """
    rows = []
    for chosen in results.itertuples():
        curve = study.cell(str(chosen.key))["curve"]
        if not curve or curve[0]["step"]:
            curve = [{"step": 0, "seconds": 0.0}, *curve]  # seconds are counted from the first row
        for row in curve:
            value = row.get(chosen.similarity, {}).get("map@r", math.nan)
            rows.append((chosen.dataset, chosen.method, "select", row["step"], row["seconds"], "validation",
                         chosen.similarity, "map@r", value))  # fmt: skip
    columns = ["dataset", "run", "phase", "step", "seconds", "protocol", "similarity", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)


def convergence(study: Study, results: pd.DataFrame) -> pd.DataFrame:
    """Steps and seconds until each method reaches the best baseline's final MAP@R on held-out classes.

    Returns:
        dataset, method, similarity, target (that baseline's validation MAP@R), best, best_step, share_step,
        share_seconds (until 99 % of its own best), target_step, target_seconds; NaN if it was not reached.
    """
    rows = []
    for dataset, group in curves(study, results).groupby("dataset", sort=False):
        if has_baseline(results, str(dataset)):
            target = float(best_baseline(results, str(dataset))["value"])
            reached = speed(group, "map@r", target=target - 1e-12).rename(columns={"run": "method"})
            rows.append(reached.assign(dataset=dataset, target=target))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()
