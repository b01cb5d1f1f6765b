"""The dashboard: `streamlit run dashboard/app.py`. Each page is a folder in app_pages/ and a line of `PAGES`."""

from pathlib import Path

import streamlit as st
from shared import loaders, shell

from pddm_lab.dashboard_server import PAGES

HERE = Path(__file__).parent

# The icon is a file of ours: a Material icon here would be fetched from the internet.
st.set_page_config(page_title="PDDM Lab", page_icon=str(HERE / "logo.svg"), layout="wide", initial_sidebar_state=256)
st.logo(str(HERE / "logo-name.svg"), size="large", icon_image=str(HERE / "logo.svg"))
st.html(HERE / "style.css")

pages = [
    st.Page(
        f"app_pages/{name}/page.py", title=page.title, url_path=name, icon=f":material/{page.icon}:",
        default=name == next(iter(PAGES)), help=page.help,
    )
    for name, page in PAGES.items()
]  # fmt: skip
open_page = st.navigation(pages)
shell.sidebar()
run = st.session_state.get("run")
st.set_page_config(page_title=f"{open_page.title} · {run} · PDDM Lab" if run else f"{open_page.title} · PDDM Lab")
open_page.run()
loaders.warm_up()
