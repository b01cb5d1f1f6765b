"""Drift: whether new queries still look like the run's own, what changed, and what to do."""

import base64
import time
from datetime import datetime
from functools import partial

import streamlit as st
from app_pages.drift import views
from shared import shell
from shared.chart import chart
from shared.plain_text import command, plain
from shared.work import once, work_of

from pddm_lab import cards, figures
from pddm_lab.change import drift_text
from pddm_lab.change.drift_schema import DriftContent, read_drift, write_drift
from pddm_lab.change.signals import SIGNALS
from pddm_lab.errors import LabError
from pddm_lab.runs.run import Run


def main() -> None:
    shell.heading(
        "Drift",
        "Do the queries of today still look like those that the run can answer?",
        words=("D", "window", "in the range"),
    )
    run = shell.run_or_stop()
    try:
        content = read_drift(run)
    except LabError as error:
        shell.unreadable("The drift can't be read", error)
    if content is None:
        if not run.galleries():
            shell.without(run, "gallery to compare queries with")
        with st.container(border=True):
            st.header(":material/query_stats: No queries compared yet", anchor=False)
            compare(run)
        st.stop()
    result(run, content)
    signals(content)
    distributions(content)
    classes(content)
    farthest(content)
    with st.expander("Compare other queries"):
        compare(run)


def compare(run: Run) -> None:
    """Compare a folder or a log of this machine with the run's own queries, here or in a terminal."""
    st.markdown(
        "Collect the pictures of some 200 queries or more in a folder. A service's log of scores does too, a JSON "
        "object a line. The result is kept with the run."
    )
    with st.form("compare", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        typed = st.text_input("Folder or log on this machine", placeholder="~/queries", max_chars=1000).strip()
        if st.form_submit_button("Compare", icon=":material/compare_arrows:", disabled=not run.galleries()):
            st.session_state["drift_of"] = run.name, typed, time.time_ns()  # the same folder may hold others by now
    folder, log = (command("drift", run.name, *words) for words in (("--queries", "FOLDER"), ("--log", "FILE")))
    st.caption(f"The same in a terminal: {folder} or {log}")
    name, source, clicked = st.session_state.get("drift_of", ("", "", 0))
    if name != run.name or not source:
        return
    try:
        work = work_of("drift", run, source, clicked)
        write_drift(run, once(work, "Comparing the queries", partial(views.drift_of, run, source)))
    except LabError as error:
        del st.session_state["drift_of"]
        st.error(plain(error), icon=":material/error:")
        return
    del st.session_state["drift_of"]
    st.rerun()


def result(run: Run, content: DriftContent) -> None:
    """The answer, and what to do."""
    alarm = bool(drift_text.changed_now(content))
    text = f"**{plain(drift_text.sentence(content))}**\n\n{plain(drift_text.advice(content, run))}"
    (st.warning if alarm else st.success)(text, icon=shell.WARNING_ICON if alarm else ":material/check_circle:")
    measured = datetime.fromisoformat(content.created).strftime("%Y-%m-%d %H:%M UTC")
    st.caption(f"{plain(drift_text.facts(content))} Measured {measured}.")


def signals(content: DriftContent) -> None:
    """All signals over the stream, and as a table."""
    st.header("Signals over the queries", anchor=False)
    left, right = st.columns([3, 2], gap="large")
    with left:
        ratios = {SIGNALS[name][0]: of.ratios for name, of in content.signals.items()}
        alt = "How far each signal is from its threshold, by the number of queries seen"
        chart(figures.drift_over_stream(content.ends, ratios, height=380), "signals", alt)
        if not content.is_ordered:
            st.caption("These pictures have no order in time: they were put in a random one.")
    with right:
        st.html(cards.audit_table(*views.signals_table(content)))


def distributions(content: DriftContent) -> None:
    """The distribution of each signal of a query, then and now."""
    st.header("Then and now", anchor=False)
    shown = [(name, of) for name, of in content.signals.items() if of.edges]
    for start in range(0, len(shown), 3):
        row = shown[start : start + 3]
        for place, (name, _) in zip(st.columns(3, gap="large"), row, strict=False):  # so that the charts begin alike
            title, text = SIGNALS[name]
            place.markdown(f"**{title}** :gray[· {text}]")
        for place, (name, of) in zip(st.columns(3, gap="large"), row, strict=False):
            with place:
                chart(
                    figures.then_and_now(of.edges, of.share_then, of.share_now), f"distribution_{name}",
                    f"Distribution of the {SIGNALS[name][0].lower()} of the run's own queries and of the last ones",
                )  # fmt: skip


def classes(content: DriftContent) -> None:
    """Classes that gain or lose."""
    st.header("Classes that gain or lose", anchor=False)
    if content.classes:
        st.html(cards.audit_table(*views.classes_table(content)))
        st.caption("Share of the queries whose nearest item is of the class; only changes beyond chance.")
    elif "classes" in content.signals:
        st.caption("No class gains or loses more than by chance.")
    else:
        st.caption("The classes of these queries are not known.")


def farthest(content: DriftContent) -> None:
    """The queries that are farthest from the range, as pictures."""
    if not content.farthest:
        return
    st.header("Farthest from the range", anchor=False)
    st.caption("Each with the class of its nearest item and the distance to it, farthest first.")
    queries = [(far.name, far.class_name, far.distance, base64.b64decode(far.thumb)) for far in content.farthest]
    st.html(cards.far_queries(queries))


main()
