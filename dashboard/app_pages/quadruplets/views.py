"""The views of the Quadruplets page; each computes only what it shows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import streamlit as st
from app_pages.quadruplets import data
from app_pages.quadruplets.data import Choice
from shared import loaders, picture_grid, review, shell
from shared.chart import chart
from shared.export import export
from shared.plain_text import plain

from pddm_lab import cards, figures
from pddm_lab.analysis import hardness
from pddm_lab.cards.confusions import SUSPICIOUS
from pddm_lab.runs.quadruplets import ORDERS, Mined
from pddm_lab.runs.run import Run
from pddm_lab.wording import natural

PER_PAGE = 12
PAIRS = 9
"""Pairs of classes on a page: as high as the chart beside them."""
SHOW = {"": "all", "violated": "violated", "differs": "Euclidean mining differs"}


def classes_picker(label: str, mined: Mined, key: str) -> tuple[str, ...]:
    """A choice of classes, kept in the URL through a change of view too; none means all."""

    def keep() -> None:
        st.query_params[key] = st.session_state[key]

    names, in_url = sorted(mined.classes, key=natural), st.query_params.get_all(key)
    st.session_state[key] = [name for name in names if name in in_url]
    return tuple(st.multiselect(label, names, key=key, on_change=keep, placeholder="all classes"))


def show_cards(run: Run, mined: Mined, choice: Choice) -> None:
    """Quadruplets as cards, filtered and sorted."""
    shown = {name: title for name, title in SHOW.items() if name != "differs" or has_alternatives(run, mined)}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        order = shell.choice(st.selectbox, "Order", ORDERS, "order", width=250)
        only = shell.choice(st.segmented_control, "Show", shown, "show")
        item = st.query_params.get("item", "")
        if item:
            name = item if len(item) <= 40 else f"…{item[-39:]}"
            st.button(
                f"Only with {plain(name)} as i or j", icon=":material/close:", on_click=shell.put_in_url,
                kwargs={"item": ""}, key="forget_item", help="Show the quadruplets of all pictures again.",
            )  # fmt: skip
        choice = replace(choice, only=only, item=item)
        rows = choice.rows(mined)
        st.space("stretch")
        export(
            "quadruplets", lambda: mined.frame(mined.ordered(rows, order)), run,
            settings(choice) | {"order": order},
        )  # fmt: skip
    broken = (mined.worst_slack[rows] > 0).mean() if len(rows) else 0.0
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        many = f"**{len(rows):,}** of {len(mined.pick(choice.phase)):,} quadruplets"
        st.markdown(f"{many} · **{100 * broken:.1f} %** violate a hinge{agreement(run, mined, rows)}", width="stretch")
        on_page = shell.paged(len(rows), PER_PAGE, "page", (run.name, choice, order))
    if not len(rows):
        st.info("No quadruplet matches. Choose more steps, or remove a class.", icon=":material/filter_alt_off:")
        return
    quadruplet_cards(run, mined, mined.ordered(rows, order)[on_page], "cards")
    legend(run, mined)


def has_alternatives(run: Run, mined: Mined) -> bool:
    """Whether the run recorded what Euclidean mining would have chosen, and mined by another similarity."""
    return mined.has_euclidean and mined_by(run) != "euclidean"


def mined_by(run: Run) -> str:
    """The similarity that mined."""
    return run.config.mining_similarity or run.config.similarity


def agreement(run: Run, mined: Mined, rows: np.ndarray) -> str:
    """How often Euclidean mining chooses the same items, in words; empty where it isn't known."""
    same = hardness.agreement(mined, rows) if has_alternatives(run, mined) else {}
    if not same:
        return ""
    return f" · Euclidean mining chooses the same j in {100 * same['j']:.0f} %, k in {100 * same['k']:.0f} %"


def settings(choice: Choice) -> dict[str, Any]:
    """A choice as an export's settings."""
    return asdict(choice) | {"mirror_images": "left out"}


def quadruplet_cards(run: Run, mined: Mined, rows: np.ndarray, key: str, reveal: str = "") -> None:
    """Some quadruplets as cards; clicking a picture shows its own quadruplets."""
    frame = mined.frame(rows).assign(positives=mined.positives(rows))
    if not has_alternatives(run, mined):
        frame = frame[[name for name in frame if not name.startswith("e_")]]
    ends = [name for name in frame if name.removeprefix("e_") in ("i", "j", "k", "l")]
    pictures = loaders.pictures(run, distinct(frame[ends].to_numpy().ravel()))
    grid = cards.quadruplet_grid(
        frame, pictures, similarity=run.config.similarity, mined_by=mined_by(run), margin=run.config.score_margin
    )
    picture_grid.pictures(grid, key=key, on_pick=show_item, reveal=reveal)


def distinct(ids: Iterable[Any]) -> tuple[str, ...]:
    """Each id once, in order."""
    return tuple(dict.fromkeys(item for item in ids if isinstance(item, str)))


def show_item(item: str) -> None:
    """Show the quadruplets of one picture as cards."""
    shell.put_in_url(view="", item=item)


def legend(run: Run, mined: Mined) -> None:
    """What the letters and lines of a card mean."""
    style = figures.style_of(run.config.similarity)
    st.caption(
        f"S: {style.title}, the similarity that this run trains; larger is more similar. D: Euclidean distance; "
        "smaller is more similar. Solid edge: positive pair. Dashed edge: negative pair, red where its hinge is "
        f"violated. A hinge is {run.config.score_margin:g} + S of the negative pair − S of i–j. Click a picture to "
        f"see the quadruplets that have it as i or j. {without_alternatives(run, mined)}"
    )


def without_alternatives(run: Run, mined: Mined) -> str:
    """Why the choice of Euclidean mining isn't shown; empty where it is."""
    if has_alternatives(run, mined):
        return ""
    if mined_by(run) == "euclidean":
        return "This run mined by Euclidean distance."
    return "This older run did not record what Euclidean mining would have chosen."


def show_training(run: Run, mined: Mined, choice: Choice) -> None:
    """How hard the quadruplets were, by training step."""
    table = data.counted(run, choice, hardness.through_training)
    drawn = {name: title for name, title in figures.HARDNESS.items() if name != "same" or has_alternatives(run, mined)}
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        what = shell.choice(st.segmented_control, "Draw", drawn, "draw")
        export("hardness", lambda: table, run, settings(choice))
    if table.empty:
        st.info("No quadruplet matches.", icon=":material/filter_alt_off:")
        return
    ends = {name: table.iloc[places] for name, places in (("first", slice(0, 5)), ("last", slice(-5, None)))}
    measures = [("Hinge i–k violated", "violated_ik"), ("Hinge j–l violated", "violated_jl")]
    if has_alternatives(run, mined):
        measures += [("Same j as Euclidean", "same_j"), ("Same k as Euclidean", "same_k")]
    for column, (title, name) in zip(st.columns(4), measures, strict=False):
        before, after = (100 * np.average(of[name], weights=of["count"]) for of in ends.values())
        column.metric(
            title, f"{after:.1f} %", f"from {before:.1f} %", delta_color="off", delta_arrow="off",
            help="In the last and the first steps of the chart.",
        )  # fmt: skip
    figure = figures.hardness(table, what, similarity=run.config.similarity, height=400)
    chart(figure, "hardness", f"{drawn[what]} of the mined quadruplets, by training step")
    st.caption(
        f"{int(table['count'].sum()):,} quadruplets. A line is the median; its band holds the middle 80 %. Slack: "
        f"{run.config.score_margin:g} + S of the negative pair − S of i–j; a hinge is violated where it is above 0. "
        f"{without_alternatives(run, mined)}"
    )


def show_confusion(run: Run, mined: Mined, choice: Choice) -> None:
    """Which classes provided each other's hard negatives."""
    table = data.counted(run, choice, hardness.confusions)
    pairs = hardness.mutual(table)
    chosen = st.query_params.get_all("pair")
    if len(chosen) != 2 or not set(chosen) <= set(mined.classes):
        chosen = []
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(
            f"**{int(table['count'].sum()):,}** hard negatives, **{int(table['violated'].sum()):,}** violated · "
            f"**{len(pairs):,}** pairs of classes",
            width="stretch",
        )
        on_page = shell.paged(len(pairs), PAIRS, "pairs_page", (run.name, choice))
        export("confused-classes", lambda: table, run, settings(choice))
    if pairs.empty:
        st.info("No quadruplet matches.", icon=":material/filter_alt_off:")
        return
    shown = pairs.iloc[on_page]
    rows = choice.rows(mined)
    examples = hardness.mixed_up(mined, rows, list(zip(shown["a"], shown["b"], strict=True)))
    pictures = loaders.pictures(run, distinct(item for both in examples.values() for side in both for item in side))
    bars, cells = st.columns([9, 8], gap="medium")
    with bars:
        block = cards.confusion_bars(shown, pictures, examples, chosen=chosen)
        picture_grid.pictures(block, key="pairs", on_pick=lambda picked: choose_pair(json.loads(picked)))
    with cells:
        chart(
            figures.confusion(table, chosen=chosen, height=540), "confusion", on_select=choose_cell,
            alt="How often each class provided another's hard negatives, for the classes of the most frequent pairs",
            selection_mode="points",
        )  # fmt: skip
    if not chosen:
        st.caption("Click a pair, or a cell of the chart, to see its quadruplets.")
        return
    both = mined.ordered(replace(choice, own=tuple(chosen), others=tuple(chosen)).rows(mined), "violation")
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        names = " and ".join(f"**{plain(name)}**" for name in chosen)
        st.markdown(f"{names}: {len(both):,} quadruplets, the most violated first", width="stretch")
        st.button(
            "Show all as cards", icon=":material/view_module:", key="pair_cards", disabled=not len(both),
            on_click=shell.put_in_url, kwargs={"view": "", "own": list(chosen), "others": list(chosen)},
        )  # fmt: skip
    quadruplet_cards(run, mined, both[:6], "pair_quadruplets", reveal=json.dumps(chosen))
    legend(run, mined)


def choose_pair(pair: list[str]) -> None:
    """Show the quadruplets of two classes."""
    st.query_params["pair"] = pair


def choose_cell() -> None:
    """Show the quadruplets of the cell that was clicked."""
    points = st.session_state["confusion"]["selection"]["points"]
    if points:
        choose_pair([str(name) for name in points[0]["customdata"][:2]])


def show_suspects(run: Run, mined: Mined, choice: Choice) -> None:
    """Items whose label looks wrong, to check and to download."""
    table = data.counted(run, choice, hardness.suspects)
    met = "appearances" if mined.one_a_batch else "classmates"
    strong = int((table["score"] >= SUSPICIOUS).sum())
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(
            f"**{strong:,}** of {len(table):,} items with evidence against their label score {SUSPICIOUS:g} or more",
            width="stretch",
        )
        on_page = shell.paged(len(table), PER_PAGE, "suspects_page", (run.name, choice))
        export("suspects", lambda: table, run, settings(choice) | {"least_met": hardness.LEAST_MET})
    st.caption(explanation(mined))
    if table.empty:
        st.info(
            f"No item with at least {hardness.LEAST_MET} {met} in these steps has evidence against its label.",
            icon=":material/check_circle:",
        )
        return
    shown = table.iloc[on_page]
    examples = hardness.examples(mined, mined.pick(choice.phase, choice.steps), {*shown["class_name"], *shown["named"]})
    pictures = loaders.pictures(run, distinct([*shown["id"], *(item for of in examples.values() for item in of)]))
    item = st.query_params.get("item", "")
    block = cards.suspect_grid(shown, pictures, examples, chosen=item, first=on_page.start + 1, met=met)
    picture_grid.pictures(block, key="suspects")
    if not item:
        st.caption("Click an item to see its quadruplets.")
        return
    own = mined.ordered(replace(choice, item=item).rows(mined), "violation")
    if not len(own):
        st.info(f"{plain(item)} is in none of these quadruplets.", icon=":material/filter_alt_off:")
        return
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(f"**{plain(item)}**: {len(own):,} quadruplets as i or j, the most violated first", width="stretch")
        named = table.loc[table["id"] == item, "named"].astype(str)
        review.menu(run, [item], "suspect", suggested=next(iter(named), ""))
        st.button(
            "Show all as cards", icon=":material/view_module:", key="item_cards", on_click=shell.put_in_url,
            kwargs={"view": ""},
        )  # fmt: skip
    quadruplet_cards(run, mined, own[:6], "item_quadruplets", reveal=item)
    legend(run, mined)


def explanation(mined: Mined) -> str:
    """How the score is computed, in words."""
    if mined.one_a_batch:
        return (
            "An appearance as i or j counts against an item's label if its hard negative is more similar to it than "
            "the other item of its class. Score: the lower end of the 95 % interval of the share of such appearances; "
            f"items with fewer than {hardness.LEAST_MET} appearances are left out."
        )
    return (
        "A classmate is another item of the same class in the same batch. It counts against an item's label if the "
        "item is its least similar classmate, and a picture of another class is more similar to the item than it is. "
        "Score: the lower end of the 95 % interval of the share of such classmates; items with fewer than "
        f"{hardness.LEAST_MET} classmates are left out. Dashed frame: {SUSPICIOUS:g} or more. Unusual pictures score "
        "high too, so check each one."
    )
