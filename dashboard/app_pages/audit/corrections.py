"""Audit, Corrections: what people corrected, undone or trained with; and what a training with it gained."""

from __future__ import annotations

import base64
from typing import Any

import pandas as pd
import streamlit as st
from shared import launches, loaders, review, shell
from shared.export import export
from shared.plain_text import plain
from shared.work import once, work_of

from pddm_lab import cards
from pddm_lab.cards import Cell, Head
from pddm_lab.data import corrections
from pddm_lab.data.corrections import Corrections
from pddm_lab.errors import LabError
from pddm_lab.figures import PROTOCOL_TITLES, style_of
from pddm_lab.review.gain import Gain, kept_gains, sentence, signed
from pddm_lab.runs.compare import before_corrections, list_runs, options_of
from pddm_lab.runs.run import Run
from pddm_lab.wording import counted

PICTURED = 200
"""Corrected items that are shown with their pictures."""
COLUMNS: dict[str, Any] = {
    "picture": st.column_config.ImageColumn("Picture", width=64), "id": st.column_config.TextColumn("Item"),
    "class_name": "Class before", "decision": "Decision", "reason": "Why",
    "time": st.column_config.DatetimeColumn("When", format="YYYY-MM-DD HH:mm"),
}  # fmt: skip


def show(run: Run) -> None:
    """The view of a run."""
    shell.needs_labels(run, "corrections")
    file = review.file_of(run)
    made = review.corrections_in(file)
    original, trained = _pair(run)
    if original and trained and trained.status == "finished":
        _gain(original, trained)
    _pending(run, made)
    if made.by_item:
        _retrain(original or run, made)


def _pair(run: Run) -> tuple[Run | None, Run | None]:
    """A run and the newest one that was trained with corrections of its data, whichever of both is open."""
    runs = [one for one in list_runs() if isinstance(one, Run)]
    if original := before_corrections(run, runs):
        return original, run
    later = [one for one in runs if (of := before_corrections(one, runs)) and of.name == run.name]
    return run, next(iter(later), None)


def _pending(run: Run, made: Corrections) -> None:
    file, count = review.file_of(run), len(made.by_item)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        title = counted(count, "corrected item") if count else "No corrections yet"
        st.header(title, anchor=False, width="content")
        table = _table(run, made)
        if count:
            with st.container(horizontal=True, width="content", vertical_alignment="center"):
                export("corrections", lambda: table.drop(columns="picture"), run, {"file": str(file)})
                st.button("Undo the last", icon=":material/undo:", key="undo_last", on_click=_undo, args=(run, ()))
    if error := st.session_state.pop("corrections_error", ""):
        st.error(plain(error))
    if not count:
        st.markdown(
            "Relabel items or leave them out where you meet them: *Correct or tag* on Quadruplets › Wrong labels?, in "
            "Audit › Duplicates, on Search, and for a lasso on Map. They are listed here, to train again with them."
        )
        return
    st.caption(
        f"{made.summary[:1].upper()}{made.summary[1:]}. They are kept in {plain(file)}, beside the runs; the pictures "
        "and their folders stay as they are. Tick rows to undo them."
    )
    event = st.dataframe(
        table, hide_index=True, key=f"corrections_{len(made.lines)}", on_select="rerun", selection_mode="multi-row",
        column_config=COLUMNS, column_order=list(COLUMNS), row_height=48,
        height=460 if count > 8 else "content", alt="The corrected items, with the class before and the decision",
    )  # fmt: skip
    if rows := event.selection.rows:
        items = tuple(table["id"].iloc[rows])
        label = f"Undo {counted(len(items), 'correction')}"
        st.button(label, icon=":material/undo:", key="undo_some", on_click=_undo, args=(run, items))


def _undo(run: Run, items: tuple[str, ...]) -> None:
    try:
        corrections.undo(review.file_of(run), items)
    except LabError as error:
        st.session_state["corrections_error"] = str(error)


def _table(run: Run, made: Corrections) -> pd.DataFrame:
    """The corrected items, the last one first."""
    lines = list(made.by_item.values())[::-1]
    lines.sort(key=lambda line: line.time, reverse=True)
    classes: dict[str, str] = {}
    for name in run.galleries():
        items = loaders.gallery(run, name).items
        classes |= dict(zip(items["id"], items["class_name"], strict=True))
    pictures = loaders.pictures(run, [line.id for line in lines[:PICTURED]])
    encoded = {
        item: "data:image/jpeg;base64," + base64.b64encode(data).decode() for item, data in pictures.items() if data
    }
    return pd.DataFrame({
        "picture": [encoded.get(line.id) for line in lines], "id": [line.id for line in lines],
        "class_name": [classes.get(line.id, "") for line in lines],
        "decision": [line.new_class if line.action == "relabel" else "left out" for line in lines],
        "reason": [line.reason for line in lines], "time": [line.time.astimezone() for line in lines],
    })  # fmt: skip


def _retrain(run: Run, made: Corrections) -> None:
    """Start a training of a run's settings with the corrections, unless there is one."""
    st.header("Train again with them", anchor=False)
    alike = [
        one
        for one in list_runs()
        if isinstance(one, Run) and (one.info["dataset"].get("corrections") or {}).get("sha256") == made.digest
        and options_of(one) == options_of(run)
    ]  # fmt: skip
    running = next((one for one in alike if one.status == "running"), None)
    waiting = next((one for one in launches.launches() if one.name == st.session_state.get("retrained")), None)
    if name := running.name if running else waiting.name if waiting and waiting.alive else "":
        _watch(name)
        return
    if waiting and not any(one.name == waiting.name for one in alike):
        lines = waiting.lines()
        st.error(plain(lines[-1] if lines else "The process ended without output."), title="The training did not start")
    if finished := next((one for one in alike if one.status == "finished"), None):
        st.caption(f":material/check: {plain(finished.name)} was trained with exactly these corrections.")
        return
    with st.form("retrain", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        proposed = launches.free_name(f"{run.name}-corrected")
        new = st.text_input("Name of the new run", proposed, key=f"retrain_name_{proposed}", width=320)
        go = st.form_submit_button("Retrain with them", type="primary", icon=":material/model_training:")
    st.caption(
        f"The settings of {plain(run.name)}, on the corrected data. The split stays, so both can be compared on the "
        "same corrected queries. The run keeps its own copy of the corrections."
    )
    if go:
        try:
            launch = launches.retrain(run, new.strip())
        except LabError as error:
            st.error(plain(error))
        else:
            st.session_state["retrained"] = launch.name
            st.rerun()


@st.fragment(run_every=2)
def _watch(name: str) -> None:
    """How far a training is; the page is drawn again when it has ended."""
    launch = next((one for one in launches.launches() if one.name == name), None)
    run = next((one for one in list_runs() if isinstance(one, Run) and one.name == name), None)
    if (run is None or run.status != "running") and not (launch and launch.alive):
        st.rerun()
    with st.container(border=True):
        st.markdown(f"**{plain(name)}** :gray[{'is training' if run else 'is starting'}]")
        if launch and (bar := launch.progress()):
            what, done, total = bar
            st.progress(min(done / max(total, 1), 1.0), f"{plain(what)} {done:,} of {total:,}")
        st.page_link(
            "app_pages/runs/page.py", label="Follow it on Runs", icon=":material/monitoring:",
            query_params={"run": name} if run else {},
        )  # fmt: skip


def _gain(original: Run, trained: Run) -> None:
    """How much more the run with corrections finds, in a sentence and a table."""
    measured = once(
        work_of("gain", trained, original),
        "Comparing both runs on the corrected queries",
        lambda report: kept_gains(
            original, trained, lambda done, total, what: report(done / max(total, 1), f"{done:,} of {total:,} {what}")
        ),
    )
    best = max(
        (one for one in measured if one.measure == "map@r"), key=lambda one: (one.protocol == "unseen", one.after)
    )
    st.header(sentence(best), anchor=False)
    items = counted((trained.info["dataset"].get("corrections") or {}).get("items", 0), "corrected item")
    st.caption(
        f"{plain(trained.name)}, trained with {items}, against {plain(original.name)}, both on the corrected queries "
        "and gallery. Only queries that neither run was trained on count. Gains in points, with 95 % intervals over "
        "classes and their queries; one whose interval includes 0 may be chance."
    )
    st.html(cards.audit_table(*gain_table(measured), words=2))


def gain_table(measured: list[Gain]) -> tuple[list[Head], list[list[Cell]]]:
    """A row for each protocol and similarity: both measures before, after, and their difference."""
    heads = [Head("Queries of"), Head("Ranked by")]
    for title in ("R@1", "MAP@R"):
        heads += [Head(f"{title} before", small="%"), Head("after", small="%"), Head("gain", small="points")]
    rows: dict[tuple[str, str], list[Cell]] = {}
    for one in measured:
        cells = rows.setdefault((one.protocol, one.similarity), [
            Cell(PROTOCOL_TITLES[one.protocol], small=f"{one.queries:,} of {counted(one.classes, 'class', 'classes')}"),
            Cell(style_of(one.similarity).title, colour=style_of(one.similarity).colour),
        ])  # fmt: skip
        ends = f"{signed(100 * one.low)} to {signed(100 * one.high)}" if one.classes > 1 else ""
        cells += [
            Cell(f"{100 * one.before:.1f}"), Cell(f"{100 * one.after:.1f}"),
            Cell(signed(100 * one.difference), small=ends),
        ]  # fmt: skip
    return heads, list(rows.values())
