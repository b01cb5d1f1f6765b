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
from shared import loaders, picture_grid, shell
from shared.export import export

from pddm_lab import cards, figures
from pddm_lab.analysis import hardness
from pddm_lab.cards.confusions import SUSPICIOUS
from pddm_lab.runs.quadruplets import ORDERS, Mined
from pddm_lab.runs.run import Run

PER_PAGE = 12
PAIRS = 9
"""Pairs of classes on a page: as high as the table of all beside them."""
SHOW = {"": "all", "violated": "violated", "differs": "Euclidean differs"}


def classes_picker(label: str, mined: Mined, key: str) -> tuple[str, ...]:
    """Some of the classes, in the URL, which holds them through a change of view too; none means all."""

    def keep() -> None:
        st.query_params[key] = st.session_state[key]

    asked = st.query_params.get_all(key)
    st.session_state[key] = [name for name in mined.classes if name in asked] if asked else []
    return tuple(st.multiselect(label, mined.classes, key=key, on_change=keep, placeholder="all classes"))


def show_cards(run: Run, mined: Mined, choice: Choice) -> None:
    """Quadruplets as cards, filtered and in an order."""
    shown = {name: title for name, title in SHOW.items() if name != "differs" or has_alternatives(run, mined)}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        order = shell.choice(st.selectbox, "Order", ORDERS, "order", width=270)
        only = shell.choice(st.segmented_control, "Show", shown, "show")
        item = st.query_params.get("item", "")
        if item:
            name = item if len(item) <= 40 else f"…{item[-39:]}"
            st.button(
                f"Only with {shell.plain(name)} as i or j", icon=":material/close:", on_click=forget_item,
                key="forget_item", help="Show the quadruplets of all pictures again",
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
        told = f"**{len(rows):,}** of {len(mined.pick(choice.phase)):,} quadruplets · **{100 * broken:.1f} %** "
        st.markdown(f"{told}violate a hinge{agreement(run, mined, rows)}", width="stretch")
        page = paged(len(rows), PER_PAGE, "page", (run.name, choice, order))
    if not len(rows):
        st.info(
            "No quadruplet fits these choices. Widen the steps, or take out a class.", icon=":material/filter_alt_off:"
        )
        return
    quadruplet_cards(run, mined, mined.ordered(rows, order)[(page - 1) * PER_PAGE : page * PER_PAGE], "cards")
    legend(run, mined)


def has_alternatives(run: Run, mined: Mined) -> bool:
    """Whether Euclidean mining could have taken others, and it was kept which."""
    return mined.has_euclidean and mined_by(run) != "euclidean"


def mined_by(run: Run) -> str:
    """The similarity that mined."""
    return run.config.mining_similarity or run.config.similarity


def agreement(run: Run, mined: Mined, rows: np.ndarray) -> str:
    """How often Euclidean mining takes the same, in words; empty where it isn't known."""
    same = hardness.agreement(mined, rows) if has_alternatives(run, mined) else {}
    return (
        f" · Euclidean mining takes the same j in {100 * same['j']:.0f} %, k in {100 * same['k']:.0f} %" if same else ""
    )


def paged(count: int, per_page: int, key: str, about: Any) -> int:
    """The page to show, from 1; where it is about something else than before, the first."""
    before = st.session_state.get(f"{key}_about", about)
    if before != about:
        st.session_state[key] = 1
    st.session_state[f"{key}_about"] = about
    pages = max(1, -(-count // per_page))
    return min(st.pagination(pages, key=key, bind="query-params"), pages)


def settings(choice: Choice) -> dict[str, Any]:
    """A choice for a manifest."""
    return asdict(choice) | {"mirror_images": "left out"}


def quadruplet_cards(run: Run, mined: Mined, rows: np.ndarray, key: str, reveal: str = "") -> None:
    """Some quadruplets as cards; a picture that is chosen shows its own quadruplets."""
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
    """The quadruplets of one picture, as cards."""
    show_as_cards()
    st.query_params["item"] = item


def forget_item() -> None:
    """Those of all pictures again."""
    st.query_params.pop("item", None)


def show_as_cards(**chosen: list[str]) -> None:
    """Go to the cards, with other choices made."""
    st.query_params.pop("view", None)
    for name, value in chosen.items():
        st.query_params[name] = value


def legend(run: Run, mined: Mined) -> None:
    """What the letters and lines of a card mean."""
    style = figures.style_of(run.config.similarity)
    st.caption(
        f"S: {style.title}, the similarity that this run trains; larger is more similar. D: Euclidean distance; "
        f"smaller is more similar. Solid edge: positive pair. Dashed edge: negative pair, red where its hinge is "
        f"violated. A hinge is {run.config.score_margin:g} + S of the negative pair − S of i–j. Choosing a picture "
        f"shows the quadruplets that have it as i or j. {without_alternatives(run, mined)}"
    )


def without_alternatives(run: Run, mined: Mined) -> str:
    """Why there is nothing to see of what Euclidean mining would have taken; empty where there is."""
    if has_alternatives(run, mined):
        return ""
    if mined_by(run) == "euclidean":
        return "Euclidean mining chose them."
    return "This run was trained before it was kept what Euclidean mining would have taken instead."


def show_training(run: Run, mined: Mined, choice: Choice) -> None:
    """How hard the quadruplets were, step by step."""
    table = data.through_training(run, choice)
    drawn = {name: title for name, title in figures.HARDNESS.items() if name != "same" or has_alternatives(run, mined)}
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        what = shell.choice(st.segmented_control, "Draw", drawn, "draw")
        export("hardness", lambda: table, run, settings(choice))
    if table.empty:
        st.info("No quadruplet fits these choices.", icon=":material/filter_alt_off:")
        return
    ends = {name: table.iloc[places] for name, places in (("first", slice(0, 5)), ("last", slice(-5, None)))}
    measures = [("Hinge i–k violated", "violated_ik"), ("Hinge j–l violated", "violated_jl")]
    if has_alternatives(run, mined):
        measures += [("Same j as Euclidean", "same_j"), ("Same k as Euclidean", "same_k")]
    for column, (title, name) in zip(st.columns(4), measures, strict=False):
        before, after = (100 * np.average(of[name], weights=of["count"]) for of in ends.values())
        column.metric(
            title, f"{after:.1f} %", f"from {before:.1f} %", delta_color="off", delta_arrow="off",
            help="In the last steps drawn, and in the first.",
        )  # fmt: skip
    st.plotly_chart(
        figures.hardness(table, what, similarity=run.config.similarity, height=400),
        key="hardness",
        config={"displayModeBar": False},
        alt=f"{drawn[what]} of the mined quadruplets, by training step",
    )
    st.caption(
        f"{int(table['count'].sum()):,} quadruplets. A line is the median, its band holds the middle 80 %. Slack: "
        f"{run.config.score_margin:g} + S of the negative pair − S of i–j; a hinge is violated where it is above 0. "
        f"{without_alternatives(run, mined)}"
    )


def show_confusion(run: Run, mined: Mined, choice: Choice) -> None:
    """Which classes gave one another their hard negatives."""
    table = data.confusions(run, choice)
    pairs = data.mutual(run, choice)
    asked = st.query_params.get_all("pair")
    chosen = asked if len(asked) == 2 and set(asked) <= set(mined.classes) else []
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(
            f"**{int(table['count'].sum()):,}** hard negatives, **{int(table['violated'].sum()):,}** violated · "
            f"**{len(pairs):,}** pairs of classes",
            width="stretch",
        )
        page = paged(len(pairs), PAIRS, "pairs_page", (run.name, choice))
        export("confused-classes", lambda: table, run, settings(choice))
    if pairs.empty:
        st.info("No quadruplet fits these choices.", icon=":material/filter_alt_off:")
        return
    shown = pairs.iloc[(page - 1) * PAIRS : page * PAIRS]
    rows = choice.rows(mined)
    examples = hardness.mixed_up(mined, rows, list(zip(shown["a"], shown["b"], strict=True)))
    pictures = loaders.pictures(run, distinct(item for both in examples.values() for side in both for item in side))
    bars, cells = st.columns([9, 8], gap="medium")
    with bars:
        block = cards.confusion_bars(shown, pictures, examples, chosen=chosen)
        picture_grid.pictures(block, key="pairs", on_pick=lambda picked: choose_pair(json.loads(picked)))
    with cells:
        st.plotly_chart(
            figures.confusion(table, chosen=chosen, height=540), key="confusion", on_select=choose_cell,
            selection_mode="points", config={"displayModeBar": False},
            alt="How often each class gave another its hard negatives, for the classes of the most frequent pairs",
        )  # fmt: skip
    if not chosen:
        st.caption("Choose a pair, or a cell of the table, to see its quadruplets.")
        return
    both = mined.ordered(replace(choice, own=tuple(chosen), others=tuple(chosen)).rows(mined), "violation")
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        names = " and ".join(f"**{shell.plain(name)}**" for name in chosen)
        st.markdown(f"{names}: {len(both):,} quadruplets, the most violated first", width="stretch")
        st.button(
            "All of them as cards", icon=":material/view_module:", key="pair_cards", disabled=not len(both),
            on_click=show_as_cards, kwargs={"own": list(chosen), "others": list(chosen)},
        )  # fmt: skip
    quadruplet_cards(run, mined, both[:6], "pair_quadruplets", reveal=json.dumps(chosen))
    legend(run, mined)


def choose_pair(pair: list[str]) -> None:
    """Two classes whose quadruplets are shown."""
    st.query_params["pair"] = pair


def choose_cell() -> None:
    """A cell of the table was chosen."""
    points = st.session_state["confusion"]["selection"]["points"]
    if points:
        choose_pair([str(name) for name in points[0]["customdata"][:2]])


def show_suspects(run: Run, mined: Mined, choice: Choice) -> None:
    """Items whose label looks wrong, to look through and to take away."""
    table = data.suspects(run, choice)
    met = "appearances" if mined.one_a_batch else "classmates"
    strong = int((table["score"] >= SUSPICIOUS).sum())
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(
            f"**{strong:,}** of {len(table):,} items with anything against them have a score of {SUSPICIOUS:g} or more",
            width="stretch",
        )
        page = paged(len(table), PER_PAGE, "suspects_page", (run.name, choice))
        export("suspects", lambda: table, run, settings(choice) | {"least_met": hardness.LEAST_MET})
    st.caption(explanation(mined))
    if table.empty:
        st.info(
            f"Nothing speaks against an item that met at least {hardness.LEAST_MET} {met} in these steps.",
            icon=":material/check_circle:",
        )
        return
    shown = table.iloc[(page - 1) * PER_PAGE : page * PER_PAGE]
    examples = hardness.examples(mined, mined.pick(choice.phase, choice.steps), {*shown["class_name"], *shown["named"]})
    pictures = loaders.pictures(run, distinct([*shown["id"], *(item for of in examples.values() for item in of)]))
    item = st.query_params.get("item", "")
    block = cards.suspect_grid(shown, pictures, examples, chosen=item, first=(page - 1) * PER_PAGE + 1, met=met)
    picture_grid.pictures(block, key="suspects")
    if not item:
        st.caption("Choose an item to see its quadruplets.")
        return
    own = mined.ordered(replace(choice, item=item).rows(mined), "violation")
    if not len(own):
        st.info(f"{shell.plain(item)} is in none of these quadruplets.", icon=":material/filter_alt_off:")
        return
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(
            f"**{shell.plain(item)}**: {len(own):,} quadruplets as i or j, the most violated first", width="stretch"
        )
        st.button("All of them as cards", icon=":material/view_module:", key="item_cards", on_click=show_as_cards)
    quadruplet_cards(run, mined, own[:6], "item_quadruplets", reveal=item)
    legend(run, mined)


def explanation(mined: Mined) -> str:
    """How the score comes about, in words."""
    if mined.one_a_batch:
        return (
            "An appearance as i or j speaks against an item if its hard negative is more similar to it than the other "
            f"item of its class. Score: the lower end of the 95 % interval of that share; items with fewer than "
            f"{hardness.LEAST_MET} appearances are left out."
        )
    return (
        "In each batch an item meets classmates. One speaks against it if it finds it the least similar of its class, "
        "and a picture of another class is more similar to the item than that classmate. Score: the lower end of the "
        f"95 % interval of the share that do; items that met fewer than {hardness.LEAST_MET} are left out. A dashed "
        f"frame: {SUSPICIOUS:g} or more. A high score also marks unusual pictures: it is a list to look through."
    )
