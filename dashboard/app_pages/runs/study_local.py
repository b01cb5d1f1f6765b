"""A study's part on local and global metrics: is local structure ahead, where, and by how much?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from app_pages.runs import study_data
from app_pages.runs.views import heading
from shared import shell
from shared.chart import chart
from shared.plain_text import plain

from pddm_lab.errors import RunError
from pddm_lab.figures.leads import RIVALS, leads
from pddm_lab.similarities import EVERY
from pddm_lab.study.findings import Findings, metric_of

PARTS = {"local": "Test classes", "local-folds": "Folds of the training classes"}
WAYS = {
    "euclidean": "D", "whitened": "D, whitened", "joined": "D with pretrained features",
    "linear": "learned linear metric", "cosines": "network of cosines", "pddm": "PDDM S",
}  # fmt: skip
"""Titles of the global metrics."""
KINDS = {"D": "D", "global": "best global: ", "local without training": "best local: "}
"""What the lead is over, before the title of the rival."""
PROTOCOLS = {"unseen": "unseen classes", "known": "known classes"}


def measured(findings: Findings) -> list[str]:
    """The parts on local metrics of which the study has a cell."""
    return [part for part in PARTS if next(findings.study.cells(part), None) is not None]


def show(findings: Findings, path: Path) -> None:
    """The lead of local structure over D, the best global metric and the best local one without training."""
    parts = {part: PARTS[part] for part in measured(findings)}
    if not parts:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        part = shell.choice(st.segmented_control, "Measured on", parts, "local_part")
        every = study_data.local_leads(path, part)
    if isinstance(every, RunError):
        st.error(plain(every), icon=":material/broken_image:")
        return
    show_leads(every, study_data.manifest(findings), {"part": part})


def show_leads(every: pd.DataFrame, source: Mapping[str, Any], settings: dict[str, Any]) -> None:
    """The lead of local structure, for an embedding and a metric to choose.

    Args:
        every: as `panel.local_tables.differences_table` makes it.
        source: what an export says of the study.
        settings: that led to the table.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        embeddings = {name: name for name in dict.fromkeys(every["embedding"])}
        embedding = shell.choice(st.selectbox, "Embedding", embeddings, "embedding", "quick", width=150)
        of = every[every["embedding"] == embedding]
        titles = {name: metric_of(name).title for name in dict.fromkeys(of["metric"])}
        metric = shell.choice(st.selectbox, "Measured by", titles, "local_metric", "map@r", width=160)
    table = of[(of["metric"] == metric) & ~of["protocol"].str.contains(",")]
    settings = settings | {"embedding": embedding, "metric": metric}
    heading(answer(table), "local", table, source, settings, "study_local")
    order = {pair: _place(*pair) for pair in dict.fromkeys(zip(table["dataset"], table["protocol"], strict=True))}
    alt = f"Lead of local structure in {titles[metric]} by data set and protocol, with intervals, a marker per rival"
    chart(leads(table, order, titles[metric]), "study_local_leads", alt)
    shown = table.assign(
        place=[_place(*pair) for pair in zip(table["dataset"], table["protocol"], strict=True)],
        against=[KINDS[name] + (title_of(way) if name != "D" else "")
                 for name, way in zip(table["against"], table["rival"], strict=True)],
        own=table["rival's"] + table["difference"],
        classes=[f"{low:+.1f} to {high:+.1f}" if np.isfinite(low) else None
                 for low, high in zip(table["low"], table["high"], strict=True)],
        p=[None if np.isnan(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001" for p in table["p"]],
    )  # fmt: skip
    text, number = st.column_config.TextColumn, st.column_config.NumberColumn
    columns = {
        "place": text("Data, classes", width=190, pinned=True), "against": text("Against", width=310),
        "rival's": number("Rival, %", format="%.1f", width=72), "own": number("Local, %", format="%.1f", width=72),
        "difference": number("Lead", format="%+.1f", width=64, help="In points, paired by seed."),
        "±": number("±", format="%.1f", width=48, help="Half of the 95 % t interval over seeds."),
        "classes": text("Over classes", width=110, help="95 % bootstrap interval of the lead over classes."),
        "p": text("p, Holm", width=70, help="Paired t test over seeds, corrected over R@1 and MAP@R of the embedding."),
    }  # fmt: skip
    st.dataframe(
        shown[list(columns)], hide_index=True, key="study_local_table", placeholder="–", column_config=columns,
        alt=f"Local structure and its rivals in {titles[metric]}, with both intervals of the lead",
    )  # fmt: skip
    st.caption(
        "The best rival is the one with the largest mean in the same row, chosen after the fact: it has the advantage. "
        "Thin bars are 95 % t intervals over seeds, thick ones 95 % bootstrap intervals over classes. Surely: all "
        "intervals of the row lie above 0. Local metrics see the gallery's unlabelled items, global ones don't."
    )


def answer(table: pd.DataFrame) -> str:
    """Where local structure is ahead, in a sentence: both intervals, as far as there are any, lie above 0."""
    seeds = table["difference"] > table["±"].fillna(0)
    ahead = seeds & ((table["low"] > 0) | table["low"].isna()) & (table["±"].notna() | table["low"].notna())
    parts = []
    for against, (title, *_) in RIVALS.items():
        of = ahead[table["against"] == against]
        parts.append(f"of {title} in {int(of.sum())} of {len(of)}")
    return f"Local structure is surely ahead {', '.join(parts[:-1])} and {parts[-1]} comparisons"


def title_of(way: str) -> str:
    """A way's title."""
    return WAYS.get(way) or (EVERY[way].title if way in EVERY else way)


def _place(dataset: str, protocol: str) -> str:
    return f"{plain(dataset)}, {PROTOCOLS.get(protocol, protocol)}"
