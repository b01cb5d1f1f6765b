"""Charts of a search: how similarities order a shortlist, what its size costs, and a pair's score elsewhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pddm_lab.figures.style import DARK, NEGATIVE, RIGHT, RING, WRONG, new_figure, style_of, ticks_at, translucent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pddm_lab.analysis.explain import Explanation
    from pddm_lab.analysis.shortlist import Ceiling

_TAIL = 1.1  # rows that each doubling of a rank takes beyond the first ranks


def rank_flow(
    shortlist: pd.DataFrame, similarities: Sequence[str], *, right_class: str | None = None,
    images: Mapping[str, bytes | None] | None = None, top: int = 12, highlighted: str = "", title: str = "",
    height: int | None = None,
) -> go.Figure:  # fmt: skip
    """An axis per similarity and a line per item, from its rank by one similarity to its rank by the next.

    Only items among the first results of any similarity are drawn. Ranks beyond those get closer and closer together.

    Args:
        shortlist: id, class_name and <similarity>_rank.
        similarities: the axes, from left to right.
        right_class: the query's class; lines of other classes are dotted. None if it is unknown.
        images: picture bytes by item id, drawn at the first ranks.
        highlighted: id of an item to draw stronger.
    """
    ranks = shortlist[[f"{name}_rank" for name in similarities]].to_numpy()
    drawn = (ranks <= top).any(axis=1)
    ranks, items = ranks[drawn], shortlist.loc[drawn, ["id", "class_name"]]
    heights, last = _height_of(ranks, top), int(ranks.max(initial=top))
    floor = float(_height_of(np.array(last), top))
    titles = [style_of(name).title for name in similarities]
    lines: list[dict[str, Any]] = []
    pictures: list[dict[str, Any]] = []
    named: set[str] = set()
    for (item, class_name), places, at in zip(items.itertuples(index=False), ranks, heights, strict=True):
        kind, colour, dash = _kind_of(class_name, right_class)
        where = ", ".join(f"{one} {rank}" for one, rank in zip(titles, places, strict=True))
        strong = item == highlighted
        line = {"color": translucent(colour, 1 if strong else 0.6), "width": 4 if strong else 2, "dash": dash}
        lines.append(
            {"type": "scatter", "x": list(range(len(titles))), "y": at.tolist(), "mode": "lines+markers", "name": kind,
             "legendgroup": kind, "showlegend": kind not in named, "customdata": [item] * len(titles), "line": line,
             "marker": {"color": colour, "size": 7, "opacity": 1}, "selected": {"marker": {"opacity": 1}},
             "unselected": {"marker": {"opacity": 1}},
             # Plotly interprets some HTML in a hover label.
             "hovertemplate": f"{html.escape(class_name, quote=False)}<br>{where}<extra></extra>"}
        )  # fmt: skip
        named.add(kind)
        data = (images or {}).get(item)
        source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" if data else ""
        pictures += [
            {"source": source, "xref": "x", "yref": "y", "x": axis, "y": int(rank), "sizex": 0.3, "sizey": 0.86,
             "xanchor": "center", "yanchor": "middle", "layer": "above"}
            for axis, rank in enumerate(places)
            if source and rank <= top
        ]  # fmt: skip
    # All at once: plotly validates a figure again for each trace or picture that is added.
    figure = new_figure(
        title, height or round(64 + 27 * (floor + 0.5)) + (32 if title else 0),
        go.Figure({"data": lines, "layout": {"images": pictures}}),
    )  # fmt: skip
    ticks = [*range(1, top + 1), *(tick for tick in (25, 50, 100, 200, 500, 1000) if top < tick <= last)]
    figure.update_xaxes(
        tickvals=list(range(len(similarities))), side="top", range=[-0.3, len(similarities) - 0.7], fixedrange=True,
        ticktext=[f"<b>{one}</b>" for one in titles],
    )  # fmt: skip
    figure.update_yaxes(
        tickvals=_height_of(np.array(ticks), top), ticktext=[str(tick) for tick in ticks], range=[floor + 0.7, 0.3],
        fixedrange=True, showgrid=False, title="rank",
    )  # fmt: skip
    figure.update_layout(hovermode="closest", margin={"t": 78 if title else 46}, dragmode=False)
    figure.update_layout(legend={"yref": "paper", "y": 0, "yanchor": "top", "x": 0})
    return figure


def _height_of(ranks: NDArray, top: int) -> NDArray:
    """The height of a rank: the first ones are evenly spaced, those beyond by their logarithm."""
    return np.where(ranks <= top, ranks, top + 0.5 + _TAIL * np.log2(np.maximum(ranks, top) / top)).round(3)


def _kind_of(class_name: str, right_class: str | None) -> tuple[str, str, str]:
    if right_class is None:
        return "class of the query unknown", DARK, "solid"
    return ("right class", RIGHT, "solid") if class_name == right_class else ("another class", WRONG, "dot")


def ceiling(measured: Ceiling, shortlist: int, *, title: str = "", height: int = 280) -> go.Figure:
    """The best that re-ranking a shortlist can reach against its size, with the chosen size marked."""
    figure, count = new_figure(title, height), len(measured.recall)
    shown = np.unique(np.geomspace(1, max(count, 1), 120).round().astype(int)) if count else np.empty(0, int)
    colour = style_of("euclidean").colour
    for name, values, dash, symbol in (
        ("queries with a right item in it", measured.reached, "dash", "square"),
        ("right items in it", measured.recall, "solid", "circle"),
    ):
        figure.add_scatter(
            x=shown, y=(100 * values[shown - 1]).round(3), name=name, mode="lines", hovertemplate="%{y:.1f} %",
            line={"color": colour, "width": 2, "dash": dash},
        )  # fmt: skip
        if count:
            at = min(shortlist, count)
            figure.add_scatter(
                x=[at], y=[100 * values[at - 1]], mode="markers", showlegend=False, hoverinfo="skip",
                marker={"color": colour, "symbol": symbol, "size": 11, "line": RING},
            )  # fmt: skip
    figure.add_vline(x=shortlist, line={"color": NEGATIVE, "width": 1.5})
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if tick <= max(count, 1)]
    figure.update_xaxes(type="log", title="shortlist, items", **ticks_at(ticks))
    return figure.update_yaxes(title="share, %", range=[0, 101])


def elsewhere(explanation: Explanation, *, bins: int = 30, title: str = "", height: int = 170) -> go.Figure:
    """Scores of one difference at other places of the gallery, and its score at its own place.

    Args:
        explanation: with places.
    """
    style, figure = style_of("pddm"), new_figure(title, height)
    counts, edges = np.histogram(explanation.elsewhere, bins)
    figure.add_bar(
        x=((edges[:-1] + edges[1:]) / 2).round(4), y=counts, width=np.diff(edges).round(5), name="at other places",
        marker={"color": translucent(NEGATIVE, 0.75), "line": {"width": 0}},
        hovertemplate=f"%{{y}} places<br>{style.letter} about %{{x:.2f}}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[explanation.score] * 2, y=[0, max(counts.max(initial=1), 1)], mode="lines+markers", name="here",
        hovertemplate=f"here {style.letter} {explanation.score:.2f}<extra></extra>",
        line={"color": style.colour, "width": 2.5},
        marker={"symbol": [style.symbol, style.symbol], "size": [0, 10], "line": RING},
    )  # fmt: skip
    figure.update_layout(hovermode="closest", bargap=0)
    figure.update_xaxes(title=f"{style.letter} of the same difference")
    return figure.update_yaxes(title="places", rangemode="tozero")
