"""What the cells of a run's robustness say: how much each similarity loses, and how that compares.

The corruption error of a corruption c is CE(c) = sum_s E(s, c) / sum_s E_pretrained(s, c), with the error E = 1 - R@1
over the strengths s that are measured. mCE is its mean over the corruptions: 1 for the pretrained features, and smaller
is better (Hendrycks and Dietterich, ICLR 2019, with the pretrained features in AlexNet's place). What is kept is the
mean of R@1 over corruptions and strengths, divided by R@1 of the pictures as they are.

Intervals are 95 % bootstrap intervals over the queries' classes. A query's outcomes are averaged over the cells first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from pddm_lab.metrics.intervals import percentile_interval
from pddm_lab.robustness.cells import CLEAN, Measurement
from pddm_lab.similarities import EVERY, PRETRAINED

DRAWS = 2000
SUMMARY = ("clean", "corrupted", "low", "high", "kept", "mce")


def summarise(measured: Measurement, metric: str = "recall@1") -> pd.DataFrame:
    """How much each similarity loses on each side.

    Args:
        measured: the cells.
        metric: recall@1 or map@r; mce is of R@1 in any case.

    Returns:
        side, similarity, clean, corrupted (mean over corruptions and strengths), low, high (of its interval), kept, mce
        (NaN without pretrained features), corruptions, cells.
    """
    table, rows = measured.table(), []
    outcomes = corrupted_only(measured.outcomes("hit" if metric == "recall@1" else "precision"))
    before = table[table["corruption"] == CLEAN[1]].set_index("similarity")[metric]
    classes = np.array(measured.settings["classes"])
    for side, cells in corrupted_only(table).groupby("side", sort=False):
        names = _in_order(cells["similarity"].unique())
        means = _by_query(outcomes[outcomes["side"] == side], names)
        low, high = _interval(means, classes)
        errors = 1 - cells.pivot_table(index="corruption", columns="similarity", values="recall@1", sort=False)
        for at, name in enumerate(names):
            corrupted = float(means[:, at].mean())
            mce = (
                float((errors[name] / errors[PRETRAINED].replace(0, np.nan)).mean()) if PRETRAINED in errors else np.nan
            )
            rows.append({
                "side": side, "similarity": name, "clean": float(before[name]), "corrupted": corrupted,
                "low": low[at], "high": high[at], "kept": corrupted / before[name], "mce": mce,
                "corruptions": cells["corruption"].nunique(),
                "cells": len(cells[["corruption", "strength"]].drop_duplicates()),
            })  # fmt: skip
    return pd.DataFrame(rows, columns=["side", "similarity", *SUMMARY, "corruptions", "cells"])


def leads(measured: Measurement, against: str = "euclidean", metric: str = "recall@1") -> pd.DataFrame:
    """How far each similarity is ahead of another: on the pictures as they are, corrupted, and what the difference is.

    Returns:
        side, similarity, of (clean, corrupted, change), lead, low, high (of its interval).
    """
    outcomes = measured.outcomes("hit" if metric == "recall@1" else "precision")
    classes, rows = np.array(measured.settings["classes"]), []
    names = [name for name in _in_order(outcomes.columns) if name != against]
    clean = _leads_by_query(outcomes[outcomes["corruption"] == CLEAN[1]], names, against)
    for side, of_side in corrupted_only(outcomes).groupby("side", sort=False):
        corrupted = _leads_by_query(of_side, names, against)
        for of, values in (("clean", clean), ("corrupted", corrupted), ("change", corrupted - clean)):
            low, high = _interval(values, classes)
            rows += [
                {"side": side, "similarity": name, "of": of, "lead": float(values[:, at].mean()), "low": low[at],
                 "high": high[at]}
                for at, name in enumerate(names)
            ]  # fmt: skip
    return pd.DataFrame(rows, columns=["side", "similarity", "of", "lead", "low", "high"])


def by_angle(outcomes: pd.DataFrame) -> pd.DataFrame:
    """R@1 at each angle of `measure_viewpoint`.

    Returns:
        angle, similarity, value, low, high (of its interval over varieties), queries.
    """
    rows = []
    for (angle, name), part in outcomes.groupby(["angle", "similarity"], sort=False):
        hits = part["hit"].to_numpy(float)[:, None]
        low, high = _interval(hits, part["label"].to_numpy())
        rows.append((angle, name, hits.mean(), low[0], high[0], len(part)))
    return pd.DataFrame(rows, columns=["angle", "similarity", "value", "low", "high", "queries"])


def corrupted_only(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of cells or outcomes whose pictures are corrupted."""
    return table[table["corruption"] != CLEAN[1]]


def _by_query(outcomes: pd.DataFrame, names: Sequence[str]) -> Float[np.ndarray, "queries similarities"]:
    """The mean of each query's outcomes over the cells."""
    return outcomes.groupby("query")[list(names)].mean().to_numpy()


def _leads_by_query(
    outcomes: pd.DataFrame, names: Sequence[str], against: str
) -> Float[np.ndarray, "queries similarities"]:
    means = _by_query(outcomes, [*names, against])
    return means[:, :-1] - means[:, -1:]


def _interval(
    values: Float[np.ndarray, "queries columns"], classes: np.ndarray
) -> tuple[Float[np.ndarray, " columns"], Float[np.ndarray, " columns"]]:
    """Both ends of the bootstrap interval of each column's mean: classes are drawn, with all of their queries."""
    number = np.unique(classes, return_inverse=True)[1]
    counts = np.bincount(number).astype(float)
    sums = np.stack([np.bincount(number, column) for column in values.T], axis=1)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), DRAWS).astype(float)
    return percentile_interval((drawn @ sums) / (drawn @ counts)[:, None])


def _in_order(names: Sequence[str]) -> list[str]:
    return [name for name in (*EVERY, PRETRAINED) if name in set(names)]
