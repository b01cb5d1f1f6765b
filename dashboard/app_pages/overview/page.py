"""Overview: what a run found in a sentence, and the queries on which its local similarity wins and loses."""

import streamlit as st
from app_pages.overview import views
from shared import leads, loaders, review, shell

from pddm_lab.errors import LabError
from pddm_lab.runs.compare import list_runs
from pddm_lab.runs.run import Run
from pddm_lab.wording import natural

if not any(isinstance(run, Run) for run in list_runs()):
    shell.heading("Overview", "What a local similarity finds that a global distance doesn't.")
    views.first_steps()
    st.stop()
shell.heading(
    "Overview",
    "Does the local similarity find more than the distance D, and on which queries?",
    words=("L", "S", "D", "unseen", "known", "MAP@R"),
    results=True,
)
run = shell.run_or_stop(warns=False)
if not run.galleries():
    shell.without(run, "result")
if not run.is_labelled or not run.protocols():
    views.not_measured(run)
    shell.show_warnings(run)
    st.stop()

with st.container(horizontal=True, vertical_alignment="top"):
    protocol = shell.protocol_picker(run)
    class_place = st.container(width=260)
    tagged = review.tag_filter(run, width=200)
if picked := st.session_state.pop("overview_item", ""):
    query = {"run": run.name, "protocol": protocol, "item": picked}
    st.switch_page("app_pages/search/page.py", query_params=query)
try:
    judged = leads.judged(run, protocol)
    gallery = loaders.gallery(run, protocol)
    name = next(iter(leads.rivals(run)), "euclidean")
    labels, classes = gallery.items["label"].to_numpy(), gallery.items["class_name"].astype(str)
    named = sorted(set(classes.iloc[judged.rows]), key=natural)
    with class_place:
        titles = {"": f"All {len(named):,} classes" if named[1:] else "The only class"} | {one: one for one in named}
        chosen = shell.choice(st.selectbox, "Queries of", titles, "class")
    views.answer(run, protocol, name, judged)
    if chosen:
        judged = judged.only(classes.iloc[judged.rows].to_numpy() == chosen)
        shell.put_in_url(**{"class": chosen})
    if tagged is not None:
        judged = judged.only(gallery.items["id"].iloc[judged.rows].isin(tagged).to_numpy())
    views.examples(run, protocol, name, judged, labels, one_a_class=not chosen)
except LabError as error:
    shell.unreadable("The queries can't be ranked", error)
views.study_note()
