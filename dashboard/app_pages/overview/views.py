"""The parts of the Overview page: the answer, the queries that show it, and what to do without a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import streamlit as st
from shared import leads, picture_grid, shell
from shared.plain_text import plain

from pddm_lab import cards
from pddm_lab.errors import RunError
from pddm_lab.figures import style_of
from pddm_lab.runs.compare import compare_runs
from pddm_lab.runs.run import Run
from pddm_lab.similarities import PRETRAINED
from pddm_lab.wording import counted

if TYPE_CHECKING:
    from pddm_lab.analysis.lead import Judged

MEASURES = ("recall@1", "map@r")
MOST = 12
"""Queries on either side."""


def answer(run: Run, protocol: str, name: str, judged: Judged) -> None:
    """The lead in a sentence, with how it was measured, beside the run's numbers."""
    from pddm_lab.analysis.lead import sentence

    lead = leads.lead_of(run, protocol, name, "map@r", judged)
    left, right = st.columns([10, 9], gap="medium")
    with left.container(key="answer"):
        st.header(sentence(lead, protocol), anchor=False)
        letter, level = style_of(name).letter, lead.queries - lead.better - lead.worse
        sampled = f" (a sample of {judged.total:,})" if judged.total > len(judged.rows) else ""
        counts = f"{counted(lead.queries, 'query', 'queries')}{sampled}. "
        if name != "euclidean":
            counts += (
                f"{letter} ranks {lead.better:,} of them better than D, {lead.worse:,} worse and {level:,} alike. "
            )
        if lead.classes > 1:
            counts += f"The 95 % interval is drawn from {lead.classes:,} classes and their queries."
        st.caption(counts)
        shell.show_warnings(run)
    with right:
        table = compare_runs([run]).metrics
        table = table[table["metric"].isin(MEASURES) & table["similarity"].isin([PRETRAINED, *judged.precision])]
        st.html(cards.metrics_table(table, protocol, metrics=MEASURES, leads=leads.table_leads(run, [protocol])))


def examples(run: Run, protocol: str, name: str, judged: Judged, labels: np.ndarray, one_a_class: bool) -> None:
    """Queries on which the similarity wins, and on which it loses; a click opens Search with one."""
    from pddm_lab.analysis.lead import strongest

    letter, alone = style_of(name).letter, name == "euclidean"
    titles = ("Found best by D", "Found worst by D") if alone else (f"Where {letter} wins", f"Where {letter} loses")
    st.caption(
        "First results of each ranking, right ones with a solid frame and ✓, wrong ones with a dashed frame and ✕. "
        "In %: the average precision over the first R, R being the number of right items. "
        + ("One query of a class. " if one_a_class else "")
        + "Click a row to search with it."
    )
    shell.results_begin()
    for place, title, wins in zip(st.columns(2, gap="medium"), titles, (True, False), strict=True):
        with place:
            st.subheader(title, anchor=False)
            places = strongest(judged, labels, name, wins, MOST, one_a_class)
            if not len(places):
                st.caption("No query." if alone else f"{letter} ranks no query {'better' if wins else 'worse'} than D.")
                continue
            shown, images = leads.answers(run, protocol, name, tuple(map(int, places)), judged)
            picture_grid.pictures(cards.answer_rows(shown, images), "wins" if wins else "losses", on_pick=_open)


def _open(item: str) -> None:
    st.session_state["overview_item"] = item


def not_measured(run: Run) -> None:
    """What a run without labels can show."""
    items = f"{plain(run.name)} has {counted(run.info['dataset']['items'], 'item')}"
    st.header(f"{items} to search; without labels nothing is right or wrong.", anchor=False)
    st.caption("Import them with a column label to measure how well they are found.")
    with st.container(horizontal=True):
        for page, label, icon in (("search", "Search", "image_search"), ("map", "Map", "scatter_plot")):
            st.page_link(
                f"app_pages/{page}/page.py", label=label, icon=f":material/{icon}:", query_params={"run": run.name}
            )


def first_steps() -> None:
    """Without any run: what to do first, and what the lab's own study says."""
    study_note()
    with st.container(border=True):
        st.header("No runs yet", anchor=False)
        st.markdown(
            "Train one on the page Runs: it downloads pictograms, and takes some minutes without a GPU. In a terminal:"
        )
        st.code("pddm-lab train lab\npddm-lab import mine --features f.npy --items items.csv", language="bash")
        with st.container(horizontal=True):
            st.page_link("app_pages/runs/page.py", label="Train a run", icon=":material/monitoring:")
            st.page_link("app_pages/local_global/page.py", label="Try it on a plane first", icon=":material/school:")


def study_note() -> None:
    """What the lab's own study says, with a link to it."""
    from pddm_lab.study.shipped import read_shipped

    try:
        text = read_shipped().sentence()
    except RunError as error:
        st.caption(plain(error))
        return
    st.markdown(text)
    st.page_link(
        "app_pages/runs/page.py", label="All methods side by side", icon=":material/leaderboard:",
        query_params={"view": "study", "study": shell.SHIPPED_STUDY},
    )  # fmt: skip
