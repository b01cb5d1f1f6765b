"""The parts of the Map page: the canvas, the item that is looked at, an anchor's neighbourhoods, what is selected."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st
from app_pages.map import canvas, text
from app_pages.map import scene as mapping
from app_pages.map.scene import ORDERS, Scene
from shared import loaders, picture_grid, shell
from shared.export import export

from pddm_lab import cards
from pddm_lab.figures import class_colour

PAGE = 48
"""Pictures of a selection that are shown at once."""


@st.fragment
def maps(scene: Scene, panels: list[canvas.Panel], around: pd.DataFrame | None) -> None:
    """The canvas. Pointing at an item runs this part of the page alone; choosing one, or a lasso, all of it."""
    if st.session_state.pop("map_moved", False):
        st.rerun()
    row = st.session_state.get("map_hovered", -1)
    told = None
    if 0 <= row < len(scene.items):
        item = str(scene.items["id"].iloc[row])
        told = canvas.Told(row, item, scene.first.gallery.thumb(row), text.told(scene, row))
    layout = scene.first.layout
    canvas.draw(
        panels,
        layout.names,
        layout.labels,
        key="map",
        scope=" ".join([scene.first.protocol, *(of.run.name for of in scene.different)]),
        linked=not scene.of_two_runs,
        asks=f"{scene.choices} {scene.anchor}",
        on=partial(_heard, scene),
        lasso=str(scene.lasso or ""),
        view=st.query_params.get("view", ""),
        anchor=scene.anchor if scene.colour == "anchor" or scene.picked is not None else -1,
        told=told,
        shown=mapping.rows_by_id(scene, _pages(scene)[1] if around is None else around["row"]),
    )


def _heard(scene: Scene, now: canvas.Now) -> None:
    """Put into the URL what is chosen on the canvas; the rest of the page follows where that concerns it."""
    st.session_state["map_hovered"] = now.hovered
    _keep(view=now.view)
    item = str(scene.items["id"].iloc[now.picked]) if now.picked >= 0 else st.query_params.get("item", "")
    if (item, now.lasso) != (st.query_params.get("item", ""), st.query_params.get("lasso", "")):
        if now.lasso != st.query_params.get("lasso", ""):
            _keep(page="")
        _keep(item=item, lasso=now.lasso)
        st.session_state["map_moved"] = True


def _keep(**choices: str) -> None:
    """Put choices into the URL; an empty one leaves it."""
    for name, value in choices.items():
        if value:
            st.query_params[name] = value
        else:
            st.query_params.pop(name, None)


def how_to() -> None:
    """What the pointer and the keys do on a map, while no item is looked at."""
    st.markdown("**No item is chosen**")
    st.html(
        cards.facts(
            {
                "Click": "look at an item",
                "Drag": "move the map",
                "Wheel, + −": "zoom",
                "Shift + drag, L": "lasso",
                "V": "select what is in view",
                "Double click, 0": "show all",
                "Arrow keys": "go from item to item",
                "Enter": "look at it",
                "Escape": "clear the selection",
            }
        )
    )


def item_card(scene: Scene) -> None:
    """The item that is looked at, and the ways on from it."""
    first, row = scene.first, scene.anchor
    large = loaders.picture(first.run, scene.anchor_id) or first.gallery.thumb(row)
    st.image(large, alt=f"{scene.anchor_class}, {scene.anchor_id}", width="stretch")
    st.html(cards.facts(text.facts(scene)))
    st.page_link(
        "app_pages/search/page.py", label="Search with it", icon=":material/image_search:",
        query_params={"run": first.run.name, "protocol": first.protocol, "item": scene.anchor_id},
    )  # fmt: skip
    if scene.colour != "anchor":
        neighbourhood = {"colour": "anchor", "item": scene.anchor_id}
        st.button(
            "Its neighbourhood", icon=":material/adjust:", type="tertiary", on_click=_keep, kwargs=neighbourhood,
            help="Colour the map by similarity to it: the local metric beside the global one.",
        )  # fmt: skip


def neighbours(scene: Scene, around: pd.DataFrame) -> None:
    """The nearest to the anchor by two similarities: those of both, and those of one alone."""
    st.caption(text.around_words(scene, around))
    card, lists = st.columns([3, 12], gap="medium")
    with card:
        item_card(scene)
    with lists:
        export("neighbourhood", lambda: around, [of.run for of in scene.different], mapping.settings(scene))
        names = [text.named_on(scene, at) for at in (0, 1)]
        if names[0] != names[1]:
            _tiles(scene, f"Only by {names[0]}", around[around["near_0"] & ~around["near_1"]], 0)
            _tiles(scene, f"Only by {names[1]}", around[around["near_1"] & ~around["near_0"]], 1)
        _tiles(scene, "By both", around[around["near_0"] & around["near_1"]], 1)


def _tiles(scene: Scene, title: str, found: pd.DataFrame, at: int) -> None:
    """Neighbours as pictures, ranked by one of the two similarities."""
    found = found.rename(columns={f"value_{at}": "value", f"rank_{at}": "rank"}).sort_values("rank")
    found["rank_change"] = found[f"rank_{1 - at}"] - found["rank"]
    right = int((found["class_name"] == scene.anchor_class).sum())
    st.markdown(f"**{title}** :gray[· {len(found)}, {right} of them of its class]")
    images = loaders.thumbs(scene.first.gallery, found["row"])
    grid = cards.retrieval_grid(found, images, scene.choices[at].by, right_class=scene.anchor_class)
    picture_grid.pictures(grid, f"near_{title}")


def selection(scene: Scene) -> None:
    """The items inside the lasso: their classes, their pictures, and a table to take away."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        inside, classes = f"{len(scene.rows):,} of {len(scene.items):,} items", f"{len(scene.classes):,} classes"
        st.subheader(f"{inside} inside the lasso, of {classes}", anchor=False)
        with st.container(horizontal=True, vertical_alignment="bottom", width="content"):
            shell.choice(st.selectbox, "Order", ORDERS, "order", width=220)
            runs, settings = [of.run for of in scene.different], mapping.settings(scene)
            export("selection", lambda: mapping.selection_table(scene), runs, settings)
    if not len(scene.rows):
        st.caption("No item lies inside it.")
        return
    counts, grid = st.columns([4, 11], gap="medium")
    with counts:
        colours = [class_colour(label) for _, label, _, _ in scene.classes]
        st.html(cards.class_counts([(name, here, all_) for name, _, here, all_ in scene.classes], colours))
    with grid:
        pages, rows, first = _pages(scene, ask=True)
        if pages > 1:
            st.caption(f"{first + 1:,} to {first + len(rows):,} of {len(scene.rows):,}")
        some = zip(scene.items["id"].iloc[rows], scene.items["class_name"].iloc[rows], strict=True)
        images = loaders.thumbs(scene.first.gallery, rows)
        chosen = scene.anchor_id if scene.picked is not None else ""
        picture_grid.pictures(cards.image_grid(some, images, chosen=chosen, small=True), "selection")


def _pages(scene: Scene, ask: bool = False) -> Any:
    """How many pages the selection has, the rows of the one that is open, and where it begins."""
    pages = max(-(-len(scene.rows) // PAGE), 1)
    if ask and pages > 1:
        page = st.pagination(pages, key="page", bind="query-params")
    else:
        asked = st.query_params.get("page", "1")
        page = min(max(int(asked), 1), pages) if asked.isdecimal() else 1
    first = PAGE * (page - 1)
    return pages, scene.rows[first : first + PAGE], first
