"""The Similarity page's view of one similarity against another: where they agree, and pictures where they don't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st
from app_pages.similarity import data
from app_pages.similarity.picked_pair import as_shown, matched, pick, picked, picked_scores, show_picked
from app_pages.similarity.text import as_exported, who_is_right_in_words, with_items
from shared import export, loaders, picture_grid, shell
from shared.chart import chart
from shared.plain_text import plain

from pddm_lab import cards, figures
from pddm_lab.analysis.thresholds import QUADRANTS, clearest_first, quadrant_of, who_is_right
from pddm_lab.figures import PROTOCOL_TITLES
from pddm_lab.runs.run import Run
from pddm_lab.similarities import EVERY

DRAWN = 800
"""Pairs drawn as points."""
PER_PAGE = 16


@dataclass(frozen=True, eq=False)
class Side:
    """The pairs of a run with a threshold on each of two similarities."""

    run: Run
    protocol: str
    x: str
    y: str
    at: tuple[float, float]
    pairs: pd.DataFrame
    quadrant: np.ndarray


def show(runs: Sequence[Run], protocol: str, on_x: tuple[str, float], on_y: tuple[str, float]) -> None:
    """The joint plot of one run or of two side by side, and the pairs of one of its quadrants.

    Args:
        on_x: a similarity and a threshold on the first run's values.
        on_y: the same for the other axis.
    """
    (x, at_x), (y, at_y) = on_x, on_y
    if x == y:
        st.info("Choose two different similarities to compare them.", icon=":material/compare_arrows:")
        return
    where = shell.choice(st.segmented_control, "Pairs of", data.WHERE, "where", label_visibility="collapsed")
    sides = []
    for run in runs:
        at = (matched(runs[0], run, protocol, x, at_x), matched(runs[0], run, protocol, y, at_y))
        pairs = data.pairs_where(run, protocol, where)
        sides.append(Side(run, protocol, x, y, at, pairs, quadrant_of(pairs, x, y, *at)))
    if len(sides) == 1:
        left, right = st.columns([16, 11], gap="large")
        with left:
            _chart(sides[0], height=540)
        with right:
            _quadrants(sides[0])
    else:
        for column, side in zip(st.columns(2, gap="large"), sides, strict=True):
            with column:
                st.markdown(f"**{plain(side.run.name)}**")
                _chart(side, height=440)
                _quadrants(side)
    show_picked(runs, protocol, {x: at_x, y: at_y})
    _pictures(sides, where)


def _chart(side: Side, height: int) -> None:
    scores, key = picked_scores(side.run, side.protocol), f"joint_{side.run.name}_{side.protocol}"

    def click() -> None:
        points = [point.get("customdata") for point in st.session_state[key].selection.points]
        place = next((int(np.ravel(point)[0]) for point in points if point is not None), None)
        if place is not None:
            row = with_items(loaders.gallery(side.run, side.protocol), side.pairs.iloc[[place]]).iloc[0]
            st.query_params["pair"] = [row["item_a"], row["item_b"]]

    x, y = (EVERY[name].title for name in (side.x, side.y))
    chart(
        figures.joint(
            side.pairs, side.x, side.y, at_x=side.at[0], at_y=side.at[1], points=DRAWN, height=height,
            picked=(scores[side.x], scores[side.y]) if scores and {side.x, side.y} <= set(scores) else None,
        ),
        key,
        f"Pairs by {x} and {y} with both thresholds, {PROTOCOL_TITLES[side.protocol]}, {side.run.name}",
        on_select=click,
        selection_mode="points",
    )  # fmt: skip
    kinds = side.pairs["positive"].value_counts()
    drawn = sum(min(DRAWN // 2, int(count)) for count in kinds)
    st.caption(
        f"The outlines contain 50, 90 and 99 % of each kind. {drawn:,} of {len(side.pairs):,} scored pairs are drawn "
        "as points; click one to see its pictures."
    )


def _quadrants(side: Side) -> None:
    positive = side.pairs["positive"].to_numpy()
    counts = {
        kind: np.bincount(side.quadrant[positive == of], minlength=len(QUADRANTS))
        for kind, of in (("positive", True), ("negative", False))
    }
    st.html(cards.quadrant_table(pd.DataFrame(counts, index=QUADRANTS), side.x, side.y))
    st.markdown(who_is_right_in_words(who_is_right(side.pairs, side.quadrant), side.x, side.y))
    st.caption(
        "In brackets: 95 % interval, from resampling the classes. If both thresholds let the same share of negative "
        "pairs pass, each is right for half of the negative pairs on which they disagree. "
        + data.scored_in_words(side.run, side.protocol)
    )


def _pictures(sides: Sequence[Side], where: str) -> None:
    """The pairs of one quadrant, page by page, the farthest from both thresholds first."""
    x, y = (EVERY[name].title for name in (sides[0].x, sides[0].y))
    titles = {"y": f"Only {y} accepts", "x": f"Only {x} accepts", "both": "Both accept", "neither": "Both reject"}
    kinds = {"all": "all", "positive": "positive", "negative": "negative"}
    by_run = {side.run.name: side.run.name for side in sides}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        quadrant = shell.choice(st.segmented_control, "Quadrant", titles, "quadrant", label_visibility="collapsed")
        kind = shell.choice(st.segmented_control, "Kind", kinds, "kind", label_visibility="collapsed")
        of = shell.choice(st.selectbox, "In", by_run, "of", label_visibility="collapsed") if len(sides) > 1 else ""
    side = next((one for one in sides if one.run.name == of), sides[0])
    rows = side.quadrant == QUADRANTS.index(quadrant)
    if kind != "all":
        rows &= side.pairs["positive"].to_numpy() == (kind == "positive")
    pairs = side.pairs[rows]
    pairs = pairs.iloc[clearest_first(pairs, side.x, side.y, *side.at)]
    gallery = loaders.gallery(side.run, side.protocol)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(f"**{len(pairs):,}** of {len(side.pairs):,} scored pairs, the farthest from both thresholds first")
        on_page = shell.paged(len(pairs), PER_PAGE, f"page_{quadrant}")
        thresholds = zip("xy", (side.x, side.y), side.at, strict=True)
        export.export(
            "pairs-of-quadrant",
            lambda: as_exported(with_items(gallery, pairs)),
            side.run,
            {"protocol": side.protocol, "x": side.x, "y": side.y, "quadrant": titles[quadrant], "kind": kind}
            | {f"threshold_{axis}": as_shown(name, at) for axis, name, at in thresholds}
            | {"density": where},
        )
    if pairs.empty:
        st.info("At these thresholds, no scored pair lies in this quadrant.", icon=":material/filter_alt_off:")
        return
    drawn = with_items(gallery, pairs.iloc[on_page])
    images = loaders.thumbs(gallery, {*drawn["a"], *drawn["b"]})
    grid = cards.pair_grid(drawn, images, (side.x, side.y), chosen=picked())
    picture_grid.pictures(grid, "quadrant_pairs", on_pick=pick)
