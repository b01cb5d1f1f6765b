"""The dashboard: `streamlit run dashboard/app.py`. Pages are scripts in app_pages/, what they share is in shell.py."""

from pathlib import Path

import streamlit as st
from shared import loaders, shell

HERE = Path(__file__).parent

# The icon is a file of ours: a Material icon here would be fetched from the internet.
st.set_page_config(page_title="PDDM Lab", page_icon=str(HERE / "logo.svg"), layout="wide", initial_sidebar_state=256)
st.logo(str(HERE / "logo-name.svg"), size="large", icon_image=str(HERE / "logo.svg"))
st.html(HERE / "style.css")

PAGES = [
    st.Page(
        "app_pages/runs/page.py",
        title="Runs",
        url_path="runs",
        icon=":material/monitoring:",
        default=True,
        help="Every training: its state, its metrics beside others', its curves. Start and stop one here.",
    ),
    st.Page(
        "app_pages/similarity/page.py",
        title="Similarity",
        url_path="similarity",
        icon=":material/bar_chart:",
        help="How well a similarity parts pairs of one class from pairs of two, and what a threshold on it costs.",
    ),
    st.Page(
        "app_pages/quadruplets/page.py",
        title="Quadruplets",
        url_path="quadruplets",
        icon=":material/view_module:",
        help="The hard quadruplets that training mined, as pictures with their scores and distances.",
    ),
    st.Page(
        "app_pages/search/page.py",
        title="Search",
        url_path="search",
        icon=":material/image_search:",
        help="Pick or upload an image and see what two similarities find, side by side.",
    ),
    st.Page(
        "app_pages/map/page.py",
        title="Map",
        url_path="map",
        icon=":material/scatter_plot:",
        help="The gallery in two dimensions: its classes, its mistakes, and the neighbourhood of any item.",
    ),
    st.Page(
        "app_pages/local_global/page.py",
        title="Local vs global",
        url_path="local_global",
        icon=":material/school:",
        help="A plane of points on which a unit trains in seconds: what S can say and D can't.",
    ),
    st.Page(
        "app_pages/audit/page.py",
        title="Audit",
        url_path="audit",
        icon=":material/fact_check:",
        help="What a similarity is not, what its values are worth, pictures that are there twice, and licences.",
    ),
]

page = st.navigation(PAGES)
shell.sidebar()
page.run()
loaders.warm_up()
