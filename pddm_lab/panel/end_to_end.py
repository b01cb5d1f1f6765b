"""What does training the trunk bring? The preset `finetune` with several losses, beside the same on frozen features.

Each cell is a run among the other runs: it can be opened in the dashboard, and resumes where it stopped. Measured are
the pretrained features, D, S of the paper's unit, and the similarities in a gallery. The one on local structure learns
on one embedding in all folds where the trunk trains, and on one for each fold where it doesn't.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pddm_lab.config import PRESETS, TrainConfig, runs_root
from pddm_lab.errors import ConfigError, RunError, unknown_name
from pddm_lab.runs.run import Run
from pddm_lab.study.cells import Study, key_of
from pddm_lab.study.work import Outcome, Task, compute_cells
from pddm_lab.training.trainer import resume, train

PART = "end-to-end"
LOSSES = ("quadruplet", "triplet-hard", "multi-similarity", "arcface")
DATASETS = ("grocery",)
SEEDS, STEPS = 2, 150
"""Trainings of each loss with each trunk, and their steps: an hour and a half on two cores."""
TRUNKS: dict[str, Mapping[str, Any]] = {"trained": {}, "frozen": {"freeze_trunk": True}}


def run_end_to_end(
    study: Study, datasets: Sequence[str] = (), losses: Sequence[str] = (), *, base: Mapping[str, Any], seeds: int = 0,
    steps: int = 0,
) -> Outcome:  # fmt: skip
    """Train the runs that a study doesn't have yet, one after the other: each uses all cores.

    Args:
        study: that keeps the cells.
        datasets: empty: `DATASETS`.
        losses: of `LOSSES`; empty: all.
        base: fields of `TrainConfig`, such as data_root.
        seeds: trainings of each; 0: `SEEDS`.
        steps: of each training; 0: `STEPS`.

    Raises:
        ConfigError: no such loss.
        LabError: a study with other settings.
    """
    for loss in losses:
        if loss not in LOSSES:
            raise ConfigError(unknown_name("loss", loss, LOSSES))
    steps = steps or STEPS
    study.record_settings(PART, {"steps": steps})
    tasks = [
        Task(
            key_of(PART, dataset, f"{loss}, {trunk}", "test", seed), train_run,
            {"config": dataclasses.replace(
                PRESETS["finetune"], **base, **choices, dataset=dataset, loss=loss, seed=seed, steps=steps,
                local_structure=True, run_name=f"{study.path.name}-{dataset.rpartition('/')[2]}-{loss}-{trunk}-{seed}",
            ), "trunk": trunk},
            cost=steps * (30.0 if choices else 300.0),
        )
        for seed in range(seeds or SEEDS) for dataset in datasets or DATASETS for trunk, choices in TRUNKS.items()
        for loss in losses or LOSSES
    ]  # fmt: skip
    return compute_cells(study, tasks)


def train_run(needed: Sequence[Mapping[str, Any]], *, config: TrainConfig, trunk: str) -> dict[str, Any]:
    """The cell of a run, which is trained, resumed or only read.

    Args:
        needed: unused; every task of a study takes it.
        config: of the run, with a name.
        trunk: key of `TRUNKS`.

    Raises:
        RunError: the run was stopped on request, or one of its name has other choices.
    """
    path = runs_root(config.runs_root) / config.run_name
    if not path.exists():
        run = train(config, progress=False)
    elif (run := Run.open(path)).status != "finished":
        run = resume(path, progress=False)
    if run.status != "finished":
        raise RunError(f"{path} was stopped. The same command resumes it.")
    if any(getattr(run.config, name) != getattr(config, name) for name in ("loss", "seed", "steps", "freeze_trunk")):
        raise RunError(f"{path} is another run: expected the study's choices. Name another study with --name.")
    wanted = ("recall@1", "map@r")
    metrics = {
        protocol: {
            way: {name: values[name] for name in wanted}
            for way, values in {"pretrained": run.info["pretrained"][protocol], **of_ways}.items()
        }
        for protocol, of_ways in run.info["metrics"].items()
    }  # fmt: skip
    return {
        "part": PART, "dataset": config.dataset, "method": f"{config.loss}, {trunk}", "seed": config.seed,
        "metrics": metrics, "settings": {"run": run.name, "best_step": run.info.get("best_step")},
    }  # fmt: skip
