"""The Similarity page's view by density: does a threshold that works where items lie densely fail elsewhere?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st
from app_pages.similarity import data
from app_pages.similarity.text import density_in_words, density_verdict
from shared import export, shell
from shared.chart import chart
from shared.plain_text import plain
from streamlit.delta_generator import DeltaGenerator

from pddm_lab import cards, figures
from pddm_lab.analysis.thresholds import ByDensity
from pddm_lab.figures import PROTOCOL_TITLES
from pddm_lab.runs.run import Run
from pddm_lab.similarities import EVERY

SHARES = {"0.1": "0.1 % FPR", "1": "1 % FPR", "5": "5 % FPR"}
_Panel = tuple[Run, str, dict[str, ByDensity]]
"""A run, a protocol, and its results by similarity."""
CURVES = {"distributions": "Distributions", "roc": "ROC"}


def show(runs: Sequence[Run], protocols: Sequence[str], names: Sequence[str]) -> None:
    """One run under every protocol, or two runs under one of them.

    Args:
        names: the similarities to compare.
    """
    names = list(dict.fromkeys(names))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        percent = shell.choice(st.segmented_control, "One threshold at", SHARES, "fpr", default="1")
        panels = [(run, protocol) for run in runs for protocol in protocols]
        share = float(percent) / 100
        settings = {"fpr_percent": float(percent), "similarities": names}
        export.export("threshold-by-density", partial(_table, panels, names, share), list(runs), settings)
    results = [{name: data.by_density(*panel, name, share) for name in names} for panel in panels]

    def across() -> Iterator[_Panel]:
        """A row of the page, so that matching parts start at the same height."""
        for side, panel, result in zip(st.columns(len(panels), gap="large"), panels, results, strict=True):
            with side:
                yield *panel, result

    for run, protocol, result in across():
        of_run = f"{plain(run.name)}, " if len(runs) > 1 else ""
        st.markdown(f"## {of_run}{PROTOCOL_TITLES[protocol].lower() if of_run else PROTOCOL_TITLES[protocol]}")
        st.markdown(density_verdict(result))
    for run, protocol, result in across():
        alt = f"TPR and FPR of one threshold by density, {PROTOCOL_TITLES[protocol]}, {run.name}"
        chart(figures.by_density(result, share=share), f"density_{run.name}_{protocol}", alt)
    st.caption(
        "One threshold for all pairs, measured in the dense, the middle and the sparse third. Bars: 95 % intervals. "
        "Hollow: a threshold of the third's own, at the same FPR. What then remains of a gap is not due to the "
        "threshold: sparse pairs are harder."
    )
    if place := shell.unfolded("The numbers", "numbers"):
        _numbers(place, across)
    if place := shell.unfolded("Distributions and ROC by density", "by_density"):
        with place:
            curves = shell.choice(st.segmented_control, "Show by density", CURVES, "curves")
            _curves(curves, names, across)


def _numbers(place: DeltaGenerator, across: Callable[[], Iterator[_Panel]]) -> None:
    """The results in words and as tables."""
    with place:
        for _, _, result in across():
            for paragraph in density_in_words(result):
                st.markdown(paragraph)
        for run, protocol, result in across():
            st.html(cards.density_table(result))
            st.caption(data.scored_in_words(run, protocol))
        st.caption(
            "The scored pairs are split into thirds by the mean distance of their two items to the 10 nearest "
            "neighbours of each. Intervals: from resampling the classes 200 times."
        )


def _curves(curves: str, names: Sequence[str], across: Callable[[], Iterator[_Panel]]) -> None:
    """The distributions or ROC curves of each third, a row of the page per similarity."""
    draw = figures.distributions_by_density if curves == "distributions" else figures.roc_by_density
    for name in names:
        title = f"{CURVES[curves]} by density, {EVERY[name].title}"
        for run, protocol, result in across():
            st.markdown(f"**{title}**")
            chart(
                draw(data.thirds(run, protocol, name), name, threshold=result[name].threshold),
                f"{curves}_{name}_{run.name}_{protocol}",
                f"{title}, {PROTOCOL_TITLES[protocol]}, {run.name}",
            )


def _table(panels: Sequence[tuple[Run, str]], names: Sequence[str], share: float) -> pd.DataFrame:
    """The results for download, with thresholds as the page shows them: those of a distance are positive."""
    parts = []
    for run, protocol in panels:
        for name in names:
            result = data.by_density(run, protocol, name, share)
            front = pd.DataFrame({"run": run.name, "protocol": protocol, "similarity": name}, index=result.table.index)
            own = figures.shown(name, result.table["own"].to_numpy())
            at = float(figures.shown(name, np.array(result.threshold)))
            parts.append(pd.concat([front, result.table.assign(own=own, threshold=at)], axis=1))
    return pd.concat(parts, ignore_index=True)
