"""Start or resume a training, in this process or in one process per device, and record how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pddm_lab.config import TrainConfig
from pddm_lab.data.corrections import COPY
from pddm_lab.data.dataset import OWN, Dataset
from pddm_lab.errors import ConfigError, LabError, RunError
from pddm_lab.files import write_file
from pddm_lab.model.features import default_workers
from pddm_lab.runs.run import Run
from pddm_lab.runs.versions import versions
from pddm_lab.training.loop import dataset_of, resolve_device
from pddm_lab.training.phases import RunTraining


def train(config: TrainConfig, progress: bool = True) -> Run:
    """Train a run, from reading the data to the finished galleries.

    Args:
        config: all choices.
        progress: show progress bars on standard error.

    Returns:
        The run, finished or stopped on request.

    Raises:
        LabError: bad data or choices. A run that was begun is kept and marked as failed, with the reason.
    """
    config = _with_full_paths(config)
    device, precision = resolve_device(config)
    batch = config.classes_per_batch * config.images_per_class
    if batch % config.devices:
        raise ConfigError(f"--devices {config.devices} doesn't divide the batch of {batch} items.")
    dataset = dataset_of(config)
    run = Run.create(config, dataset_info(dataset), str(device), precision)
    if dataset.corrections:  # its own copy, so that it resumes whatever is corrected meanwhile
        write_file(run.path / COPY, dataset.corrections.text)
    return train_run(run, dataset, progress)


def resume(path: str | Path, progress: bool = True) -> Run:
    """Resume a stopped, interrupted or failed run from its last checkpoint.

    Args:
        path: the run's folder.
        progress: show progress bars on standard error.

    Raises:
        RunError: it is finished, is being trained, or its data set has changed.
    """
    run = Run.open(path)
    run.check_resumable()
    device, precision = resolve_device(run.config)
    dataset = dataset_of(run.config, run.path.parent, run.name)
    if dataset.fingerprint() != run.info["dataset"]["fingerprint"]:
        raise RunError(f"{dataset.root} has changed since {run.name} was begun. Restore it or train a new run.")
    run.claim(device=str(device), precision=precision, versions=versions())
    return train_run(run, dataset, progress)


def _with_full_paths(config: TrainConfig) -> TrainConfig:
    """The same choices with absolute paths, so that the run resumes from any folder."""

    def full(path: str) -> str:
        return path and str(Path(path).expanduser().resolve())

    prefix, colon, path = config.dataset.partition(":")
    return replace(
        config, data_root=full(config.data_root), runs_root=full(config.runs_root),
        dataset=f"{prefix}:{full(path)}" if colon and prefix in OWN else config.dataset,
        weights=config.weights if config.weights in ("imagenet", "none") else full(config.weights),
    )  # fmt: skip


def dataset_info(dataset: Dataset) -> dict[str, Any]:
    """What run.json says of a data set."""
    info: dict[str, Any] = {name: getattr(dataset, name) for name in ("name", "licence", "attribution")}
    sizes = {"items": len(dataset), "classes": len(dataset.class_names)}
    skipped = [asdict(skipped) for skipped in dataset.skipped]
    info |= {**sizes, "fingerprint": dataset.fingerprint(), "skipped": skipped, "root": str(dataset.root.resolve())}
    if dataset.corrections:
        info["corrections"] = {"sha256": dataset.corrections.digest, "items": len(dataset.corrections.by_item)}
    return info


def train_run(run: Run, dataset: Dataset, progress: bool) -> Run:
    """Train a run that this process owns; raises and returns as `train` does."""
    with _recording_errors(run):
        if run.config.devices > 1:
            _train_in_processes(run, progress)
        else:
            RunTraining(run, dataset, progress).train()
    return Run.open(run.path)


@contextmanager
def _recording_errors(run: Run) -> Iterator[None]:
    """Write the error that ends a training into its run."""
    try:
        yield
    except KeyboardInterrupt:
        run.end("stopped", "Stopped with Ctrl-C.")
        raise
    except Exception as error:
        run.end("failed", str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}")
        raise


def _train_in_processes(run: Run, progress: bool) -> None:
    """Train in one process per device with torch's launcher, which doesn't fork and so works in notebooks too."""
    devices = run.config.devices
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}",
               "-m", "pddm_lab.training.trainer", str(run.path), str(int(progress))]  # fmt: skip
    threads = max(1, (default_workers() + 1) // devices)
    launcher = subprocess.run(command, env={"OMP_NUM_THREADS": str(threads), **os.environ})
    run.info = Run.open(run.path).info
    if run.info["status"] == "failed":
        raise RunError(run.info["reason"])
    if launcher.returncode:
        raise RunError(f"A training process ended with exit code {launcher.returncode}; its messages are above.")


def _process_main(run_path: str, progress: str) -> None:
    """The work of one process that torch's launcher started."""
    run = Run.open(run_path)
    is_first = os.environ["RANK"] == "0"
    if is_first:
        run.claim(from_parent=True)
    with _recording_errors(run) if is_first else nullcontext():
        RunTraining(run, dataset_of(run.config, run.path.parent, run.name), progress == "1").train()


if __name__ == "__main__":
    _process_main(*sys.argv[1:])
