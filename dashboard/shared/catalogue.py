"""Changes of a run's catalogue from any page: made at once, reported with what they did, and undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    done = effect(run, before, lambda gallery, structure: changes.remove(gallery, ids, structure, reason))
    return Done(f"Removed {counted(len(ids), 'item')}.", done)


def undo(run: Run) -> Done:
    """Take back the last change. Raises RunError if there is none."""
    from pddm_lab.gallery import changes

    undone = []

    def take_back(gallery: Gallery, structure: LocalStructure | None) -> Gallery:
        after, change = changes.undo(gallery, structure)
        undone.append(change.what)
        return after

    done = effect(run, loaders.gallery(run, CATALOGUE), take_back, undone=True)
    return Done(f"Undone: {undone[0]}.", done, is_undone=True)


def effect(
    run: Run, before: Gallery, change: Callable[[Gallery, LocalStructure | None], Gallery], undone: bool = False
) -> Recall:
    """Make a change and have the map drawn anew; returns what that did to the saved queries."""
    from pddm_lab.analysis.saved_queries import effect_of
    from pddm_lab.gallery.redraw import start_redrawing

    structure = structure_of(run)
    effect = effect_of(before, change(before, structure), structure, undone)
    start_redrawing(before.path)
    return effect.recall


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
