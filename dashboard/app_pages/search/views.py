"""The parts of the Search page: a query, its results in one run or two, and the views that explain them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st
from app_pages.search import data
from app_pages.search.own_picture import Crop, Own
from shared import loaders, picture_grid, review, shell
from shared.chart import chart
from shared.plain_text import plain
from streamlit.delta_generator import DeltaGenerator

from pddm_lab import cards, figures
from pddm_lab.gallery.gallery import Gallery, SearchResult
from pddm_lab.runs.run import Run
from pddm_lab.similarities import EVERY

OWN = "own picture"
"""Stands for the id of an uploaded picture."""


@dataclass(frozen=True)
class Query:
    """What is searched with: an item of the gallery, a crop of one, or an uploaded picture."""

    item: str
    """Its id; empty for an upload."""
    name: str
    alt: str
    class_name: str | None
    """None if it is unknown."""
    crop: Crop | None
    upload: bytes | None = None
    file: Path | None = None
    """The item's picture; None if its data set isn't on this machine."""

    @classmethod
    def of_upload(cls, own: Own, crop: Crop | None) -> Query:
        return cls("", own.name, f"Your picture {own.name}", None, crop, upload=own.data)

    @classmethod
    def of_item(cls, run: Run, gallery: Gallery, row: int, crop: Crop | None) -> Query:
        item, class_name = (str(gallery.items[column].iloc[row]) for column in ("id", "class_name"))
        file = loaders.file_of(run, item, gallery)
        if crop and not file:
            st.warning("The data set of this item isn't on this machine; searching with the whole item.")
        known = class_name if run.is_labelled else None
        return cls(item, item, f"The query: {class_name}, {item}", known, crop if file else None, file=file)


@dataclass(frozen=True)
class Response:
    """The results of a query in one run."""

    run: Run
    gallery: Gallery
    query: Query
    feature: np.ndarray
    result: SearchResult
    picture: bytes | None
    """The query's, large; None if only a thumbnail is available."""
    seconds: dict[str, float]
    row: int | None
    """The query's in the gallery."""
    pretrained: np.ndarray | None
    """Of an own picture or a crop, where the run uses them."""

    @property
    def right_items(self) -> int:
        """Searched items of the query's class."""
        same = self.gallery.items["class_name"] == self.query.class_name
        searched = self.gallery.items["role"].isin(["gallery", "both"])
        return int((same & searched & (self.gallery.items["id"] != self.query.item)).sum())

    @property
    def right_in_shortlist(self) -> int:
        return int((self.result.table["class_name"] == self.query.class_name).sum())


def search(run: Run, protocol: str, query: Query, shortlist: int) -> Response:
    """Search a run's gallery. Raises LabError if a file is missing or damaged, or a picture can't be read."""
    gallery = loaders.gallery(run, protocol)
    row = gallery.index_of(query.item) if query.item else None
    source = query.upload if query.upload is not None else query.file if query.crop else None
    if source is None:
        assert row is not None
        feature, seconds, pretrained = np.array(gallery.features[row]), {}, None
        picture = loaders.picture(run, query.item, gallery)
    else:
        embedded = data.embedded(run, source, query.crop)
        feature, seconds, picture = embedded.feature, embedded.seconds, embedded.picture
        pretrained = embedded.pretrained
    result = data.search(run, protocol, feature, shortlist, row, pretrained)
    return Response(run, gallery, query, feature, result, picture, seconds | result.seconds, row, pretrained)


def latency(response: Response) -> str:
    """The time of each stage, in words."""
    titles = {"search": "search by D"} | {name: spec.title for name, spec in EVERY.items()}
    return " · ".join(f"{titles.get(stage, stage)} {1000 * time:.1f} ms" for stage, time in response.seconds.items())


def facts(response: Response) -> dict[str, str]:
    """The facts of an item that is the query."""
    query, right = response.query, response.right_in_shortlist
    if query.class_name is None:
        return {"Item": query.item}
    relevant = f"{response.right_items:,} of its class, {right:,} of them in the shortlist"
    return {"Class": str(query.class_name), "Item": query.item, "Relevant": relevant}


def correct(response: Response, count: int) -> None:
    """A menu that corrects or tags the query, or tags what a similarity found."""
    names = response.result.similarities
    titles = {"": "the query"} | {name: f"the first {count} by {EVERY[name].title}" for name in names}
    chosen = st.selectbox("Selection", list(titles), format_func=titles.__getitem__, key="corrected_part")
    items = [response.query.item] if not chosen else list(response.result.ranked(chosen, count)["id"].astype(str))
    review.menu(response.run, items, "search", response.gallery.protocol)


def rankings(responses: list[Response], count: int, explained: str) -> list[tuple[Response, str, DeltaGenerator]]:
    """The rankings: a column per similarity; with a second run a row per similarity and a column per run.

    Args:
        explained: id of the item to mark.

    Returns:
        Of each ranking the place for its decision.
    """
    places = []
    names = dict.fromkeys(name for one in responses for name in one.result.similarities)
    cells = [[(one, name) for one in responses] for name in names]
    if len(responses) > 1:
        for place, one in zip(st.columns(len(responses), gap="medium"), responses, strict=True):
            place.markdown(f"**{plain(one.run.name)}**")
    else:
        cells = [[cell for row in cells for cell in row]]
    for row in cells:  # headings of their own, so that the pictures begin at the same height
        for place, (one, name) in zip(st.columns(len(row), gap="medium"), row, strict=True):
            with place:
                if name in one.result.similarities:
                    places.append((one, name, _heading(one, name, count)))
                else:
                    st.caption(f"This run has no {EVERY[name].title.lower()}: train it with the preset `lab`.")
        for place, (one, name) in zip(st.columns(len(row), gap="medium"), row, strict=True):
            if name in one.result.similarities:
                with place:
                    _ranking(one, name, count, explained, "" if one is responses[0] else one.run.name)
    return places


def _heading(response: Response, name: str, count: int) -> DeltaGenerator:
    """A ranking's name and how much of it is right; returns the place for its decision."""
    spec, frame = EVERY[name], response.result.ranked(name, count)
    right_class = response.query.class_name
    right, possible = int((frame["class_name"] == right_class).sum()), min(len(frame), response.right_items)
    with st.container(gap="xxsmall", key=f"ranking_{name}_{response.run.name}"):
        st.markdown(f"**{spec.title}**", help=spec.axis)
        if right_class is not None:
            st.caption(f"{right} of {possible} right" if possible else "None to find")
        place = st.container(key=f"decided_{name}_{response.run.name}") if response.run.is_labelled else st
        decision = place.empty()
    if name == "local":
        shell.stale_caption(response.run, response.gallery.protocol)
        if response.result.note:
            st.caption(plain(response.result.note))
    return decision


def _ranking(response: Response, name: str, count: int, explained: str, run: str) -> None:
    frame, table = response.result.ranked(name, count), response.result.table
    others = [other for other in response.result.similarities if other != name]
    ranks = table.set_index("row").loc[frame["row"], [f"{other}_rank" for other in others]].to_numpy()
    titles = [EVERY[other].title for other in others]
    notes = [zip(titles, line, strict=True) for line in ranks]
    frame = frame.assign(note=[", ".join(f"{title} {rank}" for title, rank in note) for note in notes])
    if name == "euclidean":
        frame = frame.drop(columns="rank_change")
    images = loaders.thumbs(response.gallery, frame["row"])
    picture_grid.pictures(
        cards.retrieval_grid(
            frame, images, name, right_class=response.query.class_name, why=True, highlighted=explained
        ),
        f"results_{name}_{run}".rstrip("_"),
        on_why=lambda item: explain(item, run),
    )


def explained_item(responses: list[Response]) -> str:
    """Id of the item to explain: the link's or, while that view is open, the one whose rank the last similarity
    changes most among its first results; empty if there is none."""
    response, linked = _explaining(responses), st.query_params.get("why", "")
    if linked and loaders.row_of(response.gallery, linked) is not None:
        return linked
    ranked = response.result.ranked(response.result.similarities[-1], 12)
    if ranked.empty or st.query_params.get("view") != "why":
        return ""
    return str(ranked["id"].iloc[ranked["rank_change"].abs().argmax()])


def _explaining(responses: list[Response]) -> Response:
    return next((one for one in responses if one.run.name == st.query_params.get("of")), responses[0])


def explain(item: str, run: str) -> None:
    """Open the view that explains the pair of the query and an item.

    Args:
        run: the run that explains it; empty for the page's own.
    """
    shell.put_in_url(why=item, view="why", of=run)


def query_choices(gallery: Gallery, matches: pd.DataFrame, text: str, chosen: str, most: int) -> None:
    """Queries to choose from, at most so many."""
    if matches.empty:
        st.caption(f"No query has “{plain(text)}” in its class or its id.")
        return
    rows = matches.index[:most]
    ending = f"; the first {most} are shown." if len(matches) > most else "."
    st.caption(f"{len(matches):,} quer{'y' if len(matches) == 1 else 'ies'}{ending}")
    named = zip(gallery.items["id"].loc[rows], gallery.items["class_name"].loc[rows], strict=True)
    block = cards.image_grid(named, loaders.thumbs(gallery, rows), chosen=(chosen,), small=True)
    picture_grid.pictures(block, "matches")


def flow(responses: list[Response], protocol: str, shortlist: int) -> None:
    """How ranks change from similarity to similarity."""
    top = 12
    st.caption(
        f"Every item that is among the first {top} of any similarity. Ranks beyond {top} are drawn closer together. "
        "Click a picture to explain it."
    )
    for place, one in zip(st.columns(len(responses), gap="medium"), responses, strict=True):
        table, names = one.result.table, one.result.similarities
        first = table[(table[[f"{name}_rank" for name in names]] <= top).any(axis=1)]
        figure = figures.rank_flow(
            table, names, right_class=one.query.class_name, images=loaders.thumbs(one.gallery, first["row"]), top=top,
            highlighted=st.query_params.get("why", ""), title=one.run.name if len(responses) > 1 else "",
        )  # fmt: skip
        key = f"flow_{one.run.name}"

        def click(key: str = key, run: str = "" if one is responses[0] else one.run.name) -> None:
            points = st.session_state[key].selection.points
            if points:
                explain(str(points[0]["customdata"]), run)

        titles = ", ".join(EVERY[name].title for name in names)
        with place:
            chart(figure, key, f"Ranks of {len(first)} items by {titles}", on_select=click, selection_mode="points")


def ceiling(responses: list[Response], protocol: str, shortlist: int) -> None:
    """What the shortlist's size costs, for this query and for all of them."""
    for place, one in zip(st.columns(len(responses), gap="medium"), responses, strict=True):
        with place:
            measured = data.ceiling(one.run, protocol)
            items, queries = (100 * share for share in measured.at(shortlist))
            text = f"**{plain(one.run.name)}**: " if len(responses) > 1 else ""
            if one.query.class_name is not None:
                text += (
                    f"The shortlist of {shortlist:,} holds **{one.right_in_shortlist:,} of {one.right_items:,}** right "
                    "items of this query. "
                )
            sampled = f"a seeded sample of {measured.queries:,} of the " if measured.queries < measured.total else ""
            st.markdown(
                f"{text}Over {sampled}{measured.total:,} queries that have right items "
                f"({figures.PROTOCOL_TITLES[protocol].lower()}), it holds **{items:.1f} %** of these, and at "
                f"least one for **{queries:.1f} %** of the queries: re-ranking can't give a higher R@1."
            )
            alt = f"Share of right items within the shortlist against its size: {items:.1f} % at {shortlist}"
            chart(figures.ceiling(measured, shortlist), f"ceiling_{one.run.name}", alt)


def why(responses: list[Response], protocol: str, shortlist: int) -> None:
    """Explain the similarity of the query and one result."""
    runs = {one.run.name: plain(one.run.name) for one in responses}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if len(runs) > 1:
            shell.choice(st.segmented_control, "Explained by", runs, "of")
        one, linked = _explaining(responses), st.query_params.get("why", "")
        by = one.result.similarities[-1]
        ranked, item = one.result.ranked(by), explained_item(responses)
        if linked and item != linked:
            shell.warn_of_link(f"The item “{linked}” to explain isn't in this gallery.")
        if not item:
            st.caption("There are no results to explain.")
            return
        row = one.gallery.index_of(item)
        places = ranked.index[ranked["row"] == row]
        rank = int(places[0]) if len(places) else -1
        for label, shortcut, to in (("Previous result", "J", rank - 1), ("Next result", "K", rank + 1)):
            inside = 0 <= to < len(ranked)
            result = str(ranked["id"].iloc[to]) if inside else ""
            st.button(
                label, shortcut=shortcut, key=label.partition(" ")[0].lower() + "_result",
                help=f"In the ranking by {EVERY[by].title}",
                on_click=explain, args=(result, "" if one is responses[0] else one.run.name), disabled=not inside,
            )  # fmt: skip
    answer = data.why(one.run, protocol, one.feature, row)
    explanation, query = answer.explanation, one.query.item or OWN
    pictures = answer.images | {item: loaders.picture(one.run, item, one.gallery) or one.gallery.thumb(row)}
    pictures[query] = one.picture or one.gallery.thumb(one.gallery.index_of(query))
    left, middle, right = st.columns([9, 17, 13], gap="medium")
    with left:
        about = (query, one.query.class_name or one.query.name)
        block = cards.explained_pair(about, (item, str(one.gallery.items["class_name"].iloc[row])), pictures)
        picture_grid.pictures(block, "pair", reveal=f"{linked} {one.run.name}" if linked else "")
        st.html(cards.facts(_ranks(one.result, row)))
    with middle:
        st.markdown("\n".join(f"* {sentence}" for sentence in explanation.sentences()))
    with right:
        alt = f"Scores of this difference at {len(explanation.elsewhere)} places; here {explanation.score:.2f}"
        chart(figures.elsewhere(explanation), "elsewhere", alt)
    near = data.why_local(
        one.run, protocol, one.feature, one.pretrained, row, one.result.table["row"].to_numpy(), one.row
    )
    if near is not None:
        _neighbourhoods(near)
    picture_grid.pictures(cards.dimension_rows(explanation, answer.dimensions, pictures), "dimensions")
    shares = [explanation.distance_shares[one.number] for one in answer.dimensions]
    parts = [abs(explanation.score_parts[one.number]) for one in answer.dimensions]
    st.caption(
        f"The {len(shares)} of {len(explanation.u)} dimensions that weigh most: {100 * sum(shares):.0f} % of D² and "
        f"{100 * sum(parts) / max(abs(explanation.score_parts).sum(), 1e-12):.0f} % of what the differences do to S. "
        "The contribution of a dimension to S is its integrated gradient from an identical pair in the same place; all "
        "contributions add up to the difference of the two scores."
    )


def _neighbourhoods(near: data.WhyLocal) -> None:
    """What the neighbourhoods of the pair say, with the neighbours that both share as pictures."""
    from pddm_lab.analysis.explain_local import INPUTS

    st.markdown("**Neighbourhoods**")
    left, middle, right = st.columns([13, 13, 13], gap="medium")
    with left:
        st.markdown("\n".join(f"* {sentence}" for sentence in near.explanation.sentences()))
    with middle:
        if near.explanation.parts:
            picture_grid.pictures(cards.contributions(near.explanation.parts, INPUTS, "local"), "contributions")
    with right:
        st.caption("Neighbours of both, nearest to the query first" if near.shared else "They share no neighbour.")
        picture_grid.pictures(cards.image_grid(near.shared, near.images, small=True), "shared_neighbours")
    st.caption(
        "Each contribution is an integrated gradient on the way from the average inputs of the shortlist to those of "
        "this pair; all add up to the difference of the two scores. Labels play no part."
    )


def _ranks(result: SearchResult, row: int) -> dict[str, str]:
    """Value and rank of an item by each similarity."""
    line = result.table[result.table["row"] == row]
    if line.empty:
        return {"Rank": "not in the shortlist"}
    ranks = {}
    for name in result.similarities:
        value = float(figures.shown(name, np.array(line[name].iloc[0])))
        rank = int(line[f"{name}_rank"].iloc[0])
        ranks[EVERY[name].title] = f"{value:.3f}, rank {rank} of {len(result.table)}"
    return ranks


def results_table(responses: list[Response]) -> pd.DataFrame:
    """The shortlists as a table for download, with the values that the page shows: a distance is positive."""
    tables = []
    for one in responses:
        table = one.result.table.drop(columns="row")
        table = table.assign(**{name: figures.shown(name, table[name].to_numpy()) for name in one.result.similarities})
        if one.query.class_name is not None:
            table["right"] = table["class_name"] == one.query.class_name
        table.insert(0, "run", one.run.name)
        table.insert(1, "query", one.query.item or one.query.name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
