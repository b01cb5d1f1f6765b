"""A button that downloads a table as CSV, JSON or Parquet, in a zip beside a manifest of what it was made from."""

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
MadeFrom = Run | list[Run] | Mapping[str, Any]
"""Runs; of a study what its study.json says."""


def export(
    name: str, table: Callable[[], pd.DataFrame], runs: MadeFrom, settings: dict[str, Any], key: str = ""
) -> None:
    """A menu of formats; the table is made when one of them is chosen.

    Args:
        name: of the table, which names the file.
        table: makes it.
        runs: what it is made from.
        settings: the choices that led to it, for the manifest.
        key: tells apart menus of one name on a page.
    """
    first = runs[0] if isinstance(runs, list) else runs
    owner, what = (first["name"], "study") if isinstance(first, Mapping) else (first.name, "run")
    with st.popover("Export", icon=":material/download:", help=f"Take the {name} away, with a manifest of the {what}."):
        for kind in KINDS:
            st.download_button(
                kind.upper() if kind != "parquet" else "Parquet",
                partial(_pack, name, table, kind, runs, settings),
                file_name=f"{owner}-{name}-{kind}.zip",
                mime="application/zip",
                key=f"export_{key or name}_{kind}",
                on_click="ignore",
                width="stretch",
            )


def _pack(name: str, table: Callable[[], pd.DataFrame], kind: str, runs: MadeFrom, settings: dict[str, Any]) -> bytes:
    return packed(name, table(), kind, runs, settings)


def packed(name: str, table: pd.DataFrame, kind: str, runs: MadeFrom, settings: Mapping[str, Any]) -> bytes:
    """A zip with <name>.<kind> and manifest.json.

    Args:
        name: of the table, a file's name without its ending.
        table: its columns; the index is left out.
        kind: csv, json (a list of objects) or parquet.
        runs: what it was made from; of a study what its study.json says.
        settings: the choices that led to it: filters, thresholds, the protocol.

    Raises:
        ConfigError: an unknown kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"Unknown kind of table {kind!r}. Expected one of {', '.join(KINDS)}.")
    buffer = io.BytesIO()
    if kind == "csv":
        table.to_csv(buffer, index=False)
    elif kind == "json":
        table.to_json(buffer, orient="records", force_ascii=False, indent=1)
    else:
        table.to_parquet(buffer, index=False)
    told = manifest(runs, settings) | {"table": f"{name}.{kind}", "rows": len(table), "columns": list(table.columns)}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.{kind}", buffer.getvalue())
        archive.writestr("manifest.json", json.dumps(told, indent=1, ensure_ascii=False))
    return out.getvalue()


def manifest(runs: MadeFrom, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a table was made from: when, the runs with their choices and data, and the settings, as JSON values."""
    made = datetime.now(UTC).isoformat(timespec="seconds")
    if isinstance(runs, Mapping):
        return plain({"made": made, "study": dict(runs), "settings": dict(settings)})
    runs = runs if isinstance(runs, list) else [runs]
    kept = ("name", "fingerprint", "items", "classes", "licence", "attribution")
    return plain(
        {
            "made": made,
            "runs": [
                {
                    "name": run.name,
                    "created": run.info["created"],
                    "best_step": run.info.get("best_step"),
                    "versions": run.info.get("versions"),
                    "config": run.config.to_dict(),
                    "notes": run.notes,
                    "data": {key: run.info["dataset"].get(key) for key in kept},
                }
                for run in runs
            ],
            "settings": dict(settings),
        }
    )
