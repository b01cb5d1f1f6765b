"""Who trains a run: one process, whatever others do at the same moment, and what killed ones leave behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from pddm_lab.config import TrainConfig
from pddm_lab.errors import RunError
from pddm_lab.files import temporary_beside
from pddm_lab.runs import process as owner
from pddm_lab.runs.process import FOREIGN_LIMIT, sweep_leftovers
from pddm_lab.runs.run import Run

CLAIM = """
import sys
from pddm_lab.errors import RunError
from pddm_lab.runs.run import Run
run = Run.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    run.claim(device="cuda", precision="bf16")
    print("claimed", flush=True)
except RunError as error:
    print(error, flush=True)
sys.stdin.readline()
"""


def make(root: Path, **choices: object) -> Run:
    config = TrainConfig.from_parameters({"dataset": "digits", "runs_root": str(root), **choices})
    return Run.create(config, {"name": "digits", "fingerprint": "ab12", "items": 9, "classes": 3}, "cpu", "32")


def python(code: str, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_of_two_resumes_at_once_one_trains(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.end("stopped", "Stopped on request.")
    processes = [python(CLAIM, run.path) for _ in range(2)]

    def say(process: subprocess.Popen[str]) -> str:
        assert process.stdin and process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * 2
    outcomes = ["", ""]

    def claim(number: int) -> None:
        outcomes[number] = say(processes[number])

    threads = [threading.Thread(target=claim, args=[number]) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = outcomes.index("claimed")
    assert f"is being trained by process {processes[winner].pid}" in outcomes[1 - winner]
    after = Run.open(run.path)
    assert (after.status, after.info["pid"]) == ("running", processes[winner].pid)
    assert (after.info["device"], after.info["precision"]) == ("cuda", "bf16")
    for process in processes:
        process.communicate("\n", timeout=300)


def test_of_two_creations_of_one_name_one_begins(tmp_path: Path) -> None:
    make(tmp_path, run_name="one")
    with pytest.raises(RunError, match=r"exists already.*pddm-lab resume one"):
        make(tmp_path, run_name="one")


def test_a_process_of_another_machine_with_the_same_number_is_another_one(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.update(host="elsewhere")
    with pytest.raises(RunError, match="on elsewhere"):
        Run.open(run.path).claim()


def test_a_snapshot_of_a_run_that_has_finished_since_is_not_resumed(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.end("stopped", "Stopped on request.")
    snapshot = Run.open(run.path)
    run.update(status="finished", phase="done")
    with pytest.raises(RunError, match="is finished"):
        snapshot.claim()
    assert Run.open(run.path).status == "finished"


def test_a_claim_sweeps_the_files_of_killed_processes(tmp_path: Path) -> None:
    run = make(tmp_path)
    child = python("")
    child.wait()
    parent = os.getppid()
    places = [run.path, run.path / "metrics.parquet", run.path / "gallery" / "unseen", tmp_path / ".features"]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        (place / f".a.{child.pid}-1.tmp").touch()
        (place / f".a.{os.getpid()}-1.tmp").touch()
        os.utime(place / f".a.{os.getpid()}-1.tmp", (0, 0))  # of an earlier process with this number
        (place / f".b.{parent}-1.tmp").touch()
        (place / "c.1-1.tmp").touch()
    assert psutil.pid_exists(parent)
    Run.open(run.path).claim()
    for place in places:
        assert {file.name for file in place.glob("*.tmp")} == {f".b.{parent}-1.tmp", "c.1-1.tmp"}


def test_what_another_machine_writes_is_swept_only_when_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, days_ago = temporary_beside(tmp_path / "one" / "a"), time.time() - 2 * FOREIGN_LIMIT
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    there = temporary_beside(tmp_path / "one" / "a")
    monkeypatch.undo()
    assert here != there
    gone = str(2**22 - 1)
    here, there = (path.with_name(path.name.replace(f".{os.getpid()}-", f".{gone}-")) for path in (here, there))
    old = there.with_name(there.name.replace(".a.", ".b."))
    begun, left = (tmp_path / file.name for file in (there, old))
    for folder in (here.parent, begun, left):
        folder.mkdir()
    for file in (here, there, old, begun / "model.safetensors", left / "model.safetensors"):
        file.touch()
    for path in (old, begun, left / "model.safetensors", left):
        os.utime(path, (days_ago, days_ago))
    sweep_leftovers(tmp_path / "one")
    assert set(tmp_path.rglob("*.tmp")) == {there, begun}, "a folder counts by the newest file in it"


def test_sweeping_passes_over_names_that_are_not_the_labs(tmp_path: Path) -> None:
    (tmp_path / ".of-another program.tmp").touch()
    sweep_leftovers(tmp_path)
    assert (tmp_path / ".of-another program.tmp").exists()


def test_a_lock_that_another_process_keeps_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = python(
        "import sys; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire(); "
        "print('locked', flush=True); sys.stdin.readline()",
        tmp_path / owner.LOCK,
    )
    assert keeper.stdout and keeper.stdout.readline() == "locked\n"
    monkeypatch.setattr(owner, "_LOCK_LIMIT", 0.1)
    try:
        with pytest.raises(RunError, match=r"Another process has locked .*: try again"), owner.locked(tmp_path):
            pass
    finally:
        keeper.communicate("\n")
