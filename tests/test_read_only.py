"""In a folder that can't be written, every command ends in one sentence and changes nothing.

Root may write anywhere, so the calls that would change a file are refused here instead of by the system.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pddm_lab import cli
from pddm_lab.errors import RunError
from pddm_lab.gallery import umap_layout
from pddm_lab.runs import new_items
from pddm_lab.runs.new_items import Picture
from pddm_lab.runs.run import Run
from pddm_lab.training import rebuild
from pddm_lab.training.trainer import resume

CHANGES = ("mkdir", "replace", "rename", "unlink", "remove", "rmdir", "symlink", "link", "truncate", "utime")


def refuse_changes(monkeypatch: pytest.MonkeyPatch, root: Path, code: int) -> list[str]:
    """From now on, refuse every change below a folder; returns what is refused, as it grows."""
    refused: list[str] = []

    def check(path: object, what: str) -> None:
        if isinstance(path, (str, os.PathLike)) and Path(os.path.abspath(path)).is_relative_to(root):
            refused.append(f"{what} {path}")
            raise OSError(code, os.strerror(code), str(path))

    def opening(real: Callable) -> Callable:
        def opened(file, mode="r", *args, **options):  # type: ignore[no-untyped-def]
            if set(mode) & set("wax+"):
                check(file, "open")
            return real(file, mode, *args, **options)

        return opened

    def changing(real: Callable, name: str) -> Callable:
        def change(*paths, **options):  # type: ignore[no-untyped-def]
            for path in paths[:2]:
                check(path, name)
            return real(*paths, **options)

        return change

    def open_low(path, flags, *args, real=os.open, **options):  # type: ignore[no-untyped-def]
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            check(path, "open")
        return real(path, flags, *args, **options)

    for module in (builtins, io):
        monkeypatch.setattr(module, "open", opening(open))
    monkeypatch.setattr(os, "open", open_low)
    for name in CHANGES:
        monkeypatch.setattr(os, name, changing(getattr(os, name), name))
    return refused


@pytest.fixture
def run(digits_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of the run on digits, and pictures for its unseen gallery in tmp_path/new and tmp_path/again."""
    monkeypatch.setenv("PDDM_LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(umap_layout, "_lay_out", lambda features, *_: (np.array(features[:, :2]), "pca", ""))
    shutil.copytree(digits_run.path, tmp_path / "runs" / "digits")
    run = Run.open(tmp_path / "runs" / "digits")
    gallery, root = run.gallery("unseen"), Path(run.info["dataset"]["root"])
    for target in (tmp_path / "new" / "neu" / "a.png", tmp_path / "again" / gallery.items["id"].iloc[0]):
        target.parent.mkdir(parents=True)
        shutil.copy(root / gallery.items["id"].iloc[0], target)
    stored = [Picture(gallery.features[row], gallery.thumb(row)) for row in range(len(gallery))]
    monkeypatch.setattr(rebuild, "embed_pictures", lambda run, files: stored)
    return run


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


COMMANDS = {
    "train": ["train", "quick", "--dataset", "digits", "--runs-root", "{tmp}/runs"],
    "gallery add": ["gallery", "add", "digits", "{tmp}/new"],
    "gallery update": ["gallery", "update", "digits", "{tmp}/again"],
    "gallery remove": ["gallery", "remove", "digits", "{item}"],
    "gallery map": ["gallery", "map", "digits"],
    "gallery rebuild": ["gallery", "rebuild", "digits", "--protocol", "unseen"],
}


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS], ids=["no permission", "read-only"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_in_a_folder_it_cannot_write_is_one_line(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    code: int,
) -> None:
    item = run.gallery("unseen").items["id"].iloc[0]
    words = [word.format(tmp=tmp_path, item=item) for word in COMMANDS[command]]
    monkeypatch.setenv("PDDM_LAB_DATA", run.config.data_root)
    before = contents(tmp_path / "runs")
    with monkeypatch.context() as patch:
        refused = refuse_changes(patch, tmp_path / "runs", code)
        with pytest.raises(SystemExit, match="2"):
            cli.main(words)
    assert refused
    line = capsys.readouterr().err.rpartition("\r")[2].strip()  # what comes before is a progress bar
    assert line.startswith("pddm-lab: ") and "\n" not in line, line
    assert str(tmp_path / "runs") in line and os.strerror(code) in line
    assert contents(tmp_path / "runs") == before


@pytest.mark.parametrize("command", ["gallery add", "gallery update"])
def test_no_picture_is_embedded_for_a_gallery_that_cannot_be_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.setattr(new_items, "embed_pictures", lambda *_: pytest.fail("pictures were embedded"))
    refuse_changes(monkeypatch, tmp_path / "runs", errno.EROFS)
    with pytest.raises(SystemExit, match="2"):
        cli.main([word.format(tmp=tmp_path) for word in COMMANDS[command]])
    assert f"can't be changed: {os.strerror(errno.EROFS)}." in capsys.readouterr().err


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS], ids=["no permission", "read-only"])
def test_a_run_that_cannot_be_written_is_neither_stopped_nor_resumed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    run.update(status="stopped", reason="Stopped on request.")
    before = contents(run.path)
    refuse_changes(monkeypatch, tmp_path / "runs", code)
    for change in (run.request_stop, lambda: run.write_notes("α"), lambda: resume(run.path, progress=False)):
        with pytest.raises(RunError, match=rf"can't be written: {os.strerror(code)}\. Free space, or check") as error:
            change()
        assert "\n" not in str(error.value)
    monkeypatch.undo()
    assert contents(run.path) == before
