"""Search: one query, its shortlist ranked by several similarities side by side, and why."""

import random

import numpy as np
import streamlit as st
from app_pages.search import decision, views
from app_pages.search.own_picture import Crop, Own, cropper, own_picture, read_crop, write_crop
from shared import export, leads, loaders, picture_grid, review, shell
from shared.plain_text import plain

from pddm_lab import cards
from pddm_lab.errors import LabError
from pddm_lab.runs.imported import why_not_embedded

MATCHES = 24

shell.heading(
    "Search",
    "The index retrieves a shortlist by Euclidean distance; each similarity then re-ranks it. "
    "Click a picture to search with it, or press W to see why it is there.",
    words=("shortlist", "D", "D_M", "S", "L"),
    results=True,
)
run = shell.run_or_stop()
with st.container(horizontal=True, vertical_alignment="top"):
    protocol = shell.protocol_picker(run, run.galleries(), "Search in")
    source = shell.choice(st.segmented_control, "Query", {"item": "An item", "upload": "Own picture"}, "query")
    count = st.selectbox("Results", [12, 24, 48], key="results", bind="query-params", width=84)
    shortlist = st.select_slider(
        "Shortlist", [20, 50, 100, 200, 500, 1000], value=100, key="shortlist", bind="query-params", width=130,
        help="Number of items that are re-ranked. Items outside the shortlist can never appear in the results.",
    )  # fmt: skip
    beside = shell.second_run(run, protocol, width=160)
    tagged = review.tag_filter(run, width=170)
runs = [run] if beside is None else [run, beside]

try:
    gallery = loaders.gallery(run, protocol)
    items, queries = gallery.items, gallery.rows("query")
except LabError as error:
    shell.unreadable("The gallery can't be read", error)
if tagged is not None:
    of_tag = queries[items["id"].iloc[queries].isin(tagged).to_numpy()]
    if not len(of_tag):
        st.warning("No query of this gallery has this tag: all queries are shown.", icon=":material/sell:")
    queries = of_tag if len(of_tag) else queries
if not len(queries):
    shell.nothing("No queries", f"The gallery {protocol!r} of {run.name} has no queries.")


def go_to(row: int) -> None:
    """Make the item of a gallery row the query."""
    picture_grid.show_item(str(items["id"].iloc[row]))


def search_with(picture: Own) -> None:
    """Make an uploaded picture the query."""
    st.session_state["own"] = picture
    shell.put_in_url(query="upload", crop="", why="")


def keep_crop(crop: Crop | None) -> None:
    """Search with a part of the picture, or with all of it if None."""
    shell.put_in_url(crop=write_crop(crop) if crop else "")


own: Own | None = st.session_state.get("own") if source == "upload" else None
if source == "upload" and (reason := why_not_embedded(run)):
    shell.nothing("No model for pictures", reason, ":material/no_photography:")
if source == "upload" and own is None:
    own_picture("own_picture", search_with)
    st.stop()
linked_crop = st.query_params.get("crop", "")
crop = read_crop(linked_crop)
if linked_crop and not crop:
    shell.warn_of_link("The crop in this link is invalid; searching with the whole picture.")

if own is not None:
    query = views.Query.of_upload(own, crop)
else:
    linked = st.query_params.get("item", "")
    linked_row = loaders.row_of(gallery, linked)
    if linked and linked_row is None:
        shell.warn_of_link(f"The item “{linked}” in this link isn't in this gallery.")
        crop = None  # it was drawn on that item
    telling = leads.first_query(run, protocol) if not linked and tagged is None else None
    row = next(one for one in (linked_row, telling, int(queries[0])) if one is not None)
    query = views.Query.of_item(run, gallery, row, crop)

query_side, result_side = st.columns([10, 39], gap="medium")
with query_side:
    try:
        responses = [views.search(one, protocol, query, shortlist) for one in runs]
    except LabError as error:
        st.error(plain(error), icon=":material/broken_image:")
        if own is not None:
            own_picture("own_picture", search_with, small=True)
        st.stop()
    picture = responses[0].picture or gallery.thumb(gallery.index_of(query.item))
    if query.file is None and own is None:
        st.image(picture, alt=query.alt, width="stretch")
    else:
        cropper(picture, query.alt, crop, "cropper", keep_crop)
    if own is None:
        position = int(np.searchsorted(queries, row)) % len(queries)
        with st.container(horizontal=True, gap="xxsmall"):
            for label, shortcut, to in (
                ("Back", "B", queries[position - 1]),
                ("Next", "N", queries[(position + 1) % len(queries)]),
                ("Random", "X", random.choice(queries)),
            ):
                st.button(label, shortcut=shortcut, key=label.lower(), on_click=go_to, args=(int(to),), width="stretch")
        typed = st.text_input(
            "Another query", key="find", bind="query-params", type="search", live="300ms",
            placeholder="A class or an item", label_visibility="collapsed",
        ).strip()  # fmt: skip
        st.html(cards.facts(views.facts(responses[0])))
        views.correct(responses[0], count)
    else:
        typed = ""
        st.caption(
            f"{plain(own.name)}. Its class is unknown, so results are not marked right or wrong. Links don't "
            "include the picture."
        )
    if not why_not_embedded(run):
        own_picture("own_picture", search_with, small=True)

of_queries = items.iloc[queries]
with result_side:
    if typed:
        hits = [of_queries[column].str.contains(typed, case=False, regex=False) for column in ("class_name", "id")]
        views.query_choices(gallery, of_queries[hits[0] | hits[1]], typed, query.item, MATCHES)
    shell.results_begin()
    undecided = views.rankings(responses, count, views.explained_item(responses))

with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
    titles = {"flow": "Rank flow", "why": "Why", "ceiling": "Shortlist"}
    view = shell.choice(st.segmented_control, "Look closer", titles, "view")
    with st.container(gap=None, width="content"):
        for one in responses:
            st.caption((f"**{plain(one.run.name)}** · " if beside else "") + views.latency(one))
    settings = {"protocol": protocol, "shortlist": shortlist, "query": query.item or query.name, "crop": crop}
    export.export("results", lambda: views.results_table(responses), runs, settings)
{"flow": views.flow, "why": views.why, "ceiling": views.ceiling}[view](responses, protocol, shortlist)
if own is None and not typed and query.class_name is not None:
    st.header(f"Other queries of {plain(query.class_name)}", anchor=False)
    same = of_queries[of_queries["class_name"] == query.class_name]
    views.query_choices(gallery, same, "", query.item, MATCHES)
decision.decide(undecided)
