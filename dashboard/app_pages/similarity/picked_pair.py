"""The picked pair of items on the Similarity page: two `pair` parameters in the URL, marked in every view."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import streamlit as st
from app_pages.similarity import data
from shared import loaders, shell
from shared.plain_text import plain

from pddm_lab import cards, figures
from pddm_lab.figures import PROTOCOL_TITLES
from pddm_lab.runs.run import Run
from pddm_lab.similarities import EVERY


def pick(pair: str) -> None:
    """Pick a pair, given as the cards name it."""
    st.query_params["pair"] = json.loads(pair)


def picked() -> tuple[str, ...]:
    """Both item ids of the pair in the URL; empty if there is none."""
    items = tuple(st.query_params.get_all("pair"))
    return items if len(set(items)) == 2 == len(items) else ()


def picked_scores(run: Run, protocol: str) -> dict[str, float] | None:
    """Every similarity of the picked pair; None if there is none, or the gallery lacks one of its items."""
    items = picked()
    return data.scores_of(run, protocol, items) if items else None


def show_picked(runs: Sequence[Run], protocol: str, thresholds: Mapping[str, float]) -> None:
    """The picked pair, large, with its values by every similarity of every open run."""
    items = picked()
    if not items:
        if "pair" in st.query_params:
            shell.warn_of_link("The pair in this link is invalid: expected two different items.")
        return
    run = runs[0]
    scores = picked_scores(run, protocol)
    with st.container(border=True):
        if scores is None:
            named = " and ".join(f"“{plain(item)}”" for item in items)
            st.caption(f":material/link_off: The picked pair, {named}, isn't in this gallery.")
            st.button("Unpick", key="unpick", on_click=unpick)
            return
        gallery = loaders.gallery(run, protocol)
        *pictures, values = st.columns([1, 1, 3], gap="medium")
        classes = []
        for side, item in zip(pictures, items, strict=True):
            row = gallery.index_of(item)
            classes.append(str(gallery.items["class_name"].iloc[row]))
            with side:
                image = loaders.picture(run, item, gallery) or gallery.thumb(row)
                st.image(image, alt=f"{classes[-1]}, {item}", width="stretch")
                shell.search_link(run, protocol, item, plain(classes[-1]), help="Search with this item")
        with values:
            with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
                kind = "positive" if classes[0] == classes[1] else "negative"
                st.markdown(f"**The picked pair: {kind}**, {PROTOCOL_TITLES[protocol].lower()}")
                st.button("Unpick", key="unpick", icon=":material/close:", on_click=unpick)
            for side, one in zip(st.columns(len(runs)), runs, strict=True):
                of = picked_scores(one, protocol) or {}
                facts = {}
                for name in figures.in_order(of):
                    text = f"{as_shown(name, of[name]):.3f}".replace("-", "−")
                    if name in thresholds and name in loaders.pairs(one, protocol).distributions:
                        at = matched(run, one, protocol, name, thresholds[name])
                        text += " · accepted" if of[name] >= at else " · rejected"
                    facts[EVERY[name].title] = text
                side.html(cards.facts(({"Run": one.name} if len(runs) > 1 else {}) | facts))


def unpick() -> None:
    """Clear the picked pair."""
    shell.put_in_url(pair="")


def matched(run: Run, other: Run, protocol: str, similarity: str, threshold: float) -> float:
    """The threshold at which another run lets as many negative pairs pass as this one; their scales may differ."""
    if other.name == run.name:
        return threshold
    _, fpr, _ = loaders.pairs(run, protocol).rates(similarity, threshold)
    return loaders.pairs(other, protocol).distributions[similarity].threshold_at_fpr(fpr)


def as_shown(name: str, value: float) -> float:
    """A similarity as it is shown: for a distance, with the opposite sign."""
    return float(figures.shown(name, np.array(value)))
