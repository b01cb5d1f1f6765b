"""Runs: every training with its state and metrics, compared; live while one trains; the place to start and stop one."""

import streamlit as st
from app_pages.runs import compare, start, study, study_data
from shared import loaders, shell

from pddm_lab.runs.compare import BrokenRun
from pddm_lab.runs.run import Run

found = loaders.list_runs()
readable = [run for run in found if isinstance(run, Run)]

studies = study_data.list_studies()

with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
    title = st.container(width="content")
    beside = st.container(width="content", horizontal=True, vertical_alignment="center")
    with beside:
        view = study.view(studies)
        if view == "runs" and readable and st.button("Train a run", icon=":material/add:", key="train"):
            start.dialog()
    with title:
        shell.heading("Runs", study.ABOUT[view])

if view == "study":
    study.page(studies)
    st.stop()

busy = start.watch()

for broken in (run for run in found if isinstance(run, BrokenRun)):
    st.warning(broken.reason, title=f"{broken.name} can't be read", icon=":material/broken_image:")

if not readable:
    if not busy:
        with st.container(border=True):
            st.subheader("Train your first run", anchor=False)
            st.markdown(
                "The quick preset fetches pictograms in several drawing styles, learns a similarity on half of "
                "their classes, and shows how it does on the other half. It takes about a minute and needs no GPU."
            )
            if start.choose_and_start():
                st.rerun()
    st.stop()

chosen = shell.run_or_stop()
compared = compare.run_table(readable, chosen)
for run in compared:
    if run.reason:
        shown = st.info if run.status == "stopped" else st.error
        with st.container(horizontal=True, vertical_alignment="center"):
            shown(run.reason, title=f"{run.name}: {run.status}", icon=shell.STATUS_ICONS[run.status])
            start.go_on(run)
mean = compare.seeds_of(compared, readable)
compare.final_metrics(compared, mean)
compare.through_training(compared, mean)
compare.choices(compared)
compare.notes(compared)
