"""Runs: every training with its status and metrics, to start, watch, stop, resume and compare."""

import streamlit as st
from app_pages.runs import exports, start, views
from shared import shell
from shared.plain_text import plain

from pddm_lab.runs.compare import BrokenRun, list_runs
from pddm_lab.runs.run import Run
from pddm_lab.study.cells import list_studies

ABOUT = {
    "runs": "Every training with its metrics under both protocols and its learning curves.",
    "study": "Methods on the same features, batches and budget: their results over seeds, and how fast they learn.",
}

runs = list_runs()
readable = [run for run in runs if isinstance(run, Run)]
studies = {path.name: path for path in list_studies()}

with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
    title = st.container(width="content")
    beside = st.container(width="content", horizontal=True, vertical_alignment="center")
    with beside:
        titles = {"runs": "Runs", "study": "Study"}
        view = shell.choice(st.segmented_control, "Show", titles, "view", label_visibility="collapsed")
        if view == "runs" and readable and st.button("Train a run", icon=":material/add:", key="train"):
            start.dialog()
    with title:
        shell.heading("Runs", ABOUT[view], words=("D", "D_M", "S", "L", "unseen", "known", "MAP@R", "TPR at 1 % FPR"))

if view == "study":
    with st.spinner("Loading the study"):
        from app_pages.runs import study  # it imports torch
    study.page(studies)
    st.stop()

training = start.watch()

for broken in (run for run in runs if isinstance(run, BrokenRun)):
    st.warning(plain(broken.reason), title=f"Can't read {plain(broken.name)}", icon=":material/broken_image:")

if not readable:
    if not training:
        with st.container(border=True):
            st.header("Train your first run", anchor=False)
            st.markdown(
                "The quick preset downloads pictograms in several drawing styles, trains a similarity on half of their "
                "classes, and measures it on the other half. It takes some minutes and needs no GPU."
            )
            if start.choose_and_start():
                st.rerun()
    st.stop()

chosen = shell.run_or_stop()
compared = views.run_table(readable, chosen)
for run in compared:
    if run.name != chosen.name:  # its own are above
        shell.show_warnings(run)
    if run.reason:
        message = st.info if run.status == "stopped" else st.error
        with st.container(horizontal=True, vertical_alignment="center"):
            message(plain(run.reason), title=f"{plain(run.name)}: {run.status}", icon=shell.STATUS_ICONS[run.status])
            start.resume_button(run)
mean = views.seeds_of(compared, readable)
views.final_metrics(compared, mean)
if any(run.is_labelled for run in compared):
    views.through_training(compared, mean)
views.choices(compared)
exports.formats(compared)
views.notes(compared)
