"""Map: a gallery in two dimensions, coloured by what it shows; a lasso to a grid of its pictures."""

import streamlit as st
from app_pages.map import scene as mapping
from app_pages.map import text, views
from app_pages.map.lasso import Lasso
from app_pages.map.scene import COLOURS, MEASURES, ORDERS, SCALES, Choice, Scene
from shared import loaders, shell

from pddm_lab import figures
from pddm_lab.errors import LabError
from pddm_lab.similarities import SIMILARITIES

MEASURED_AT_ONCE = 20_000  # items up to which a map's trust is measured without being asked for

shell.heading(
    "Map",
    "Every item of the gallery as a point, laid out so that items of close features mostly lie close. "
    "Click one to look at it; draw a lasso to see what lies inside.",
)
run = shell.run_or_stop()
titles = {str(name): figures.style_of(name).title for name in SIMILARITIES}
left, right = "euclidean", "pddm" if run.config.similarity == "euclidean" else str(run.config.similarity)
measure, scale, near = "first", "value", 20
with st.container(horizontal=True, vertical_alignment="top"):
    protocol = shell.protocol_picker(run)
    colour = shell.choice(st.segmented_control, "Colour by", COLOURS, "colour")
    other = shell.second_run(run, protocol, width=170)
    if colour == "error":
        left = right = shell.choice(st.selectbox, "Ranked by", titles, "by", left, width=150)
        measure = shell.choice(st.segmented_control, "Measure", MEASURES, "measure")
    if colour == "anchor":
        left = shell.choice(st.selectbox, "Left", titles, "left", left, width=150)
        right = shell.choice(st.selectbox, "Right", titles, "right", right, width=150)
        scale = shell.choice(st.segmented_control, "Scale", SCALES, "scale", help="Ranks compare what values can't.")
        near = st.select_slider("Nearest ringed", [5, 10, 20, 50, 100], 20, key="near", bind="query-params", width=170)

try:
    first = mapping.open_map(run, protocol)
    if first is None:
        if loaders.gallery(run, protocol).manifest.get("changed"):
            command = f"`pddm-lab gallery map {run.name} --protocol {protocol}`"
            shell.nothing("No map of this gallery", f"Items came or went since it was drawn. {command} draws it anew.")
        shell.without(run, "map of this gallery")
    second = mapping.open_map(other, protocol, run) if other else None
    gallery = first.gallery
except LabError as error:
    shell.nothing("The map can't be read", str(error), ":material/broken_image:")
if other and second is None:
    st.warning(f"{other.name} has no map of the same items.", icon=":material/map:")
maps = [first, second or first][: 2 if second or colour == "anchor" else 1]

# A lasso, and a view, are of one map: on another they would be lines around nothing in particular.
place = (run.name, protocol)
if st.session_state.get("map_place", place) != place:
    for of_another in ("lasso", "view", "page"):
        st.query_params.pop(of_another, None)
    st.session_state.pop("map_hovered", None)
st.session_state["map_place"] = place

asked, drawn = st.query_params.get("item", ""), st.query_params.get("lasso", "")
picked, lasso = loaders.row_of(gallery, asked) if asked else None, Lasso.parse(drawn)
if asked and picked is None:
    st.warning(f"The link names “{shell.plain(asked)}”, which isn't in this gallery.", icon=":material/link_off:")
if drawn and (lasso is None or lasso.panel >= len(maps)):
    st.warning("The link's lasso can't be read, or is of a map that isn't open.", icon=":material/link_off:")
    lasso = None
order = st.query_params.get("order", "")
scene = Scene(
    maps,
    [Choice(colour, by, measure, scale, near) for by in (left, right)][: len(maps)],
    int(gallery.rows("query")[0]) if picked is None else picked,
    picked,
    lasso,
    order if order in ORDERS else next(iter(ORDERS)),
)

try:
    around = mapping.neighbourhoods(scene) if colour == "anchor" else None
    wide, side = st.columns([11, 4], gap="medium") if len(maps) == 1 else (st.container(), None)
    with wide:
        views.maps(scene, mapping.panels(scene), around)
        for said in text.words(scene, colour in ("trust", "density") or len(gallery) <= MEASURED_AT_ONCE):
            st.caption(said)
except LabError as error:
    shell.nothing("The map can't be coloured", str(error), ":material/broken_image:")
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
