"""The parts of the Search page: a query, what it found in one run or two, and the views that look closer at it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st
from app_pages.search import data as search_loading
from app_pages.search.own_picture import Crop, Own
from shared import loaders, picture_grid, shell

from pddm_lab import cards, figures
from pddm_lab.gallery.gallery import Gallery, SearchResult
from pddm_lab.runs.run import Run

STAGES = {"read": "read", "embed": "embed", "search": "search by D", "mahalanobis": "Mahalanobis", "pddm": "PDDM"}
OWN = "own picture"
"""Stands for the id of a picture that is no item."""


@dataclass(frozen=True)
class Asked:
    """What is searched with: an item of the gallery, a part of one, or a person's own picture."""

    item: str
    """Its id; empty for a person's own."""
    name: str
    alt: str
    class_name: str | None
    """None where it is unknown."""
    crop: Crop | None
    data: bytes | None = None
    file: Path | None = None
    """An item's own picture; None where its data set isn't on this machine."""

    @classmethod
    def of_picture(cls, own: Own, crop: Crop | None) -> Asked:
        return cls("", own.name, f"Your picture {own.name}", None, crop, data=own.data)

    @classmethod
    def of_item(cls, run: Run, gallery: Gallery, row: int, crop: Crop | None) -> Asked:
        item, class_name = (str(gallery.items[column].iloc[row]) for column in ("id", "class_name"))
        file = loaders.file_of(run, item)
        if crop and not file:
            st.warning("Its data set isn't on this machine, so the whole item is searched with.")
        return cls(item, item, f"The query: {class_name}, {item}", class_name, crop if file else None, file=file)


@dataclass(frozen=True)
class Found:
    """What one run found."""

    run: Run
    gallery: Gallery
    asked: Asked
    feature: np.ndarray
    result: SearchResult
    picture: bytes | None
    """The query's, large; None where only a thumbnail is at hand."""
    seconds: dict[str, float]

    @property
    def right_items(self) -> int:
        """Items of the query's class to find."""
        same = self.gallery.items["class_name"] == self.asked.class_name
        searched = self.gallery.items["role"].isin(["gallery", "both"])
        return int((same & searched & (self.gallery.items["id"] != self.asked.item)).sum())

    @property
    def right_in_shortlist(self) -> int:
        return int((self.result.table["class_name"] == self.asked.class_name).sum())


def find(run: Run, protocol: str, asked: Asked, shortlist: int) -> Found:
    """Search a run's gallery. Raises LabError: a file is missing or torn, or a picture can't be read."""
    gallery = loaders.gallery(run, protocol)
    row = gallery.index_of(asked.item) if asked.item else None
    source = asked.data if asked.data is not None else asked.file if asked.crop else None
    if source is None:
        assert row is not None
        feature, seconds = np.array(gallery.features[row]), {}
        picture = loaders.picture(run, asked.item)
    else:
        seen = search_loading.embedded(run, source, asked.crop)
        feature, seconds, picture = seen.feature, seen.seconds, seen.picture
    result = search_loading.search(run, protocol, feature, shortlist, row)
    return Found(run, gallery, asked, feature, result, picture, seconds | result.seconds)


def latency(found: Found, begin: str = "") -> str:
    """How long each stage took, in words."""
    took = " · ".join(f"{STAGES[stage]} {1000 * seconds:.1f} ms" for stage, seconds in found.seconds.items())
    return f"{begin}{took}"


def facts(asked: Asked, found: Found) -> dict[str, str]:
    """What is known of an item that is the query."""
    to_find = f"{found.right_items:,} of its class, {found.right_in_shortlist:,} of them in the shortlist"
    return {"Class": str(asked.class_name), "Item": asked.item, "To find": to_find}


def columns(found: list[Found], count: int, about: str) -> None:
    """The rankings: a column per similarity; with a second run a row per similarity and a column per run.

    Args:
        about: id of the item that was asked about, to mark.
    """
    names = found[0].result.similarities
    cells = [[(one, name) for name in names] for one in found] if len(found) == 1 else [
        [(one, name) for one in found] for name in names
    ]  # fmt: skip
    if len(found) > 1:
        for place, one in zip(st.columns(len(found), gap="medium"), found, strict=True):
            place.markdown(f"##### {shell.plain(one.run.name)}")
    for row in cells:
        for place, (one, name) in zip(st.columns(len(row), gap="medium"), row, strict=True):
            with place:
                _ranking(one, name, count, about, "" if one is found[0] else one.run.name)


def _ranking(found: Found, name: str, count: int, about: str, beside: str) -> None:
    style, frame, table = figures.style_of(name), found.result.ranked(name, count), found.result.table
    right_class = found.asked.class_name
    right = int((frame["class_name"] == right_class).sum())
    told = f" :gray[· {right} of {len(frame)} right]" if right_class is not None else ""
    st.markdown(f"**{style.title}**{told}", help=style.axis)
    others = [other for other in found.result.similarities if other != name]
    ranks = table.set_index("row").loc[frame["row"], [f"{other}_rank" for other in others]].to_numpy()
    said = [", ".join(f"{figures.style_of(o).title} {rank}" for o, rank in zip(others, line, strict=True))
            for line in ranks]  # fmt: skip
    frame = frame.assign(note=said)
    if name == "euclidean":
        frame = frame.drop(columns="rank_change")
    picture_grid.pictures(
        cards.retrieval_grid(
            frame,
            loaders.thumbs(found.gallery, frame["row"]),
            name,
            right_class=right_class,
            why=True,
            highlighted=about,
        ),
        f"found_{name}_{beside}".rstrip("_"),
        on_why=lambda item: ask_why(item, beside),
    )


def asked_about(found: list[Found]) -> str:
    """Id of the item that is asked about: the link's, else, where the view is open, the one that PDDM moves most among
    its first; empty where there is none."""
    one, wanted = _explaining(found), st.query_params.get("why", "")
    if wanted and loaders.row_of(one.gallery, wanted) is not None:
        return wanted
    ranked = one.result.ranked("pddm", 12)
    if ranked.empty or st.query_params.get("view") != "why":
        return ""
    return str(ranked["id"].iloc[ranked["rank_change"].abs().argmax()])


def _explaining(found: list[Found]) -> Found:
    """The run that explains."""
    return next((one for one in found if one.run.name == st.query_params.get("of")), found[0])


def ask_why(item: str, run: str) -> None:
    """Open the view that takes the pair of the query and an item apart.

    Args:
        run: that explains it; empty for the page's own.
    """
    st.query_params["why"], st.query_params["view"] = item, "why"
    if run:
        st.query_params["of"] = run
    else:
        st.query_params.pop("of", None)


def choose_among(gallery: Gallery, matches: pd.DataFrame, text: str, chosen: str, most: int) -> None:
    """Queries to choose from."""
    if matches.empty:
        st.caption(f"No query has “{shell.plain(text)}” in its class or its id.")
        return
    shown = matches.index[:most]
    st.caption(
        f"{len(matches):,} quer{'y' if len(matches) == 1 else 'ies'}"
        + (f"; the first {most} are shown." if len(matches) > most else ".")
    )
    named = zip(gallery.items["id"].loc[shown], gallery.items["class_name"].loc[shown], strict=True)
    picture_grid.pictures(cards.image_grid(named, loaders.thumbs(gallery, shown), chosen=chosen, small=True), "matches")


def flow(found: list[Found], protocol: str, shortlist: int) -> None:
    """How ranks move from similarity to similarity."""
    top = 12
    st.caption(
        f"Every item that one of them has among its first {top}. Ranks beyond {top} are drawn closer together. "
        "Click a picture for why."
    )
    for place, one in zip(st.columns(len(found), gap="medium"), found, strict=True):
        table, names = one.result.table, one.result.similarities
        first = table[(table[[f"{name}_rank" for name in names]] <= top).any(axis=1)]
        figure = figures.rank_flow(
            table,
            names,
            right_class=one.asked.class_name,
            images=loaders.thumbs(one.gallery, first["row"]),
            top=top,
            highlighted=st.query_params.get("why", ""),
            title=one.run.name if len(found) > 1 else "",
        )
        key = f"flow_{one.run.name}"

        def take(key: str = key, run: str = "" if one is found[0] else one.run.name) -> None:
            points = st.session_state[key].selection.points
            if points:
                ask_why(str(points[0]["customdata"]), run)

        place.plotly_chart(
            figure,
            key=key,
            on_select=take,
            selection_mode="points",
            config={"displayModeBar": False},
            alt=f"Ranks of {len(first)} items by {', '.join(figures.style_of(name).title for name in names)}",
        )


def ceiling(found: list[Found], protocol: str, shortlist: int) -> None:
    """What the shortlist's size costs, for this query and for all of them."""
    for place, one in zip(st.columns(len(found), gap="medium"), found, strict=True):
        with place:
            measured = search_loading.ceiling(one.run, protocol)
            items, queries = (100 * share for share in measured.at(shortlist))
            name = f"**{shell.plain(one.run.name)}**: " if len(found) > 1 else ""
            this = ""
            if one.asked.class_name is not None:
                this = (
                    f"The shortlist of {shortlist:,} holds **{one.right_in_shortlist:,} of {one.right_items:,}** right "
                    "items of this query. "
                )
            sampled = f"a seeded sample of {measured.queries:,} of the " if measured.queries < measured.total else ""
            st.markdown(
                f"{name}{this}Over {sampled}{measured.total:,} queries that have any "
                f"({figures.PROTOCOL_TITLES[protocol].lower()}), it holds **{items:.1f} %** of the right items, and at "
                f"least one for **{queries:.1f} %** of the queries: no order of it can have a higher R@1."
            )
            st.plotly_chart(
                figures.ceiling(measured, shortlist),
                key=f"ceiling_{one.run.name}",
                config={"displayModeBar": False},
                alt=f"Share of right items within the shortlist against its size: {items:.1f} % at {shortlist}",
            )


def why(found: list[Found], protocol: str, shortlist: int) -> None:
    """The pair of the query and one result taken apart."""
    runs = {one.run.name: one.run.name for one in found}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if len(runs) > 1:
            shell.choice(st.segmented_control, "Explained by", runs, "of")
        one, wanted = _explaining(found), st.query_params.get("why", "")
        name, ranked, item = one.run.name, one.result.ranked("pddm"), asked_about(found)
        if wanted and item != wanted:
            st.warning(f"The link asks why of “{shell.plain(wanted)}”, which isn't in this gallery.")
        if not item:
            st.caption("Nothing was found to ask about.")
            return
        row = one.gallery.index_of(item)
        class_name = str(one.gallery.items["class_name"].iloc[row])
        places = ranked.index[ranked["row"] == row]
        at = int(places[0]) if len(places) else -1
        for label, shortcut, to in (("Previous result", "J", at - 1), ("Next result", "K", at + 1)):
            inside = 0 <= to < len(ranked)
            st.button(
                label,
                shortcut=shortcut,
                key=label.partition(" ")[0].lower() + "_result",
                on_click=ask_why,
                args=(str(ranked["id"].iloc[to]) if inside else "", "" if one is found[0] else name),
                disabled=not inside,
                help="By PDDM's ranking",
            )
    taken = search_loading.why(one.run, protocol, one.feature, row)
    explained, pictures = taken.explanation, taken.images | {item: loaders.picture(one.run, item)}
    pictures[item] = pictures[item] or one.gallery.thumb(row)
    query = one.asked.item or OWN
    pictures[query] = one.picture or one.gallery.thumb(one.gallery.index_of(query))
    left, middle, right = st.columns([9, 17, 13], gap="medium")
    with left:
        about = (query, one.asked.class_name or one.asked.name)
        block = cards.explained_pair(about, (item, class_name), pictures)
        picture_grid.pictures(block, "pair", reveal=f"{wanted} {name}" if wanted else "")
        st.html(cards.facts(_ranks(one.result, row)))
    with middle:
        st.markdown("\n".join(f"* {sentence}" for sentence in explained.sentences()))
    with right:
        st.plotly_chart(
            figures.elsewhere(explained),
            key="elsewhere",
            config={"displayModeBar": False},
            alt=f"Scores of this difference at {len(explained.elsewhere)} places; here {explained.score:.2f}",
        )
    picture_grid.pictures(cards.dimension_rows(explained, taken.dimensions, pictures), "dimensions")
    shares = [explained.distance_shares[one.number] for one in taken.dimensions]
    parts = [abs(explained.score_parts[one.number]) for one in taken.dimensions]
    st.caption(
        f"The {len(shares)} of {len(explained.u)} dimensions that weigh most: {100 * sum(shares):.0f} % of D² and "
        f"{100 * sum(parts) / max(abs(explained.score_parts).sum(), 1e-12):.0f} % of what the differences do to S. "
        "What a dimension adds to S is its integrated gradient from an identical pair in the same place; all of them "
        "come to the difference of the two scores."
    )


def _ranks(result: SearchResult, row: int) -> dict[str, str]:
    """Value and rank of an item by each similarity."""
    line = result.table[result.table["row"] == row]
    if line.empty:
        return {"Rank": "not in the shortlist"}
    told = {}
    for name in result.similarities:
        style = figures.style_of(name)
        value = float(figures.shown(name, np.array(line[name].iloc[0])))
        told[style.title] = f"{value:.3f}, rank {int(line[f'{name}_rank'].iloc[0])} of {len(result.table)}"
    return told


def results(found: list[Found]) -> pd.DataFrame:
    """The shortlists as a table to take away."""
    tables = []
    for one in found:
        table = one.result.table.drop(columns="row")
        if one.asked.class_name is not None:
            table["right"] = table["class_name"] == one.asked.class_name
        table.insert(0, "run", one.run.name)
        table.insert(1, "query", one.asked.item or one.asked.name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
