"""Quadruplets: what training mined, how hard it was, which classes it confused, and whose label looks wrong."""

import streamlit as st
from app_pages.quadruplets import data, views
from app_pages.quadruplets.data import Choice
from shared import shell

from pddm_lab.errors import RunError

VIEWS = {"cards": "Cards", "training": "Through training", "confusion": "Confused classes", "suspects": "Wrong labels?"}
PHASES = {"refit": "refitting", "select": "choosing the best step"}

shell.heading(
    "Quadruplets",
    "i and j: a pair of one class that the similarity found least alike. k and l: the items of other classes it found "
    "most like i and like j. A hinge is violated where a negative pair comes within the margin of the positive one.",
)
run = shell.run_or_stop()
try:
    mined = data.mined(run)
except RunError as error:
    shell.nothing("The quadruplets can't be read", str(error), ":material/broken_image:")
if not len(mined):
    shell.without(run, "quadruplets")
if run.status == "running":
    st.caption(
        ":material/progress_activity: Still training: this is what it has mined so far. Any choice shows what is new."
    )
elif run.status != "finished":
    ended = {"failed": "It failed", "stopped": "It was stopped"}.get(run.status, "It was interrupted")
    st.caption(f"{shell.STATUS_ICONS[run.status]} {ended}: this is what it mined until then.")

with st.container(horizontal=True, vertical_alignment="bottom"):
    view = shell.choice(st.segmented_control, "View", VIEWS, "view")
    phase = shell.choice(
        st.segmented_control, "Mined while", {name: PHASES.get(name, name) for name in mined.phases}, "mined"
    )
first, last = mined.span(phase)
with st.container(horizontal=True, vertical_alignment="top"):
    steps = (first, last)
    if last > first:
        if held := st.session_state.get("steps"):  # of the other phase, which may be longer
            st.session_state["steps"] = tuple(min(max(step, first), last) for step in held)
        steps = st.slider("Training steps", first, last, steps, key="steps", bind="query-params", width=300)
    own = views.classes_picker("Class of i and j", mined, "own")
    others = views.classes_picker("Class of k or l", mined, "others") if view in ("cards", "confusion") else ()
choice = Choice(phase, steps, own, others)
{
    "cards": views.show_cards,
    "training": views.show_training,
    "confusion": views.show_confusion,
    "suspects": views.show_suspects,
}[view](run, mined, choice)
