"""A button that downloads a table as CSV, JSON or Parquet, in a zip with a manifest of the runs and settings."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from pddm_lab.errors import ConfigError
from pddm_lab.files import plain
from pddm_lab.runs.run import Run

KINDS = ("csv", "json", "parquet")
Source = Run | list[Run] | Mapping[str, Any]
"""The runs that a table was made from, or the content of a study's study.json."""


def export(name: str, table: Callable[[], pd.DataFrame], runs: Source, settings: dict[str, Any], key: str = "") -> None:
    """A menu of formats; choosing one makes the table and downloads it.

    Args:
        name: of the table and its file.
        table: makes the table.
        runs: what it is made from.
        settings: the choices that led to it, for the manifest.
        key: distinguishes menus of the same name on a page.
    """
    first, title = runs[0] if isinstance(runs, list) else runs, name.replace("-", " ")
    owner, what = (first["name"], "study") if isinstance(first, Mapping) else (first.name, "run")
    with st.popover("Export", icon=":material/download:", help=f"Download the {title}, with details of the {what}."):
        for kind in KINDS:
            st.download_button(
                kind.upper() if kind != "parquet" else "Parquet",
                partial(lambda kind: packed(name, table(), kind, runs, settings), kind),
                file_name=f"{owner}-{name}-{kind}.zip",
                mime="application/zip",
                key=f"export_{key or name}_{kind}",
                on_click="ignore",
                width="stretch",
            )


def packed(name: str, table: pd.DataFrame, kind: str, runs: Source, settings: Mapping[str, Any]) -> bytes:
    """A zip with <name>.<kind> and manifest.json.

    Args:
        name: of the table: a file name without extension.
        table: the table; its index is left out.
        kind: csv, json (a list of objects) or parquet.
        runs: what it was made from.
        settings: the choices that led to it: filters, thresholds, the protocol.

    Raises:
        ConfigError: an unknown kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"Unknown format {kind!r}; expected one of {', '.join(KINDS)}.")
    buffer = io.BytesIO()
    if kind == "csv":
        safe_cells(table).to_csv(buffer, index=False)
    elif kind == "json":
        table.to_json(buffer, orient="records", force_ascii=False, indent=1)
    else:
        table.to_parquet(buffer, index=False)
    details = manifest(runs, settings) | {"table": f"{name}.{kind}", "rows": len(table), "columns": list(table.columns)}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.{kind}", buffer.getvalue())
        archive.writestr("manifest.json", json.dumps(details, indent=1, ensure_ascii=False))
    return out.getvalue()


def safe_cells(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose texts a spreadsheet doesn't run as formulas: a quotation mark goes before those that it would run.

    Numbers stay numbers. Source: OWASP, CSV Injection.
    """

    def safe(cell: Any) -> Any:
        return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else cell

    texts = table.select_dtypes(exclude=["number", "bool", "datetime"]).columns
    return table.assign(**{name: table[name].astype(object).map(safe) for name in texts}).rename(columns=safe)


def manifest(runs: Source, settings: Mapping[str, Any]) -> dict[str, Any]:
    """When a table was made, from which runs (their configurations and data), and the settings, as JSON values."""
    made = datetime.now(UTC).isoformat(timespec="seconds")
    if isinstance(runs, Mapping):
        return plain({"made": made, "study": dict(runs), "settings": dict(settings)})
    of_data = ("name", "fingerprint", "items", "classes", "licence", "attribution")
    details = [
        {
            "name": run.name,
            "created": run.info["created"],
            "best_step": run.info.get("best_step"),
            "versions": run.info.get("versions"),
            "config": run.config.to_dict(),
            "notes": run.notes,
            "data": {key: run.info["dataset"].get(key) for key in of_data},
        }
        for run in (runs if isinstance(runs, list) else [runs])
    ]
    return plain({"made": made, "runs": details, "settings": dict(settings)})
