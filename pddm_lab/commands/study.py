"""The command line's `compare`: carry out a study, go on with one, and write its tables."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from pddm_lab.errors import ConfigError, RunError


def compare(
    name: str = "main",
    part: str = "all",
    datasets: tuple[str, ...] = ("emoji", "grocery", "digits"),
    ablation_datasets: tuple[str, ...] = ("emoji", "grocery"),
    methods: Annotated[tuple[str, ...], arg(metavar="NAMES")] = (),
    configurations: int = 6,
    seeds: int = 5,
    ablation_seeds: int = 3,
    steps: int = 400,
    processes: int = 0,
    tables_only: bool = False,
    out: str = "",
    data_root: str = "",
    runs_root: str = "",
) -> None:
    """Compare every method on the same features, batches and budget, and write the tables; goes on where it stopped.

    Args:
        name: of the study, a folder under studies in the runs' root.
        part: methods, ablation, or all.
        datasets: to compare the methods on.
        ablation_datasets: to take PDDM apart on.
        methods: to compare, by name; empty: all.
        configurations: that each method searches, at most 6.
        seeds: trainings that each method is measured by.
        ablation_seeds: the same for each variant of the ablation; the presets themselves have as many as methods.
        steps: the most a configuration trains while it is searched.
        processes: that compute at once, one thread each; 0: one per core.
        tables_only: write the tables of what there is, and compute nothing.
        out: folder the tables go to; empty: tables in the study's folder.
        data_root: folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data.
        runs_root: folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs.
    """
    from pddm_lab import config
    from pddm_lab.study.cells import Study
    from pddm_lab.study.compare import PARTS, Plan
    from pddm_lab.study.compare import compare as carry_out
    from pddm_lab.study.tables import write_tables

    if part not in ("all", *PARTS):
        raise ConfigError(f"--part expects all, {' or '.join(PARTS)}, got {part!r}.")
    roots = {key: value for key, value in (("data_root", data_root), ("runs_root", runs_root)) if value}
    chosen: dict[str, Any] = {"methods": methods} if methods else {}
    parts = PARTS if part == "all" else (part,)
    plan = Plan(
        datasets=datasets, ablation_datasets=ablation_datasets, parts=parts, configurations=configurations, seeds=seeds,
        ablation_seeds=ablation_seeds, steps=steps, base=roots, **chosen,
    )  # fmt: skip
    failures: dict[str, str] = {}
    if tables_only:
        study = Study(config.runs_root(runs_root) / "studies" / name)
    else:
        _fetch_missing({task.arguments["config"].dataset for task in plan.tasks()}, data_root)
        try:
            study, outcome = carry_out(plan, name, runs_root, processes or _cores())
        except KeyboardInterrupt:
            print("\nWhat is finished is kept; the same command goes on.", file=sys.stderr)
            raise
        failures = outcome.failures
        print(f"{outcome.computed} cells computed in {outcome.seconds / 60:.1f} min, {outcome.found} were there.")
    folder = Path(out).expanduser() if out else study.path / "tables"
    for path in write_tables(study, folder):
        print(path)
    if failures:
        key, reason = next(iter(failures.items()))
        raise RunError(f"{len(failures)} cells failed, first {key}: {reason} The same command tries them again.")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fetch_missing(datasets: set[str], data_root: str) -> None:
    from pddm_lab.config import data_root as folder
    from pddm_lab.data.dataset import SOURCES

    for name in sorted(datasets):
        source = SOURCES.get(name)
        if source and not source.automatic and not source.is_present(folder(data_root)):
            print(f"{name} is not in {folder(data_root)} yet and is fetched first: {source.size}", file=sys.stderr)
            source.fetch(folder(data_root), None)
