"""Search: one query, its shortlist ranked by three similarities side by side, and why."""

import random

import numpy as np
import streamlit as st
from app_pages.search import own_picture
from app_pages.search import views as searching
from app_pages.search.views import Asked
from shared import export, loaders, picture_grid, shell

from pddm_lab import cards
from pddm_lab.errors import LabError

MATCHES = 24

shell.heading(
    "Search",
    "The index finds a shortlist by Euclidean distance; each similarity ranks it its own way. "
    "Click a picture to search with it, or ask why it is there (W).",
)
run = shell.run_or_stop()
with st.container(horizontal=True, vertical_alignment="top"):
    protocol = shell.protocol_picker(run)
    source = shell.choice(st.segmented_control, "Query", {"item": "An item", "upload": "Own picture"}, "query")
    count = st.selectbox("Results", [12, 24, 48], key="results", bind="query-params", width=84)
    shortlist = st.select_slider(
        "Shortlist", [20, 50, 100, 200, 500, 1000], value=100, key="shortlist", bind="query-params", width=130,
        help="Items the index hands on to be ranked anew. What it leaves out, no order can bring back.",
    )  # fmt: skip
    beside = shell.second_run(run, protocol, width=160)
runs = [run] if beside is None else [run, beside]

try:
    gallery = loaders.gallery(run, protocol)
    items, queries = gallery.items, gallery.rows("query")
except LabError as error:
    shell.nothing("The gallery can't be read", str(error), ":material/broken_image:")
if not len(queries):
    shell.nothing("No query", f"The gallery {protocol!r} of {run.name} holds no query.")


def go_to(row: int) -> None:
    """Make the item of a gallery row the query."""
    picture_grid.show_item(str(items["id"].iloc[row]))


def search_with(own: own_picture.Own) -> None:
    """Make a person's own picture the query."""
    st.session_state["own"] = own
    st.query_params["query"] = "upload"
    for of_another in ("crop", "why"):
        st.query_params.pop(of_another, None)


def keep_crop(crop: own_picture.Crop | None) -> None:
    """Search with a part of the picture; None: with all of it."""
    if crop:
        st.query_params["crop"] = own_picture.write_crop(crop)
    else:
        st.query_params.pop("crop", None)


own: own_picture.Own | None = st.session_state.get("own") if source == "upload" else None
if source == "upload" and own is None:
    own_picture.own_picture("own_picture", search_with)
    st.stop()
crop_text = st.query_params.get("crop", "")
crop = own_picture.read_crop(crop_text)
if crop_text and not crop:
    st.warning("The link's crop is none, so the whole picture is searched with.", icon=":material/link_off:")

if own is not None:
    asked = Asked.of_picture(own, crop)
else:
    wanted = st.query_params.get("item", "")
    known = loaders.row_of(gallery, wanted)
    if wanted and known is None:
        st.warning(f"The link names “{shell.plain(wanted)}”, which isn't in this gallery.", icon=":material/link_off:")
        crop = None  # it was drawn on that item
    row = int(queries[0]) if known is None else known
    asked = Asked.of_item(run, gallery, row, crop)

query_side, result_side = st.columns([10, 39], gap="medium")
with query_side:
    try:
        found = [searching.find(one, protocol, asked, shortlist) for one in runs]
    except LabError as error:
        st.error(str(error), icon=":material/broken_image:")
        if own is not None:
            own_picture.own_picture("own_picture", search_with, small=True)
        st.stop()
    picture = found[0].picture or gallery.thumb(gallery.index_of(asked.item))
    if asked.file is None and own is None:
        st.image(picture, alt=asked.alt, width="stretch")
    else:
        own_picture.cropper(picture, asked.alt, crop, "cropper", keep_crop)
    if own is None:
        position = int(np.searchsorted(queries, row)) % len(queries)
        with st.container(horizontal=True, gap="xxsmall"):
            for label, shortcut, to in (
                ("Back", "B", queries[position - 1]),
                ("Next", "N", queries[(position + 1) % len(queries)]),
                ("Random", "X", random.choice(queries)),
            ):
                st.button(label, shortcut=shortcut, key=label.lower(), on_click=go_to, args=(int(to),), width="stretch")
        find = st.text_input(
            "Another query", key="find", bind="query-params", type="search", live="300ms",
            placeholder="A class or an item", label_visibility="collapsed",
        )  # fmt: skip
        st.html(cards.facts(searching.facts(asked, found[0])))
    else:
        find = ""
        st.caption(
            f"{shell.plain(own.name)}. Its class is unknown, so nothing is marked right or wrong. No link keeps it."
        )
    own_picture.own_picture("own_picture", search_with, small=True)

with result_side:
    of_queries, text = items.iloc[queries], find.strip()
    if text:
        hits = [of_queries[column].str.contains(text, case=False, regex=False) for column in ("class_name", "id")]
        searching.choose_among(gallery, of_queries[hits[0] | hits[1]], text, asked.item, MATCHES)
    searching.columns(found, count, searching.asked_about(found))

with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
    views = {"flow": "Rank flow", "why": "Why", "ceiling": "Shortlist"}
    view = shell.choice(st.segmented_control, "Look closer", views, "view")
    with st.container(gap=None, width="content"):
        for one in found:
            st.caption(searching.latency(one, f"**{shell.plain(one.run.name)}** · " if beside else ""))
    settings = {"protocol": protocol, "shortlist": shortlist, "query": asked.item or asked.name, "crop": crop}
    export.export("results", lambda: searching.results(found), runs, settings)
{"flow": searching.flow, "why": searching.why, "ceiling": searching.ceiling}[view](found, protocol, shortlist)
if own is None and not text:
    st.subheader(f"Others of {shell.plain(str(asked.class_name))}", anchor=False)
    same = of_queries[of_queries["class_name"] == asked.class_name]
    searching.choose_among(gallery, same, "", asked.item, MATCHES)
