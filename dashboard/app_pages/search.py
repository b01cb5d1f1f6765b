"""Search: one query, two rankings of the gallery side by side."""

import random

import loaders
import numpy as np
import picking
import shell
import streamlit as st

from pddm_lab import cards, figures
from pddm_lab.config import SIMILARITIES
from pddm_lab.errors import LabError

MATCHES = 24

shell.heading(
    "Search",
    "The index finds a shortlist by Euclidean distance; a second similarity orders it anew. "
    "Choose any picture to search with it.",
)
run = shell.run_or_stop()
with st.container(horizontal=True, vertical_alignment="top"):
    protocol = shell.protocol_picker(run)
    source = shell.choice(st.segmented_control, "Query", {"item": "Pick an item", "upload": "Upload an image"}, "query")
    others = {str(name): figures.style_of(name).title for name in reversed(SIMILARITIES) if name != "euclidean"}
    by = shell.choice(st.selectbox, "Order anew by", others, "by", width=160)
    count = st.selectbox("Results", [12, 24, 48], key="results", bind="query-params", width=90)
    shortlist = st.select_slider(
        "Shortlist", [20, 50, 100, 200, 500, 1000], value=100, key="shortlist", bind="query-params", width=180,
        help="Items the index hands on to be ordered anew. What it leaves out, no order can bring back.",
    )  # fmt: skip

try:
    gallery = loaders.gallery(run, protocol)
    items = gallery.items
    queries = gallery.rows("query")
except LabError as error:
    shell.nothing("The gallery can't be read", str(error), ":material/broken_image:")


def go_to(row: int) -> None:
    """Make the item of a gallery row the query."""
    st.query_params["item"] = str(items["id"].iloc[row])


query_class, file = None, None
if source == "upload":
    file = st.file_uploader("Image", key="upload", help="JPEG, PNG, WebP, GIF, BMP or TIFF of at most 20 MB.")
    if file is None:
        st.caption("Drop a picture of anything the gallery may hold. It stays on this machine.")
        st.stop()

query_side, left, right = st.columns([10, 17, 17], gap="medium")
with query_side:
    if file is not None:
        try:
            found, large = loaders.search_upload(run, protocol, file.getvalue(), by, count, shortlist)
        except LabError as error:
            st.error(str(error), icon=":material/broken_image:")
            st.stop()
        st.image(large, alt=f"The uploaded image {file.name}", width="stretch")
        st.caption(f"{shell.plain(file.name)}. Its class is unknown, so results are not marked right or wrong.")
    else:
        asked = st.query_params.get("item", "")
        known = loaders.row_of(gallery, asked)
        if asked and known is None:
            st.warning(
                f"The link names “{shell.plain(asked)}”, which isn't in this gallery.", icon=":material/link_off:"
            )
        row = int(queries[0]) if known is None else known
        item, query_class = str(items["id"].iloc[row]), str(items["class_name"].iloc[row])
        position = int(np.searchsorted(queries, row)) % len(queries)
        large = loaders.picture(run, item) or gallery.thumb(row)
        st.image(large, alt=f"The query: {query_class}, {item}", width="stretch")
        with st.container(horizontal=True, gap="xsmall"):
            for label, shortcut, to in (
                ("Back", "B", queries[position - 1]),
                ("Next", "N", queries[(position + 1) % len(queries)]),
                ("Random", "X", random.choice(queries)),
            ):
                st.button(label, shortcut=shortcut, key=label.lower(), on_click=go_to, args=(int(to),), width="stretch")
        try:
            found = loaders.search(run, protocol, row, by, count, shortlist)
        except LabError as error:
            st.error(str(error), icon=":material/broken_image:")
            st.stop()
        to_find = int((items["class_name"].iloc[gallery.rows("gallery")] == query_class).sum())
        to_find -= int(items["role"].iloc[row] == "both")
        st.html(
            cards.facts({"Class": query_class, "Item": item, "To find": f"{to_find:,} of its class in the gallery"})
        )
    stages = {"embed": "embed", "search": "search by D", "rerank": f"order {shortlist:,} anew"}
    st.caption(" · ".join(f"{stages[stage]} {1000 * took:.1f} ms" for stage, took in found.seconds.items()))

result = found.result
for side, name, frame in ((left, "euclidean", result.euclidean), (right, by, result.reranked)):
    style = figures.style_of(name)
    value = -frame["distance"] if name == "euclidean" else frame["score"]
    with side:
        right_ones = int((frame["class_name"] == query_class).sum())
        told = f" :gray[· {right_ones} of the first {len(frame)} right]" if query_class is not None else ""
        st.markdown(f"**{style.title}**{told}", help=style.axis)
        picking.pictures(
            cards.retrieval_grid(frame.assign(value=value), found.images, name, right_class=query_class),
            f"found_{name}",
        )

if source == "item":
    st.subheader("Choose another", anchor=False)
    find = st.text_input(
        "Class or item", key="find", bind="query-params", type="search", live="300ms", width=360,
        placeholder=f"Type a class or an item; now: others of {query_class}",
    )  # fmt: skip
    of_queries, text = items.iloc[queries], find.strip()
    if text:
        hits = [of_queries[column].str.contains(text, case=False, regex=False) for column in ("class_name", "id")]
        matches = of_queries[hits[0] | hits[1]]
    else:
        matches = of_queries[of_queries["class_name"] == query_class]
    st.caption(
        f"{len(matches):,} queries match" + (f"; the first {MATCHES} are shown." if len(matches) > MATCHES else ".")
        if len(matches)
        else f"No query has “{shell.plain(text)}” in its class or its id."
    )
    rows = matches.index[:MATCHES]
    picking.pictures(
        cards.image_grid(
            zip(items["id"].loc[rows], items["class_name"].loc[rows], strict=True),
            loaders.thumbs(gallery, rows),
            chosen=item,
            small=True,
        ),
        "matches",
    )
