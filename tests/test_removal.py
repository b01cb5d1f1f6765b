"""Runs are removed as a whole or not at all, never while they are trained, and only after a yes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
from test_runs import make
from test_runs import root as root

from pddm_lab import cli
from pddm_lab.errors import RunError
from pddm_lab.gallery.files import changing
from pddm_lab.runs.compare import list_runs
from pddm_lab.runs.process import being_served
from pddm_lab.runs.removal import disk_use, remove
from pddm_lab.runs.run import Run


def finished(root: Path, name: str) -> Run:
    run = make(root, run_name=name)
    run.update(status="finished")
    (run.path / "gallery" / "unseen").mkdir(parents=True)
    (run.path / "gallery" / "unseen" / "features.npy").write_bytes(bytes(1000))
    return run


def names(root: Path) -> list[str]:
    return sorted(run.name for run in list_runs(root))


def test_a_run_is_gone_with_all_its_files(root: Path) -> None:
    run = finished(root, "one")
    finished(root, "two")
    assert disk_use(run.path) == 1000 + (run.path / "run.json").stat().st_size
    assert remove(run.path)
    assert names(root) == ["two"] and [path.name for path in root.iterdir()] == ["two"]


def test_a_run_that_is_trained_stays(root: Path) -> None:
    run = make(root, run_name="one")
    with pytest.raises(RunError, match="one is being trained by process"):
        remove(run.path)
    # Also if another version of the lab wrote its entry.
    file = run.path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    with pytest.raises(RunError, match="one is being trained by process"):
        remove(run.path)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        started = psutil.Process(process.pid).create_time()
    file.write_text(json.dumps(run.info | {"pid": process.pid, "process_started": started}))
    assert Run.open(run.path).status == "interrupted"
    assert remove(run.path) and names(root) == []


def test_a_run_whose_gallery_is_being_changed_stays(root: Path) -> None:
    run = finished(root, "one")
    with changing(run.path / "gallery" / "unseen"), pytest.raises(RunError, match="being changed by another process"):
        remove(run.path)
    assert names(root) == ["one"]


def test_a_run_that_is_served_stays_until_the_service_has_ended(root: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PDDM_LAB_RUNS", str(root))
    run, other = finished(root, "one"), finished(root, "two")
    serve = "import sys\nfrom pathlib import Path\nfrom pddm_lab.runs.process import being_served\n"
    serve += f"with being_served(Path({str(run.path)!r})):\n    print(1, flush=True)\n    sys.stdin.read()"
    with being_served(run.path), being_served(run.path):
        with subprocess.Popen([sys.executable, "-c", serve], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as third:
            assert third.stdout is not None and third.stdout.readline() == b"1\n"
            with pytest.raises(SystemExit):
                cli.main(["runs", "remove", "two", "one", "--yes"])
            assert "one is being served: end its service" in capsys.readouterr().err
            third.kill()
        with pytest.raises(RunError, match="one is being served"):
            remove(run.path)
    assert names(root) == ["one", "two"], "all of them or none"
    assert remove(run.path) and remove(other.path) and names(root) == []
    with being_served(run.path):
        assert not run.path.exists()


def test_a_run_whose_uploads_another_one_needs_stays(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PDDM_LAB_RUNS", str(root))
    for name in ("one", "two", "three"):
        finished(root, name)
    picture = root / "one" / "uploads" / "now" / "apple" / "a.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"a picture")
    gallery = root / "two" / "gallery" / "unseen"
    (gallery / "history").mkdir()
    rows = pd.DataFrame({"id": ["a", "b"], "picture": [None, str(picture.resolve())]})
    rows[["id"]].to_parquet(gallery / "items.parquet")
    rows.to_parquet(gallery / "history" / "1-rows.parquet")  # undoing this change brings it back
    (root / "three" / "gallery" / "unseen" / "items.parquet").write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"one stays: two needs 1 uploaded picture in its folder, such as .*a\.png"):
        remove(root / "one")
    with pytest.raises(SystemExit):
        cli.main(["runs", "remove", "three", "one", "--yes"])
    assert "Remove two first, or both at once." in capsys.readouterr().err
    assert names(root) == ["one", "three", "two"] and picture.exists()
    cli.main(["runs", "remove", "one", "two", "--yes"])
    assert names(root) == ["three"]


def test_a_damaged_run_and_a_link_can_be_removed(root: Path, tmp_path: Path) -> None:
    run = finished(root, "one")
    (run.path / "run.json").write_text("{")
    assert remove(run.path) and names(root) == []
    elsewhere = finished(tmp_path / "elsewhere", "kept")
    (root / "link").symlink_to(elsewhere.path)
    assert remove(root / "link")
    assert names(root) == [] and (elsewhere.path / "gallery" / "unseen" / "features.npy").exists()


def test_what_a_killed_process_left_is_deleted_by_the_next(root: Path) -> None:
    run, gone = finished(root, "one"), 2**22 - 1
    left, used = root / f".old.{gone}-1.tmp", root / f".other.{os.getpid()}-1.tmp"
    for folder in (left, used):
        shutil.copytree(run.path, folder)
    (root / ".features").mkdir()
    assert names(root) == ["one"]
    remove(run.path)
    assert sorted(path.name for path in root.iterdir()) == [".features", used.name], "another process works there"


def test_the_command_removes_after_a_yes(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PDDM_LAB_RUNS", str(root))

    def fails(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(["runs", "remove", *words])
        assert ended.value.code == 2
        return capsys.readouterr().err

    for name in ("one", "two"):
        finished(root, name)
    assert "add --yes to remove one (" in fails("one")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda text: "no")
    assert "Nothing was removed." in fails("one")
    assert "is not a run" in fails("one", "three", "--yes")
    assert "Name the runs" in fails("--yes")
    assert names(root) == ["one", "two"], "all of them or none"
    monkeypatch.setattr("builtins.input", lambda text: "Yes")
    cli.main(["runs", "remove", "one"])
    assert "Removed one, 3." in capsys.readouterr().out and names(root) == ["two"]
    cli.main(["runs"])
    assert "kB" in capsys.readouterr().out.splitlines()[1]
    cli.main(["runs", "remove", "two", "--yes"])
    assert names(root) == []
