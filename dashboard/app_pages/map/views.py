"""The parts of the Map page: the canvas, the picked item, an anchor's neighbourhoods, the selection."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st
from app_pages.map import canvas, filters, links, text
from app_pages.map.filters import Filter
from app_pages.map.lasso import Grid, Lasso
from app_pages.map.scene import LAYERS, ORDERS, MapView, rows_by_id, selection_table, settings
from shared import catalogue, loaders, picture_grid, review, shell
from shared.export import export
from shared.plain_text import command

from pddm_lab import cards
from pddm_lab.figures import class_colour, shown
from pddm_lab.gallery.redraw import is_being_redrawn
from pddm_lab.runs.run import CATALOGUE, Run
from pddm_lab.wording import counted

PAGE = 48
"""Pictures of a selection per page."""


@st.fragment
def maps(scene: MapView, panels: list[canvas.Panel], around: pd.DataFrame | None) -> None:
    """The canvas. Pointing at an item reruns only this part of the page; picking one, or a lasso, reruns all of it."""
    if st.session_state.pop("map_moved", False):
        st.rerun()
    row = st.session_state.get("map_hovered", -1)
    description = None
    if 0 <= row < len(scene.items):
        item = str(scene.items["id"].iloc[row])
        description = canvas.Description(row, item, scene.first.gallery.thumb(row), text.describe(scene, row))
    layout = scene.first.layout
    canvas.draw(
        panels, scene.names, layout.labels, key="map", linked=not scene.of_two_runs,
        scope=" ".join([scene.first.protocol, *(of.run.name for of in scene.different)]),
        context=f"{scene.choices} {scene.anchor}", on_change=partial(_receive, scene),
        lasso=str(scene.lasso or ""), view=st.query_params.get("view", ""), description=description,
        anchor=scene.anchor if scene.colour == "anchor" or scene.picked is not None else -1,
        shown=rows_by_id(scene, _pages(scene)[1] if around is None else around["row"]),
        kept=scene.kept, layers=scene.layers, pictures=_wanted(scene),
        stock=f"{scene.first.run.name} {scene.first.protocol} {scene.first.gallery.manifest.get('change', 0)}",
    )  # fmt: skip


def _receive(scene: MapView, state: canvas.State) -> None:
    """Put the choices made on the canvas into the URL, and rerun the page if they concern the rest of it."""
    st.session_state["map_hovered"], st.session_state["map_wanted"] = state.hovered, state.wanted
    shell.put_in_url(view=state.view)
    item = str(scene.items["id"].iloc[state.picked]) if state.picked >= 0 else st.query_params.get("item", "")
    if (item, state.lasso) != (st.query_params.get("item", ""), st.query_params.get("lasso", "")):
        if state.lasso != st.query_params.get("lasso", ""):
            shell.put_in_url(page="")
        shell.put_in_url(item=item, lasso=state.lasso)
        st.session_state["map_moved"] = True


def _wanted(scene: MapView) -> canvas.Pictures | None:
    rows = [row for row in st.session_state.get("map_wanted", ()) if row < len(scene.items)]
    return canvas.Pictures(rows, [scene.first.gallery.thumb(row) for row in rows]) if rows else None


def filtered_by(run: Run, names: Sequence[str], similarities: Sequence[str]) -> tuple[Filter, tuple[str, ...]]:
    """Choices of the items that are shown and of the layers over them, in the URL."""
    linked = [name for name in st.query_params.get_all("classes") if name in set(names)]
    role, results = (st.query_params.get(name, "") for name in ("role", "results"))
    of_results = results in filters.results(similarities) and results
    chosen = sum(map(bool, (linked, role in filters.ROLES and role, of_results, st.query_params.get("tag"))))
    with st.popover(
        f"Show: {counted(chosen, 'filter')}" if chosen else "Show: all items", icon=":material/filter_alt:"
    ):
        layers = shell.choices(st.pills, "Over the points", LAYERS, "layers", tuple(LAYERS), selection_mode="multi")
        tag = review.tag_choice(run)
        if not run.is_labelled:
            return Filter(tag=tag), layers
        classes = shell.choices(st.multiselect, "Classes", {name: name for name in names}, "classes", placeholder="All")
        with st.container(horizontal=True):
            role = shell.choice(st.selectbox, "Role", filters.ROLES, "role")
            results = shell.choice(st.selectbox, "First result", filters.results(similarities), "results")
    return Filter(classes, role, results, tag), layers


def keep_in_place(before: Sequence[Grid], now: Sequence[Grid]) -> None:
    """Move the URL's view and lasso where maps were drawn anew, so that they stay around the same part of them."""
    if list(before) == list(now) or len(before) != len(now):
        return
    lasso = Lasso.parse(st.query_params.get("lasso", ""))
    if lasso is not None and lasso.panel < len(now):
        shell.put_in_url(lasso=str(links.moved_lasso(lasso, before, now)))
    if view := st.query_params.get("view", ""):
        shell.put_in_url(view=links.moved_view(view, before, now))


@st.fragment(run_every=3)
def follow_drawing(gallery: Path) -> None:
    """Say that a map is being drawn, and run the page again when it is there."""
    if not is_being_redrawn(gallery):
        st.rerun()
    st.caption(":material/progress_activity: A new map is being drawn. It appears here when it is ready.")


HOW_TO = {
    "Click": "pick an item", "Drag": "move the map", "Wheel, + −": "zoom", "Shift + drag, L": "lasso",
    "V": "select the items in view", "Double click, 0": "show all", "Arrow keys": "move between items",
    "Enter": "pick the item", "Escape": "clear the selection",
}  # fmt: skip


def how_to() -> None:
    """What the pointer and the keys do on a map; shown while no item is picked."""
    st.markdown("**No item is picked**")
    st.html(cards.facts(HOW_TO))


def item_card(scene: MapView) -> None:
    """The picked item, with links to search with it and to its neighbourhood."""
    first, row = scene.first, scene.anchor
    large = loaders.picture(first.run, scene.anchor_id, first.gallery) or first.gallery.thumb(row)
    st.image(large, alt=f"{scene.anchor_class}, {scene.anchor_id}", width="stretch")
    st.html(cards.facts(text.facts(scene)))
    shell.search_link(first.run, first.protocol, scene.anchor_id)
    if scene.colour != "anchor":
        st.button(
            "Its neighbourhood", icon=":material/adjust:", type="tertiary",
            on_click=shell.put_in_url, kwargs={"colour": "anchor", "item": scene.anchor_id},
            help="Colour the map by similarity to it, for two similarities side by side.",
        )  # fmt: skip


def neighbours(scene: MapView, around: pd.DataFrame) -> None:
    """The nearest to the anchor by two similarities: those that only one has, and those of both."""
    st.caption(text.around_words(scene, around))
    card, lists = st.columns([3, 12], gap="medium")
    with card:
        item_card(scene)
    with lists:
        export("neighbourhood", lambda: _as_shown(scene, around), [of.run for of in scene.different], settings(scene))
        names = [text.named_on(scene, at) for at in (0, 1)]
        if names[0] != names[1]:
            _tiles(scene, f"Only by {names[0]}", around[around["near_0"] & ~around["near_1"]], 0)
            _tiles(scene, f"Only by {names[1]}", around[around["near_1"] & ~around["near_0"]], 1)
        _tiles(scene, "By both", around[around["near_0"] & around["near_1"]], 1)


def _as_shown(scene: MapView, around: pd.DataFrame) -> pd.DataFrame:
    """With the values that the page shows: a distance is positive."""
    values = {f"value_{at}": shown(one.by, around[f"value_{at}"].to_numpy()) for at, one in enumerate(scene.choices)}
    return around.assign(**values)


def _tiles(scene: MapView, title: str, near: pd.DataFrame, at: int) -> None:
    """Neighbours as pictures, ranked by one of the two similarities."""
    near = near.rename(columns={f"value_{at}": "value", f"rank_{at}": "rank"}).sort_values("rank")
    near["rank_change"] = near[f"rank_{1 - at}"] - near["rank"]
    right = int((near["class_name"] == scene.anchor_class).sum())
    st.markdown(f"**{title}** :gray[· {len(near)}, {right} of its class]")
    images = loaders.thumbs(scene.first.gallery, near["row"])
    grid = cards.retrieval_grid(near, images, scene.choices[at].by, right_class=scene.anchor_class)
    picture_grid.pictures(grid, f"near_{title}")


def selection(scene: MapView) -> None:
    """The items inside the lasso: their classes, their pictures, and a table to download."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        inside = f"{len(scene.rows):,} of {counted(len(scene.items), 'item')} inside the lasso"
        st.header(f"{inside}, of {counted(len(scene.classes), 'class', 'classes')}", anchor=False)
        with st.container(horizontal=True, vertical_alignment="bottom", width="content"):
            shell.choice(st.selectbox, "Order", ORDERS, "order", width=220)
            runs = [of.run for of in scene.different]
            export("selection", lambda: selection_table(scene), runs, settings(scene))
            inside_ids = [str(item) for item in scene.items["id"].iloc[scene.rows]]
            review.menu(scene.first.run, inside_ids, "lasso", scene.first.protocol)
            if scene.first.protocol == CATALOGUE:
                _remove(scene.first.run, inside_ids)
    if not len(scene.rows):
        st.caption("No item lies inside the lasso.")
        return
    counts, grid = st.columns([4, 11], gap="medium")
    with counts:
        colours = [class_colour(label) for _, label, _, _ in scene.classes]
        st.html(cards.class_counts([(name, here, all_) for name, _, here, all_ in scene.classes], colours))
        if scene.first.protocol != CATALOGUE:
            st.caption(_how_to_remove(scene.first.run, scene.first.protocol))
    with grid:
        pages, rows, first = _pages(scene, choose=True)
        if pages > 1:
            st.caption(f"{first + 1:,} to {first + len(rows):,} of {len(scene.rows):,}")
        some = zip(scene.items["id"].iloc[rows], scene.items["class_name"].iloc[rows], strict=True)
        images = loaders.thumbs(scene.first.gallery, rows)
        chosen = scene.anchor_id if scene.picked is not None else ""
        picture_grid.pictures(cards.image_grid(some, images, chosen=(chosen,), small=True), "selection")


def _how_to_remove(run: Run, protocol: str) -> str:
    """Where a selection can be removed, which isn't here."""
    if CATALOGUE in run.galleries():
        return "To remove items, select them on the map of the whole range."
    remove = command("gallery", "remove", run.name, "--protocol", protocol, "--items", "selection.csv")
    return f"To remove these items, export them as CSV, then {remove}."


def _remove(run: Run, ids: list[str]) -> None:
    """Remove the selected items from the catalogue, once it is confirmed."""

    def remove() -> None:
        catalogue.carry_out(lambda: catalogue.remove(run, ids, why))
        if catalogue.FAILED not in st.session_state:
            shell.put_in_url(lasso="", page="", item="")

    with st.popover("Remove", icon=":material/delete:", disabled=not ids or run.status == "running"):
        st.markdown(f"**Remove {counted(len(ids), 'item')} from the catalogue?**")
        st.caption("No search finds them then. Your own files stay, and the change can be undone.")
        why = st.text_input("Reason", key="remove_selected_why", placeholder="for the history; may stay empty")
        st.button(f"Remove {counted(len(ids), 'item')}", key="remove_selected", on_click=remove)


def _pages(scene: MapView, choose: bool = False) -> Any:
    """Number of pages of the selection, rows of the open page, and its first place in the selection."""
    pages = max(-(-len(scene.rows) // PAGE), 1)
    if choose and pages > 1:
        page = st.pagination(pages, key="page", bind="query-params")
    else:
        page = shell.linked_number("page", 1, pages, 1)
    first = PAGE * (page - 1)
    return pages, scene.rows[first : first + PAGE], first
