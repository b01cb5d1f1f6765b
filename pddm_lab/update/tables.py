"""The tables of a comparison of updates (compare.py): means over seeds with 95 % t intervals, values from 0 to 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pddm_lab.metrics.intervals import mean_intervals
from pddm_lab.study.cells import Study
from pddm_lab.update.compare import PART
from pddm_lab.update.compatibility import SHARES
from pddm_lab.update.transfer import stability, transfers

KEYS = ["dataset", "way", "similarity", "quantity", "after", "of"]


def updates_table(study: Study) -> pd.DataFrame:
    """All that was measured, long.

    Returns:
        dataset, way, similarity, quantity, after, of, value, ±, seeds. Quantities:

        recall@1, map@r      after a session, of the classes of a session
        average, forgetting, backward, forward: of R@1, see transfer.py
        worst, gap           R@1 by D on earlier classes while the updates were under way
        seconds              of processor time that training after a session took
        old lost             MAP@R on session 0 before session 1, minus after it
        new gained           of the gain of MAP@R on session 1 that training all anew brings, the share that the way has
        time                 seconds of session 1, as a share of training all anew
        two by two           MAP@R of queries in a gallery, `after` says of which models; `of` which classes
        backfill             MAP@R, `after` says in which order, `of` what share was embedded again
    """
    cells = list(study.cells(PART))
    anew = {(cell["dataset"], cell["seed"]): cell for cell in cells if cell["method"] == "full"}
    rows = [
        (cell["dataset"], cell["method"], *values, cell["seed"])
        for cell in cells
        for values in _values(cell, anew.get((cell["dataset"], cell["seed"])))
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=[*KEYS, "value", "seed"])
    means = mean_intervals(table.astype({"after": str, "of": str}), KEYS, "value")
    return means.rename(columns={"mean": "value", "half": "±", "count": "seeds"})


def _values(cell: Mapping[str, Any], anew: Mapping[str, Any] | None) -> Iterator[tuple[str, str, Any, Any, float]]:
    """similarity, quantity, after, of, value."""
    settings, metrics = cell["settings"], cell["metrics"]
    for after, by in metrics.items():
        for similarity, values in by.items():
            for name, value in values.items():
                quantity, _, session = name.partition(" of ")
                yield similarity, quantity, after.removeprefix("after "), session, value
    size = len(settings["untrained"])
    if len(metrics) == size:  # after every session
        for similarity in metrics["after 0"]:
            for name, value in transfers(
                matrix_of(metrics, similarity, size), np.array(settings["untrained"])
            ).items():  # fmt: skip
                yield similarity, name, "", "", value
    if all(len(curve) > 1 for curve in settings["curves"]):
        for name, value in stability(settings["curves"]).items():
            yield "euclidean", name, "", "", value
    sessions = [after.removeprefix("after ") for after in metrics]
    for after, seconds in list(zip(sessions, settings["seconds"], strict=True))[1:]:
        yield "", "seconds", after, "", seconds
    yield from _figures(cell, anew)
    for name, of in settings.get("two_by_two", {}).items():
        for classes, value in of.items():
            yield "euclidean", "two by two", name, classes, value
    for order, values in settings.get("backfill", {}).items():
        for share, value in zip(SHARES, values, strict=True):
            yield "euclidean", "backfill", order, share, value


def _figures(cell: Mapping[str, Any], anew: Mapping[str, Any] | None) -> Iterator[tuple[str, str, Any, Any, float]]:
    """What the first update cost and brought, beside training all anew."""
    if "after 1" not in cell["metrics"]:
        return
    for similarity, after in cell["metrics"]["after 1"].items():
        before = cell["metrics"]["after 0"][similarity]
        yield similarity, "old lost", "", "", before["map@r of 0"] - after["map@r of 0"]
        if anew and "after 1" in anew["metrics"]:
            whole = anew["metrics"]["after 1"][similarity]["map@r of 1"] - before["map@r of 1"]
            if whole > 0:  # else there is no gain to have a share of
                yield similarity, "new gained", "", "", (after["map@r of 1"] - before["map@r of 1"]) / whole
    if anew and "after 1" in anew["metrics"]:
        yield "", "time", "", "", cell["settings"]["seconds"][1] / anew["settings"]["seconds"][1]


def matrix_of(metrics: Mapping[str, Any], similarity: str, size: int, metric: str = "recall@1") -> np.ndarray:
    """R[t, j]: the metric on session j after session t; NaN after a session that wasn't measured."""
    empty: dict[str, float] = {}
    return np.array([
        [metrics.get(f"after {t}", {}).get(similarity, empty).get(f"{metric} of {j}", np.nan) for j in range(size)]
        for t in range(size)
    ])  # fmt: skip


def summary(table: pd.DataFrame, dataset: str, similarity: str) -> pd.DataFrame:
    """A row a way: what it has of `updates_table` in one number each.

    Returns:
        way, average, forgetting, backward, forward, worst, gap, old lost, new gained, time, seconds (of the first
        update); NaN where a number isn't there.
    """
    of = table[(table["dataset"] == dataset) & table["similarity"].isin([similarity, ""])]
    by_d = table[(table["dataset"] == dataset) & table["quantity"].isin(["worst", "gap"])]
    of = pd.concat([of[~of["quantity"].isin(["worst", "gap"])], by_d])
    names = ["average", "forgetting", "backward", "forward", "worst", "gap", "old lost", "new gained", "time"]
    wide = of[of["quantity"].isin(names)].pivot(index="way", columns="quantity", values="value").reindex(columns=names)
    first = of[(of["quantity"] == "seconds") & (of["after"] == "1")].set_index("way")["value"]
    return wide.assign(seconds=first).rename_axis(columns=None).reset_index()
