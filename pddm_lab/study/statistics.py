"""What the cells of a study say: means over seeds with 95 % t intervals, and paired tests corrected for their number.

Seeds share the splits and differ in weights and batches: an interval says what another training of the same method on
the same data would give, not what other data would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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

    Pairs that all differ by the same amount leave nothing to chance: p is 1 where that is 0, else 0.
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
    """Holm's correction: p values under which the chance of any false alarm among all tests stays what it is for one.

    NaN stands for a test that could not be made, and doesn't count.
    """
    found = np.asarray(p_values, dtype=float)
    tested = np.flatnonzero(~np.isnan(found))
    order = tested[np.argsort(found[tested], kind="stable")]
    scaled = found[order] * (len(order) - np.arange(len(order)))
    found[order] = np.minimum(np.maximum.accumulate(scaled), 1.0) if len(order) else []
    return found.tolist()


def summary(table: pd.DataFrame, part: str) -> pd.DataFrame:
    """Mean over seeds of each measurement of a part.

    Args:
        table: as `cells.table` gives it.
        part: methods, ablation, ...

    Returns:
        dataset, protocol, method, similarity, metric, value (the mean), half (of the 95 % interval), seeds.
    """
    found = mean_intervals(table[table["part"] == part], _KEYS, "value")
    return found.rename(columns={"mean": "value", "count": "seeds"})


def search_results(study: Study, part: str = "methods") -> pd.DataFrame:
    """What the search chose for each method whose search is complete enough to choose from.

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


def best_baseline(found: pd.DataFrame, dataset: str) -> pd.Series:
    """The row of `searched` of the baseline that is best on the held-out classes of the training half.

    Raises:
        RunError: no baseline was searched on the data set.
    """
    rows = found[(found["dataset"] == dataset) & found["family"].isin(BASELINES)]
    if rows.empty:
        raise RunError(f"No baseline was searched on {dataset}: run `pddm-lab compare --datasets {dataset}`.")
    return rows.loc[rows["value"].idxmax()]


def has_baseline(found: pd.DataFrame, dataset: str) -> bool:
    """Whether a baseline was searched on a data set yet."""
    return bool(((found["dataset"] == dataset) & found["family"].isin(BASELINES)).any())


def compare_with_baseline(
    table: pd.DataFrame, found: pd.DataFrame, metrics: Sequence[str] = ("map@r", "recall@1")
) -> pd.DataFrame:
    """Every ranking of every method against the best baseline, seed by seed.

    Args:
        table: as `cells.table` gives it.
        found: as `searched` gives it.
        metrics: to compare by; p values are corrected among the rankings of one data set, protocol and metric.

    Returns:
        dataset, protocol, method, similarity, metric, baseline, difference, half (of its 95 % interval), seeds, p,
        holm (p corrected); of the data sets that a baseline was searched on.
    """
    of_methods = table[table["part"] == "methods"]
    rows = []
    for (dataset, protocol, metric), group in of_methods[of_methods["metric"].isin(metrics)].groupby(
        ["dataset", "protocol", "metric"], sort=False
    ):
        if not has_baseline(found, str(dataset)):
            continue
        best = best_baseline(found, str(dataset))
        values = {
            key: one.set_index("seed")["value"] for key, one in group.groupby(["method", "similarity"], sort=False)
        }
        reference = values.pop((best["method"], best["similarity"]), None)
        if reference is None:
            continue
        compared = []
        for (method, similarity), own in values.items():
            one, other = _aligned(own, reference)
            compared.append((dataset, protocol, method, similarity, metric, best["method"], *_tested(one, other)))
        corrected = holm([row[-1] for row in compared])
        rows += [(*row, value) for row, value in zip(compared, corrected, strict=True)]
    columns = [*_KEYS, "baseline", "difference", "half", "seeds", "p", "holm"]
    return pd.DataFrame(rows, columns=columns)


def compare_similarities(table: pd.DataFrame, part: str = "methods", metric: str = "map@r") -> pd.DataFrame:
    """S beside D and D_M of the same trainings, seed by seed: is the local similarity ahead of the global ones?

    Args:
        table: as `cells.table` gives it.
        part: methods or ablation.
        metric: to compare by.

    Returns:
        dataset, protocol, method, similarity (that S is compared with), metric, value (of S), difference (S less the
        other), half (of its 95 % interval), seeds, p.
    """
    rows = []
    chosen = table[(table["part"] == part) & (table["metric"] == metric)]
    for (dataset, protocol, method), group in chosen.groupby(["dataset", "protocol", "method"], sort=False):
        values = {name: one.set_index("seed")["value"] for name, one in group.groupby("similarity")}
        for other in ("euclidean", "mahalanobis"):
            if not {"pddm", other} <= set(values):
                continue
            one, beside = _aligned(values["pddm"], values[other])
            rows.append((dataset, protocol, method, other, metric, one.mean(), *_tested(one, beside)))
    return pd.DataFrame(rows, columns=[*_KEYS, "value", "difference", "half", "seeds", "p"])


def _tested(one: np.ndarray, other: np.ndarray) -> tuple[float, float, int, float]:
    difference, half, p = paired_test(one.tolist(), other.tolist())
    return difference, half, len(one), p


def _aligned(one: pd.Series, other: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Values of the seeds that both have; one that depends on no seed, with a single value, stands beside each."""
    if len(one) == 1 or len(other) == 1:
        size = max(len(one), len(other))
        return np.resize(one.to_numpy(), size), np.resize(other.to_numpy(), size)
    seeds = one.index.intersection(other.index)
    return one[seeds].to_numpy(), other[seeds].to_numpy()


def curves(study: Study, found: pd.DataFrame) -> pd.DataFrame:
    """The curves of the chosen configurations, means over the folds, as a log: run (the method), step, seconds, ...

    Returns:
        dataset, run, phase, step, seconds, protocol, similarity, metric, value; step 0 has no value.
    """
    rows = []
    for chosen in found.itertuples():
        curve = study.cell(str(chosen.key))["curve"]
        start = (
            [] if curve and curve[0]["step"] == 0 else [{"step": 0, "seconds": 0.0}]
        )  # seconds are counted from the first row
        for row in [*start, *curve]:
            value = row.get(chosen.similarity, {}).get("map@r", math.nan)
            rows.append((chosen.dataset, chosen.method, "select", row["step"], row["seconds"], "validation",
                         chosen.similarity, "map@r", value))  # fmt: skip
    columns = ["dataset", "run", "phase", "step", "seconds", "protocol", "similarity", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)


def convergence(study: Study, found: pd.DataFrame) -> pd.DataFrame:
    """Steps and seconds until each method is as good on held-out classes as the best baseline is at the end.

    Returns:
        dataset, method, similarity, target (that baseline's validation MAP@R), best, best_step, share_step,
        share_seconds (until 99 % of its own best), target_step, target_seconds; NaN where it was not reached.
    """
    rows, log = [], curves(study, found)
    for dataset, group in log.groupby("dataset", sort=False):
        if not has_baseline(found, str(dataset)):
            continue
        target = float(best_baseline(found, str(dataset))["value"])
        reached = speed(group, "map@r", target=target - 1e-12).rename(columns={"run": "method"})
        rows.append(reached.assign(dataset=dataset, target=target))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()
