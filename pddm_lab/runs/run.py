"""A run on disk: a folder per training, which can be read while it is written.

runs/<name>/  run.json  model.safetensors  last.ckpt  metrics.parquet/  quadruplets.parquet/  notebook.ipynb
              gallery/<protocol>/  gallery/catalogue/  notes.md  lead-<protocol>.safetensors

A file is written under a temporary name and renamed, so a reader sees the old one or the new one, never half of it.
torch and pandas are imported where they are used, so that listing runs takes milliseconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np

from pddm_lab.config import UNNAMED_CHOICES, TrainConfig, runs_root
from pddm_lab.errors import ConfigError, RunError, valid_text
from pddm_lab.files import (
    check,
    plain,
    read_checkpoint,
    read_json,
    read_tensors,
    write_checkpoint,
    write_file,
    write_tensors,
    writing,
)
from pddm_lab.runs.folder_name import exists_already, new_folder
from pddm_lab.runs.log import EUCLIDEAN, METRICS, PHASES, QUADRUPLETS, Log
from pddm_lab.runs.process import is_alive, is_this_process, locked, sweep_leftovers, this_process
from pddm_lab.runs.schema import FORMAT, STATUSES, CheckpointContent, RunContent
from pddm_lab.runs.versions import model_stamp, versions
from pddm_lab.similarities import LEARNED

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from torch import Tensor

    from pddm_lab.gallery.gallery import Gallery

PROTOCOLS = ("unseen", "known")
CATALOGUE = "catalogue"
"""The gallery of all items that a run knows, and of those that were added; nothing is measured on it."""


class Run:
    """The folder of a training. Create one with `Run.create`, read one with `Run.open`."""

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path = path
        self.info = info
        """Content of run.json when it was opened, kept up to date by `update`."""
        self.config = _read_config(path, info)
        self._notes_file, self._stop_file = path / "notes.md", path / "stop"
        self._claimed: float | None = None
        self._spent_before = 0.0
        self._metrics = Log(path / "metrics.parquet", METRICS)
        self._quadruplets = Log(path / "quadruplets.parquet", QUADRUPLETS, optional=EUCLIDEAN)
        self._flushed = time.monotonic()

    @classmethod
    def create(cls, config: TrainConfig, dataset_info: Mapping[str, Any], device: str, precision: str) -> Run:
        """A new folder in the runs' root, owned by this process, with the status "running".

        Args:
            config: its `run_name`, if given, must be new; else the name consists of dataset, preset and time.
            dataset_info: name, fingerprint, items, classes, skipped, licence, attribution, root.
            device: "cpu", "cuda".
            precision: "32", "bf16", "fp16".

        Raises:
            RunError: a run of that name exists, or the folder can't be created.
            ConfigError: `run_name` is not a valid folder name.
        """
        now = datetime.now(UTC)
        info = {
            "format": FORMAT, "name": "", "created": now.isoformat(), "config": config.to_dict(),
            "dataset": plain(dataset_info), "versions": versions(), "seed": config.seed, "device": device,
            "precision": precision, "status": "running", "reason": "", "phase": PHASES[0], "step": 0,
            "steps_total": config.steps, "seconds": 0.0, "best_step": None, "metrics": {},
        }  # fmt: skip
        path = new_folder(runs_root(config.runs_root), config, now)
        run = cls(path, info | {"name": path.name})
        with locked(path):
            if (path / "run.json").exists():  # of a process that was given the same name
                raise exists_already(path, config.is_imported)
            run._own()
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run in a folder.

        Raises:
            RunError: no run there, or its run.json is damaged, not written by this lab, or of a newer version.
        """
        path = Path(path)
        file, lists = path / "run.json", "`pddm-lab runs` lists all runs"
        if valid_text(path.name) != path.name:
            raise RunError(f"{path} has a name that is no valid text: rename the folder.")
        missing = f"{path} is not a run: expected {file.name} in it. {lists}."
        info = read_json(file, RunContent, missing, f"Restore it or delete the run's folder; {lists}.")
        return cls(path, info)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def status(self) -> str:
        """running, finished, failed or stopped; "interrupted" if run.json says running but the process has ended."""
        status = str(self.info["status"])
        return "interrupted" if status == "running" and not is_alive(self.info) else status

    @property
    def reason(self) -> str:
        """Why it failed, stopped or was interrupted, in a sentence; else empty."""
        if self.status == "interrupted":
            return f"Its process ended without an error message. {self.hint()}"
        return str(self.info.get("reason") or "")

    @property
    def is_labelled(self) -> bool:
        """Whether the classes of its items are known; imported features may come without."""
        return bool(self.info["dataset"].get("labelled", True))

    @property
    def learned(self) -> tuple[str, ...]:
        """The similarities with weights that it trained; an import without training has none."""
        return LEARNED if self.config.learns else ()

    @property
    def created(self) -> datetime:
        """Time of its creation, UTC."""
        return datetime.fromisoformat(self.info["created"])

    @property
    def seconds(self) -> float:
        """Time spent on it so far, over all its processes."""
        if self._claimed is None:
            return float(self.info.get("seconds") or 0.0)
        return self._spent_before + time.monotonic() - self._claimed

    def claim(self, from_parent: bool = False, **fields: Any) -> None:
        """Make this process the owner, to resume the run: sets the status "running", cancels a stop request.

        Args:
            from_parent: take it over from the process that created it and waits for this one.
            fields: of run.json, to set with it.

        Raises:
            RunError: it is finished, another process is training it, or its folder can't be written.
        """
        with locked(self.path):
            self.info = Run.open(self.path).info  # another process may have claimed it since
            if not from_parent:
                self.check_resumable()
            self._own(**fields)

    def _own(self, **fields: Any) -> None:
        self._spent_before, self._claimed = self.seconds, time.monotonic()
        sweep_leftovers(self.path)
        with writing(self._stop_file):
            self._stop_file.unlink(missing_ok=True)
        self.update(format=FORMAT, status="running", reason="", **this_process(), **fields)

    def check_idle(self) -> None:
        """Raise RunError if another process is training it."""
        if self.status == "running" and not is_this_process(self.info):
            owner = f"process {self.info.get('pid')} on {self.info.get('host')}"
            raise RunError(f"{self.name} is being trained by {owner}: stop that process first.")

    def check_resumable(self) -> None:
        """Raise RunError if it is finished, or another process is training it."""
        if self.status == "finished":
            raise RunError(f"{self.name} is finished: there is nothing to resume.")
        self.check_idle()

    def update(self, **fields: Any) -> None:
        """Set fields of run.json and the heartbeat in one atomic write. NaN is written as null."""
        for name, known in (("status", STATUSES), ("phase", PHASES)):
            if name in fields and fields[name] not in known:
                raise ValueError(f"{name} expects one of {', '.join(known)}, got {fields[name]!r}")
        self.info |= {"seconds": self.seconds, "heartbeat": time.time()} | plain(fields)
        write_file(self.path / "run.json", json.dumps(self.info, indent=1, ensure_ascii=False, allow_nan=False))

    def end(self, status: str, reason: str) -> None:
        """Record how the training ended, as far as the disk allows: the error that ended it is the one to report."""
        for record in (self.flush, partial(self.update, status=status, reason=reason)):
            with suppress(Exception):
                record()

    def set_metrics(self, protocol: str, similarity: str, values: Mapping[str, SupportsFloat]) -> None:
        """Store the best step's metrics in run.json, as metrics[protocol][similarity][metric]."""
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
            similarity: its name; "" if there is none.
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
        """Write the buffered rows, so that readers see them; done automatically every few seconds."""
        self._flushed = time.monotonic()
        self._metrics.write()
        self._quadruplets.write()

    def _flush_in_time(self) -> None:
        # Longer intervals in longer runs keep a day's training at a few hundred parts.
        if time.monotonic() - self._flushed > max(2.0, 0.02 * self.seconds):
            self.flush()
            self.update()

    def truncate_after(self, phase: str, step: int) -> None:
        """Delete what was logged after a step of a phase and in later phases: resuming logs it again."""
        self.flush()
        self._metrics.truncate_after(phase, step)
        self._quadruplets.truncate_after(phase, step)

    def metrics(self) -> pd.DataFrame:
        """The log in the order written: step, seconds, phase, protocol, similarity, metric, value.

        Raises:
            RunError: a part is damaged or was not written by this lab.
        """
        return self._metrics.read()

    def quadruplets(self, columns: list[str] | None = None) -> pd.DataFrame:
        """Every mined quadruplet, or some columns, in the order mined; raises RunError as `metrics` does."""
        return self._quadruplets.read(columns)

    def mined(self, columns: list[str] | None = None) -> pa.Table:
        """The same as an arrow table with texts as dictionaries, for logs of a million rows."""
        return self._quadruplets.table(columns, coded=True)

    def save_model(self, model_state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Write model.safetensors; `metadata` holds JSON values, such as the options that build the model."""
        write_tensors(self.path / "model.safetensors", model_state, metadata)

    def model_state(self) -> dict[str, Tensor]:
        """The saved model's tensors, on the CPU.

        Raises:
            RunError: no model yet, or a damaged file.
        """
        file, hint = self.path / "model.safetensors", self.hint()
        state = read_tensors(file, hint)[0]
        for name, tensor in state.items():
            if not tensor.isfinite().all():
                raise RunError(f"{file} is damaged: expected finite weights, got NaN or infinity in {name}. {hint}")
        return state

    def model_metadata(self) -> dict[str, Any]:
        """The metadata of the saved model; raises RunError as `model_state` does."""
        return read_tensors(self.path / "model.safetensors", self.hint())[1]

    def save_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Write last.ckpt: only tensors, numbers, strings, lists and dicts, so that reading it runs no code."""
        self.flush()  # a checkpoint is never ahead of the log
        write_checkpoint(self.path / "last.ckpt", checkpoint)

    def load_checkpoint(self) -> dict[str, Any]:
        """The last checkpoint, on the CPU.

        Raises:
            RunError: no checkpoint, a damaged one, or one with other content than plain values.
        """
        file, hint = self.path / "last.ckpt", self._train_again()
        checkpoint = read_checkpoint(file, hint)
        check(CheckpointContent, checkpoint, file, hint)
        return checkpoint

    def protocols(self) -> list[str]:
        """The protocols with a complete gallery, among "unseen" and "known"."""
        return [name for name in self.galleries() if name in PROTOCOLS]

    def galleries(self) -> list[str]:
        """The complete galleries: the catalogue first, if there is one, then those of the protocols."""
        names = (CATALOGUE, *PROTOCOLS)
        return [name for name in names if (self.path / "gallery" / name / "manifest.json").is_file()]

    def gallery(self, protocol: str) -> Gallery:
        """The embedded, indexed items of a protocol, or the catalogue.

        Raises:
            RunError: no such gallery yet, or a damaged one.
        """
        from pddm_lab.gallery.gallery import Gallery

        if protocol not in self.galleries():
            have, hint = ", ".join(self.galleries()) or "none", self.hint()
            if self.status == "finished":
                hint = f"Write its galleries again: `pddm-lab gallery rebuild {self.name}`."
            raise RunError(f"{self.name} has no {protocol} gallery; it has: {have}. {hint}")
        opened = Gallery.open(self.path / "gallery" / protocol)
        if opened.manifest["dim"] != (dim := self._feature_dim()):
            raise RunError(f"{opened.path} is of another run: expected features of {dim} dimensions. {self.hint()}")
        own, made_by = self.models(), opened.manifest.get("model")
        if made_by and own[0] and made_by not in own:
            hint = f"`pddm-lab gallery rebuild {self.name} --protocol {protocol}` makes them anew."
            raise RunError(f"{opened.path} has vectors of another model, not to be compared with the run's. {hint}")
        return opened

    def models(self) -> list[str]:
        """Stamps of the models whose vectors can be compared with the run's own; that of its model comes first."""
        return [model_stamp(self.path), *(self.info.get("updated") or {}).get("comparable", [])]

    def _feature_dim(self) -> int:
        if not self.config.familiarity:
            return self.config.dim
        from pddm_lab.model.familiarity import PRETRAINED_DIMS

        return self.config.dim + PRETRAINED_DIMS

    def request_stop(self) -> None:
        """Ask the training process to stop after its step; can be called from any process.

        Raises:
            RunError: the folder can't be written.
        """
        with writing(self._stop_file):
            self._stop_file.touch()

    def stop_requested(self) -> bool:
        """Whether a stop was requested."""
        return self._stop_file.exists()

    @property
    def notes(self) -> str:
        """The user's notes: notes.md, or `config.notes` if there is no such file."""
        try:
            return self._notes_file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return self.config.notes

    def write_notes(self, text: str) -> None:
        """Replace the notes; can be called from any process, since a training never writes this file.

        Raises:
            RunError: the folder can't be written.
        """
        write_file(self._notes_file, text)

    @property
    def notes_stamp(self) -> int:
        """Modification time of the notes, 0 if there are none."""
        return self._notes_file.stat().st_mtime_ns if self._notes_file.is_file() else 0

    def hint(self) -> str:
        """What to do about a missing or damaged file of the run."""
        if self.status in ("failed", "stopped", "interrupted"):
            return f"Resume it with `pddm-lab resume {self.name}`."
        return "It is still running: wait until it is finished." if self.status == "running" else self._train_again()

    def _train_again(self) -> str:
        if self.config.is_imported:
            return "Import it again: `pddm-lab import`."
        return f"Train again: `pddm-lab train {self.config.preset} --dataset {self.config.dataset}`."


def _read_config(path: Path, info: dict[str, Any]) -> TrainConfig:
    try:
        return TrainConfig(**UNNAMED_CHOICES | info["config"])
    except (ConfigError, TypeError) as error:
        hint = "Another version of this lab may have written it: read it with that version"
        raise RunError(f"{path / 'run.json'} has a config that can't be read: {error} {hint}.") from error
