"""What was measured: a map of corruptions and strengths, one corruption closer, and the summary of each similarity."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st
from app_pages.robustness import data
from shared import shell
from shared.chart import chart
from shared.export import export
from shared.plain_text import command, plain

from pddm_lab import figures
from pddm_lab.figures import METRICS, robustness
from pddm_lab.robustness.cells import CLEAN, Measurement
from pddm_lab.robustness.corruptions import CORRUPTIONS
from pddm_lab.robustness.findings import corrupted_only
from pddm_lab.runs.run import Run

SIDES = {"query": "The query", "gallery": "The gallery", "both": "Both"}
SHOWN = ("recall@1", "map@r", "auc")
LOOKS = {"change": "Difference", "value": "Value"}


def measured(runs: list[Run], protocol: str, name: str, titles: dict[str, str]) -> None:
    """The measured part of the page, or how to measure it."""
    st.header("Measured", anchor=False)
    kept = {run.name: one for run in runs if (one := data.kept(run, protocol))}
    for run in runs:
        if run.name not in kept:
            words = ("robustness", run.name, *(("--protocol", protocol) if protocol != "unseen" else ()))
            quick = command(*words, "--sides", "query", "--strengths", "3", "--queries", "100")
            with st.container(border=True):
                st.markdown(
                    f":material/hourglass_empty: **{plain(run.name)}** is not measured yet. This takes an hour on two "
                    f"cores: {command(*words)}. A first look: {quick}"
                )
    if not kept:
        return
    tables = {name: data.cells(one.path) for name, one in kept.items()}
    first = next(iter(tables.values()))
    sides = {side: title for side, title in SIDES.items() if (corrupted_only(first)["side"] == side).any()}
    if not sides:
        st.caption("Only the pictures as they are have been measured so far.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        side = shell.choice(st.segmented_control, "Corrupted", sides, "side")
        similarities = {one: figures.style_of(one).title for one in figures.in_order(first["similarity"])}
        by = shell.choice(st.selectbox, "Ranked by", similarities, "ranked", width=180)
        metrics = {one: METRICS[one].title for one in SHOWN}
        metric = shell.choice(st.segmented_control, "Metric", metrics, "measure")
        look = shell.choice(
            st.segmented_control, "Show", LOOKS, "cells", help="Difference to the pictures as they are."
        )
        settings = {"protocol": protocol, "side": side}
        export("robustness", lambda: pd.concat([t.assign(run=n) for n, t in tables.items()]), runs, settings)
    _maps(kept, tables, side, by, metric, titles, look == "change")
    _closer(tables, side, by, metric, name)
    _summary(kept, side, metric)


def _maps(
    kept: dict[str, Measurement], tables: dict[str, pd.DataFrame], side: str, by: str, metric: str,
    titles: dict[str, str], relative: bool,
) -> None:  # fmt: skip
    of = {name: _of(table, side, by) for name, table in tables.items()}
    changes = [
        (one[metric] - one.loc[one["corruption"] == CLEAN[1], metric].iloc[0]).abs().max()
        for one in of.values()
        if len(one) > 1
    ]
    for place, (name, cells) in zip(st.columns(len(of), gap="medium"), of.items(), strict=True):
        with place:
            if len(cells) < 2:
                st.caption(f"{plain(name)} has no cells of this kind.")
                continue
            clean = cells.loc[cells["corruption"] == CLEAN[1], metric].iloc[0]
            about = kept[name].settings
            spec = METRICS[metric]
            st.caption(
                f"**{plain(name)}**: {spec.title} of the pictures as they are {spec.format(clean)} {spec.unit}; "
                f"{len(about['queries']):,} queries among {about['searched']:,} items"
            )
            figure = robustness.corruption_map(
                cells, metric, titles, relative=relative, largest=float(max(changes)) if relative else 0.0
            )
            chart(figure, f"corruptions_{name}", f"{METRICS[metric].title} of {name} by corruption and strength")


def _closer(tables: dict[str, pd.DataFrame], side: str, by: str, metric: str, name: str) -> None:
    """The chosen corruption: each similarity against its strength, and the scores of one."""
    title = CORRUPTIONS[name].title
    st.markdown(f"**{title}**, by strength")
    for run, table in tables.items():
        rows = table[((table["side"] == side) & (table["corruption"] == name)) | (table["corruption"] == CLEAN[1])]
        if rows["strength"].max() == 0:
            st.caption(f"{plain(run)}: {title} isn't measured on this side.")
            continue
        heading = run if len(tables) > 1 else ""
        left, right = st.columns(2, gap="medium")
        with left:
            figure = robustness.by_strength(rows, metric, title=heading)
            chart(figure, f"strengths_{run}", f"{METRICS[metric].title} by strength of {title}, a line a similarity")
        with right:
            figure = robustness.score_bands(rows[rows["similarity"] == by], by, title=heading)
            chart(figure, f"scores_{run}", f"Scores of positive and negative pairs by strength of {title}")


def _summary(kept: dict[str, Measurement], side: str, metric: str) -> None:
    """Each similarity over all corruptions, with intervals."""
    metric = metric if metric != "auc" else "recall@1"
    rows = []
    for name, one in kept.items():
        means, ahead = data.summary(one.path, metric)
        ahead = ahead[(ahead["side"] == side) & (ahead["of"] == "corrupted")].set_index("similarity")
        for row in means[means["side"] == side].itertuples():
            lead = ahead.loc[row.similarity] if row.similarity in ahead.index else None
            rows.append({
                "run": name, "by": figures.style_of(str(row.similarity)).title, "clean": 100 * row.clean,
                "corrupted": 100 * row.corrupted, "interval": f"{100 * row.low:.1f} to {100 * row.high:.1f}",
                "kept": 100 * row.kept, "mce": 100 * row.mce if np.isfinite(row.mce) else None,
                "lead": None if lead is None else 100 * lead["lead"],
                "leads": None if lead is None else _signed(lead["low"], lead["high"]),
            })  # fmt: skip
    if not rows:
        return
    title, number, text = METRICS[metric].title, st.column_config.NumberColumn, st.column_config.TextColumn
    st.markdown(f"**All corruptions**, {title} in %")
    columns = {
        "run": text("Run", width=130, pinned=True), "by": text("Ranked by", width=160, pinned=True),
        "clean": number("As they are", format="%.1f"), "corrupted": number("Corrupted", format="%.1f"),
        "interval": text("95 % interval", help="Bootstrap over classes."),
        "kept": number("Kept, %", format="%.0f", help="Corrupted as a share of the pictures as they are."),
        "mce": number("mCE", format="%.0f", help="Errors relative to the pretrained features, which have 100."),
        "lead": number("Ahead of D", format="%+.1f", help="In points, on corrupted pictures."),
        "leads": text("95 % interval", help="Of the lead, over classes."),
    }  # fmt: skip
    if len(kept) == 1:
        columns.pop("run")
    table = pd.DataFrame(rows)[list(columns)]
    st.dataframe(table, hide_index=True, key="robustness_summary", placeholder="–", column_config=columns,
                 alt=f"{title} of each similarity over all corruptions")  # fmt: skip


def _signed(low: float, high: float) -> str:
    return f"{100 * low:+.1f} to {100 * high:+.1f}".replace("-", "−")


def turned(runs: list[Run]) -> None:
    """R@1 against the angle to the nearest view, where it is measured."""
    tables = {run.name: table for run in runs if (table := data.viewpoint(run)) is not None}
    st.header("Viewpoint", anchor=False)
    for place, (name, table) in zip(st.columns(max(len(tables), 1), gap="medium"), tables.items(), strict=False):
        with place:
            figure = robustness.by_angle(table, title=name if len(tables) > 1 else "")
            chart(figure, f"viewpoint_{name}", f"R@1 of {name} by the angle to the nearest view in the gallery")
    if tables:
        st.caption(
            "Things of fruits360 on a turntable, of varieties that no run trains on: the gallery has no view of any "
            "thing that is nearer to the query's than this angle. Bars are 95 % intervals over varieties."
        )
    else:
        words = command("viewpoint", runs[0].name)
        st.caption(f"How far may a thing be turned? It needs the data set fruits360 and takes some minutes: {words}")


def _of(table: pd.DataFrame, side: str, by: str) -> pd.DataFrame:
    """The cells of a side and a similarity, and that of the pictures as they are."""
    here = (table["side"] == side) | (table["corruption"] == CLEAN[1])
    return table[here & (table["similarity"] == by)]
