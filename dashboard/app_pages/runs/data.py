"""What the Runs page draws from the logs of runs, cached until one of them grows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from shared import loaders
from shared.cache import cached

from pddm_lab import figures
from pddm_lab.metrics.convergence import since_start, speed
from pddm_lab.runs.compare import groups, mean_log
from pddm_lab.runs.run import Run

CHART_HEIGHT = 320
LOG = "metrics.parquet"


@cached(LOG, max_entries=16)
def training_log(runs: Sequence[Run], mean: bool) -> pd.DataFrame:
    """The logs of runs in one table, with `run` where there are several; seconds count from the start of each phase.

    With `mean`, runs that differ only in their seeds are averaged, as by `mean_log`.
    """
    logs = {run.name: since_start(loaders.metrics(run)) for run in runs}
    if mean:
        return mean_log(groups(runs), logs)
    if len(runs) == 1:
        return logs[runs[0].name]
    return pd.concat([log.assign(run=name) for name, log in logs.items()], ignore_index=True)


@cached(LOG, max_entries=64)
def curves(runs: Sequence[Run], mean: bool, metric: str, x: str) -> go.Figure:
    """One metric on the validation classes through training."""
    return figures.curves(training_log(runs, mean), metric, x=x, height=CHART_HEIGHT)


@cached(LOG, max_entries=64)
def losses(runs: Sequence[Run], mean: bool, phase: str, x: str) -> go.Figure:
    """The terms of the loss through a phase of training."""
    log = training_log(runs, mean)
    return figures.losses(log[log["phase"] == phase], x=x, height=CHART_HEIGHT)


@cached(LOG, max_entries=64)
def how_fast(runs: Sequence[Run], metric: str, share: float, target: float) -> pd.DataFrame:
    """When each run reached a share of its own best value, and the target, as `convergence.speed` computes it."""
    return speed(training_log(runs, False), metric, share, target)
