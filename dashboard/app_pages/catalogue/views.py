"""The parts of the Catalogue page: a class with its pictures, the form to add some, and the history."""

from __future__ import annotations

from datetime import datetime

import streamlit as st
from app_pages.catalogue import data
from shared import catalogue, loaders, picture_grid, shell
from shared.plain_text import plain

from pddm_lab import cards
from pddm_lab.data.images import SUFFIXES
from pddm_lab.runs.imported import why_not_embedded
from pddm_lab.runs.run import CATALOGUE, Run
from pddm_lab.wording import counted

AT_ONCE = 48
"""Pictures of a class on a page."""
SHOWN_CHANGES = 8


def one_class(run: Run, name: str) -> None:
    """The pictures of a class, to choose and remove; the class itself, to rename, merge or remove."""
    gallery = loaders.gallery(run, CATALOGUE)
    members = gallery.items[gallery.items["class_name"] == name]
    ids = [str(item) for item in members["id"]]
    chosen = [item for item in st.session_state.get(catalogue.CHOSEN, []) if item in set(ids)]

    def toggle(item: str) -> None:
        st.session_state[catalogue.CHOSEN] = [one for one in chosen if one != item] + [item] * (item not in chosen)

    part = shell.paged(len(members), AT_ONCE, "part", about=name) if len(members) > AT_ONCE else slice(None)
    rows = members.index[part]
    named = [(item, item.rpartition("/")[2]) for item in ids[part]]
    picture_grid.pictures(
        cards.image_grid(named, loaders.thumbs(gallery, rows), chosen=chosen, small=True), "members", on_pick=toggle
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        count = len(chosen)
        st.button(
            f"Remove {counted(count, 'picture')}" if count else "Remove pictures",
            icon=":material/delete:", disabled=not chosen, help="Click pictures to choose them.",
            on_click=catalogue.carry_out, args=(lambda: catalogue.remove(run, chosen, ""),),
        )  # fmt: skip
        if len(chosen) == 1:
            shell.search_link(run, CATALOGUE, chosen[0])
        with st.popover("Rename or merge", icon=":material/edit:"):
            _rename(run, name)
        with st.popover("Remove the class", icon=":material/delete_sweep:"):
            st.markdown(f"Remove **{plain(name)}** with {counted(len(ids), 'picture')}?")
            why = st.text_input("Reason", key="remove_reason", placeholder="for the history; may stay empty")
            st.button("Remove it", on_click=catalogue.carry_out, args=(lambda: catalogue.remove(run, ids, why),))


def _rename(run: Run, old: str) -> None:
    names = [name for name in data.classes(run).index if name != old]
    with st.form("rename", border=False, enter_to_submit=False):
        name = st.selectbox(
            "New name, or the class to merge it with", names, index=None, accept_new_options=True,
            placeholder="Type a name", key=f"new_name_{old}",
        )  # fmt: skip
        why = st.text_input("Reason", key="rename_reason", placeholder="for the history; may stay empty")
        if st.form_submit_button("Rename"):
            catalogue.carry_out(lambda: data.rename(run, old, name or "", why))
            if catalogue.FAILED not in st.session_state:
                shell.put_in_url(**{"class": (name or "").strip()})
            st.rerun()


def add_pictures(run: Run, chosen: str) -> None:
    """Drop pictures, name their class, add them."""
    st.header("Add pictures", anchor=False)
    if reason := why_not_embedded(run):
        st.info(plain(reason), icon=":material/no_photography:")
        return
    number = st.session_state.setdefault("catalogue_form", 0)  # a new form has no pictures in it
    names = list(data.classes(run).index)
    with st.form(f"add_{number}", enter_to_submit=False):
        files = st.file_uploader("Pictures", sorted(one[1:] for one in SUFFIXES), accept_multiple_files=True)
        chosen_name = st.selectbox(
            "Class", names, index=names.index(chosen) if chosen in names else None, accept_new_options=True,
            placeholder="Choose one, or type a new name",
        )  # fmt: skip
        why = st.text_input("Reason", placeholder="for the history; may stay empty")
        if st.form_submit_button("Add to the catalogue", icon=":material/add_photo_alternate:"):
            name = str(chosen_name or "").strip()
            if not files or not name:
                st.session_state[catalogue.FAILED] = "Choose pictures and a class, then add them."
            else:
                catalogue.carry_out(lambda: data.add(run, name, [(file.name, file.getvalue()) for file in files], why))
                if catalogue.FAILED not in st.session_state:
                    st.session_state["catalogue_form"] = number + 1
                    shell.put_in_url(**{"class": name})
            st.rerun()


def history(run: Run) -> None:
    """The last changes, and a button that takes back the last one."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.header("Changes", anchor=False)
        changes = data.changes(run)
        if changes:
            st.button(
                "Undo the last", icon=":material/undo:", help=f"Takes back: {plain(changes[0].what)}.",
                on_click=catalogue.carry_out, args=(lambda: catalogue.undo(run),),
            )  # fmt: skip
    if not changes:
        st.caption("None yet. Each change will be listed here with its time and reason, and can be undone.")
    for change in changes[:SHOWN_CHANGES]:
        when = datetime.fromisoformat(change.time).astimezone().strftime("%d %b %Y, %H:%M")
        text = f"**{plain(change.what)}** · {when}" + (f" · {plain(change.reason)}" if change.reason else "")
        st.markdown(text + (f"  \n:gray[R@1 {catalogue.in_words(change.recall)}]" if change.recall else ""))
    if len(changes) > SHOWN_CHANGES:
        st.caption(f"And {len(changes) - SHOWN_CHANGES:,} earlier ones.")
