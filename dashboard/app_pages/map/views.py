"""The parts of the Map page: the canvas, the picked item, an anchor's neighbourhoods, the selection."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st
from app_pages.map import canvas, text
from app_pages.map.scene import ORDERS, MapView, rows_by_id, selection_table, settings
from shared import loaders, picture_grid, shell
from shared.export import export

from pddm_lab import cards
from pddm_lab.figures import class_colour

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
        panels, layout.names, layout.labels, key="map", linked=not scene.of_two_runs,
        scope=" ".join([scene.first.protocol, *(of.run.name for of in scene.different)]),
        context=f"{scene.choices} {scene.anchor}", on_change=partial(_receive, scene),
        lasso=str(scene.lasso or ""), view=st.query_params.get("view", ""), description=description,
        anchor=scene.anchor if scene.colour == "anchor" or scene.picked is not None else -1,
        shown=rows_by_id(scene, _pages(scene)[1] if around is None else around["row"]),
    )  # fmt: skip


def _receive(scene: MapView, state: canvas.State) -> None:
    """Put the choices made on the canvas into the URL, and rerun the page if they concern the rest of it."""
    st.session_state["map_hovered"] = state.hovered
    shell.put_in_url(view=state.view)
    item = str(scene.items["id"].iloc[state.picked]) if state.picked >= 0 else st.query_params.get("item", "")
    if (item, state.lasso) != (st.query_params.get("item", ""), st.query_params.get("lasso", "")):
        if state.lasso != st.query_params.get("lasso", ""):
            shell.put_in_url(page="")
        shell.put_in_url(item=item, lasso=state.lasso)
        st.session_state["map_moved"] = True


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
    large = loaders.picture(first.run, scene.anchor_id) or first.gallery.thumb(row)
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
        export("neighbourhood", lambda: around, [of.run for of in scene.different], settings(scene))
        names = [text.named_on(scene, at) for at in (0, 1)]
        if names[0] != names[1]:
            _tiles(scene, f"Only by {names[0]}", around[around["near_0"] & ~around["near_1"]], 0)
            _tiles(scene, f"Only by {names[1]}", around[around["near_1"] & ~around["near_0"]], 1)
        _tiles(scene, "By both", around[around["near_0"] & around["near_1"]], 1)


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
        inside, classes = f"{len(scene.rows):,} of {len(scene.items):,} items", f"{len(scene.classes):,} classes"
        st.subheader(f"{inside} inside the lasso, of {classes}", anchor=False)
        with st.container(horizontal=True, vertical_alignment="bottom", width="content"):
            shell.choice(st.selectbox, "Order", ORDERS, "order", width=220)
            runs = [of.run for of in scene.different]
            export("selection", lambda: selection_table(scene), runs, settings(scene))
    if not len(scene.rows):
        st.caption("No item lies inside the lasso.")
        return
    counts, grid = st.columns([4, 11], gap="medium")
    with counts:
        colours = [class_colour(label) for _, label, _, _ in scene.classes]
        st.html(cards.class_counts([(name, here, all_) for name, _, here, all_ in scene.classes], colours))
    with grid:
        pages, rows, first = _pages(scene, choose=True)
        if pages > 1:
            st.caption(f"{first + 1:,} to {first + len(rows):,} of {len(scene.rows):,}")
        some = zip(scene.items["id"].iloc[rows], scene.items["class_name"].iloc[rows], strict=True)
        images = loaders.thumbs(scene.first.gallery, rows)
        chosen = scene.anchor_id if scene.picked is not None else ""
        picture_grid.pictures(cards.image_grid(some, images, chosen=chosen, small=True), "selection")


def _pages(scene: MapView, choose: bool = False) -> Any:
    """Number of pages of the selection, rows of the open page, and its first place in the selection."""
    pages = max(-(-len(scene.rows) // PAGE), 1)
    if choose and pages > 1:
        page = st.pagination(pages, key="page", bind="query-params")
    else:
        page = shell.linked_number("page", 1, pages, 1)
    first = PAGE * (page - 1)
    return pages, scene.rows[first : first + PAGE], first
