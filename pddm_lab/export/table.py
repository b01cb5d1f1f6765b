"""The table of formats in a run's folder: formats.json, as `pddm-lab bench formats` measured it. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pddm_lab.export.schema import FormatsContent
from pddm_lab.files import plain, read_json, replacing

FILE = "formats.json"
HEAD = ("format", "bits", "MB", "bytes a parameter", "ms an image")
METRICS = {"recall@1": "R@1 by D", "map@r": "MAP@R by D", "score_recall@1": "R@1 by {}", "score_map@r": "MAP@R by {}",
           "unchanged@10": "same top 10"}  # fmt: skip
"""Metric -> its column; {} is the letter of the run's similarity."""
TORCH = "torch"


def write_formats(run: Path, content: dict[str, Any]) -> None:
    """Write the table into a run's folder."""
    with replacing(run / FILE) as temporary:
        temporary.write_text(json.dumps(plain(content), indent=1), encoding="utf-8")


def read_formats(run: Path) -> dict[str, Any] | None:
    """The table of a run; None if it was not measured.

    Raises:
        RunError: the file is damaged or was not written by this lab.
    """
    file = run / FILE
    again = f"Measure it again: `pddm-lab bench formats {run.name}`."
    return read_json(file, FormatsContent, again, again) if file.is_file() else None


def table_rows(content: dict[str, Any], letter: str) -> tuple[list[str], list[list[str]]]:
    """The table as text: column names and rows, percentages as in the lab's other tables.

    Args:
        content: of formats.json.
        letter: of the run's similarity.
    """
    protocols = list(content["rows"][0]["protocols"]) if content["rows"] else []
    head = [*HEAD, *(f"{protocol} {name.format(letter)}" for protocol in protocols for name in METRICS.values())]
    rows = [
        [
            row["engine"], row["precision"], f"{row['model_bytes'] / 1e6:.2f}",
            f"{row['model_bytes'] / content['parameters']:.2f}", f"{row['milliseconds']:.2f}",
            *(_percent(row["protocols"].get(protocol, {}).get(name)) for protocol in protocols for name in METRICS),
        ]
        for row in content["rows"]
    ]  # fmt: skip
    return head, rows


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
