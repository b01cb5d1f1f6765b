"""The command `compare`: carry out or resume a study, and write its tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from pddm_lab.commands.data import fetch_if_missing
from pddm_lab.commands.terminal import DataRoot, RunsRoot, print_table
from pddm_lab.config import Count, CountOrNone, typed_path
from pddm_lab.errors import ConfigError, RunError

if TYPE_CHECKING:
    from pddm_lab.study.cells import Study
    from pddm_lab.study.work import Outcome


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
            What training the trunk brings: end-to-end, whose cells are runs. Augmented views against corrupted queries:
            augmentation, on the test classes; augmentation-folds, on folds of the training classes.
        datasets: Data sets to compare on; empty: those of the study (emoji, grocery, digits) or of the panel.
        ablation_datasets: Data sets of the ablation.
        methods: Methods to compare, by name, or recipes, embeddings, losses or augmentations; empty: all.
        configurations: Configurations to search for each method, at most 6.
        seeds: Trainings that each method is measured by; 0: 5, 1 of each fold for recipes, 2 for end-to-end and
            augmentation.
        ablation_seeds: Trainings per variant of the ablation. Presets get as many as methods do.
        steps: Most steps to train a configuration in the search, or of a recipe; 0: 400, the default's for recipes, 150
            for end-to-end.
        processes: Processes that compute at once, one thread each; 0: one per core.
        tables_only: Compute nothing; write the tables of what is finished.
        out: Folder for the tables; empty: tables in the study's folder.
    """
    import joblib

    panel = (
        "recipes",
        "sweep",
        "finalists",
        "local",
        "local-folds",
        "end-to-end",
        "augmentation",
        "augmentation-folds",
    )
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
    from pddm_lab.robustness import augmentations
    from pddm_lab.study.cells import Study

    study = Study.create(name, runs_root)
    base = {key: value for key, value in (("data_root", data_root), ("runs_root", runs_root)) if value}
    failures: dict[str, str] = {}
    if not tables_only:
        usual = {
            **MATERIALS, end_to_end.PART: end_to_end.DATASETS,
            **dict.fromkeys(augmentations.PARTS, augmentations.DATASETS),
        }.get(part, DATASETS)  # fmt: skip
        for dataset in {one.removesuffix(WEAK_SUFFIX) for one in datasets or usual}:
            fetch_if_missing(dataset, data_root)
        if part == end_to_end.PART:
            outcome = end_to_end.run_end_to_end(study, datasets, recipes, base=base, seeds=seeds, steps=steps)
        else:
            run: Callable[..., Outcome] = run_panel if part in MATERIALS else run_local
            if part in augmentations.PARTS:
                run = augmentations.run_augmentations
            outcome = run(
                study, part, datasets, recipes, base=base, seeds=seeds, steps=steps,
                processes=processes or joblib.cpu_count(),
            )  # fmt: skip
        failures = outcome.failures
    folder = typed_path(out) if out else study.path / "tables"
    written = _augmentations(study, part, folder) if part in augmentations.PARTS else write_panel(study, part, folder)
    for path in written:
        print(path)
    if failures:
        key, reason = next(iter(failures.items()))
        raise RunError(f"{len(failures)} cells failed, the first is {key}: {reason} The same command retries them.")


def _augmentations(study: Study, part: str, folder: Path) -> Iterator[Path]:
    """Print what each augmentation costs and removes, and write the table; yields its file."""
    from pddm_lab.robustness.augmentation_table import EVERY, FOREIGN, GROUPS, WITHOUT, augmentation_table, verdicts

    table = augmentation_table(study, part)
    pays = verdicts(table).set_index(["dataset", "similarity", "augmentation"])["pays"]
    for (dataset, similarity), own in table.groupby(["dataset", "similarity"], sort=False):
        rows = []
        for augmentation, of in own.set_index("condition").groupby("augmentation", sort=False):
            clean = [
                f"{100 * of.at[one, 'recall@1']:.1f} / {100 * of.at[one, 'map@r']:.1f}" for one in ("unseen", "known")
            ]
            shares = [of["removed"].get(one, float("nan")) for one in (EVERY, *GROUPS, FOREIGN)]
            removed = ["" if augmentation == WITHOUT else f"{100 * share:.0f}" for share in shares]
            verdict = (
                "" if augmentation == WITHOUT else "yes" if pays.get((dataset, similarity, augmentation)) else "no"
            )
            rows.append([augmentation, *clean, f"{100 * of.at[EVERY, 'recall@1']:.1f}",
                         f"{100 * of.at[EVERY, 'mce']:.0f}", *removed, verdict])  # fmt: skip
        print(
            f"\n{dataset}, by {similarity}: R@1 / MAP@R and, of the error that corruptions add, the share removed, in %"
        )
        print_table(["", "unseen", "known", "corrupted R@1", "mCE", "removed", *GROUPS, FOREIGN, "pays"], rows)
    folder.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(folder / f"{part}.csv", index=False)
    yield folder / f"{part}.csv"
