"""On a full disk, every operation that writes ends in one sentence, and leaves the old state and the reason.

The system itself refuses to write here: files of this process may not grow at all.
"""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pddm_lab import cli
from pddm_lab.config import TrainConfig
from pddm_lab.errors import RunError
from pddm_lab.gallery.umap_layout import write_map
from pddm_lab.runs.run import Run
from pddm_lab.study.cells import Study
from pddm_lab.training.notebook import train_in_notebook
from pddm_lab.training.phases import RunTraining
from pddm_lab.training.trainer import resume, train

FULL = r"can't be written: File too large\. Free space"


@contextmanager
def full_disk() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def log(run: Run, step: int) -> None:
    run.log_metrics(step, "select", "train", "pddm", {"loss": 1.0})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run.create(
        TrainConfig(dataset="digits", runs_root=str(tmp_path)),
        {"name": "digits", "fingerprint": "", "items": 9, "classes": 3},
        "cpu",
        "32",
    )
    for step in range(5):
        log(made, step)
    made.save_checkpoint({"step": 4})
    made.save_model({"weight": torch.zeros(2)}, {})
    log(made, 5)
    return made


OPERATIONS: dict[str, Callable[[Run], object]] = {
    "create": lambda run: Run.create(
        run.config, {"name": "digits", "fingerprint": "", "items": 9, "classes": 3}, "cpu", "32"
    ),
    "claim": lambda run: Run.open(run.path).claim(),
    "update": lambda run: run.update(step=9),
    "set metrics": lambda run: run.set_metrics("unseen", "pddm", {"auc": 1.0}),
    "flush": lambda run: run.flush(),
    "checkpoint": lambda run: run.save_checkpoint({"weights": torch.ones(1000)}),
    "model": lambda run: run.save_model({"weight": torch.ones(1000)}, {}),
    "truncate": lambda run: Run.open(run.path).truncate_after("select", 2),
    "notes": lambda run: run.write_notes("α"),
    "study": lambda run: Study.create("main", str(run.path.parent)),
}


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and not file.name.endswith(".lock")}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_full_disk_is_one_sentence_and_leaves_the_old_state(run: Run, operation: str) -> None:
    before = contents(run.path.parent)
    with full_disk(), pytest.raises(RunError, match=FULL) as error:
        OPERATIONS[operation](run)
    assert "\n" not in str(error.value)
    assert contents(run.path.parent) == before
    OPERATIONS[operation](run)


def test_a_folder_that_cannot_be_written_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(RunError, match="stop can't be written: Permission denied"):
        run.request_stop()
    run.end("stopped", "Stopped on request.")
    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(RunError, match=r"\.lock can't be written: Permission denied"):
        run.claim()


def test_a_map_on_a_full_disk_leaves_the_gallery_as_it_was(digits_run: Run, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    shutil.copytree(digits_run.path / "gallery" / "unseen", tmp_path / "unseen")
    monkeypatch.setattr("pddm_lab.gallery.umap_layout._lay_out", lambda x, *_: (np.array(x[:, :2]), "pca", ""))
    before = contents(tmp_path)
    with full_disk(), pytest.raises(RunError, match=FULL):
        write_map(tmp_path / "unseen")
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_a_training_on_a_full_disk_keeps_its_reason(digits_run: Run, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / ".features").symlink_to(digits_run.path.parent / ".features")
    config = replace(digits_run.config, runs_root=str(tmp_path), run_name="run", steps=4, eval_every=2, refit="none")
    step, end, limits = RunTraining._log, Run.end, full_disk()

    def fill(self, phase, loop, result):  # type: ignore[no-untyped-def]
        step(self, phase, loop, result)
        if loop.step == 2:
            limits.__enter__()

    def make_space(self, status, reason):  # type: ignore[no-untyped-def]
        end(self, status, reason)  # nothing can be written: the reason is raised
        limits.__exit__(None, None, None)
        end(self, status, reason)

    monkeypatch.setattr(RunTraining, "_log", fill)
    monkeypatch.setattr(Run, "end", make_space)
    with pytest.raises(RunError, match=FULL):
        train(config, progress=False)
    failed = Run.open(tmp_path / "run")
    assert failed.status == "failed" and "can't be written" in failed.reason
    monkeypatch.undo()
    monkeypatch.setattr("pddm_lab.training.finish.finish", lambda *_: None)
    resumed = resume(failed.path, progress=False)
    assert list(resumed.metrics().query("metric == 'loss'").step) == [1, 2, 3, 4]


def test_a_command_on_a_full_disk_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PDDM_LAB_DATA", str(tmp_path))
    (tmp_path / "file").touch()
    for words in (
        ["train", "quick", "--dataset", "folder:x", "--runs-root", str(tmp_path / "file")],
        ["compare", "--datasets", "digits", "--ablation-datasets", "digits", "--runs-root", str(tmp_path / "file")],
        ["runs", "--runs-root", str(tmp_path / ("x" * 300))],
    ):
        with pytest.raises(SystemExit, match="2"):
            cli.main(words)
        error = capfd.readouterr().err
        assert error.startswith("pddm-lab: ") and error.count("\n") == 1, error
    config = TrainConfig(dataset="digits", runs_root=str(tmp_path / "runs"))
    with full_disk(), pytest.raises(RunError, match=r"failed: its notebook can't be written to .*\. Free space there"):
        train_in_notebook(config)
    monkeypatch.setattr("tempfile.tempdir", None)  # look for one again
    with full_disk(), pytest.raises(RunError, match=r"^The notebook needs a temporary folder, .*\. Free space"):
        train_in_notebook(config)
