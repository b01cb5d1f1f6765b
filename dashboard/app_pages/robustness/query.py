"""A query of the gallery, corrupted: the picture, and what each similarity finds for it."""

from __future__ import annotations

import random

import numpy as np
import streamlit as st
from app_pages.robustness import data
from shared import loaders, picture_grid, shell
from shared.plain_text import plain

from pddm_lab import cards
from pddm_lab.gallery.gallery import Gallery, SearchResult
from pddm_lab.robustness.corruptions import CORRUPTIONS
from pddm_lab.runs.imported import why_not_embedded
from pddm_lab.runs.run import Run
from pddm_lab.similarities import EVERY

LEFT_OUT = ("cosine", "mahalanobis")
"""At unit length the cosine ranks like D; D_M nearly so."""


def show(runs: list[Run], protocol: str, gallery: Gallery, name: str, strength: int) -> None:
    """The query as it is and corrupted, and the first results by each similarity in each run."""
    queries = gallery.rows("query")
    if not len(queries):
        shell.nothing("No queries", f"The gallery {protocol!r} of {runs[0].name} has no queries.")
    linked = st.query_params.get("item", "")
    row = loaders.row_of(gallery, linked)
    if linked and row is None:
        shell.warn_of_link(f"The item “{linked}” in this link isn't in this gallery.")
    shown = str(gallery.items["id"].iloc[queries[0] if row is None else row])
    if loaders.file_of(runs[0], shown, gallery) is None:
        st.caption(":material/no_photography: The data set isn't on this machine, so no picture can be corrupted.")
        return
    if reason := next(filter(None, map(why_not_embedded, runs)), ""):
        st.caption(f":material/no_photography: {plain(reason)}")
        return
    row = data.first_query(runs[0], protocol) if row is None else row
    item, class_name = (str(gallery.items[column].iloc[row]) for column in ("id", "class_name"))
    file = loaders.file_of(runs[0], item, gallery)
    assert file is not None
    picture_side, result_side = st.columns([10, 39], gap="medium")
    # As it is, the query has the feature of the gallery, and no network is loaded.
    seen = [data.embedded(run, file, item, name, strength) if strength else None for run in runs]
    with picture_side:
        title = f"{CORRUPTIONS[name].title}, strength {strength}" if strength else "As it is"
        st.image(
            data.picture(file, item, name, strength),
            caption=title,
            width="stretch",
            alt=f"The query, {class_name}: {title}",
        )
        _steps(gallery, queries, row)
        st.html(cards.facts({"Class": class_name, "Item": item}))
    with result_side:
        for run, one in zip(runs, seen, strict=True):
            if runs[1:]:
                st.markdown(f"##### {plain(run.name)}")
            own = loaders.gallery(run, protocol)
            exclude = own.index_of(item)
            before = data.search(run, protocol, None, exclude)
            result = before if one is None else data.search(run, protocol, one, exclude)
            _results(run, own, result, before, class_name)


def _steps(gallery: Gallery, queries: np.ndarray, row: int) -> None:
    """Buttons to other queries."""
    position = int(np.searchsorted(queries, row)) % len(queries)
    with st.container(horizontal=True, gap="xxsmall"):
        for label, shortcut, to in (
            ("Back", "B", queries[position - 1]), ("Next", "N", queries[(position + 1) % len(queries)]),
            ("Random", "X", random.choice(queries)),
        ):  # fmt: skip
            item = str(gallery.items["id"].iloc[int(to)])
            st.button(
                label, shortcut=shortcut, key=f"to_{label.lower()}", on_click=picture_grid.show_item, args=(item,),
                width="stretch",
            )  # fmt: skip


def _results(run: Run, gallery: Gallery, result: SearchResult, before: SearchResult, class_name: str) -> None:
    names = [name for name in result.similarities if name not in LEFT_OUT]
    for place, name in zip(st.columns(len(names), gap="medium"), names, strict=True):
        frame, spec = result.ranked(name, data.FIRST), EVERY[name]
        with place:
            now, then = (_first_right(one, name, class_name) for one in (result, before))
            with st.container(gap="xxsmall"):
                st.markdown(f"**{spec.title}**", help=spec.axis)
                st.caption(f"First right: {now}" + ("" if result is before else f"; as it is: {then}"))
            frame = frame.drop(columns="rank_change")
            images = loaders.thumbs(gallery, frame["row"])
            grid = cards.retrieval_grid(frame, images, name, right_class=class_name, small=True)
            picture_grid.pictures(grid, f"corrupted_{name}_{run.name}")


def _first_right(result: SearchResult, name: str, class_name: str) -> str:
    """The rank of the first item of the query's class, in words."""
    ranks = result.table.loc[result.table["class_name"] == class_name, f"{name}_rank"]
    return f"rank {int(ranks.min())}" if len(ranks) else f"none in {len(result.table)}"
