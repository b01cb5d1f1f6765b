"""The cached calls of the Runs page, keyed on paths and on when the files behind them changed."""

from __future__ import annotations

from collections.abc import Sequence

import loaders
import pandas as pd
import streamlit as st

from pddm_lab.convergence import since_start
from pddm_lab.runs import Run, groups, mean_log


def training_log(runs: Sequence[Run], mean: bool) -> pd.DataFrame:
    """The logs of runs in one table, with `run` where there are several; seconds count from each phase's start.

    Args:
        runs: to compare.
        mean: average runs that differ in their seeds alone, as `runs.mean_log` does.
    """
    return _training_log(
        tuple(str(run.path) for run in runs), tuple(loaders._stamp(run.path / "metrics.parquet") for run in runs), mean
    )


@st.cache_resource(max_entries=16, show_spinner=False)
def _training_log(paths: tuple[str, ...], stamps: tuple[loaders.Stamp, ...], mean: bool) -> pd.DataFrame:
    runs = [Run.open(path) for path in paths]
    logs = {run.name: since_start(loaders.metrics(run)) for run in runs}
    if mean:
        return mean_log(groups(runs), logs)
    if len(runs) == 1:
        return logs[runs[0].name]
    return pd.concat([log.assign(run=name) for name, log in logs.items()], ignore_index=True)
