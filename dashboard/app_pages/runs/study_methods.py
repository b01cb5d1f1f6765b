"""Methods side by side on the Runs page: a chart and a table, with intervals and differences to the best baseline."""

from __future__ import annotations

import pandas as pd
import streamlit as st
from app_pages.runs import study_data
from shared.chart import chart
from shared.plain_text import plain

from pddm_lab.figures import style_of
from pddm_lab.study.findings import metric_of

AGAINST = "Paired difference to the best baseline, in the metric's unit (in points where that is %)."


def show(results: pd.DataFrame, seeds: pd.DataFrame, metric: str, where: str, best: str) -> None:
    """Methods as a chart and a table, with intervals and differences to the best baseline.

    Args:
        results: as `Findings.results` makes it.
        seeds: the value of each seed, as `Findings.seeds` makes it; may be empty.
        metric: its name.
        where: the data set and the protocol, in words.
        best: the best baseline's title; empty if there is none yet.
    """
    spec = metric_of(metric)
    figure = study_data.side_by_side(results, seeds, metric)
    alt = f"{spec.title} of every method on {where}: mean, 95 % interval and each seed, a marker per similarity"
    chart(figure, "study_methods", alt)
    scale = 100 if spec.unit == "%" else 1
    shares = ["value", "half", "difference", "difference_half"]
    table = results.assign(**{name: scale * results[name] for name in shares})
    table["similarity"] = [style_of(name).title for name in table["similarity"]]
    table["name"] = [f"{name} ★" if best else name for name, best in zip(table["name"], table["baseline"], strict=True)]
    table["p"] = [None if p != p else f"{p:.3f}" if p >= 0.001 else "< 0.001" for p in table["p"]]
    text, number, digits = st.column_config.TextColumn, st.column_config.NumberColumn, f"%.{spec.digits}f"
    columns = {
        "name": text("Method", width=238, pinned=True),
        "similarity": text("Ranked by", width=96),
        "value": number(spec.heading, format=digits, width=72 if len(spec.heading) < 9 else 124),
        "half": number("±", format=digits, width=48, help="Half of the 95 % t interval over seeds."),
        "difference": number("Against ★", format=digits.replace("%", "%+"), width=84, help=AGAINST),
        "difference_half": number("± ", format=digits, width=48, help="Half of the difference's 95 % interval."),
        "p": text("p, Holm", width=70, help="Paired t test, with Holm's correction for all rows of this table."),
        "seeds": number("Seeds", format="%d", width=56),
        "settings": text("Settings chosen by the search", width=330),
    }
    st.dataframe(
        table[list(columns)], hide_index=True, key="study_table", placeholder="–", column_config=columns,
        height=min(36 + 35 * len(table), 421),
        alt=f"{spec.title} of every method and similarity, with the difference to the best baseline",
    )  # fmt: skip
    baseline = "No baseline has been searched yet, so there is nothing to compare with."
    if best:
        baseline = f"★ is the best baseline: {plain(best)} has the highest MAP@R on classes held out of training."
    st.caption(
        f"{baseline} ± is half of the 95 % t interval over seeds. All seeds have the same splits, and differences are "
        "paired by seed. A hollow marker has no interval."
    )
