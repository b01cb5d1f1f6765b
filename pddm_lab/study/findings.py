"""The results in a study's finished cells, as frames for a page; unreadable cells are listed and left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pddm_lab.errors import RunError
from pddm_lab.figures import METRICS, Metric
from pddm_lab.study.cells import COLUMNS, Study
from pddm_lab.study.methods import ABLATIONS, METHODS, PRESETS_THEMSELVES
from pddm_lab.study.statistics import (
    best_baseline,
    compare_with_baseline,
    convergence,
    curves,
    paired_test,
    search_results,
    summary,
)
from pddm_lab.study.tables import MEASURES, published_table

PARTS = ("methods", "ablation")
"""The parts a page shows."""
AHEAD = 2
"""A method counts as skipped once a method this many places later is measured: those between may still be running."""
Cells = dict[str, tuple[int, dict[str, Any]]]
"""Cells that have been read, by key: when the file changed, and its contents."""


class Reading(Study):
    """A study to read while another process writes it.

    Args:
        path: the study's folder.
        cells_read: cells that have been read before; newly read ones are added.

    Raises:
        RunError: study.json is missing, damaged or not written by this lab.
    """

    def __init__(self, path: str | Path, cells_read: Cells | None = None) -> None:
        super().__init__(path)
        self.broken: dict[str, str] = {}
        """Cells that can't be read, with the reason."""
        self.changed = (self.path / "study.json").stat().st_mtime
        """When the newest of its files was written, in seconds since 1970."""
        cells_read = {} if cells_read is None else cells_read
        for file in sorted((self.path / "cells").glob("[!.]*.json")):
            try:
                stamp = file.stat().st_mtime_ns
                if file.stem not in cells_read or cells_read[file.stem][0] != stamp:
                    cells_read[file.stem] = stamp, self.cell(file.stem)
                self._kept[file.stem] = cells_read[file.stem][1]
                self.changed = max(self.changed, stamp / 1e9)
            except (RunError, OSError) as error:
                self.broken[file.stem] = str(error)

    def cells(self, part: str = "") -> Iterator[dict[str, Any]]:
        """The finished cells that can be read, or those of a part."""
        return (cell for cell in self._kept.values() if part in ("", cell["part"]))

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the cells, by part."""
        return self.info["settings"]


def _rows(cell: Mapping[str, Any]) -> Iterator[tuple]:
    for protocol, similarities in cell["metrics"].items():
        for similarity, values in similarities.items():
            for metric, value in values.items():
                own = float("nan") if value is None else float(value)
                yield (cell["part"], cell["dataset"], cell["method"], cell["seed"], protocol, similarity, metric, own)


@dataclass(frozen=True)
class Findings:
    """The results of a study; shared between sessions, not to be changed."""

    study: Reading
    table: pd.DataFrame
    """part, dataset, method, seed, protocol, similarity, metric, value."""
    chosen: dict[str, pd.DataFrame]
    """The settings that the search chose, by part."""

    @classmethod
    def of(cls, study: Reading) -> Findings:
        """Everything that doesn't depend on the choices on a page."""
        rows = [row for cell in study.cells() for row in _rows(cell)]
        chosen = {part: search_results(study, part) for part in PARTS}
        return cls(study, pd.DataFrame(rows, columns=COLUMNS), chosen)

    def datasets(self) -> list[str]:
        """Data sets that have a cell, in the study's order."""
        measured = dict.fromkeys(self.table.loc[self.table["part"].isin(["search", *PARTS]), "dataset"])
        return [name for name in dict.fromkeys([*self.study.settings.get("data", {}), *measured]) if name in measured]

    def measured(self, dataset: str) -> pd.DataFrame:
        """The final measurements on a data set."""
        return self.table[(self.table["dataset"] == dataset) & self.table["part"].isin(PARTS)]

    def metrics(self, dataset: str) -> list[str]:
        """The metrics measured on a data set, in the order of all tables."""
        measured = set(self.measured(dataset)["metric"])
        return [name for name in dict.fromkeys([*METRICS, *MEASURES]) if name in measured]

    def baseline(self, dataset: str) -> pd.Series | None:
        """The best baseline on the classes held out of training; None where none has been searched yet."""
        try:
            return best_baseline(self.chosen["methods"], dataset)
        except RunError:
            return None

    def _values(self, part: str, dataset: str, protocol: str, metric: str) -> pd.DataFrame:
        wanted = {"part": part, "dataset": dataset, "protocol": protocol, "metric": metric}
        return self.table[(self.table[list(wanted)] == pd.Series(wanted)).all(axis=1) & self.table["value"].notna()]

    def seeds(self, dataset: str, protocol: str, metric: str) -> pd.DataFrame:
        """The value of each method, similarity and seed: name, similarity, seed, value."""
        values = self._values("methods", dataset, protocol, metric)
        return values.assign(name=values["method"].map(title_of))[["name", "similarity", "seed", "value"]]

    def results(self, dataset: str, protocol: str, metric: str) -> pd.DataFrame:
        """Every method, ranked by each of its similarities, best first.

        Returns:
            method, name, similarity, value (mean over seeds), half (of its 95 % interval), seeds, difference (to the
            best baseline), difference_half, p (corrected by Holm), baseline (whether it is the best one), settings.
        """
        values = self._values("methods", dataset, protocol, metric)
        table, best = summary(values, "methods"), self.baseline(dataset)
        keys = ["method", "similarity"]
        if best is not None:
            against = compare_with_baseline(values, self.chosen["methods"], (metric,))
            against = against.rename(columns={"half": "difference_half", "p": "uncorrected", "holm": "p"})
            table = table.merge(against[[*keys, "difference", "difference_half", "p"]], on=keys, how="left")
            is_best = (table["method"] == best["method"]) & (table["similarity"] == best["similarity"])
        else:
            table, is_best = table.assign(difference=float("nan"), difference_half=float("nan"), p=float("nan")), False
        settings = {
            cell["method"]: settings_text(cell["settings"])
            for cell in self.study.cells("methods") if cell["dataset"] == dataset
        }  # fmt: skip
        table = table.assign(
            name=table["method"].map(title_of), baseline=is_best, settings=table["method"].map(settings)
        )
        ascending = not metric_of(metric).larger_is_better
        table = table.sort_values("value", ascending=ascending, kind="stable", ignore_index=True)
        columns = ["value", "half", "seeds", "difference", "difference_half", "p", "baseline", "settings"]
        return table[["method", "name", "similarity", *columns]]

    def ablation(self, dataset: str, protocol: str, metric: str) -> pd.DataFrame:
        """Each variant's difference to the default, seed by seed.

        Returns:
            factor, name, similarity, value (the difference), half, seeds, p; in the plan's order.
        """
        rows = []
        values = self._values("ablation", dataset, protocol, metric)
        for similarity, group in values.groupby("similarity", sort=False):
            by_seed = group.pivot_table(index="seed", columns="method", values="value")
            if "default" not in by_seed:
                continue
            for name in by_seed.columns.drop("default"):
                both = by_seed[[name, "default"]].dropna()
                if len(both):
                    variant = ABLATIONS.get(name)
                    title = (variant.factor, variant.method.title) if variant else ("other", name)
                    difference, half, p = paired_test(both[name].tolist(), both["default"].tolist())
                    rows.append((*title, similarity, difference, half, len(both), p))
        order = [(variant.factor, variant.method.title) for variant in ABLATIONS.values()]
        rows.sort(key=lambda row: order.index(row[:2]) if row[:2] in order else len(order))
        return pd.DataFrame(rows, columns=["factor", "name", "similarity", "value", "half", "seeds", "p"])

    def default(self, dataset: str, protocol: str, metric: str) -> pd.DataFrame:
        """Results of the ablation's default: similarity, value, half, seeds."""
        values = self._values("ablation", dataset, protocol, metric)
        return summary(values[values["method"] == "default"], "ablation")[["similarity", "value", "half", "seeds"]]

    def learning(self, dataset: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The curves on held-out classes, from `statistics.curves`, and how fast each method was.

        The second is empty where no baseline has been searched yet.
        """
        own = self.chosen["methods"]
        own = own[own["dataset"] == dataset]
        log = curves(self.study, own)
        return log, convergence(self.study, own) if self.baseline(dataset) is not None else pd.DataFrame()

    def published(self, dataset: str) -> pd.DataFrame:
        """Published Recall@K beside this study's; empty where nothing is published."""
        return published_table(summary(self.table[self.table["dataset"] == dataset], "methods"), dataset)


def title_of(method: str) -> str:
    """A method's title; its name where it isn't known."""
    return METHODS[method].title if method in METHODS else method


def metric_of(name: str) -> Metric:
    """A metric's title and format, also of those that only studies measure."""
    if name in METRICS or name not in MEASURES:
        return METRICS.get(name) or Metric(name, "", "", 3)
    heading, scale, digits = MEASURES[name]
    help_text = "Share of the positive pairs of this density that are accepted at one threshold."
    return Metric(heading, "%" if scale == 100 else "", help_text, digits)


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings as a short text."""
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()
    )


@dataclass(frozen=True)
class StudyProgress:
    """How many of the cells planned in study.json are finished."""

    table: pd.DataFrame
    """part, dataset, searched, searches, trained, trainings: cells that are finished, and that are planned."""
    done: int
    planned: int
    """Every method is planned as many seeds as the one with most has; presets in an ablation are counted apart."""
    skipped: list[str]
    """Methods that the study went past, without a damaged cell: their missing cells probably failed."""
    waiting: list[str]
    """Data sets and parts without a cell."""

    @property
    def complete(self) -> bool:
        return self.done >= self.planned and not self.waiting


def progress(study: Reading) -> StudyProgress:
    """Count the cells of a study by part and data set, and list the methods that were skipped."""
    there: dict[tuple[str, str], dict[str, tuple[set[str], set[int]]]] = {}
    for cell in study.cells():
        part = next((name for name in PARTS if cell["key"].startswith(f"search-{name}-")), cell["part"])
        if part in PARTS:
            searched_, seeds = there.setdefault((part, cell["dataset"]), {}).setdefault(cell["method"], (set(), set()))
            if cell["part"] == "search":
                searched_.add(cell["key"])
            else:
                seeds.add(cell["seed"])
    rows, skipped, diverged = [], list[str](), _diverged(study)
    for (part, dataset), methods in sorted(there.items(), key=lambda item: (PARTS.index(item[0][0]), item[0][1])):
        plan = study.settings.get(part, {}).get("configurations", {})
        most: dict[bool, int] = {}
        for (own, _), group in there.items():
            for name, (_, seeds) in group.items() if own == part else ():
                more = _has_more_seeds(part, name)
                most[more] = max(most.get(more, 0), len(seeds))
        wanted = {
            name: (len(plan[name]), most.get(_has_more_seeds(part, name), 0) if _trains(part, name) else 1)
            for name in plan
        }
        counts = {name: (len(methods[name][0]), len(methods[name][1])) if name in methods else (0, 0) for name in plan}
        searches, trainings = (sum(want[at] for want in wanted.values()) for at in (0, 1))
        searched_cells, trained = (sum(min(counts[name][at], wanted[name][at]) for name in plan) for at in (0, 1))
        rows.append((part, dataset, searched_cells, searches, trained, trainings))
        last = max((place for place, name in enumerate(plan) if counts[name][1]), default=-1)
        for name in list(plan)[: max(last - AHEAD + 1, 0)]:
            damaged = any(f"-{dataset}-{name}-" in key for key in study.broken)
            if not damaged and any(has < want for has, want in zip(counts[name], wanted[name], strict=True)):
                why = " (every configuration diverged)" if (part, dataset, name) in diverged else ""
                skipped.append(f"{title_of(name) if part == 'methods' else name} on {dataset}{why}")
    table = pd.DataFrame(rows, columns=["part", "dataset", "searched", "searches", "trained", "trainings"])
    started = {dataset for _, dataset in there}
    waiting = [name for name in study.settings.get("data", {}) if name not in started]
    waiting += [part for part in PARTS if part in study.settings and part not in set(table["part"])]
    done, planned = table["searched"] + table["trained"], table["searches"] + table["trainings"]
    return StudyProgress(table, int(done.sum()), int(planned.sum()), skipped, waiting)


def _diverged(study: Reading) -> set[tuple[str, str, str]]:
    """Part, data set and method of the searches in which no configuration reached its first measurement."""
    curves: dict[tuple[str, str, str], bool] = {}
    for cell in study.cells("search"):
        key = (cell["key"].split("-")[1], cell["dataset"], cell["method"])
        curves[key] = curves.get(key, False) or bool(cell["curve"])
    return {key for key, measured in curves.items() if not measured}


def _has_more_seeds(part: str, name: str) -> bool:
    return part == "ablation" and name in PRESETS_THEMSELVES


def _trains(part: str, method: str) -> bool:
    return part != "methods" or method not in METHODS or METHODS[method].trains
