"""The paper's experiment on CUB-200-2011 and Cars196: its recipe, how long it takes, and its table of results.

Train on the first half of the classes; measure Recall@K on the second half, with each image searched among the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pddm_lab.config import TrainConfig, runs_root
from pddm_lab.errors import ConfigError, RunError
from pddm_lab.runs.run import Run
from pddm_lab.study.published import RECALLS, published_rows
from pddm_lab.training import trainer

DATASETS = ("cub200", "cars196")
ABOUT_THE_MACHINE = ("data_root", "runs_root", "run_name", "notes", "device", "devices", "precision", "workers")
"""Choices that may differ when a training is resumed."""
IMAGES_PER_SECOND = (10, 250, 500, 1000, 2000)
"""From a CPU with a few cores to a large GPU with enough cores to load the images."""


def recipe(dataset: str, changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """The preset `paper` on one of the paper's data sets, in a run with a fixed name, so that it can be resumed.

    Args:
        dataset: cub200 or cars196.
        changes: choices that differ from the preset.

    Raises:
        ConfigError: another data set, or an invalid choice.
    """
    if dataset not in DATASETS:
        raise ConfigError(f"The paper's table covers {' and '.join(DATASETS)}, got {dataset!r}.")
    return TrainConfig.from_parameters(
        {"preset": "paper", "dataset": dataset, "run_name": f"paper-{dataset}", **(changes or {})}
    )


def train_or_resume(config: TrainConfig, progress: bool = True) -> Run:
    """Train the run, resume it if it stopped, or open it if it is finished.

    Args:
        config: its `run_name` names the run.

    Raises:
        RunError: a run of that name has other choices, or the training was stopped.
        LabError: the training failed.
    """
    if run := existing_run(config):
        run = run if run.status == "finished" else trainer.resume(run.path, progress)
    else:
        run = trainer.train(config, progress)
    if run.status != "finished":
        raise RunError(f"{run.name} is {run.status}: {run.reason} Run the same again to resume it.")
    return run


def existing_run(config: TrainConfig) -> Run | None:
    """The run with the recipe's name, finished or not; None if there is none.

    Raises:
        RunError: it was trained with other choices.
    """
    path = runs_root(config.runs_root) / config.run_name
    if not (path / "run.json").is_file():
        return None
    run = Run.open(path)
    for field in dataclasses.fields(TrainConfig):
        before, now = getattr(run.config, field.name), getattr(config, field.name)
        if field.name not in ABOUT_THE_MACHINE and before != now:
            raise RunError(
                f"{run.name} was trained with {field.name} {before!r}, not {now!r}: give this one another run_name."
            )
    return run


def training_images(config: TrainConfig) -> int:
    """Most images that pass forwards and backwards through the network: to choose the best step, then for the refit."""
    refit = 0.0
    if config.refit == "steps" or not config.val_class_share:
        refit = 1.0 if config.val_class_share else 0.0
    elif config.refit == "passes":
        refit = 1 / (1 - config.val_class_share)
    return round(config.steps * (1 + refit)) * config.classes_per_batch * config.images_per_class


def hours(config: TrainConfig, rates: Sequence[float] = IMAGES_PER_SECOND) -> pd.DataFrame:
    """How long the training takes at most: images_per_second, hours. Estimated from the number of images only."""
    images = training_images(config)
    return pd.DataFrame({"images_per_second": rates, "hours": [images / rate / 3600 for rate in rates]})


def table(dataset: str, runs: Sequence[Run] = ()) -> pd.DataFrame:
    """The paper's rows, then this lab's, in %: method, ranked by, R@1 to R@8, source. Unmeasured values are NaN.

    Args:
        dataset: cub200 or cars196.
        runs: finished runs on it, such as several seeds; the table has their mean.
    """
    columns = [f"R@{k}" for k in RECALLS]
    rows: list[dict[str, Any]] = []
    for row in published_rows(dataset):
        source = "printed" if row.confirmed else "printed, could not be verified"
        ranked = "S" if row.method.startswith("PDDM") else "D"
        values = dict(zip(columns, row.recalls, strict=True))
        rows.append({"method": row.method, "ranked by": ranked, **values, "source": source})
    for similarity, letter in (("pddm", "S"), ("euclidean", "D")):
        of_each = [run.info["metrics"]["unseen"][similarity] for run in runs]
        values = {
            f"R@{k}": 100 * sum(each[f"recall@{k}"] for each in of_each) / len(of_each) if of_each else float("nan")
            for k in RECALLS
        }
        source = f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}" if runs else "not run yet"
        loss = runs[0].config.loss if runs else "quadruplet"
        rows.append({"method": f"this lab, PDDM+{loss.title()}", "ranked by": letter, **values, "source": source})
    return pd.DataFrame(rows)
