"""The result of a benchmark: measurements with their targets, and the machine they were taken on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pddm_lab.files import plain, write_file

Log = Callable[[str], None]
"""Called with what a benchmark is about to do."""
HEAD = ("what", "measured", "target", "", "over")
"""Column names of `Measure.row`."""


@dataclass(frozen=True)
class Measure:
    """One measured number."""

    what: str
    value: float
    unit: str
    """s, MB, ... or empty for a count."""
    target: float | None = None
    """The largest value that meets the target; None: no target."""
    over: str = ""
    """What it was taken over, such as "median of 40 reruns"."""
    at_least: bool = False
    """The target is the smallest value that meets it."""

    @property
    def verdict(self) -> str:
        """ "met", "missed", or empty without a target; NaN misses every target."""
        if self.target is None:
            return ""
        return "met" if (self.value >= self.target if self.at_least else self.value <= self.target) else "missed"

    def row(self) -> tuple[str, ...]:
        """The measurement as cells of a table of text, under `HEAD`."""
        value = float(self.value)
        digits = ",.0f" if abs(value) >= 100 or value.is_integer() else ".3g"
        bound = "" if self.target is None else f"{'>=' if self.at_least else '<='} {self.target:g} {self.unit}".rstrip()
        return self.what, f"{value:{digits}} {self.unit}".rstrip(), bound, self.verdict, self.over


def machine() -> dict[str, Any]:
    """What the numbers depend on: cores, memory, threads, versions, the load of other processes, and the date."""
    import joblib
    import psutil
    import torch

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "system": platform.platform(),
        "processor": processor(), "cores": joblib.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()], "python": platform.python_version(),
        "torch": torch.__version__, "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }  # fmt: skip


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def write_json(file: Path, name: str, measures: Sequence[Measure], facts: dict[str, Any]) -> None:
    """Write a benchmark's measurements, with their verdicts and the facts of the machine, as JSON."""
    rows = [asdict(measure) | {"verdict": measure.verdict} for measure in measures]
    write_file(file, json.dumps(plain({"bench": name, "machine": facts, "measures": rows}), indent=1))
