"""Quadruplets: what training mined, how hard it was, which classes were confused, and which labels look wrong."""

import streamlit as st
from app_pages.quadruplets import data, views
from app_pages.quadruplets.data import Choice
from shared import shell
from shared.plain_text import plain

from pddm_lab.errors import RunError

VIEWS = {"cards": "Cards", "training": "Through training", "confusion": "Confused classes", "suspects": "Wrong labels?"}
PHASES = {"refit": "refitting", "select": "choosing the best step"}

shell.heading(
    "Quadruplets",
    "i and j are the least similar items of one class. k and l are the items of other classes most similar to i and "
    "to j. A hinge is violated where the score of a negative pair comes within the margin of the positive pair's.",
    words=("S", "D", "hinge"),
)
run = shell.run_or_stop()
shell.needs_labels(run, "quadruplets")
try:
    mined = data.mined(run)
except RunError as error:
    shell.unreadable("The quadruplets can't be read", error)
if not len(mined):
    shell.without(run, "quadruplets")
if run.status == "running":
    st.caption(
        ":material/progress_activity: Still training. These are the quadruplets mined so far; any click shows new ones."
    )
elif run.status != "finished":
    ended = {"failed": "failed", "stopped": "was stopped"}.get(run.status, "was interrupted")
    st.caption(f"{shell.STATUS_ICONS[run.status]} The run {ended}. These are the quadruplets it mined before that.")

with st.container(horizontal=True, vertical_alignment="bottom"):
    view = shell.choice(st.segmented_control, "View", VIEWS, "view")
    phase = shell.choice(
        st.segmented_control, "Mined while", {name: PHASES.get(name, plain(name)) for name in mined.phases}, "mined"
    )
first, last = mined.span(phase)
with st.container(horizontal=True, vertical_alignment="top"):
    steps = (first, last)
    if last > first:
        if chosen := st.session_state.get("steps"):  # from the other phase, which may be longer
            inside = tuple(min(max(step, first), last) for step in chosen)
            if inside != tuple(chosen):
                st.session_state["steps"] = inside
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
