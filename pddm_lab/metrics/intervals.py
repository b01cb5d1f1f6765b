"""95 % intervals: of a mean (Student's t), of resampled values (percentiles), and of a share (Wilson).

Queries of one class resemble each other: `resampled_means` draws classes first, and then their queries.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % t interval; NaN for the width of one value."""
    numbers = np.asarray(values, dtype=float)
    if len(numbers) < 2:
        return float(numbers.mean()) if len(numbers) else math.nan, math.nan
    return float(numbers.mean()), float(_half_width(numbers.std(ddof=1), len(numbers)))


def mean_intervals(table: pd.DataFrame, keys: Sequence[str], column: str) -> pd.DataFrame:
    """`mean_interval` of a column in each group of rows.

    Returns:
        The keys, mean, half (of the interval; NaN for one row), count; groups in the order of their first rows.
    """
    groups = table.groupby(list(keys), sort=False)[column].agg(["mean", "std", "count"]).reset_index()
    half = _half_width(groups["std"].to_numpy(), groups["count"].to_numpy())
    return groups.assign(half=half)[[*keys, "mean", "half", "count"]]


def percentile_interval(draws: Float[np.ndarray, "draws ..."]) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the 95 % interval of resampled values. NaN draws don't count; without others the ends are NaN."""
    if not len(draws):
        return np.full(draws.shape[1:], np.nan), np.full(draws.shape[1:], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # that all are NaN
        low, high = np.nanquantile(draws, [0.025, 0.975], axis=0)
    return low, high


def resampled_means(
    values: Float[np.ndarray, "values ..."], groups: Int[np.ndarray, " values"], draws: int = 2000, seed: int = 0
) -> Float[np.ndarray, "draws ..."]:
    """Means of bootstrap samples: groups are drawn with replacement, and then the values of each drawn group.

    Args:
        values: one or more; several columns are resampled together.
        groups: of each value.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(groups, kind="stable")
    _, begins, counts = np.unique(groups[order], return_index=True, return_counts=True)
    means = np.empty((draws, *values.shape[1:]))
    for draw in range(draws):
        chosen = rng.integers(len(counts), size=len(counts))
        sizes = np.repeat(counts[chosen], counts[chosen])
        places = np.repeat(begins[chosen], counts[chosen]) + (rng.random(len(sizes)) * sizes).astype(np.int64)
        means[draw] = values[order[places]].mean(0)
    return means


def wilson_lower(successes: np.ndarray, trials: np.ndarray) -> Float[np.ndarray, " shares"]:
    """The lower end of Wilson's 95 % interval of successes / trials; trials are 1 or more."""
    share, z = successes / trials, 1.96
    centre = share + z * z / (2 * trials)
    spread = z * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return (centre - spread) / (1 + z * z / trials)


def _half_width(deviation: float | np.ndarray, count: int | np.ndarray) -> np.ndarray:
    from scipy.stats import t

    return t.ppf(0.975, np.maximum(np.asarray(count) - 1, 1)) * deviation / np.sqrt(count)
