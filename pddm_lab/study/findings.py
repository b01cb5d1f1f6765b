"""What a study's finished cells say, as frames for a page; a cell that can't be read is named and left out."""

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
from pddm_lab.study.statistics import best_baseline, convergence, curves, paired, searched, summary, versus
from pddm_lab.study.tables import MEASURES, published

PARTS = ("methods", "ablation")
"""The parts a page shows."""
AHEAD = 2
"""A method is passed over when one so many places after it has been measured: those between may still be at work."""
Cells = dict[str, tuple[int, dict[str, Any]]]
"""Cells that were read before, by key: when the file changed, and what it says."""


class Reading(Study):
    """A study for reading while somebody writes it.

    Args:
        path: the study's folder.
        before: cells that were read before; what is read now is added.

    Raises:
        RunError: study.json is missing, torn or foreign.
    """

    def __init__(self, path: str | Path, before: Cells | None = None) -> None:
        super().__init__(path)
        self.broken: dict[str, str] = {}
        """Cells that can't be read, and why."""
        self.changed = (self.path / "study.json").stat().st_mtime
        """When the newest of its files was written, in seconds since 1970."""
        before = {} if before is None else before
        for file in sorted((self.path / "cells").glob("[!.]*.json")):
            try:
                stamp = file.stat().st_mtime_ns
                if file.stem not in before or before[file.stem][0] != stamp:
                    cell = self.cell(file.stem)
                    _check(cell)
                    before[file.stem] = stamp, cell
                self._kept[file.stem] = before[file.stem][1]
                self.changed = max(self.changed, stamp / 1e9)
            except (RunError, OSError) as error:
                self.broken[file.stem] = str(error)
            except (AttributeError, KeyError, TypeError, ValueError, IndexError):
                self.broken[file.stem] = f"{file} is foreign: no such cell is written by a study. Delete it."
            if file.stem in self.broken:
                self._kept.pop(file.stem, None)

    def cells(self, part: str = "") -> Iterator[dict[str, Any]]:
        """The finished cells that can be read, or those of a part."""
        return (cell for cell in self._kept.values() if part in ("", cell["part"]))

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the cells were made with, by part."""
        return self.info["settings"]


def _rows(cell: Mapping[str, Any]) -> Iterator[tuple]:
    for protocol, similarities in cell["metrics"].items():
        for similarity, values in similarities.items():
            for metric, value in values.items():
                own = float("nan") if value is None else float(value)
                yield (cell["part"], cell["dataset"], cell["method"], cell["seed"], protocol, similarity, metric, own)


def _check(cell: Mapping[str, Any]) -> None:
    """Raises where a cell lacks what the statistics take from it."""
    for _ in _rows(cell):
        pass
    if cell["part"] == "search":
        chosen = cell["chosen"]
        rows = [(row["step"], row["seconds"]) for row in cell["curve"]]  # none where the configuration diverged
        for number in sum(rows, (chosen["map@r"], chosen["error"], chosen["step"])):
            float(number)
        str(chosen["similarity"])


@dataclass(frozen=True)
class Findings:
    """What the cells of a study come to; shared between sessions, not to be changed."""

    study: Reading
    table: pd.DataFrame
    """part, dataset, method, seed, protocol, similarity, metric, value."""
    chosen: dict[str, pd.DataFrame]
    """What the search chose, by part."""

    @classmethod
    def of(cls, study: Reading) -> Findings:
        """Everything that doesn't depend on what a page is asked to show."""
        rows = [row for cell in study.cells() for row in _rows(cell)]
        chosen = {part: searched(study, part) for part in PARTS}
        return cls(study, pd.DataFrame(rows, columns=COLUMNS), chosen)

    def datasets(self) -> list[str]:
        """Data sets that have a cell, in the order in which the study took them up."""
        there = dict.fromkeys(self.table.loc[self.table["part"].isin(["search", *PARTS]), "dataset"])
        order = [name for name in self.study.settings.get("data", {}) if name in there]
        return [*order, *(name for name in there if name not in order)]

    def measured(self, dataset: str) -> pd.DataFrame:
        """The final measurements on a data set."""
        return self.table[(self.table["dataset"] == dataset) & self.table["part"].isin(PARTS)]

    def metrics(self, dataset: str) -> list[str]:
        """Metrics that were measured on a data set, in the order of all tables."""
        there = set(self.measured(dataset)["metric"])
        return [name for name in dict.fromkeys([*METRICS, *MEASURES]) if name in there]

    def baseline(self, dataset: str) -> pd.Series | None:
        """The best baseline, by the classes held out of training; None where none was searched yet."""
        try:
            return best_baseline(self.chosen["methods"], dataset)
        except RunError:
            return None

    def _values(self, part: str, dataset: str, protocol: str, metric: str) -> pd.DataFrame:
        found = self.table
        return found[
            (found["part"] == part) & (found["dataset"] == dataset) & (found["protocol"] == protocol)
            & (found["metric"] == metric) & found["value"].notna()
        ]  # fmt: skip

    def seeds(self, dataset: str, protocol: str, metric: str) -> pd.DataFrame:
        """Each seed of each ranking: name, similarity, seed, value."""
        found = self._values("methods", dataset, protocol, metric)
        return found.assign(name=found["method"].map(title_of))[["name", "similarity", "seed", "value"]]

    def results(self, dataset: str, protocol: str, metric: str) -> pd.DataFrame:
        """Every ranking of every method, best first.

        Returns:
            method, name, similarity, value (mean over seeds), half (of its 95 % interval), seeds, difference (to the
            best baseline), difference_half, p (corrected by Holm), baseline (whether it is the best one), settings.
        """
        values = self._values("methods", dataset, protocol, metric)
        found = summary(values, "methods")
        keys = ["method", "similarity"]
        if self.baseline(dataset) is not None:
            against = versus(values, self.chosen["methods"], (metric,))
            against = against.rename(columns={"half": "difference_half", "p": "uncorrected", "holm": "p"})
            found = found.merge(against[[*keys, "difference", "difference_half", "p"]], on=keys, how="left")
        else:
            found = found.assign(difference=float("nan"), difference_half=float("nan"), p=float("nan"))
        best = self.baseline(dataset)
        is_best = [best is not None and row == (best["method"], best["similarity"]) for row in _pairs(found)]
        settings = {
            cell["method"]: settings_text(cell["settings"])
            for cell in self.study.cells("methods") if cell["dataset"] == dataset
        }  # fmt: skip
        found = found.assign(
            name=found["method"].map(title_of), baseline=is_best, settings=found["method"].map(settings)
        )
        falling = metric_of(metric).larger_is_better
        found = found.sort_values("value", ascending=not falling, kind="stable", ignore_index=True)
        columns = ["name", *keys[1:], "value", "half", "seeds", "difference", "difference_half", "p", "baseline"]
        return found[["method", *columns, "settings"]]

    def ablation(self, dataset: str, protocol: str, metric: str) -> pd.DataFrame:
        """Each variant's difference to the default, seed by seed.

        Returns:
            factor, name, similarity, value (the difference), half, seeds, p; in the plan's order.
        """
        found = self._values("ablation", dataset, protocol, metric)
        rows = []
        for similarity, group in found.groupby("similarity", sort=False):
            by_seed = group.pivot_table(index="seed", columns="method", values="value")
            if "default" not in by_seed:
                continue
            for name in by_seed.columns.drop("default"):
                both = by_seed[[name, "default"]].dropna()
                if len(both):
                    variant = ABLATIONS.get(name)
                    told = (variant.factor, variant.method.title) if variant else ("other", name)
                    difference, half, p = paired(both[name].tolist(), both["default"].tolist())
                    rows.append((*told, similarity, difference, half, len(both), p))
        found = pd.DataFrame(rows, columns=["factor", "name", "similarity", "value", "half", "seeds", "p"])
        order = [(variant.factor, variant.method.title) for variant in ABLATIONS.values()]
        place = {row: number for number, row in enumerate(order)}
        at = [place.get(row, len(order)) for row in zip(found["factor"], found["name"], strict=True)]
        return found.iloc[sorted(range(len(found)), key=lambda row: at[row])].reset_index(drop=True)

    def default(self, dataset: str, protocol: str, metric: str) -> pd.DataFrame:
        """What the ablation's default came to: similarity, value, half, seeds."""
        found = self._values("ablation", dataset, protocol, metric)
        return summary(found[found["method"] == "default"], "ablation")[["similarity", "value", "half", "seeds"]]

    def learning(self, dataset: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The curves on held-out classes, as `statistics.curves` has them, and how fast each method was.

        The second is empty where no baseline was searched yet.
        """
        own = self.chosen["methods"]
        own = own[own["dataset"] == dataset]
        log = curves(self.study, own)
        return log, convergence(self.study, own) if self.baseline(dataset) is not None else pd.DataFrame()

    def published(self, dataset: str) -> pd.DataFrame:
        """Published Recall@K beside what was measured here; empty where nothing is published."""
        return published(summary(self.table[self.table["dataset"] == dataset], "methods"), dataset)


def _pairs(found: pd.DataFrame) -> Iterator[tuple[str, str]]:
    return zip(found["method"], found["similarity"], strict=True)


def title_of(method: str) -> str:
    """What a method is called."""
    return METHODS[method].title if method in METHODS else method


def metric_of(name: str) -> Metric:
    """How a metric is written, also one that only studies measure."""
    if name in METRICS or name not in MEASURES:
        return METRICS.get(name) or Metric(name, "", "", 3)
    heading, scale, digits = MEASURES[name]
    told = "Positive pairs found at one threshold, among the pairs that lie so densely."
    return Metric(heading, "%" if scale == 100 else "", told, digits)


def settings_text(settings: Mapping[str, Any]) -> str:
    """Settings in words, as short as they can be."""
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()
    )


@dataclass(frozen=True)
class Progress:
    """How far a study is, by what it set out to do in study.json."""

    table: pd.DataFrame
    """part, dataset, searched, searches, trained, trainings: cells that are there, and that are planned."""
    done: int
    planned: int
    """Seeds are planned for every method as for the one that has most; of an ablation, the presets have their own."""
    passed: list[str]
    """Methods that others overtook, and that have no torn cell: what is missing of them likely failed."""
    waiting: list[str]
    """Data sets and parts that no cell is there of."""

    @property
    def complete(self) -> bool:
        return self.done >= self.planned and not self.waiting


def progress(study: Reading) -> Progress:
    """How far a study is: its cells by part and data set, and which methods were passed over."""
    there: dict[tuple[str, str], dict[str, tuple[set[str], set[int]]]] = {}
    for cell in study.cells():
        part = next((name for name in PARTS if cell["key"].startswith(f"search-{name}-")), cell["part"])
        if part in PARTS:
            searched_, seeds = there.setdefault((part, cell["dataset"]), {}).setdefault(cell["method"], (set(), set()))
            if cell["part"] == "search":
                searched_.add(cell["key"])
            else:
                seeds.add(cell["seed"])
    rows, passed, diverged = [], list[str](), _diverged(study)
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
        found, trained = (sum(min(counts[name][at], wanted[name][at]) for name in plan) for at in (0, 1))
        rows.append((part, dataset, found, searches, trained, trainings))
        last = max((place for place, name in enumerate(plan) if counts[name][1]), default=-1)
        for name in list(plan)[: max(last - AHEAD + 1, 0)]:
            torn = any(f"-{dataset}-{name}-" in key for key in study.broken)
            if not torn and any(has < want for has, want in zip(counts[name], wanted[name], strict=True)):
                why = " (every configuration diverged)" if (part, dataset, name) in diverged else ""
                passed.append(f"{title_of(name) if part == 'methods' else name} on {dataset}{why}")
    table = pd.DataFrame(rows, columns=["part", "dataset", "searched", "searches", "trained", "trainings"])
    begun = {dataset for _, dataset in there}
    waiting = [name for name in study.settings.get("data", {}) if name not in begun]
    waiting += [part for part in PARTS if part in study.settings and part not in set(table["part"])]
    done, planned = table["searched"] + table["trained"], table["searches"] + table["trainings"]
    return Progress(table, int(done.sum()), int(planned.sum()), passed, waiting)


def _diverged(study: Reading) -> set[tuple[str, str, str]]:
    """Part, data set and method of the searches of which no configuration came to its first measurement."""
    curves: dict[tuple[str, str, str], bool] = {}
    for cell in study.cells("search"):
        key = (cell["key"].split("-")[1], cell["dataset"], cell["method"])
        curves[key] = curves.get(key, False) or bool(cell["curve"])
    return {key for key, measured in curves.items() if not measured}


def _has_more_seeds(part: str, name: str) -> bool:
    return part == "ablation" and name in PRESETS_THEMSELVES


def _trains(part: str, method: str) -> bool:
    return part != "methods" or method not in METHODS or METHODS[method].trains
