"""The formats that a run's model can leave the lab in: what each costs and keeps, and how to write one."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st
from app_pages.runs import views
from shared.plain_text import command, plain

from pddm_lab.errors import RunError
from pddm_lab.export.table import read_formats, table_rows
from pddm_lab.runs.run import Run
from pddm_lab.similarities import SIMILARITIES


def formats(compared: Sequence[Run]) -> None:
    """The table of formats of the chosen run, if it was measured, and the commands to measure and to write one."""
    run = compared[0]
    if run.status != "finished":
        return
    table = pd.DataFrame()
    try:
        if content := read_formats(run.path):
            head, rows = table_rows(content, SIMILARITIES[content["similarity"]].letter)
            table = pd.DataFrame(rows, columns=head)
    except RunError as error:
        st.error(plain(str(error)))
        content = None
    views.heading("Export", "formats", table, run, {})
    if content:
        alt = "Every format of the model: its size, its time for a picture, and its retrieval under both protocols"
        st.dataframe(table, hide_index=True, alt=alt, key="formats")
        same = "The last column of a protocol is the share of each query's ten nearest that are torch's too"
        st.caption(f"{same}. All in % but the first columns. Measured on one core of {plain(content['processor'])}.")
        st.caption(f"To write one: {command('export', run.name, '--format', 'onnx', '--precision', 'int8')}")
    else:
        st.caption(
            "The model as files that need no torch, for ONNX or OpenVINO. To measure what each format keeps: "
            f"{command('bench', 'formats', run.name)}"
        )
