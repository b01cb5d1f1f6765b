"""Robustness: a query that is corrupted, what is found for it, and how much each similarity loses."""

import streamlit as st
from app_pages.robustness import data, query, views
from shared import loaders, shell

from pddm_lab.errors import LabError
from pddm_lab.robustness.corruptions import CORRUPTIONS, STRENGTHS


def main() -> None:
    shell.heading(
        "Robustness",
        "Pictures get noisy, dark, hidden or turned. What is then found by each similarity, and how much does it lose?",
        words=("D", "D_M", "S", "L", "unseen", "known", "MAP@R", "mCE"),
    )
    run = shell.run_or_stop()
    shell.needs_labels(run, "right and wrong results")
    bar = st.container(horizontal=True, vertical_alignment="bottom")
    with bar:
        protocol = shell.protocol_picker(run)
    try:
        gallery, refused = loaders.gallery(run, protocol), data.no_background(run, protocol)
    except LabError as error:
        shell.unreadable("The gallery can't be read", error)
    with bar:
        titles = {name: one.title for name, one in CORRUPTIONS.items() if name != "background" or not refused}
        name = shell.choice(st.selectbox, "Corruption", titles, "corruption", data.OPENING[0], width=180)
        strength = st.select_slider(
            "Strength", [0, *STRENGTHS], data.OPENING[1], key="strength", bind="query-params", width=200,
            help="0: the picture as it is. A strength means the same for every data set and run.",
        )  # fmt: skip
        beside = shell.second_run(run, protocol, width=180)
    runs = [run] if beside is None else [run, beside]
    try:
        query.show(runs, protocol, gallery, name, int(strength))
        views.measured(runs, protocol, name, titles)
        views.turned(runs)
    except LabError as error:
        shell.unreadable("Robustness can't be shown", error)


main()
