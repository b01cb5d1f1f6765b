"""The command `import`: a run of features, or of a model, that come from elsewhere."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import Positional, arg

from pddm_lab import config
from pddm_lab.commands.terminal import DataRoot, RunsRoot, progress_bar, write_report
from pddm_lab.commands.training import print_results
from pddm_lab.config import CountOrNone, typed_path
from pddm_lab.errors import ConfigError

_Name = Positional[Annotated[str, arg(metavar="NAME", help="Name of the new run.")]]


def import_run(
    name: _Name, features: str = "", items: str = "", images: str = "", model: str = "", dataset: str = "",
    train: bool = False, local: bool = False, seed: CountOrNone = 0, report: str = "", data_root: DataRoot = "",
    runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Make a run of features from elsewhere, or of a data set by a model from elsewhere; every page opens it.

    Give --features and --items, or --model and --dataset.

    Args:
        features: File of features, .npy, a row an item.
        items: Table of the items in the order of the features, .csv or .parquet: path or id; if you like
            label, split and others.
        images: Folder that the table's paths are relative to; empty: the table's.
        model: package.module:callable that takes a list of PIL images and returns a row each, FILE.onnx, or
            torchvision:NAME.
        dataset: Data set to embed: a name that pddm-lab data list shows, folder:PATH or manifest:FILE.csv.
        train: Train PDDM and Mahalanobis on the features of the training classes.
        local: Fit the similarity on local structure to the training classes.
        seed: Seed of the training, and of the split where there is none.
        report: Table of what became of each item, .csv: pictures that can't be read, features that occur twice.
    """
    from pddm_lab.files import check_writable
    from pddm_lab.runs.file_reports import reports_of_import
    from pddm_lab.training.imports import import_features, import_model

    given = {"--features": features, "--items": items, "--model": model, "--dataset": dataset}
    named = [flag for flag, value in given.items() if value]
    if named not in (["--features", "--items"], ["--model", "--dataset"]):
        raise ConfigError(
            f"Expected --features and --items, or --model and --dataset, got {' and '.join(named) or 'none of them'}."
        )
    if images and not items:
        raise ConfigError("--images expects --items, whose paths it completes.")
    if report:
        check_writable(typed_path(report))
    if features:
        run = import_features(
            name, typed_path(features), typed_path(items), typed_path(images) if images else None,
            train=train, local=local, runs_root=runs_root, seed=seed,
        )  # fmt: skip
    else:
        with progress_bar() as progress:
            run = import_model(
                name, model, dataset, config.data_root(data_root), train=train, local=local, runs_root=runs_root,
                seed=seed, progress=progress,
            )  # fmt: skip
    if report:
        with progress_bar() as progress:
            reports = reports_of_import(run, progress)
        write_report(reports, report)
    print_results(run)
    if not (train or local):
        print("Nothing was trained on these features. --train adds PDDM and Mahalanobis, --local local structure.")
