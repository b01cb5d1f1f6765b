"""A button that takes a table away, with what it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from pddm_lab.exports import KINDS, packed
from pddm_lab.runs.run import Run

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
