"""The cached calls of the Runs page's study: what its cells say, and the figures, renewed when a cell is added.

torch is imported by the calls that read a study: a page without one shows without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from shared import loaders

from pddm_lab import figures
from pddm_lab.errors import RunError
from pddm_lab.study import cells

if TYPE_CHECKING:
    from pddm_lab.figures import Metric
    from pddm_lab.study.findings import Cells, Findings, Progress


def list_studies() -> dict[str, Path]:
    """The studies by name. Listed anew each time: it takes a millisecond."""
    return {path.name: path for path in cells.list_studies()}


def findings(path: Path) -> Findings | RunError:
    """What the cells of a study say; or why it can't be read."""
    return _findings(str(path), (*loaders._stamp(path / "study.json"), *loaders._stamp(path / "cells")))


@st.cache_resource(max_entries=4, show_spinner="Reading the study")
def _findings(path: str, stamp: loaders.Stamp) -> Findings | RunError:
    from pddm_lab.study.findings import Findings, Reading

    try:
        return Findings.of(Reading(path, _before(path)))
    except RunError as error:
        return error


@st.cache_resource(max_entries=4, show_spinner=False)
def _before(path: str) -> Cells:
    """Cells that were read: a study at work adds some, and the others needn't be read again."""
    return {}


def progress(found: Findings) -> Progress:
    """How far the study is."""
    from pddm_lab.study.findings import progress

    return progress(found.study)


def metric_of(name: str) -> Metric:
    """How a metric is written."""
    from pddm_lab.study.findings import metric_of

    return metric_of(name)


def side_by_side(results: pd.DataFrame, seeds: pd.DataFrame, metric: str) -> go.Figure:
    """Every method with its interval and its seeds."""
    best = results[results["baseline"]]
    marked = (best["name"].iloc[0], best["similarity"].iloc[0]) if len(best) else None
    return figures.study.side_by_side(results, seeds, metric_of(metric), best=marked)


def names_of(log: pd.DataFrame) -> dict[str, str]:
    """The methods of a log and what they are called."""
    from pddm_lab.study.findings import title_of

    return {name: title_of(name) for name in dict.fromkeys(log["run"])}


def shown_at_first(found: Findings, dataset: str) -> list[str]:
    """Methods whose curves are shown before anybody chooses: the best of PDDM, the best baseline, and the next ones."""
    chosen = found.chosen["methods"]
    own = chosen[chosen["dataset"] == dataset].sort_values("value", ascending=False)
    best = found.baseline(dataset)
    first = [*own.loc[own["family"] == "pddm", "method"][:1], *([best["method"]] if best is not None else [])]
    others = [name for name in own.loc[own["family"] != "mined", "method"] if name not in first]
    return [*first, *others[: 4 - len(first)]]


def manifest(found: Findings) -> dict[str, Any]:
    """What an exported table of the study was made from."""
    return {name: found.study.info.get(name) for name in ("name", "created", "settings", "versions", "machine")}
