"""What the Runs page reads from a study, cached until a cell is added."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from shared.cache import cached

from pddm_lab import figures
from pddm_lab.errors import RunError
from pddm_lab.study.findings import Cells, Findings, Reading, metric_of


@cached("study.json", "cells", max_entries=4, show_spinner="Reading the study")
def findings(path: Path) -> Findings | RunError:
    """The results in a study's cells, or why it can't be read."""
    try:
        return Findings.of(Reading(path, _cells_read(str(path))))
    except RunError as error:
        return error


@st.cache_resource(max_entries=4, show_spinner=False)
def _cells_read(path: str) -> Cells:
    """The cells of a study that have been read, so that only new ones are read when it grows."""
    return {}


@cached("study.json", "cells", max_entries=4, show_spinner="Comparing local and global metrics")
def local_leads(path: Path, part: str) -> pd.DataFrame | RunError:
    """How far local structure is ahead, or why it can't be read; shared, not to be changed."""
    from pddm_lab.panel.local_tables import differences_table

    try:
        return differences_table(Reading(path, _cells_read(str(path))), part)
    except (KeyError, TypeError, ValueError) as error:
        return RunError(f"A cell of the part {part} in {path} lacks what its table needs: {error}. Compute it again.")


def side_by_side(results: pd.DataFrame, seeds: pd.DataFrame, metric: str) -> go.Figure:
    """A chart of every method with its interval and its seeds."""
    best = results[results["baseline"]]
    baseline = (best["name"].iloc[0], best["similarity"].iloc[0]) if len(best) else None
    return figures.study.side_by_side(results, seeds, metric_of(metric), best=baseline)


def default_methods(findings: Findings, dataset: str) -> list[str]:
    """Methods whose curves are shown by default: the best of PDDM, the best baseline, and the next best ones."""
    chosen = findings.chosen["methods"]
    own = chosen[chosen["dataset"] == dataset].sort_values("value", ascending=False)
    best = findings.baseline(dataset)
    first = [*own.loc[own["family"] == "pddm", "method"][:1], *([best["method"]] if best is not None else [])]
    others = [name for name in own.loc[own["family"] != "mined", "method"] if name not in first]
    return [*first, *others[: 4 - len(first)]]


def manifest(findings: Findings) -> dict[str, Any]:
    """The part of study.json that goes into an export."""
    return {name: findings.study.info.get(name) for name in ("name", "created", "settings", "versions", "machine")}
