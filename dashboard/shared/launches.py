"""Trainings started from the dashboard: each is a separate process that outlives the page, the session and the server.

A launch writes two files to <runs>/.launches/: <run>.json (its process) and <run>.log (its output). The log shows what
happens before the run's folder exists, and why a run never started.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from pddm_lab.config import PRESETS, TrainConfig, data_root, runs_root
from pddm_lab.errors import RunError
from pddm_lab.files import write_file, writing
from pddm_lab.runs.compare import WHERE
from pddm_lab.runs.folder_name import exists_already, folder_name, is_free
from pddm_lab.runs.process import is_running
from pddm_lab.runs.run import Run

_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_BAR = re.compile(r"(?P<what>[^:|]+):\s+\d+%\|[^|]*\|\s*(?P<done>\d+)/(?P<total>\d+)")
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Launch:
    """One training started from the dashboard."""

    name: str
    pid: int
    process_started: float
    folder: Path

    @property
    def log(self) -> Path:
        """The file with its output."""
        return self.folder / f"{self.name}.log"

    @property
    def alive(self) -> bool:
        """Whether its process is still running."""
        child = _children.get(self.pid)
        if child is not None and child.poll() is not None:
            return False
        return is_running(self.pid, self.process_started, tolerance=5)

    def lines(self, count: int = 8) -> list[str]:
        """The last lines of its output; of a progress bar only the last state."""
        try:
            text = self.log.read_bytes()[-20_000:].decode(errors="replace")
        except OSError:
            return []
        lines = [line.rsplit("\r", 1)[-1].strip() for line in _ESCAPES.sub("", text).replace("\r\n", "\n").split("\n")]
        return [line for line in lines if line][-count:]

    def progress(self) -> tuple[str, int, int] | None:
        """(what, done, total) of the progress bar at the end of its output; None where there is none."""
        bar = _BAR.match((self.lines(1) or [""])[-1])
        return (bar["what"], int(bar["done"]), int(bar["total"])) if bar else None

    def has_started(self, run: Run) -> bool:
        """Whether this launch trains the run, so that the run's folder shows its progress."""
        return float(run.info.get("process_started") or 0) >= self.process_started

    def cancel(self) -> None:
        """End the process before its run exists, and remove its files."""
        with contextlib.suppress(psutil.Error):
            if self.alive:
                psutil.Process(self.pid).terminate()
        self.forget()

    def forget(self) -> None:
        """Remove its files; the run's folder stays."""
        for file in (self.folder / f"{self.name}.json", self.log):
            file.unlink(missing_ok=True)


def start(parameters: Mapping[str, Any]) -> Launch:
    """Start `pddm-lab train` with these settings.

    Args:
        parameters: preset, and any field of TrainConfig that differs from it.

    Raises:
        ConfigError: a setting that is unknown or out of range.
        RunError: a run of that name exists, or the runs' folder can't be written.
    """
    config = TrainConfig.from_parameters(parameters)
    root = runs_root().resolve()
    name = folder_name(config, datetime.now(UTC))
    if not is_free(root / name):
        raise exists_already(root / name)
    settings = {field: value for field, value in parameters.items() if field not in ("preset", "run_name")}
    return _launch(root, name, ["train", config.preset, *flags(settings | {"run_name": name})])


def retrain(run: Run, name: str) -> Launch:
    """Start a training with a run's own settings and the corrections of its data set.

    Args:
        run: trained before.
        name: of the new run.

    Raises:
        ConfigError: its settings can't be trained any more.
        RunError: as `start`, or its features were imported.
    """
    if run.config.is_imported:
        raise RunError(f"{run.name} was imported: correct its table, and import it again with `pddm-lab import`.")
    own, preset = run.config.to_dict(), PRESETS[run.config.preset].to_dict()
    changed = {name: value for name, value in own.items() if value != preset[name] and name not in WHERE}
    roots = {"data_root": run.config.data_root} if run.config.data_root else {}
    given = {"preset": run.config.preset, "run_name": name, "corrections": True}
    return start(changed | roots | given | {"notes": f"{run.name} with the corrections of its data."})


def free_name(name: str) -> str:
    """The name, or with the next number that no run has: demo, demo-2, demo-3."""
    root = runs_root().resolve()
    base, _, number = name.rpartition("-")
    base, start_at = (base, int(number)) if base and number.isdecimal() and len(number) < 4 else (name, 1)
    names = (f"{base}-{count}" for count in itertools.count(max(start_at, 1) + 1))
    return next(one for one in itertools.chain([name], names) if is_free(root / one))


def resume(run: Run) -> Launch:
    """Start `pddm-lab resume` for a run.

    Raises:
        RunError: it is finished, or running, or the runs' folder can't be written.
    """
    run.check_resumable()
    return _launch(run.path.parent.resolve(), run.name, ["resume", run.name])


def _launch(root: Path, name: str, words: list[str]) -> Launch:
    """Start a command of the lab for a run; its output goes to the launch's log."""
    folder = root / ".launches"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # Absolute roots, so that the process finds the same folders wherever it starts.
    environment = os.environ | {
        "PDDM_LAB_RUNS": str(root), "PDDM_LAB_DATA": str(data_root().resolve()),
        "COLUMNS": "100", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    with writing(folder / f"{name}.log"), open(folder / f"{name}.log", "wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "pddm_lab.cli", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[child.pid] = child
    launch = Launch(name, child.pid, psutil.Process(child.pid).create_time(), folder)
    text = json.dumps({"name": name, "pid": launch.pid, "process_started": launch.process_started})
    write_file(folder / f"{name}.json", text)
    return launch


def flags(parameters: Mapping[str, Any]) -> list[str]:
    """Settings as flags of the command line."""
    words = []
    for name, value in parameters.items():
        flag = name.replace("_", "-")
        words += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return words


def launches() -> list[Launch]:
    """All launches whose files are there, newest first."""
    folder = runs_root().resolve() / ".launches"
    result = []
    for file in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            result.append(Launch(**json.loads(file.read_text(encoding="utf-8")), folder=folder))
        except (OSError, ValueError, TypeError):
            continue  # half-written by another session: read it next time
    return result
