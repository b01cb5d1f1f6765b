"""The plan of a study: which cells it has, what each cell needs, and the study's settings.

Each data set and method has a cell per configuration (`search`), then a cell per seed (`methods`) with the best
configuration. The ablation does the same, with one configuration per variant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated, Any

from annotated_types import Interval

from pddm_lab.config import LARGEST, Count, TrainConfig, runs_root
from pddm_lab.errors import ConfigError, RunError, unknown_name
from pddm_lab.files import plain
from pddm_lab.progress import progress_bars
from pddm_lab.study.cells import Study, key_of
from pddm_lab.study.fit import EVAL_EVERY
from pddm_lab.study.material import FOLDS, Material
from pddm_lab.study.methods import ABLATIONS, CONFIGURATIONS, METHODS, PRESETS_THEMSELVES, Method
from pddm_lab.study.search import search_configuration, train_and_measure
from pddm_lab.study.work import Outcome, Task, compute_cells, to_stderr
from pddm_lab.validation import validated

DATASETS = ("emoji", "grocery", "digits")
PARTS = ("methods", "ablation")


@dataclass(frozen=True)
class Plan:
    """The size of a study. The defaults take about an hour and a half on two cores."""

    datasets: tuple[str, ...] = DATASETS
    """Data sets for comparing the methods."""
    ablation_datasets: tuple[str, ...] = ("emoji", "grocery")
    """Data sets for the ablation."""
    parts: tuple[str, ...] = PARTS
    """methods, ablation, or both."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Keys of `METHODS`."""
    variants: tuple[str, ...] = tuple(ABLATIONS)
    """Keys of `ABLATIONS`."""
    configurations: Annotated[int, Interval(ge=1, le=CONFIGURATIONS)] = CONFIGURATIONS
    """Number of configurations that each method searches; 1 to 6."""
    seeds: Count = 5
    """Number of trainings that measure each method."""
    ablation_seeds: Count = 3
    """Number of trainings that measure each variant of the ablation; the presets themselves have `seeds`."""
    folds: Annotated[int, Interval(ge=2, le=LARGEST)] = FOLDS
    """Number of parts that the training classes are split into."""
    steps: Count = 400
    """Limit of a configuration's training steps in the search, on the classes of all folds but one."""
    eval_every: Count = EVAL_EVERY
    """Steps between measurements on the held-out classes."""
    base: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrainConfig` that differ from the preset `joint` for all methods."""

    def __post_init__(self) -> None:
        for what, names, known in (
            ("part", self.parts, PARTS), ("method", self.methods, METHODS), ("variant", self.variants, ABLATIONS)
        ):  # fmt: skip
            for name in names:
                if name not in known:
                    raise ConfigError(unknown_name(what, name, known))
        validated(self)

    def config(self, dataset: str) -> TrainConfig:
        """The configuration of a data set's material."""
        return TrainConfig.from_parameters({"preset": "joint", **self.base, "dataset": dataset, "device": "cpu"})

    def settings(self, part: str) -> dict[str, Any]:
        """The settings that the cells of a part depend on, for study.json."""
        shared = {name: getattr(self, name) for name in ("folds", "steps", "eval_every")}
        where = ("data_root", "runs_root")
        shared["base"] = {name: value for name, value in self.base.items() if name not in where}
        searched = {method.name: method.configurations(self.configurations) for method in self._methods(part)}
        return {**shared, "configurations": searched}

    def tasks(self) -> list[Task]:
        """All cells, data set by data set."""
        tasks = []
        for dataset in dict.fromkeys((*self.datasets, *self.ablation_datasets)):
            for part in self.parts:
                if dataset in (self.datasets if part == "methods" else self.ablation_datasets):
                    for method in self._methods(part):
                        tasks += self._method_tasks(part, dataset, method)
        return tasks

    def _methods(self, part: str) -> list[Method]:
        if part == "methods":
            return [METHODS[name] for name in self.methods]
        return [ABLATIONS[name].method for name in self.variants]

    def _method_tasks(self, part: str, dataset: str, method: Method) -> list[Task]:
        shared = {"config": self.config(dataset), "folds": self.folds, "method": method}
        cost, networks = step_cost(method), int("pddm" in method.ranks)
        searches = [
            Task(
                key_of("search", part, dataset, method.name, number), search_configuration,
                {**shared, "settings": settings, "steps": self.steps, "eval_every": self.eval_every},
                cost=self.folds * (0.75 * self.steps * cost + 1000 * networks) if method.trains else 100.0,
            )
            for number, settings in enumerate(method.configurations(self.configurations))
        ]  # fmt: skip
        fewer = part == "ablation" and method.name not in PRESETS_THEMSELVES
        seeds = (self.ablation_seeds if fewer else self.seeds) if method.trains else 1
        needs = tuple(task.key for task in searches)
        finals = [
            Task(
                key_of(part, dataset, method.name, seed), train_and_measure, {**shared, "seed": seed, "part": part},
                needs, cost=self.steps * cost + 1000 * len(method.ranks) + 9000 * networks,
            )
            for seed in range(seeds)
        ]  # fmt: skip
        return searches + finals


def step_cost(method: Method) -> float:
    """About how many milliseconds a training step takes on one core."""
    if method.objective == "joint":
        mines = method.fixed.get("mining", "anchor") == "anchor" and method.fixed.get("mining_similarity", "pddm")
        return 28.0 if mines == "pddm" and "pddm" in method.ranks else 11.0
    return {"margin": 18.0, "triplet_semihard": 11.0, "proxy_anchor": 8.0}.get(method.name, 6.0)


def run_study(
    plan: Plan, name: str = "main", root: str = "", processes: int = 1, log: Callable[[str], None] | None = None,
    progress: bool = True,
) -> tuple[Study, Outcome]:  # fmt: skip
    """Compute the cells of a plan that a study doesn't have yet.

    Args:
        name: of the study; it is created if there is none.
        root: the runs' root; empty: the default one.
        processes: that compute in parallel, each with one thread.
        log: receives a line about each cell; None: standard error.
        progress: show bars while the trunk's features are computed.

    Raises:
        LabError: a bad choice, missing data, or a study with other settings.
    """
    if processes < 1:
        raise ConfigError(f"--processes expects 1 or more, got {processes}.")
    study = Study.create(name, root)
    for part in plan.parts:
        study.record_settings(part, plan.settings(part))
    tasks = plan.tasks()
    left = [task for task in tasks if not study.has(task.key)]
    for dataset in dict.fromkeys(task.arguments["config"].dataset for task in left):
        # Missing features are computed here once, on all cores, before several processes need them.
        material = Material.load(plan.config(dataset), plan.folds, progress_bars(progress))
        settings = {"fingerprint": material.dataset.fingerprint(), "folds": len(material.folds)}
        study.record_settings("data", {dataset: settings})
    minutes = sum(task.cost for task in left) / 60_000 / processes
    (log or to_stderr)(f"Planned: about {minutes:.0f} min; cores: {processes}.")
    return study, compute_cells(study, tasks, processes, log)


def open_study(name: str, plan: Plan, root: str = "", processes: int = 1) -> Study:
    """An existing study, or the study of a plan, computed as far as needed and named by a hash of the plan.

    Args:
        name: of an existing study; empty: run the plan.
        plan: ignored where a study is named.

    Raises:
        LabError: there is no such study, an error of `run_study`, or a cell that failed.
    """
    if name:
        return Study(runs_root(root) / "studies" / name)
    settings = json.dumps(plain([plan.settings(part) for part in plan.parts]), sort_keys=True)
    study, outcome = run_study(plan, f"small-{sha256(settings.encode()).hexdigest()[:8]}", root, processes)
    if outcome.failures:
        key, reason = next(iter(outcome.failures.items()))
        raise RunError(f"{key} of {study.path} failed: {reason}")
    return study
