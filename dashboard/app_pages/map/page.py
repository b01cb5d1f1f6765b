"""Map: a gallery in two dimensions, with several colourings and a lasso to show the pictures inside it."""

import streamlit as st
from app_pages.map import text, views
from app_pages.map.lasso import Lasso
from app_pages.map.scene import COLOURS, MEASURES, ORDERS, SCALES, Choice, MapView, neighbourhoods, open_map, panels
from shared import catalogue, loaders, shell
from shared.plain_text import command, plain

from pddm_lab.errors import LabError
from pddm_lab.gallery.redraw import is_being_redrawn
from pddm_lab.runs.run import CATALOGUE
from pddm_lab.similarities import EVERY, SHOWN
from pddm_lab.wording import natural

MEASURED_AT_ONCE = 20_000  # items up to which the trust of a map is measured without a request

shell.heading(
    "Map",
    "Every item of the gallery is a point; items with similar features mostly lie close together. "
    "Click an item to look at it, or draw a lasso to see the items inside.",
    words=("D", "S", "L", "unseen", "known"),
)
run = shell.run_or_stop()
measure, scale, near = "first", "value", 20
with st.container(horizontal=True, vertical_alignment="bottom"):
    protocol = shell.protocol_picker(run, sorted(run.galleries(), key=CATALOGUE.__eq__))
    colours = {name: title for name, title in COLOURS.items() if run.is_labelled or name not in ("class", "error")}
    colour = shell.choice(st.segmented_control, "Colour by", colours, "colour")
    other = shell.second_run(run, protocol, width=170)
    opened = [run, other] if other else [run]
    left, right = shell.compared_similarities(opened)
    has_local = all(one.info.get("local") for one in opened)
    titles = {name: EVERY[name].title for name in SHOWN if name != "local" or has_local}
    if colour == "error":
        left = right = shell.choice(st.selectbox, "Ranked by", titles, "by", left, width=150)
        measure = shell.choice(st.segmented_control, "Measure", MEASURES, "measure")
    if colour == "anchor":
        left = shell.choice(st.selectbox, "Left", titles, "left", left, width=150)
        right = shell.choice(st.selectbox, "Right", titles, "right", right, width=150)
        scale = shell.choice(
            st.segmented_control, "Scale", SCALES, "scale",
            help="Ranks can be compared between similarities, values can't.",
        )  # fmt: skip
        near = st.select_slider("Nearest ringed", [5, 10, 20, 50, 100], 20, key="near", bind="query-params", width=170)
    filter_place = st.container()

if protocol == CATALOGUE:
    catalogue.report(run, undoes=True)
try:
    first = open_map(run, protocol)
    if first is None:
        if is_being_redrawn(path := run.path / "gallery" / protocol):
            views.follow_drawing(path)
            st.stop()
        if run.status == "running":
            shell.without(run, "map of this gallery")
        draw = command("gallery", "map", run.name, "--protocol", protocol)
        why = "The gallery has changed. " if loaders.gallery(run, protocol).manifest.get("changed") else ""
        shell.nothing("No map of this gallery", f"{why}Draw it: {draw}", ":material/scatter_plot:")
    second = open_map(other, protocol, run) if other else None
    gallery, queries = first.gallery, first.gallery.rows("query")
except LabError as error:
    shell.unreadable("The map can't be read", error)
if not len(queries):
    shell.nothing("No queries", f"The gallery {protocol!r} of {run.name} has no queries.")
if other and second is None:
    st.warning(f"{plain(other.name)} has no map of the same items.", icon=":material/map:")
with filter_place:
    names = sorted(first.layout.names, key=natural)
    kept, layers = views.filtered_by(run, names, [name for name in titles if name != "cosine"])
maps = [first, second or first][: 2 if second or colour == "anchor" else 1]

# A lasso and a view belong to one map and mean nothing on another.
place = (run.name, protocol)
if st.session_state.get("map_place", place) != place:
    shell.put_in_url(lasso="", view="", page="")
    for name in ("map_hovered", "map_wanted", "map_grids"):
        st.session_state.pop(name, None)
st.session_state["map_place"] = place
grids = [one.layout.grid for one in maps]
views.keep_in_place(st.session_state.get("map_grids", grids), grids)
st.session_state["map_grids"] = grids

item, lasso_text = st.query_params.get("item", ""), st.query_params.get("lasso", "")
picked, lasso = loaders.row_of(gallery, item) if item else None, Lasso.parse(lasso_text)
if item and picked is None:
    shell.warn_of_link(f"The item “{item}” in this link isn't in this gallery.")
if lasso_text and (lasso is None or lasso.panel >= len(maps)):
    shell.warn_of_link("The lasso in this link is invalid, or belongs to a map that isn't open.")
    lasso = None
order = st.query_params.get("order", "")
scene = MapView(
    maps,
    [Choice(colour, by, measure, scale, near) for by in (left, right)][: len(maps)],
    int(queries[0]) if picked is None else picked,
    picked,
    lasso,
    order if order in ORDERS else next(iter(ORDERS)),
    kept,
    layers,
)

try:
    for one in opened if colour in ("error", "anchor") and "local" in (left, right) else ():
        shell.stale_caption(one, protocol)
    around = neighbourhoods(scene) if colour == "anchor" else None
    wide, side = st.columns([11, 4], gap="medium") if len(maps) == 1 else (st.container(), None)
    with wide:
        if is_being_redrawn(gallery.path):
            views.follow_drawing(gallery.path)
        views.maps(scene, panels(scene), around)
        for paragraph in text.words(scene, colour in ("trust", "density") or len(gallery) <= MEASURED_AT_ONCE):
            st.caption(paragraph)
except LabError as error:
    shell.unreadable("The map can't be coloured", error)
if side:
    with side:
        if picked is None:
            views.how_to()
        else:
            views.item_card(scene)
if around is not None:
    views.neighbours(scene, around)
elif side is None and picked is not None:
    card, _ = st.columns([3, 12])
    with card:
        views.item_card(scene)
if lasso is not None:
    views.selection(scene)
