"""The runs under a root: listed, newest first, and compared. What a single one is: run.py."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pddm_lab.config import runs_root
from pddm_lab.errors import RunError
from pddm_lab.run import PROTOCOLS, STATUSES, Run, exists_already, folder_name
from pddm_lab.runlog import PHASES

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "PHASES",
    "PROTOCOLS",
    "STATUSES",
    "BrokenRun",
    "Comparison",
    "Run",
    "compare",
    "exists_already",
    "folder_name",
    "list_runs",
]

_TRACES = ("run.json", "model.safetensors", "last.ckpt", "metrics.parquet")


@dataclass(frozen=True)
class BrokenRun:
    """A folder among the runs that can't be read as one."""

    path: Path
    reason: str
    """What was expected and what came, in a sentence."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name


def list_runs(root: str | Path = "") -> list[Run | BrokenRun]:
    """All runs under a root (empty: the default one), newest first; what can't be read comes as a BrokenRun.

    A folder that holds nothing of a run is left out, and a root that doesn't exist has none.
    """
    found: list[tuple[str, str, Run | BrokenRun]] = []
    folder = runs_root(str(root))
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith(".") or not any((path / name).exists() for name in _TRACES):
            continue
        try:
            run = Run.open(path)
            found.append((str(run.info["created"]), run.name, run))
        except RunError as error:
            changed = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
            found.append((changed, path.name, BrokenRun(path, str(error))))
    return [run for _, _, run in sorted(found, key=lambda entry: entry[:2], reverse=True)]


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side."""

    metrics: pd.DataFrame
    """Final metrics, long: run, protocol, similarity, metric, value."""
    config: pd.DataFrame
    """The choices that differ: one row per field, one column per run."""


def compare(runs: Iterable[Run]) -> Comparison:
    """The final metrics of runs, and the choices in which they differ."""
    import pandas as pd

    runs = list(runs)
    rows = [
        (run.name, protocol, similarity, metric, math.nan if value is None else float(value))
        for run in runs
        for protocol, similarities in run.info["metrics"].items()
        for similarity, values in similarities.items()
        for metric, value in values.items()
    ]
    choices = pd.DataFrame({run.name: run.config.to_dict() for run in runs}, dtype=object)
    unlike = [len({repr(value) for value in row}) > 1 for row in choices.to_numpy()]
    metrics = pd.DataFrame(rows, columns=["run", "protocol", "similarity", "metric", "value"])
    return Comparison(metrics, choices.loc[unlike])
