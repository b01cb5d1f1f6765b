"""A study on the Runs page: its progress, its methods compared, how fast they learn, and the ablation.

It imports torch: the page imports this module only when a study is shown.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
from app_pages.runs import study_data, study_local, study_methods, study_shipped
from app_pages.runs.views import heading, speed_columns
from shared import glossary, shell
from shared.chart import chart
from shared.plain_text import command, plain

from pddm_lab import figures
from pddm_lab.figures import PROTOCOL_TITLES, style_of
from pddm_lab.runs.run import PROTOCOLS
from pddm_lab.study.findings import Findings, metric_of, progress, title_of
from pddm_lab.wording import counted

STOPPED_AFTER = 900
"""Seconds without a new cell after which an unfinished study counts as stopped."""
REFRESH = 5
"""Seconds between two checks for new cells while a study is running."""
COLOURED = 6
"""How many curves can have a colour of their own."""


def page(studies: dict[str, Path]) -> None:
    """One study with its results, updated while cells are added."""
    controls = st.container(horizontal=True, vertical_alignment="bottom")
    with controls:
        titles = {name: name for name in studies} | {shell.SHIPPED_STUDY: study_shipped.TITLE}
        name = shell.choice(st.selectbox, "Study", titles, "study", width=200)
        if (in_link := st.query_params.get("study", name)) not in titles:
            st.caption(f":material/link_off: The link names the study {plain(in_link)}, which isn't here.")
    if name == shell.SHIPPED_STUDY:
        study_shipped.page()
        return
    with controls:
        if isinstance(findings := study_data.findings(studies[name]), Exception):
            st.error(plain(findings), title=f"Can't read {plain(name)}", icon=":material/broken_image:")
            return
        datasets = findings.datasets()
        dataset = protocol = metric = ""
        if datasets:
            dataset = shell.choice(st.selectbox, "Data", {one: one for one in datasets}, "data", width=140)
            measured = findings.measured(dataset)
            names = [one for one in PROTOCOLS if (measured["protocol"] == one).any()] or list(PROTOCOLS)
            help_text = glossary.meaning("unseen", "known")
            titles = {one: PROTOCOL_TITLES[one] for one in names}
            protocol = shell.choice(st.segmented_control, "Protocol", titles, "protocol", help=help_text)
            titles = {one: metric_of(one).title for one in findings.metrics(dataset) or ["map@r"]}
            metric = shell.choice(st.selectbox, "Metric", titles, "metric", "map@r", width=160)
    _broken(findings)
    if dataset or not study_local.measured(findings):
        _show_progress(findings, studies[name])
    study_local.show(findings, studies[name])
    if dataset:
        _methods(findings, dataset, protocol, metric)
        _published(findings, dataset)
        _learning(findings, dataset)
        _ablation(findings, dataset, protocol, metric)
        _made_with(findings)


def _broken(findings: Findings) -> None:
    if broken := findings.study.broken:
        title = (
            f"Can't read {len(broken)} cells of this study" if len(broken) > 1 else "Can't read a cell of this study"
        )
        st.warning(plain(next(iter(broken.values()))), title=title, icon=":material/broken_image:")


def _show_progress(findings: Findings, path: Path) -> None:
    """How many of the planned cells are finished, updated while the study is running."""
    running = not progress(findings.study).complete and time.time() - findings.study.changed < STOPPED_AFTER
    st.fragment(_progress, run_every=REFRESH if running else None)(findings, path)


def _progress(findings: Findings, path: Path) -> None:
    now = study_data.findings(path)
    if isinstance(now, Exception):
        return
    if now.study.changed != findings.study.changed and now is not findings:
        st.rerun()
    state, ago = progress(now.study), max(time.time() - now.study.changed, 0)
    compare = command("compare", "--name", path.name)
    if state.complete and state.planned:
        return
    if not state.planned:
        st.info(f"No cell is finished yet. {compare} computes them.", icon=":material/hourglass_empty:")
        return
    started = " of the parts started" if state.waiting else ""
    with st.container(border=True):
        st.progress(
            min(state.done / state.planned, 1.0),
            f"**{state.done} of {state.planned} cells**{started} are finished, the last one {shell.duration(ago)} ago",
        )
        lines = [
            f"{row.dataset}, {row.part}: {row.searched} of {row.searches} searches, "
            f"{row.trained} of {row.trainings} trainings"
            for row in state.table.itertuples()
        ]
        st.caption(plain(" · ".join([*lines, *(f"{name}: not started" for name in state.waiting)])))
        if state.skipped:
            skipped = plain(", ".join(state.skipped))
            st.caption(
                f":material/error: Skipped, so probably failed: {skipped}. {compare} retries and shows the error."
            )
        elif ago > STOPPED_AFTER:
            st.caption(f"The study isn't running. {compare} resumes it with the same settings.")


def _methods(findings: Findings, dataset: str, protocol: str, metric: str) -> None:
    """The chart and the table of all methods."""
    results, spec = findings.results(dataset, protocol, metric), metric_of(metric)
    best, where = findings.baseline(dataset), f"{dataset}, {PROTOCOL_TITLES[protocol].lower()}"
    settings = {"data": dataset, "protocol": protocol, "metric": metric}
    title = f"Methods side by side: {spec.title} on {plain(where)}"
    heading(title, "methods", results, study_data.manifest(findings), settings, "study_methods")
    if results.empty:
        started = len(findings.chosen["methods"]) and (findings.chosen["methods"]["dataset"] == dataset).any()
        st.caption(
            "No method is measured yet. The study searches the settings of each method first."
            if started
            else f"This study compares no methods on {plain(dataset)}."
        )
        return
    best_title = title_of(best["method"]) if best is not None else ""
    study_methods.show(results, findings.seeds(dataset, protocol, metric), metric, where, best_title)


def _published(findings: Findings, dataset: str) -> None:
    """Published numbers of a benchmark, beside this study's."""
    table = findings.published(dataset)
    if table.empty:
        return
    st.header(f"Published numbers beside this study's: Recall@K on {plain(dataset)}", anchor=False)
    st.dataframe(
        table, hide_index=True, key="study_published", placeholder="", alt="Published Recall at K beside this study's",
        column_config={"method": st.column_config.TextColumn("Method", pinned=True, width=190)},
    )  # fmt: skip
    st.caption(
        "In %, on unseen classes. The published methods train a whole GoogLeNet, or the network named in the row. This "
        "study trains a head on a frozen trunk, by the most similar method. PDDM is ranked by S."
    )


def _learning(findings: Findings, dataset: str) -> None:
    """MAP@R on held-out classes through training, and when each method reached the best baseline's final value."""
    log, reached = findings.learning(dataset)
    if log.empty:
        return
    title, manifest = "How fast they learn: MAP@R on held-out classes", study_data.manifest(findings)
    heading(title, "convergence", log, manifest, {"data": dataset}, "study_curves")
    titles = {name: title_of(name) for name in dict.fromkeys(log["run"])}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        ticked = _ticked(titles, study_data.default_methods(findings, dataset))
        x = shell.choice(st.segmented_control, "By", {"step": "steps", "seconds": "seconds"}, "along")
    target = None if reached.empty else float(reached["target"].iloc[0])
    figure = figures.learning(log, {name: titles[name] for name in ticked}, target=target, x=x, height=360)
    alt = f"MAP at R on classes held out of training by {x}, a line per chosen method, the others in grey"
    chart(figure, "study_learning", alt)
    if len(reached):
        _how_fast(reached[reached["method"].isin(ticked)], titles, target or 0.0)


def _ticked(titles: dict[str, str], default: list[str]) -> list[str]:
    """A choice of the methods whose curves have colours, in the URL as `methods`."""
    key = "study_ticked"

    def keep() -> None:
        if st.session_state[key] == default:
            st.query_params.pop("methods", None)
        else:
            st.query_params["methods"] = st.session_state[key] or [""]

    in_url = [name for name in st.query_params.get_all("methods") if name in titles][:COLOURED]
    st.session_state[key] = in_url if "methods" in st.query_params else default
    return st.multiselect(
        "Methods", list(titles), key=key, on_change=keep, format_func=titles.__getitem__, max_selections=COLOURED
    )


def _how_fast(reached: pd.DataFrame, titles: dict[str, str], target: float) -> None:
    table = reached.assign(method=reached["method"].map(titles), best=100 * reached["best"])
    target_text = f"{100 * target:.1f} %"
    columns = {"method": st.column_config.TextColumn("Method", width=238)}
    columns |= speed_columns("Best MAP@R, %", 1, "99 %", target_text)
    if len(table):
        alt = f"Steps and seconds until 99 % of each method's best MAP at R, and until {target_text}"
        st.dataframe(
            table[list(columns)], hide_index=True, key="study_fast", placeholder="not reached", alt=alt,
            column_config=columns,
        )  # fmt: skip
    st.caption(
        f"{target_text} is the final value of the best baseline. Each method has the settings chosen by its search. "
        "Values are means over folds of the training classes. Seconds are of training alone, on one core."
    )


def _ablation(findings: Findings, dataset: str, protocol: str, metric: str) -> None:
    """The effect of each of PDDM's settings."""
    table, spec = findings.ablation(dataset, protocol, metric), metric_of(metric)
    if table.empty:
        planned = findings.study.settings.get("ablation")
        if planned and (findings.chosen["ablation"]["dataset"] == dataset).any():
            st.header("Ablation", anchor=False)
            st.caption("No variant is measured yet. Each will be compared with the default.")
        return
    settings = {"data": dataset, "protocol": protocol, "metric": metric}
    title, manifest = "Ablation: one change to PDDM at a time", study_data.manifest(findings)
    heading(title, "ablation", table, manifest, settings, "study_ablation")
    alt = f"Difference of each variant to PDDM's default in {spec.title}, with 95 % intervals, a marker per similarity"
    chart(figures.differences(table, spec, against="the default"), "study_ablation", alt)
    values = ", ".join(
        f"{spec.format(row.value)} by {style_of(str(row.similarity)).title}"
        for row in findings.default(dataset, protocol, metric).itertuples()
    )
    title = f"{plain(spec.title)} in {spec.unit}" if spec.unit else plain(spec.title)
    st.caption(f"The default's {title}: {values}. Differences are paired by seed; bars are 95 % t intervals.")


def _made_with(findings: Findings) -> None:
    """What all cells have in common."""
    info, seconds = findings.study.info, sum(cell["seconds"] for cell in findings.study.cells())
    parts = findings.study.settings
    settings: dict[str, Any] = next((parts[part] for part in ("methods", "ablation") if part in parts), {})
    searched = max((len(group) for group in settings.get("configurations", {}).values()), default=0)
    cores = (info.get("machine") or {}).get("cores", "?")
    steps, folds = (plain(settings.get(name, "?")) for name in ("steps", "folds"))
    st.caption(
        f"Started on {plain(str(info['created'])[:10])} on a machine with {plain(cores)} cores. The cells took "
        f"{shell.duration(seconds)} on one core. Every method has the same frozen features, head and batches, and "
        f"up to {steps} steps. {counted(searched, 'configuration')} of each method "
        f"{'were' if searched != 1 else 'was'} searched on {folds} folds of the training classes."
    )
