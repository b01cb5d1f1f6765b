"""The command `compare`: carry out or resume a study, and write its tables."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from tyro.conf import arg

from pddm_lab.commands.data import fetch_if_missing
from pddm_lab.commands.terminal import DataRoot, RunsRoot
from pddm_lab.config import Count, CountOrNone, typed_path
from pddm_lab.errors import ConfigError, RunError


def compare(
    name: str = "main", part: str = "all", datasets: tuple[str, ...] = (),
    ablation_datasets: tuple[str, ...] = ("emoji", "grocery"),
    methods: Annotated[tuple[str, ...], arg(metavar="NAMES")] = (), configurations: Count = 6,
    seeds: CountOrNone = 0, ablation_seeds: Count = 3, steps: CountOrNone = 0, processes: CountOrNone = 0,
    tables_only: bool = False, out: str = "",
    data_root: DataRoot = "", runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Compare all methods on the same features, batches and budget, and write the tables. Resumes where it stopped.

    Args:
        name: Name of the study: a folder under studies in the runs' root.
        part: methods, ablation, or all for both. The panel by which the defaults are chosen: recipes, on folds of the
            training classes alone; sweep, which looks for collapsed embeddings; finalists, on the test classes.
            Local against global metrics: local, on the test classes; local-folds, on folds of the training classes.
            What training the trunk brings: end-to-end, whose cells are runs.
        datasets: Data sets to compare on; empty: those of the study (emoji, grocery, digits) or of the panel.
        ablation_datasets: Data sets of the ablation.
        methods: Methods to compare, by name, or recipes, embeddings or losses; empty: all.
        configurations: Configurations to search for each method, at most 6.
        seeds: Trainings that each method is measured by; 0: 5, 1 of each fold for recipes, 2 for end-to-end.
        ablation_seeds: Trainings per variant of the ablation. Presets get as many as methods do.
        steps: Most steps to train a configuration in the search, or of a recipe; 0: 400, the default's for recipes, 150
            for end-to-end.
        processes: Processes that compute at once, one thread each; 0: one per core.
        tables_only: Compute nothing; write the tables of what is finished.
        out: Folder for the tables; empty: tables in the study's folder.
    """
    import joblib

    panel = ("recipes", "sweep", "finalists", "local", "local-folds", "end-to-end")
    if part in panel:
        _panel(name, part, datasets, methods, seeds, steps, processes, tables_only, out, data_root, runs_root)
        return
    from pddm_lab import config
    from pddm_lab.study.cells import Study
    from pddm_lab.study.plan import PARTS, Plan, run_study
    from pddm_lab.study.tables import write_tables

    if part not in ("all", *PARTS):
        raise ConfigError(f"--part expects all, {', '.join(PARTS + panel)}, got {part!r}.")
    roots = {key: value for key, value in (("data_root", data_root), ("runs_root", runs_root)) if value}
    chosen: dict[str, Any] = {"methods": methods} if methods else {}
    parts = PARTS if part == "all" else (part,)
    plan = Plan(
        datasets=datasets or ("emoji", "grocery", "digits"), ablation_datasets=ablation_datasets, parts=parts,
        configurations=configurations, seeds=seeds or 5, ablation_seeds=ablation_seeds, steps=steps or 400, base=roots,
        **chosen,
    )  # fmt: skip
    failures: dict[str, str] = {}
    if tables_only:
        study = Study(config.runs_root(runs_root) / "studies" / name)
    else:
        for dataset in sorted({task.arguments["config"].dataset for task in plan.tasks()}):
            fetch_if_missing(dataset, data_root)
        try:
            study, outcome = run_study(plan, name, runs_root, processes or joblib.cpu_count())
        except KeyboardInterrupt:
            print("\nFinished cells are kept. The same command resumes the study.", file=sys.stderr)
            raise
        failures = outcome.failures
        minutes = outcome.seconds / 60
        print(f"{outcome.computed} cells computed in {minutes:.1f} min, {outcome.present} existed already.")
    folder = typed_path(out) if out else study.path / "tables"
    for path in write_tables(study, folder):
        print(path)
    if failures:
        key, reason = next(iter(failures.items()))
        raise RunError(f"{len(failures)} cells failed, the first is {key}: {reason} The same command retries them.")


def _panel(
    name: str, part: str, datasets: tuple[str, ...], recipes: tuple[str, ...], seeds: int, steps: int, processes: int,
    tables_only: bool, out: str, data_root: str, runs_root: str,
) -> None:  # fmt: skip
    """`compare` with a part that isn't of the study of methods."""
    import joblib

    from pddm_lab.panel import end_to_end
    from pddm_lab.panel.local import DATASETS, run_local
    from pddm_lab.panel.recipes import MATERIALS, WEAK_SUFFIX, run_panel
    from pddm_lab.panel.tables import write_panel
    from pddm_lab.study.cells import Study

    study = Study.create(name, runs_root)
    base = {key: value for key, value in (("data_root", data_root), ("runs_root", runs_root)) if value}
    failures: dict[str, str] = {}
    if not tables_only:
        usual = {**MATERIALS, end_to_end.PART: end_to_end.DATASETS}.get(part, DATASETS)
        for dataset in {one.removesuffix(WEAK_SUFFIX) for one in datasets or usual}:
            fetch_if_missing(dataset, data_root)
        if part == end_to_end.PART:
            outcome = end_to_end.run_end_to_end(study, datasets, recipes, base=base, seeds=seeds, steps=steps)
        else:
            run = run_panel if part in MATERIALS else run_local
            outcome = run(
                study, part, datasets, recipes, base=base, seeds=seeds, steps=steps,
                processes=processes or joblib.cpu_count(),
            )  # fmt: skip
        failures = outcome.failures
    for path in write_panel(study, part, typed_path(out) if out else study.path / "tables"):
        print(path)
    if failures:
        key, reason = next(iter(failures.items()))
        raise RunError(f"{len(failures)} cells failed, the first is {key}: {reason} The same command retries them.")
