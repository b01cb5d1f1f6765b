"""The plan of a comparison: which cells there are, what each needs, and what the study's settings are.

For each data set and method: a cell per configuration (`search`), then one per seed (`methods`) by the configuration
that was best. For the ablation the same with one configuration per variant.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from pddm_lab.config import TrainConfig, runs_root
from pddm_lab.errors import ConfigError, RunError
from pddm_lab.files import plain
from pddm_lab.progress import progress_bars
from pddm_lab.study.cells import Study, key_of
from pddm_lab.study.fit import EVAL_EVERY
from pddm_lab.study.material import FOLDS, Material
from pddm_lab.study.methods import ABLATIONS, CONFIGURATIONS, METHODS, PRESETS_THEMSELVES, Method
from pddm_lab.study.search import search_configuration, train_and_measure
from pddm_lab.study.work import Outcome, Task, carry_out, to_stderr

DATASETS = ("emoji", "grocery", "digits")
PARTS = ("methods", "ablation")


@dataclass(frozen=True)
class Plan:
    """How large a comparison is. The defaults take about an hour and a half on two cores."""

    datasets: tuple[str, ...] = DATASETS
    """Data sets of the methods' part."""
    ablation_datasets: tuple[str, ...] = ("emoji", "grocery")
    """Data sets of the ablation."""
    parts: tuple[str, ...] = PARTS
    """methods, ablation, or both."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Names of `METHODS`."""
    variants: tuple[str, ...] = tuple(ABLATIONS)
    """Names of `ABLATIONS`."""
    configurations: int = CONFIGURATIONS
    """That each method searches; 1 to 6."""
    seeds: int = 5
    """Trainings that each method is measured by."""
    ablation_seeds: int = 3
    """The same for a variant of the ablation; the presets themselves have `seeds`."""
    folds: int = FOLDS
    """Of the training classes."""
    steps: int = 400
    """The most a configuration may train, on the classes of all folds but one."""
    eval_every: int = EVAL_EVERY
    """Steps between measurements on the held-out classes."""
    base: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrainConfig` that differ from the preset `quick` for all methods."""

    def __post_init__(self) -> None:
        for what, names, known in (
            ("part", self.parts, PARTS), ("method", self.methods, METHODS), ("variant", self.variants, ABLATIONS)
        ):  # fmt: skip
            for name in names:
                if name not in known:
                    near = "".join(f" Did you mean {other!r}?" for other in difflib.get_close_matches(name, known, 1))
                    raise ConfigError(f"Unknown {what} {name!r}.{near} Known: {', '.join(known)}.")
        lowest = {"configurations": 1, "seeds": 1, "ablation_seeds": 1, "folds": 2, "steps": 1, "eval_every": 1}
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise ConfigError(f"--{name.replace('_', '-')} expects {low} or more, got {getattr(self, name)}.")
        if self.configurations > CONFIGURATIONS:
            raise ConfigError(f"--configurations expects {CONFIGURATIONS} or fewer, got {self.configurations}.")

    def config(self, dataset: str) -> TrainConfig:
        """The configuration that a data set's material is made by."""
        return TrainConfig.from_parameters({**self.base, "dataset": dataset, "device": "cpu"})

    def settings(self, part: str) -> dict[str, Any]:
        """What the cells of a part depend on, for study.json."""
        shared = {name: getattr(self, name) for name in ("folds", "steps", "eval_every")}
        where = ("data_root", "runs_root")
        shared["base"] = {name: value for name, value in self.base.items() if name not in where}
        searched = {method.name: method.configurations(self.configurations) for method in self._methods(part)}
        return {**shared, "configurations": searched}

    def tasks(self) -> list[Task]:
        """All cells, data set by data set."""
        found = []
        for dataset in dict.fromkeys((*self.datasets, *self.ablation_datasets)):
            for part in self.parts:
                if dataset in (self.datasets if part == "methods" else self.ablation_datasets):
                    for method in self._methods(part):
                        found += self._of_method(part, dataset, method)
        return found

    def _methods(self, part: str) -> list[Method]:
        if part == "methods":
            return [METHODS[name] for name in self.methods]
        return [ABLATIONS[name].method for name in self.variants]

    def _of_method(self, part: str, dataset: str, method: Method) -> list[Task]:
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
                key_of(part, dataset, method.name, seed), train_and_measure,
                {**shared, "seed": seed, "part": part}, needs,
                cost=self.steps * cost + 1000 * len(method.ranks) + 9000 * networks,
            )
            for seed in range(seeds)
        ]  # fmt: skip
        return searches + finals


def step_cost(method: Method) -> float:
    """About how many milliseconds a step of a method takes on one core."""
    if method.objective == "joint":
        mines = method.fixed.get("mining", "anchor") == "anchor" and method.fixed.get("mining_similarity", "pddm")
        return 28.0 if mines == "pddm" and "pddm" in method.ranks else 11.0
    return {"margin": 18.0, "triplet_semihard": 11.0, "proxy_anchor": 8.0}.get(method.name, 6.0)


def compare(
    plan: Plan, name: str = "main", root: str = "", processes: int = 1, say: Callable[[str], None] | None = None,
    progress: bool = True,
) -> tuple[Study, Outcome]:  # fmt: skip
    """Carry out a plan in a study, going on where it stopped.

    Args:
        plan: what to compare.
        name: of the study.
        root: the runs' root; empty: the default one.
        processes: that compute at once, with one thread each.
        say: told of each cell; None: standard error.
        progress: show bars while the trunk's features are computed.

    Raises:
        LabError: a bad choice, missing data, or a study that was begun with other settings.
    """
    if processes < 1:
        raise ConfigError(f"--processes expects 1 or more, got {processes}.")
    study = Study.create(name, root)
    for part in plan.parts:
        study.settle(part, plan.settings(part))
    tasks = plan.tasks()
    left: Sequence[Task] = [task for task in tasks if not study.has(task.key)]
    for dataset in dict.fromkeys(task.arguments["config"].dataset for task in left):
        # Features that are not on disk yet are computed once, with all cores, before processes ask for them.
        material = Material.load(plan.config(dataset), plan.folds, progress_bars(progress))
        study.settle("data", {dataset: {"fingerprint": material.dataset.fingerprint(), "folds": len(material.folds)}})
    planned = sum(task.cost for task in left) / 60_000 / processes
    (say or to_stderr)(f"Planned: about {planned:.0f} min; cores: {processes}.")
    return study, carry_out(study, tasks, processes, say)


def opened(
    name: str, plan: Plan, root: str = "", processes: int = 1, say: Callable[[str], None] | None = None
) -> Study:  # fmt: skip
    """A study that is there, or the one that a plan makes, named after what the plan changes.

    Args:
        name: of a study to look at; empty: carry out the plan.
        plan: unused where a study is named.
        root: the runs' root; empty: the default one.
        processes: that compute at once.
        say: told of each cell; None: standard error.

    Raises:
        LabError: there is no such study, or what `compare` raises; a cell that failed.
    """
    if name:
        return Study(runs_root(root) / "studies" / name)
    settings = json.dumps(plain([plan.settings(part) for part in plan.parts]), sort_keys=True)
    study, outcome = compare(plan, f"small-{sha256(settings.encode()).hexdigest()[:8]}", root, processes, say)
    if outcome.failures:
        key, reason = next(iter(outcome.failures.items()))
        raise RunError(f"{key} of {study.path} failed: {reason}")
    return study
