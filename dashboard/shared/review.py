"""Correct, leave out or tag items from any page: one menu for a selection, and the choice of a tag as a filter.

Corrections and tags belong to a data set and lie beside the runs. Audit lists them, undoes them and trains with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import streamlit as st
from shared import loaders, shell
from shared.cache import GALLERIES, cached
from shared.plain_text import plain

from pddm_lab.data import corrections
from pddm_lab.data.corrections import Corrections, corrections_file
from pddm_lab.errors import LabError
from pddm_lab.review import tags
from pddm_lab.review.cell import MOST_LISTED, items_cell
from pddm_lab.runs.run import Run
from pddm_lab.wording import counted, natural

MESSAGE = "review_message"


def file_of(run: Run) -> Path:
    """Where the corrections of a run's data set are kept."""
    return corrections_file(run.path.parent, run.config.dataset)


def tag_file_of(run: Run) -> Path:
    """Where the tags of a run's data set are kept."""
    return tags.tags_file(run.path.parent, run.config.dataset)


@cached(max_entries=32)
def corrections_in(file: Path) -> Corrections:
    """The corrections in a file. Raises DataError if it is damaged."""
    return corrections.read_corrections(file)


@cached(max_entries=32)
def tags_in(file: Path) -> dict[str, list[str]]:
    """The tags in a file. Raises RunError if it is damaged."""
    return tags.read_tags(file)


@cached(*GALLERIES, max_entries=32)
def classes_of(run: Run) -> list[str]:
    """The classes of a run's galleries, as people sort them. Raises RunError if one is damaged."""
    every = {str(name) for one in run.galleries() for name in loaders.gallery(run, one).items["class_name"].unique()}
    return sorted(every, key=natural)


def menu(run: Run, items: Sequence[str], key: str, gallery: str = "", what: str = "", suggested: str = "") -> None:
    """A menu that relabels, leaves out or tags items, and shows the notebook cell that opens them.

    Args:
        run: whose data set is corrected.
        items: their ids.
        key: tells menus of one page apart.
        gallery: that has the items; empty: the first that has the first of them.
        what: the items in words; empty: their number, or the id of one.
        suggested: the class to begin with.
    """
    what = what or (counted(len(items), "item") if len(items) != 1 else items[0])
    with st.popover("Correct or tag", icon=":material/edit_note:", disabled=not items, key=f"review_{key}"):
        try:
            made, of = corrections_in(file_of(run)), tags_in(tag_file_of(run))
        except LabError as error:
            st.error(plain(error))
            return
        st.markdown(f"**{plain(what)}**")
        if run.is_labelled:
            _correct(run, items, key, suggested, made)
        _tag(run, items, key, of)
        _message(key)
        with st.expander("As a data frame", type="compact"):
            if len(items) <= MOST_LISTED:
                cell = items_cell(run.path, gallery or _gallery_of(run, items[0]), items)
                st.code(cell, language="python", wrap_lines=True)
            else:
                st.caption(f"Tag them first: a cell lists at most {MOST_LISTED} items. Audit then shows the cell.")


def _gallery_of(run: Run, item: str) -> str:
    names = run.galleries()
    having = (name for name in names if loaders.row_of(loaders.gallery(run, name), item) is not None)
    return next(having, names[0])


def _correct(run: Run, items: Sequence[str], key: str, suggested: str, made: Corrections) -> None:
    classes = classes_of(run)
    chosen = st.selectbox(
        "Right class", classes, classes.index(suggested) if suggested in classes else None, key=f"class_{key}",
        placeholder="Choose a class",
    )  # fmt: skip
    reason = st.text_input("Why", key=f"reason_{key}", placeholder="Kept with the correction")
    file = file_of(run)
    with st.container(horizontal=True):
        relabel = partial(corrections.relabel, file, items, chosen or "", reason)
        st.button(
            "Relabel", icon=":material/label:", disabled=chosen is None, key=f"relabel_{key}", on_click=_do,
            args=(key, f"{counted(len(items), 'item')} relabelled as {chosen}.", relabel),
        )  # fmt: skip
        st.button(
            "Leave out", icon=":material/block:", key=f"exclude_{key}", on_click=_do,
            args=(key, f"{counted(len(items), 'item')} left out.", partial(corrections.exclude, file, items, reason)),
            help="Of trainings and measurements with corrections. The file stays.",
        )  # fmt: skip
        own = [item for item in items if item in made.by_item]
        if own:
            st.button(
                "Undo", icon=":material/undo:", key=f"undo_{key}", on_click=_do,
                args=(key, f"The corrections of {counted(len(own), 'item')} are undone.",
                      partial(corrections.undo, file, own)),
            )  # fmt: skip
    if len(own) == 1 == len(items):
        line = made.by_item[own[0]]
        st.caption("Left out so far." if line.action == "exclude" else f"Relabelled as {plain(line.new_class)} so far.")
    if made.by_item:
        review_link(run, f"{made.summary[:1].upper()}{made.summary[1:]}")


def _tag(run: Run, items: Sequence[str], key: str, of: dict[str, list[str]]) -> None:
    name = st.selectbox(
        "Tag", list(of), None, key=f"tag_{key}", accept_new_options=True,
        placeholder="Choose a tag, or type a new one",
    ) or ""  # fmt: skip
    file, tagged = tag_file_of(run), set(of.get(name, ()))
    inside = [item for item in items if item in tagged]
    with st.container(horizontal=True):
        st.button(
            "Add the tag", icon=":material/sell:", disabled=not name or len(inside) == len(items),
            key=f"tagging_{key}", on_click=_do,
            args=(key, f"{counted(len(items), 'item')} tagged “{name}”.", partial(tags.tag, file, name, items)),
        )  # fmt: skip
        if inside:
            done = f"{counted(len(inside), 'item')} taken out of “{name}”."
            st.button(
                "Take it off", icon=":material/label_off:", key=f"untagging_{key}", on_click=_do,
                args=(key, done, partial(tags.untag, file, name, inside)),
            )  # fmt: skip


def _do(key: str, done: str, change: Callable[[], object]) -> None:
    """Change a file; what came of it is shown in the menu."""
    try:
        change()
    except LabError as error:
        st.session_state[MESSAGE] = (key, str(error), True)
    else:
        st.session_state[MESSAGE] = (key, done, False)


def _message(key: str) -> None:
    of, text, failed = st.session_state.pop(MESSAGE, ("", "", False))
    if of == key:
        (st.error if failed else st.success)(plain(text), icon=":material/error:" if failed else ":material/check:")


def review_link(run: Run, label: str) -> None:
    """A link to where the corrections are listed, undone and trained with."""
    st.page_link(
        "app_pages/audit/page.py", label=f"{label}: review and retrain", icon=":material/fact_check:",
        query_params={"run": run.name, "view": "corrections"},
    )  # fmt: skip


def tag_filter(run: Run, width: int = 200) -> set[str] | None:
    """A choice of a tag, in the URL; its items, or None for all. Without any tag there is no choice."""
    chosen = tag_choice(run, width)
    return set(tags_in(tag_file_of(run))[chosen]) if chosen else None


def tag_choice(run: Run, width: int | Literal["stretch"] = "stretch") -> str:
    """The name of the tag that is chosen; empty for all items."""
    try:
        of = tags_in(tag_file_of(run))
    except LabError as error:
        st.error(plain(error))
        return ""
    titles = {"": "All items"} | {name: f"{name} ({len(items):,})" for name, items in of.items()}
    return shell.choice(st.selectbox, "Tag", titles, "tag", width=width) if of else ""
