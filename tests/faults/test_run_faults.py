"""Every operation that changes a run, broken off at its file operations: the old state or the new one is left.

What a resumed training does again isn't part of a state: rows of the log after the checkpoint, for example.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from faults import MODES, Operation, sweep

from pddm_lab.config import TrainConfig
from pddm_lab.runs.compare import list_runs
from pddm_lab.runs.pack import pack, unpack
from pddm_lab.runs.removal import remove
from pddm_lab.runs.run import Run


def create(folder: Path) -> Run:
    config = TrainConfig(dataset="digits", runs_root=str(folder), run_name="one")
    return Run.create(config, {"name": "digits", "fingerprint": "ab12", "items": 9, "classes": 3}, "cpu", "32")


def log(run: Run, steps: range) -> None:
    for step in steps:
        run.log_metrics(step, "select", "train", "pddm", {"loss": float(step)})
        if step % 2:
            run.flush()  # parts of one or two steps


def training_state(step: int) -> dict[str, Any]:
    """A checkpoint whose weights tell its step."""
    weights = {"weights": torch.full((100,), float(step))}
    best = {"phase": "select", "best_step": step, "best_value": 0.5, "error": 0.0}
    return {**best, "step": step, "model": weights, "kept": weights, "optimizer": {}}


def prepare(folder: Path) -> None:
    run = create(folder)
    log(run, range(5))
    run.save_checkpoint(training_state(4))
    run.save_model({"weights": torch.full((100,), 4.0)}, {"step": 4})
    log(run, range(5, 8))
    run.write_notes("old")
    run.request_stop()
    run.end("stopped", "Stopped on request.")


def opened(folder: Path) -> Run:
    return Run.open(folder / "one")


def begin(folder: Path) -> None:
    create(folder)


def prepare_running(folder: Path) -> None:
    prepare(folder)
    opened(folder).claim()


def runs(folder: Path) -> Any:
    return [(run.name, run.reason, getattr(run, "status", "broken")) for run in list_runs(folder)]


def entry(folder: Path) -> Any:
    run = opened(folder)
    return {name: run.info[name] for name in ("status", "reason", "phase", "step", "device", "metrics")} | {
        "notes": run.notes
    }


def steps(run: Run, upto: int = 100) -> list[int]:
    return [step for step in run.metrics()["step"] if step <= upto]


def checkpoint(folder: Path) -> Any:
    saved, model = opened(folder).load_checkpoint(), opened(folder).model_state()
    weights = saved["model"]["weights"]
    assert len(set(weights.tolist())) == len(set(model["weights"].tolist())) == 1
    return saved["step"], weights[0].item(), steps(opened(folder), saved["step"])


def train_on(folder: Path) -> None:
    """What a resumed training does until its next checkpoint."""
    run = opened(folder)
    run.truncate_after("select", run.load_checkpoint()["step"])
    log(run, range(5, 10))
    run.save_checkpoint(training_state(9))


def save_model(folder: Path) -> None:
    opened(folder).save_model({"weights": torch.full((100,), 9.0)}, {"step": 9})


def finish(folder: Path) -> None:
    run = opened(folder)
    run.flush()
    run.update(status="finished", phase="done", reason="")


def resumes(folder: Path) -> None:
    run = opened(folder)
    run.claim()
    run.truncate_after("select", run.load_checkpoint()["step"])
    log(run, range(run.load_checkpoint()["step"] + 1, 12))
    run.flush()
    assert steps(run) == list(range(12))
    assert not run.stop_requested()
    run.end("stopped", "")


def prepare_packed(folder: Path) -> None:
    prepare(folder)
    pack(opened(folder), folder / "one.zip")
    remove(folder / "one")


OPERATIONS = [
    Operation("create", lambda folder: None, begin, runs, lambda folder: opened(folder).claim()),
    Operation("claim", prepare, lambda folder: opened(folder).claim(device="cuda"), entry, resumes),
    Operation("update", prepare, lambda folder: opened(folder).update(step=9, best_step=3), entry, resumes),
    Operation("metrics", prepare, lambda folder: opened(folder).set_metrics("unseen", "pddm", {"auc": 1.0}), entry,
              resumes),
    Operation("end", prepare, lambda folder: opened(folder).update(status="failed", reason="Out of memory."), entry,
              resumes),
    Operation("notes", prepare, lambda folder: opened(folder).write_notes("new"), entry, resumes),
    Operation("stop", prepare_running, lambda folder: opened(folder).request_stop(),
              lambda folder: opened(folder).stop_requested(), resumes),
    Operation("checkpoint", prepare, train_on, checkpoint, resumes),
    Operation("model", prepare, save_model, lambda folder: opened(folder).model_metadata(), resumes),
    Operation("truncate", prepare, lambda folder: opened(folder).truncate_after("select", 2),
              lambda folder: steps(opened(folder), 2), lambda folder: opened(folder).truncate_after("select", 2)),
    Operation("finish", prepare, finish, entry),
    Operation("remove", prepare, lambda folder: remove(folder / "one"), runs, begin),
    Operation("unpack", prepare_packed, lambda folder: unpack(folder / "one.zip", folder), runs, checkpoint),
]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_run_is_the_old_or_the_new_one(
    operation: Operation, mode: str, tmp_path: Path, faults_size: int | None, count_points: Any
) -> None:
    count_points(mode, sweep(operation, mode, tmp_path, faults_size))
