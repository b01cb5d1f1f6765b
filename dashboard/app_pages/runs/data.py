"""The cached calls of the Runs page, keyed on paths and on when the files behind them changed."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from shared import loaders

from pddm_lab import figures
from pddm_lab.metrics.convergence import since_start, speed
from pddm_lab.runs.compare import groups, mean_log
from pddm_lab.runs.run import Run

CHART_HEIGHT = 320
Key = tuple[tuple[str, ...], tuple[loaders.Stamp, ...], bool]


def _key(runs: Sequence[Run], mean: bool) -> Key:
    stamps = tuple(loaders._stamp(run.path / "metrics.parquet") for run in runs)
    return tuple(str(run.path) for run in runs), stamps, mean


def training_log(runs: Sequence[Run], mean: bool) -> pd.DataFrame:
    """The logs of runs in one table, with `run` where there are several; seconds count from each phase's start.

    Shared, not to be changed.

    Args:
        runs: to compare.
        mean: average runs that differ in their seeds alone, as `runs.mean_log` does.
    """
    return _training_log(_key(runs, mean))


@st.cache_resource(max_entries=16, show_spinner=False)
def _training_log(key: Key) -> pd.DataFrame:
    paths, _, mean = key
    runs = [Run.open(path) for path in paths]
    logs = {run.name: since_start(loaders.metrics(run)) for run in runs}
    if mean:
        return mean_log(groups(runs), logs)
    if len(runs) == 1:
        return logs[runs[0].name]
    return pd.concat([log.assign(run=name) for name, log in logs.items()], ignore_index=True)


def curves(runs: Sequence[Run], mean: bool, metric: str, x: str) -> go.Figure:
    """One metric on the validation classes through training; shared, not to be changed."""
    return _curves(_key(runs, mean), metric, x)


@st.cache_resource(max_entries=64, show_spinner=False)
def _curves(key: Key, metric: str, x: str) -> go.Figure:
    return figures.curves(_training_log(key), metric, x=x, height=CHART_HEIGHT)


def losses(runs: Sequence[Run], mean: bool, phase: str, x: str) -> go.Figure:
    """Loss terms through a phase of training; shared, not to be changed."""
    return _losses(_key(runs, mean), phase, x)


@st.cache_resource(max_entries=64, show_spinner=False)
def _losses(key: Key, phase: str, x: str) -> go.Figure:
    log = _training_log(key)
    return figures.losses(log[log["phase"] == phase], x=x, height=CHART_HEIGHT)


def how_fast(runs: Sequence[Run], metric: str, share: float, target: float) -> pd.DataFrame:
    """When each run reached what, as `convergence.speed` tells it; shared, not to be changed."""
    return _how_fast(_key(runs, False), metric, share, target)


@st.cache_resource(max_entries=64, show_spinner=False)
def _how_fast(key: Key, metric: str, share: float, target: float) -> pd.DataFrame:
    return speed(_training_log(key), metric, share, target)
