"""What a benchmark found: measures beside their targets, with the machine they were taken on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pddm_lab.files import plain, replacing


@dataclass(frozen=True)
class Measure:
    """One number that was measured."""

    what: str
    value: float
    unit: str
    """s, MB, ... or empty for a count."""
    target: float | None = None
    """The most it may be; None where nothing is asked of it."""
    over: str = ""
    """What it was taken over, such as "median of 40 reruns"."""
    at_least: bool = False
    """The target is the least it may be."""

    @property
    def verdict(self) -> str:
        """Reached, not reached, or nothing where there is no target; a value that is no number reaches none."""
        if self.target is None:
            return ""
        reached = self.value >= self.target if self.at_least else self.value <= self.target
        return "reached" if reached else "not reached"


def machine() -> dict[str, Any]:
    """What the numbers depend on: cores, memory, threads, versions, what else the machine does, and when."""
    import psutil
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": cores,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def table(measures: Sequence[Measure]) -> str:
    """The measures as a table of text."""
    rows = [("what", "measured", "target", "", "over")]
    for one in measures:
        target = "" if one.target is None else f"{'>=' if one.at_least else '<='} {one.target:g} {one.unit}".rstrip()
        rows.append((one.what, f"{_number(float(one.value))} {one.unit}".rstrip(), target, one.verdict, one.over))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value.is_integer() else f"{value:.3g}"


def show(name: str, measures: Sequence[Measure], facts: dict[str, Any], json_file: str = "") -> None:
    """Print a benchmark's table with the machine's facts under it, and keep all of it as JSON where a file is named."""
    print(table(measures))
    missed = [one.what for one in measures if one.verdict == "not reached"]
    print(f"\n{'Not reached: ' + '; '.join(missed) if missed else 'Every target was reached'}.")
    print(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items()))
    if json_file:
        found = [asdict(one) | {"verdict": one.verdict} for one in measures]
        with replacing(Path(json_file)) as temporary:
            text = json.dumps(plain({"bench": name, "machine": facts, "measures": found}), indent=1)
            temporary.write_text(text, encoding="utf-8")
        print(f"Kept in {json_file}")
