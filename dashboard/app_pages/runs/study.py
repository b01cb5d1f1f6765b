"""Widgets around a study: its methods side by side, a table, how fast they learn, the ablation, and how far it is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st
from app_pages.runs import study_data
from shared import shell
from shared.export import export

from pddm_lab import figures
from pddm_lab.figures import PROTOCOL_TITLES, style_of
from pddm_lab.runs.run import PROTOCOLS

if TYPE_CHECKING:
    from pddm_lab.study.findings import Findings

VIEWS = {"runs": "Runs", "study": "Study"}
ABOUT = {
    "runs": "Every training, its metrics under both protocols, and how it got there.",
    "study": "Methods on the same features, batches and budget: what they come to over seeds, and how fast.",
}
"""What the page shows in each view."""
AT_WORK = 900
"""Seconds without a new cell after which a study that isn't complete counts as stopped."""
FRESH = 5
"""Seconds after which a page looks for new cells while a study is at work."""
NAMED = 6
"""Methods whose curves can be told apart by colour."""


def view(known: dict[str, Path]) -> str:
    """A switch between the runs and the studies, where there is a study."""
    if not known:
        return "runs"
    return shell.choice(st.segmented_control, "Show", VIEWS, "view", label_visibility="collapsed")


def page(known: dict[str, Path]) -> None:
    """A study: which one, how far it is, and what it found; renewed by itself while cells are added."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = shell.choice(st.selectbox, "Study", {name: name for name in known}, "study", width=200)
        if (asked := st.query_params.get("study", name)) not in known:
            st.caption(f":material/link_off: The link names the study {shell.plain(asked)}: no such study is here.")
        if isinstance(found := study_data.findings(known[name]), Exception):
            st.error(str(found), title=f"{name} can't be read", icon=":material/broken_image:")
            return
        datasets = found.datasets()
        dataset = protocol = metric = ""
        if datasets:
            dataset = shell.choice(st.selectbox, "Data", {one: one for one in datasets}, "data", width=140)
            measured = found.measured(dataset)
            names = [one for one in PROTOCOLS if (measured["protocol"] == one).any()] or list(PROTOCOLS)
            told = "Unseen: classes that never trained. Known: new photos of classes that did."
            protocol = shell.choice(
                st.segmented_control, "Protocol", {one: PROTOCOL_TITLES[one] for one in names}, "protocol", help=told
            )
            titles = {one: study_data.metric_of(one).title for one in found.metrics(dataset) or ["map@r"]}
            metric = shell.choice(st.selectbox, "Metric", titles, "metric", "map@r", width=160)
    _broken(found)
    _how_far(found, known[name])
    if dataset:
        _methods(found, dataset, protocol, metric)
        _published(found, dataset)
        _learning(found, dataset)
        _ablation(found, dataset, protocol, metric)
        _made_with(found)


def _broken(found: Findings) -> None:
    if broken := found.study.broken:
        many = f"{len(broken)} cells of this study" if len(broken) > 1 else "One cell of this study"
        st.warning(
            next(iter(broken.values())), title=f"{many} can't be read", icon=":material/broken_image:"
        )  # fmt: skip


def _how_far(found: Findings, path: Path) -> None:
    """How many cells are there of those that are planned; while a study is at work, looked up again and again."""
    at_work = not study_data.progress(found).complete and time.time() - found.study.changed < AT_WORK
    st.fragment(_progress, run_every=FRESH if at_work else None)(found, path)


def _progress(found: Findings, path: Path) -> None:
    now = study_data.findings(path)
    if isinstance(now, Exception):
        return
    if now.study.changed != found.study.changed and now is not found:
        st.rerun()
    told, ago = study_data.progress(now), max(time.time() - now.study.changed, 0)
    command = f"`pddm-lab compare --name {path.name}`"
    if told.complete and told.planned:
        return
    if not told.planned:
        st.info(f"No cell is finished yet; {command} computes them.", icon=":material/hourglass_empty:")
        return
    state, begun = f"the last one {shell.duration(ago)} ago", " of what was begun" if told.waiting else ""
    with st.container(border=True):
        st.progress(
            min(told.done / told.planned, 1.0), f"**{told.done} of {told.planned} cells** are finished{begun}, {state}"
        )
        lines = [
            f"{row.dataset}, {row.part}: {row.searched} of {row.searches} searches, "
            f"{row.trained} of {row.trainings} trainings"
            for row in told.table.itertuples()
        ]
        st.caption(" · ".join([*lines, *(f"{name}: to come" for name in told.waiting)]))
        if told.passed:
            st.caption(
                f":material/error: Passed over, so likely failed: {', '.join(told.passed)}. {command} tries again and "
                "says why."
            )
        elif ago > AT_WORK:
            st.caption(f"Nothing is computed at present; {command} goes on, with the choices it was begun with.")


def _methods(found: Findings, dataset: str, protocol: str, metric: str) -> None:
    """The dots and the table."""
    results, known = found.results(dataset, protocol, metric), study_data.metric_of(metric)
    best, where = found.baseline(dataset), f"{dataset}, {PROTOCOL_TITLES[protocol].lower()}"
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader(f"Methods side by side: {known.title} on {where}", anchor=False, width="content")
        if len(results):
            settings = {"data": dataset, "protocol": protocol, "metric": metric}
            export("methods", lambda: results, study_data.manifest(found), settings, "study_methods")
    if results.empty:
        begun = len(found.chosen["methods"]) and (found.chosen["methods"]["dataset"] == dataset).any()
        st.caption(
            "No method is measured yet: one is as soon as its settings have been searched."
            if begun
            else f"This study compares no methods on {dataset}."
        )
        return
    st.plotly_chart(
        study_data.side_by_side(results, found.seeds(dataset, protocol, metric), metric),
        key="study_methods",
        config={"displayModeBar": False},
        alt=f"{known.title} of every method on {where}: mean, 95 % interval and each seed, a marker per ranking",
    )
    scale = 100 if known.unit == "%" else 1
    shares = ["value", "half", "difference", "difference_half"]
    table = results.assign(**{name: scale * results[name] for name in shares})
    table["similarity"] = [style_of(name).title for name in table["similarity"]]
    table["name"] = [f"{name} ★" if best else name for name, best in zip(table["name"], table["baseline"], strict=True)]
    table["p"] = [None if p != p else f"{p:.3f}" if p >= 0.001 else "< 0.001" for p in table["p"]]
    number, digits = st.column_config.NumberColumn, f"%.{known.digits}f"
    st.dataframe(
        table[["name", "similarity", *shares, "p", "seeds", "settings"]],
        hide_index=True,
        key="study_table",
        placeholder="–",
        height=min(36 + 35 * len(table), 421),
        alt=f"{known.title} of every ranking with its difference to the best baseline",
        column_config={
            "name": st.column_config.TextColumn("Method", width=238, pinned=True),
            "similarity": st.column_config.TextColumn("Ranked by", width=96),
            "value": number(known.heading, format=digits, width=72 if len(known.heading) < 9 else 124),
            "half": number("±", format=digits, width=48, help="Half of the 95 % t interval over seeds."),
            "difference": number("Against ★", format=digits.replace("%", "%+"), width=84, help=_AGAINST),
            "difference_half": number("± ", format=digits, width=48, help="Half of the difference's 95 % interval."),
            "p": st.column_config.TextColumn(
                "p, Holm", width=70, help="Of the paired t test, corrected by Holm for all rankings here."
            ),
            "seeds": number("Seeds", format="%d", width=56),
            "settings": st.column_config.TextColumn("Settings that its search chose", width=330),
        },
    )
    marked = (
        f"★ is the best baseline: {_title(results, best['method'])} has the highest MAP@R on classes held out of "
        "training. "
        if best is not None
        else "No baseline has been searched yet, so nothing is compared with one. "
    )
    st.caption(
        f"{marked}± is half of the 95 % t interval over seeds, which share the splits; differences are paired by seed. "
        "A hollow marker has no interval."
    )


_AGAINST = "Paired difference to the best baseline, in the metric's own unit (points where that is %)."


def _title(results: pd.DataFrame, method: str) -> str:
    found = results.loc[results["method"] == method, "name"]
    return str(found.iloc[0]) if len(found) else method


def _published(found: Findings, dataset: str) -> None:
    """The published numbers of a benchmark, beside what came out here."""
    table = found.published(dataset)
    if table.empty:
        return
    st.subheader(f"Beside published numbers: Recall@K on {dataset}", anchor=False)
    st.dataframe(
        table, hide_index=True, key="study_published", placeholder="", alt="Published Recall at K beside this study's",
        column_config={"method": st.column_config.TextColumn("Method", pinned=True, width=190)},
    )  # fmt: skip
    st.caption(
        "In %, unseen classes. Published rows train a whole GoogLeNet, or the network that is named; rows here train a "
        "head on a frozen trunk, by the method that comes nearest. PDDM is ranked by S."
    )


def _learning(found: Findings, dataset: str) -> None:
    """MAP@R on held-out classes through training, and when each method came to what the best baseline ends at."""
    log, reached = found.learning(dataset)
    if log.empty:
        return
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader("How fast they learn: MAP@R on held-out classes", anchor=False, width="content")
        export("convergence", lambda: log, study_data.manifest(found), {"data": dataset}, "study_curves")
    named = study_data.names_of(log)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        ticked = _ticked(named, study_data.shown_at_first(found, dataset))
        x = shell.choice(st.segmented_control, "Along", {"step": "steps", "seconds": "seconds"}, "along")
    target = None if reached.empty else float(reached["target"].iloc[0])
    st.plotly_chart(
        figures.learning(log, {name: named[name] for name in ticked}, target=target, x=x, height=360),
        key="study_learning",
        config={"displayModeBar": False},
        alt=f"MAP at R on classes held out of training by {x}, a line per ticked method, the others in grey",
    )
    if len(reached):
        _how_fast(reached[reached["method"].isin(ticked)], named, target or 0.0)


def _ticked(named: dict[str, str], first: list[str]) -> list[str]:
    """The methods whose curves have colours, in the URL as `methods`."""
    key = "study_ticked"

    def keep() -> None:
        if st.session_state[key] == first:
            st.query_params.pop("methods", None)
        else:
            st.query_params["methods"] = st.session_state[key] or [""]

    asked = [name for name in st.query_params.get_all("methods") if name in named][:NAMED]
    st.session_state[key] = asked if "methods" in st.query_params else first
    return st.multiselect(
        "Methods", list(named), key=key, on_change=keep, format_func=lambda name: named[name], max_selections=NAMED
    )


def _how_fast(reached: pd.DataFrame, named: dict[str, str], target: float) -> None:
    table = reached.assign(method=reached["method"].map(named), best=100 * reached["best"])
    number, wanted = st.column_config.NumberColumn, f"{100 * target:.1f} %"
    if len(table):
        st.dataframe(
            table[["method", "best", "share_step", "share_seconds", "target_step", "target_seconds"]],
            hide_index=True,
            key="study_fast",
            placeholder="not reached",
            alt=f"Steps and seconds until 99 % of each method's best MAP at R, and until {wanted}",
            column_config={
                "method": st.column_config.TextColumn("Method", width=238),
                "best": number("Best MAP@R, %", format="%.1f"),
                "share_step": number("99 % of it at step", format="%d"),
                "share_seconds": number("after, s", format="%.2f"),
                "target_step": number(f"{wanted} at step", format="%d"),
                "target_seconds": number("after, s ", format="%.2f"),
            },
        )
    st.caption(
        f"{wanted} is what the best baseline ends at. Each method has the settings that its search chose; values are "
        "means over folds of the training classes. Seconds are of training alone, on one core."
    )


def _ablation(found: Findings, dataset: str, protocol: str, metric: str) -> None:
    """What each of PDDM's choices is worth."""
    table, known = found.ablation(dataset, protocol, metric), study_data.metric_of(metric)
    if table.empty:
        planned = found.study.settings.get("ablation")
        if planned and (found.chosen["ablation"]["dataset"] == dataset).any():
            st.subheader("What each choice is worth", anchor=False)
            st.caption("No variant is measured yet: each is compared with the default as soon as both are.")
        return
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.subheader("What each choice is worth: one change to PDDM at a time", anchor=False, width="content")
        settings = {"data": dataset, "protocol": protocol, "metric": metric}
        export("ablation", lambda: table, study_data.manifest(found), settings, "study_ablation")
    st.plotly_chart(
        figures.differences(table, known, against="the default"),
        key="study_ablation",
        config={"displayModeBar": False},
        alt=f"Difference of each variant to PDDM's default in {known.title}, with 95 % intervals, a marker per ranking",
    )
    values = ", ".join(
        f"{known.format(row.value)} by {style_of(str(row.similarity)).title}"
        for row in found.default(dataset, protocol, metric).itertuples()
    )
    unit = f" in {known.unit}" if known.unit else ""
    st.caption(
        f"The default's {known.title}{unit}: {values}. Differences are paired by seed; bars are 95 % t intervals."
    )


def _made_with(found: Findings) -> None:
    """What all cells share."""
    info, seconds = found.study.info, sum(cell["seconds"] for cell in found.study.cells())
    parts = found.study.settings
    settings: dict[str, Any] = next((parts[part] for part in ("methods", "ablation") if part in parts), {})
    searched = max((len(group) for group in settings.get("configurations", {}).values()), default=0)
    cores = (info.get("machine") or {}).get("cores", "?")
    st.caption(
        f"Begun on {str(info['created'])[:10]} on a machine with {cores} cores; its cells took "
        f"{shell.duration(seconds)} of one core. Every method has the same frozen features, head and batches, up to "
        f"{settings.get('steps', '?')} steps, and {searched} configuration{'s' * (searched != 1)} searched on "
        f"{settings.get('folds', '?')} folds of the training classes."
    )
