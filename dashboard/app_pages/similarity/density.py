"""The Similarity page's view by density: does one threshold that works where items lie densely fail elsewhere?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd
import streamlit as st
from app_pages.similarity import data
from app_pages.similarity.text import density_in_words
from shared import export, shell

from pddm_lab import cards, figures
from pddm_lab.analysis.thresholds import ByDensity
from pddm_lab.figures import PROTOCOL_TITLES
from pddm_lab.runs.run import Run

SHARES = {"0.1": "0.1 % FPR", "1": "1 % FPR", "5": "5 % FPR"}
CURVES = {"distributions": "Distributions", "roc": "ROC"}
QUIET = {"displayModeBar": False}


def show(runs: Sequence[Run], protocols: Sequence[str], names: Sequence[str]) -> None:
    """One run under every protocol, or two runs under one of them.

    Args:
        names: the similarities to compare.
    """
    names = list(dict.fromkeys(names))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        asked = shell.choice(st.segmented_control, "One threshold at", SHARES, "fpr", default="1")
        curves = shell.choice(st.segmented_control, "Show by density", CURVES, "curves")
        panels = [(run, protocol) for run in runs for protocol in protocols]
        share = float(asked) / 100
        export.export(
            "threshold-by-density",
            partial(_table, panels, names, share),
            list(runs),
            {"fpr_percent": float(asked), "similarities": names},
        )
    st.caption(
        "Every pair lies in the dense, the middle or the sparse third of the scored pairs, by the mean distance of its "
        "two items to their 10 nearest others. One threshold is set for all pairs, then measured within each third."
    )
    results = [{name: data.by_density(*panel, name, share) for name in names} for panel in panels]

    def across() -> Iterator[tuple[Run, str, dict[str, ByDensity]]]:
        """A row of the page: what belongs beside one another starts at one height."""
        for side, panel, found in zip(st.columns(len(panels), gap="large"), panels, results, strict=True):
            with side:
                yield *panel, found

    for run, protocol, found in across():
        of_run = f"{shell.plain(run.name)}, " if len(runs) > 1 else ""
        st.markdown(f"### {of_run}{PROTOCOL_TITLES[protocol].lower() if of_run else PROTOCOL_TITLES[protocol]}")
        for paragraph in density_in_words(found):
            st.markdown(paragraph)
    for run, protocol, found in across():
        st.plotly_chart(
            figures.by_density(found, share=share),
            key=f"density_{run.name}_{protocol}",
            config=QUIET,
            alt=f"TPR and FPR of one threshold by density, {PROTOCOL_TITLES[protocol]}, {run.name}",
        )
        st.html(cards.density_table(found))
    draw = figures.distributions_by_density if curves == "distributions" else figures.roc_by_density
    for name in names:
        title = figures.style_of(name).title
        for run, protocol, found in across():
            st.markdown(f"**{CURVES[curves]} by density, {title}**")
            st.plotly_chart(
                draw(data.thirds(run, protocol, name), name, threshold=found[name].threshold),
                key=f"{curves}_{name}_{run.name}_{protocol}",
                config=QUIET,
                alt=f"{CURVES[curves]} of {title} by density, {PROTOCOL_TITLES[protocol]}, {run.name}",
            )
    for run, protocol, _ in across():
        st.caption(data.scored_in_words(run, protocol))
    st.caption(
        "Intervals of 95 %, from drawing the classes anew 200 times. Hollow markers: the TPR at a threshold of the "
        "third's own that lets the same share of its negative pairs pass. What of the gap remains then stays with any "
        "threshold: sparse pairs are harder."
    )


def _table(panels: Sequence[tuple[Run, str]], names: Sequence[str], share: float) -> pd.DataFrame:
    """What is shown, to take away; a distance as a similarity, larger = more similar."""
    parts = []
    for run, protocol in panels:
        for name in names:
            result = data.by_density(run, protocol, name, share)
            front = pd.DataFrame({"run": run.name, "protocol": protocol, "similarity": name}, index=result.table.index)
            parts.append(pd.concat([front, result.table.assign(threshold=result.threshold)], axis=1))
    return pd.concat(parts, ignore_index=True)
