"""Catalogue: what a run can find, to be changed in the browser: add, remove, rename, merge, undo."""

import streamlit as st
from app_pages.catalogue import data, views
from shared import catalogue, loaders, shell

from pddm_lab.errors import LabError
from pddm_lab.runs.run import CATALOGUE
from pddm_lab.similarities import EVERY
from pddm_lab.wording import counted

QUERIES = 500

shell.heading(
    "Catalogue",
    "Everything this run can find. A change is searchable at once, is kept in the history, and can be undone. "
    "Your own files stay as they are.",
    words=("R@1", "D", "L", "near-duplicate"),
)
run = shell.run_or_stop()
if CATALOGUE not in run.galleries():
    if run.status != "finished":
        shell.without(run, "catalogue")
    shell.needs_labels(run, "the parts of a catalogue")
    shell.nothing(
        "No catalogue", f"A run of an earlier version gets one by `pddm-lab gallery rebuild {run.name} --protocol "
        f"{CATALOGUE}`, while its pictures are on this machine.", ":material/inventory_2:",
    )  # fmt: skip
shell.needs_labels(run, "the parts of a catalogue")
if run.status == "running":
    shell.nothing("Still training", f"The catalogue of {run.name} can be changed once its training has ended.")
try:
    gallery, classes = loaders.gallery(run, CATALOGUE), data.classes(run)
    count, recall = data.saved(run)
    catalogue.report(run)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        size = f"**{counted(len(gallery), 'item')} of {counted(len(classes), 'class', 'classes')}.**"
        if count:
            values = ", ".join(f"{100 * value:.1f} % by {EVERY[name].letter}" for name, value in recall.items())
            st.markdown(f"{size} R@1 of the {count:,} saved queries: {values}.")
        else:
            st.markdown(f"{size} Save some of its items as queries: then each change says how many are still found.")
            if st.button("Save queries", icon=":material/bookmark_add:"):
                data.save_queries(run, QUERIES)
                st.rerun()
    left, right = st.columns([3, 2], gap="large")
    with left:
        titles = {name: f"{name} · {number:,}" for name, number in classes.items()}
        chosen = shell.choice(st.selectbox, "Class", titles, "class")
        views.one_class(run, chosen)
    with right:
        views.add_pictures(run, chosen)
        views.history(run)
except LabError as error:
    shell.unreadable("The catalogue can't be read", error)
with st.container(horizontal=True):
    st.page_link(
        "app_pages/audit/page.py", label="Near-duplicates", icon=":material/filter_none:",
        query_params={"run": run.name, "view": "duplicates"},
    )  # fmt: skip
    st.page_link(
        "app_pages/quadruplets/page.py", label="Labels that may be wrong", icon=":material/label_important:",
        query_params={"run": run.name, "view": "suspects"},
    )  # fmt: skip
