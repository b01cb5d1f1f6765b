"""A run on disk: one training, one folder, written while it trains and readable all the while.

runs/<name>/  run.json  model.safetensors  last.ckpt  metrics.parquet/  quadruplets.parquet/  notebook.ipynb
              gallery/<protocol>/  notes.md

A file is written under a temporary name and renamed, so a reader meets the old one or the new one, never half of it.
torch and pandas are imported where they are used: listing runs takes milliseconds.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
import psutil

from pddm_lab.config import TrainConfig, runs_root
from pddm_lab.errors import ConfigError, RunError
from pddm_lab.files import plain, read_checkpoint, read_tensors, replacing, write_checkpoint, write_tensors
from pddm_lab.runs.folder_name import new_folder
from pddm_lab.runs.log import EUCLIDEAN, METRICS, PHASES, QUADRUPLETS, Log
from pddm_lab.runs.process import is_alive

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from torch import Tensor

    from pddm_lab.gallery.gallery import Gallery

FORMAT = 1
"""Version of the layout; a reader refuses a newer one."""
STATUSES = ("running", "finished", "failed", "stopped")
PROTOCOLS = ("unseen", "known")

_NEEDED = ("format", "name", "created", "config", "dataset", "status", "metrics")
_VERSIONS = ("pddm-lab", "torch", "torchvision", "lightning-fabric", "numpy", "faiss-cpu", "umap-learn")


class Run:
    """One training's folder. Make one with `Run.create`, read one with `Run.open`."""

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path = path
        self.info = info
        """What run.json holds: a snapshot of when it was opened, kept up to date by `update`."""
        self.config = _read_config(path, info)
        self._claimed: float | None = None
        self._spent_before = 0.0
        self._metrics = Log(path / "metrics.parquet", METRICS)
        self._quadruplets = Log(path / "quadruplets.parquet", QUADRUPLETS, optional=EUCLIDEAN)
        self._flushed = time.monotonic()

    @classmethod
    def create(cls, config: TrainConfig, dataset_info: Mapping[str, Any], device: str, precision: str) -> Run:
        """A new folder under the runs' root, owned by this process, status "running".

        Args:
            config: its `run_name`, when given, must be new; else a name is made from dataset, preset and time.
            dataset_info: name, fingerprint, items, classes, skipped, licence, attribution, root.
            device: "cpu", "cuda".
            precision: "32", "bf16", "fp16".

        Raises:
            RunError: a run of that name exists, or the folder can't be made.
            ConfigError: a `run_name` that is no folder name.
        """
        now = datetime.now(UTC)
        path = new_folder(runs_root(config.runs_root), config, now)
        run = cls(
            path,
            {
                "format": FORMAT,
                "name": path.name,
                "created": now.isoformat(),
                "config": config.to_dict(),
                "dataset": plain(dataset_info),
                "versions": _versions(),
                "seed": config.seed,
                "device": device,
                "precision": precision,
                "status": "running",
                "reason": "",
                "phase": PHASES[0],
                "step": 0,
                "steps_total": config.steps,
                "seconds": 0.0,
                "best_step": None,
                "metrics": {},
            },
        )
        run.claim()
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run in a folder.

        Raises:
            RunError: no run there, or its run.json is torn, foreign or of a newer lab.
        """
        path = Path(path)
        file = path / "run.json"
        try:
            info = json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            hint = "`pddm-lab runs` lists the runs there are"
            raise RunError(f"{path} is no run: expected {file.name} in it. {hint}.") from None
        except OSError as error:
            raise RunError(f"{file} can't be read: {error.strerror}.") from error
        except ValueError as error:
            raise RunError(f"{file} is torn: expected JSON, {error}. Restore it or delete the run's folder.") from error
        missing = [key for key in _NEEDED if key not in info] if isinstance(info, dict) else list(_NEEDED)
        if missing:
            hint = "Train a run: `pddm-lab train quick`"
            raise RunError(f"{file} is foreign: expected {', '.join(missing)} in it. {hint}.")
        if not isinstance(info["format"], int) or info["format"] > FORMAT:
            raise RunError(
                f"{file} has format {info['format']!r}, expected at most {FORMAT}: update this lab to read it."
            )
        return cls(path, info)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def status(self) -> str:
        """running, finished, failed or stopped; "interrupted" where run.json says running and the process is gone."""
        status = str(self.info["status"])
        return "interrupted" if status == "running" and not is_alive(self.info) else status

    @property
    def reason(self) -> str:
        """Why it failed, stopped or was interrupted, in a sentence; else empty."""
        if self.status == "interrupted":
            return f"Its process ended without a word. {self._what_to_run()}"
        return str(self.info.get("reason") or "")

    @property
    def created(self) -> datetime:
        """When it was made, UTC."""
        return datetime.fromisoformat(self.info["created"])

    @property
    def seconds(self) -> float:
        """Time spent on it so far, over all its processes."""
        if self._claimed is None:
            return float(self.info.get("seconds") or 0.0)
        return self._spent_before + time.monotonic() - self._claimed

    def claim(self, from_parent: bool = False) -> None:
        """Make this process the run's owner, to train or to resume: status "running", no request to stop pending.

        Args:
            from_parent: take it over from the process that made it, which waits for this one.

        Raises:
            RunError: another process is training it.
        """
        me = psutil.Process()
        if not from_parent:
            self.check_idle()
        self._spent_before, self._claimed = self.seconds, time.monotonic()
        self._stop_file.unlink(missing_ok=True)
        host = socket.gethostname()
        self.update(status="running", reason="", pid=me.pid, process_started=me.create_time(), host=host)

    def check_idle(self) -> None:
        """Raise RunError where another process is training it."""
        if self.status == "running" and self.info.get("pid", os.getpid()) != os.getpid():
            owner = f"process {self.info['pid']} on {self.info['host']}"
            raise RunError(f"{self.name} is being trained by {owner}: stop that one first.")

    def check_resumable(self) -> None:
        """Raise RunError where there is nothing to go on with, or another process is at it."""
        if self.status == "finished":
            raise RunError(f"{self.name} is finished: there is nothing to resume.")
        self.check_idle()

    def update(self, **fields: Any) -> None:
        """Set fields of run.json, and a heartbeat with them, in one atomic write. NaN is written as null."""
        for name, known in (("status", STATUSES), ("phase", PHASES)):
            if name in fields and fields[name] not in known:
                raise ValueError(f"{name} expects one of {', '.join(known)}, got {fields[name]!r}")
        self.info |= {"seconds": self.seconds, "heartbeat": time.time()} | plain(fields)
        with replacing(self.path / "run.json") as temporary:
            text = json.dumps(self.info, indent=1, ensure_ascii=False, allow_nan=False)
            temporary.write_text(text, encoding="utf-8")

    def set_metrics(self, protocol: str, similarity: str, values: Mapping[str, SupportsFloat]) -> None:
        """Keep the best step's metrics in run.json, as metrics[protocol][similarity][metric]."""
        metrics, final = self.info["metrics"], {name: float(value) for name, value in values.items()}
        self.update(metrics={**metrics, protocol: {**metrics.get(protocol, {}), similarity: final}})

    def log_metrics(
        self, step: int, phase: str, protocol: str, similarity: str, values: Mapping[str, SupportsFloat]
    ) -> None:
        """Add one row per metric; buffered, cheap enough for every step.

        Args:
            step: of this phase.
            phase: one of PHASES.
            protocol: "train" for loss terms, else "validation", "unseen" or "known".
            similarity: its name; "" where none applies.
            values: metric -> value.
        """
        shared = {"step": step, "seconds": self.seconds, "phase": phase, "protocol": protocol, "similarity": similarity}
        columns = {"metric": list(values), "value": np.array([float(value) for value in values.values()])}
        self._metrics.add(shared | columns, len(values), step)
        self._flush_in_time()

    def log_quadruplets(self, frame: Mapping[str, Any]) -> None:
        """Add mined quadruplets; buffered.

        Args:
            frame: the columns of quadruplets.parquet as arrays of one length; `phase` and `step` may be plain values.
        """
        count = len(frame["i"])
        self._quadruplets.add(frame, count, int(np.max(frame["step"])) if count else 0)
        self._flush_in_time()

    def flush(self) -> None:
        """Write what is buffered, so that readers see it; happens by itself every few seconds."""
        self._flushed = time.monotonic()
        self._metrics.write()
        self._quadruplets.write()

    def _flush_in_time(self) -> None:
        # Waiting longer as the run ages keeps a day's training at a few hundred parts.
        if time.monotonic() - self._flushed > max(2.0, 0.02 * self.seconds):
            self.flush()
            self.update()

    def truncate_after(self, phase: str, step: int) -> None:
        """Drop all that was logged after a step of a phase, and in later phases: resuming logs it anew."""
        self.flush()
        self._metrics.truncate_after(phase, step)
        self._quadruplets.truncate_after(phase, step)

    def metrics(self) -> pd.DataFrame:
        """The log in the order written: step, seconds, phase, protocol, similarity, metric, value.

        Raises:
            RunError: a part is torn or foreign.
        """
        return self._metrics.read()

    def quadruplets(self, columns: list[str] | None = None) -> pd.DataFrame:
        """Every mined quadruplet, or some columns of them, in the order mined.

        Raises:
            RunError: a part is torn or foreign.
        """
        return self._quadruplets.read(columns)

    def mined(self, columns: list[str] | None = None) -> pa.Table:
        """The same as an arrow table with its texts as dictionaries, for logs of a million rows.

        Raises:
            RunError: a part is torn or foreign.
        """
        return self._quadruplets.table(columns, coded=True)

    def save_model(self, model_state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Write model.safetensors; `metadata` holds JSON values, such as what it takes to build the model again."""
        write_tensors(self.path / "model.safetensors", model_state, metadata)

    def model_state(self) -> dict[str, Tensor]:
        """The saved model's tensors, on the CPU.

        Raises:
            RunError: no model yet, or a torn file.
        """
        return read_tensors(self.path / "model.safetensors", self._what_to_run())[0]

    def model_metadata(self) -> dict[str, Any]:
        """What `save_model` was given as metadata; raises RunError as `model_state` does."""
        return read_tensors(self.path / "model.safetensors", self._what_to_run())[1]

    def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Write last.ckpt: tensors, numbers, strings, lists and dicts only, so that it can be read without trust."""
        self.flush()  # a checkpoint never runs ahead of the log
        write_checkpoint(self.path / "last.ckpt", checkpoint)

    def load_checkpoint(self) -> dict[str, Any]:
        """What `save_checkpoint` wrote last, on the CPU.

        Raises:
            RunError: no checkpoint, or one that is torn or holds anything but plain values.
        """
        return read_checkpoint(self.path / "last.ckpt", self._train_anew())

    def protocols(self) -> list[str]:
        """The protocols whose gallery is complete: "unseen", "known", as far as they exist."""
        return [name for name in PROTOCOLS if (self.path / "gallery" / name / "manifest.json").is_file()]

    def gallery(self, protocol: str) -> Gallery:
        """The embedded, indexed items of a protocol.

        Raises:
            RunError: no such gallery yet, or a torn one.
        """
        from pddm_lab.gallery.gallery import Gallery

        if protocol not in self.protocols():
            have = ", ".join(self.protocols()) or "none"
            raise RunError(f"{self.name} has no gallery {protocol!r}, but {have}. {self._what_to_run()}")
        return Gallery.open(self.path / "gallery" / protocol)

    @property
    def _stop_file(self) -> Path:
        return self.path / "stop"

    def request_stop(self) -> None:
        """Ask the process that trains it to stop after its step; from any process."""
        self._stop_file.touch()

    def stop_requested(self) -> bool:
        """Whether someone asked."""
        return self._stop_file.exists()

    @property
    def notes(self) -> str:
        """What people wrote about it: notes.md, until there is one the notes it was begun with."""
        try:
            return self._notes_file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return self.config.notes

    def write_notes(self, text: str) -> None:
        """Replace the notes; from any process, for a file of its own is nothing that a training writes.

        Raises:
            RunError: the folder can't be written.
        """
        try:
            with replacing(self._notes_file) as temporary:
                temporary.write_text(text, encoding="utf-8")
        except OSError as error:
            raise RunError(f"{self._notes_file} can't be written: {error.strerror}.") from error

    @property
    def notes_stamp(self) -> int:
        """Changes whenever the notes do."""
        return self._notes_file.stat().st_mtime_ns if self._notes_file.is_file() else 0

    @property
    def _notes_file(self) -> Path:
        return self.path / "notes.md"

    def _what_to_run(self) -> str:
        if self.status in ("failed", "stopped", "interrupted"):
            return f"`pddm-lab resume {self.name}` goes on with it."
        return "It is still at work." if self.status == "running" else self._train_anew()

    def _train_anew(self) -> str:
        return f"Train anew: `pddm-lab train {self.config.preset} --dataset {self.config.dataset}`."


def _read_config(path: Path, info: dict[str, Any]) -> TrainConfig:
    try:
        return TrainConfig(**info["config"])
    except (ConfigError, TypeError) as error:
        hint = "Another version of this lab may have written it"
        raise RunError(f"{path / 'run.json'} has a config that can't be read: {error} {hint}.") from error


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
