"""Changes of a run's catalogue from any page: made at once, reported with what they did, and undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import streamlit as st
from shared import loaders, shell
from shared.plain_text import plain

from pddm_lab.errors import LabError
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.local.unit import LocalStructure
from pddm_lab.runs.run import CATALOGUE, Run
from pddm_lab.similarities import EVERY
from pddm_lab.wording import counted

DONE, FAILED, CHOSEN = "catalogue_done", "catalogue_failed", "catalogue_chosen"
"""In the session: what the last change did, why it failed, and the items that are chosen."""
Recall = dict[str, tuple[float, float]]
"""Similarity -> R@1 of the saved queries before and after a change."""


@dataclass(frozen=True)
class Done:
    """A change that was made, for the page to report."""

    text: str
    recall: Recall
    item: str = ""
    """One to search with."""
    notes: tuple[str, ...] = ()
    """What was left out, a sentence each."""
    is_undone: bool = False
    """Whether it took back another change."""


def remove(run: Run, ids: Sequence[str], reason: str) -> Done:
    """Remove items. Raises RunError if one is missing, or none would remain."""
    from pddm_lab.gallery import changes

    before = loaders.gallery(run, CATALOGUE)
    after = changes.remove(before, ids, structure_of(run), reason)
    return done(f"Removed {counted(len(ids), 'item')}.", run, before, after)


def undo(run: Run) -> Done:
    """Take back the last change. Raises RunError if there is none."""
    from pddm_lab.gallery import changes

    before = loaders.gallery(run, CATALOGUE)
    after, change = changes.undo(before, structure_of(run))
    return replace(done(f"Undone: {change.what}.", run, before, after), is_undone=True)


def done(
    text: str, run: Run, before: Gallery, after: Gallery, item: str = "", notes: Sequence[str] = ()
) -> Done:  # fmt: skip
    """What a change did, with its effect on the saved queries; the map is drawn anew.

    The change stays, whatever fails here: a note says so.
    """
    from pddm_lab.analysis.saved_queries import effect_of
    from pddm_lab.gallery.redraw import start_redrawing

    recall: Recall = {}
    try:
        recall = effect_of(before, after, structure_of(run)).recall
    except LabError as error:
        notes = (*notes, f"The change is made, but what it did to the saved queries is not known: {error}")
    start_redrawing(before.path)
    return Done(text, recall, item, tuple(notes))


def structure_of(run: Run) -> LocalStructure | None:
    """The run's similarity on local structure, if it has one."""
    by_neighbours = loaders.local(run)
    return None if by_neighbours is None else by_neighbours.structure


def carry_out(change: Callable[[], Done]) -> None:
    """Make a change, and keep for the next drawing of the page what it did or why it failed."""
    for name in (DONE, FAILED):
        st.session_state.pop(name, None)
    try:
        with st.spinner("Changing the catalogue"):
            st.session_state[DONE] = change()
        st.session_state[CHOSEN] = []
    except LabError as error:
        st.session_state[FAILED] = str(error)


def report(run: Run, undoes: bool = False) -> None:
    """What the last change did, or why it failed; on request with a button that takes it back."""
    if text := st.session_state.get(FAILED):
        st.error(plain(text), icon=":material/error:")
    done: Done | None = st.session_state.get(DONE)
    if done is None:
        return
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f":material/check_circle: **{plain(done.text)}**", width="content")
            if undoes and not done.is_undone:
                st.button("Undo", icon=":material/undo:", on_click=carry_out, args=(lambda: undo(run),))
        if done.recall:
            st.markdown(f"R@1 of the saved queries: {in_words(done.recall)}.")
        for note in done.notes:
            st.caption(f":material/info: {plain(note)}")
        if done.item:
            shell.search_link(run, CATALOGUE, done.item, "Search with the new picture")


def in_words(recall: Recall) -> str:
    """71.2 % → 71.4 % by D, and so on."""
    return ", ".join(
        f"{100 * before:.1f} % → {100 * after:.1f} % by {EVERY[name].letter}"
        for name, (before, after) in recall.items()
    )
