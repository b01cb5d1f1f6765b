"""Pictures of the lesson's exercises: a query with two candidates, and the points whose nearest is of another class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from pddm_lab.figures.maps import class_colour
from pddm_lab.figures.plane import PAIR, SYMBOLS, plane_neighbourhood
from pddm_lab.figures.style import new_figure, style_of

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from pddm_lab.teaching.exercises import Pair, Search
    from pddm_lab.teaching.point_sets import PointSet

LETTERS = {"D": "euclidean", "S": "pddm", "L": "local"}
"""The similarities of the lesson, by their letters."""
_AROUND = (1.0, 0.57)  # half of the width and height of what is drawn around a query


def plane_pair(
    point_set: PointSet, pair: Pair, scores: Float[np.ndarray, "rows columns"] | None = None, level: float = 0.0,
    *, title: str = "", height: int = 380,
) -> go.Figure:  # fmt: skip
    """A query and its candidates a and b; with scores, what is more similar to the query than b, by S and by D.

    Args:
        scores: S of the query with the points of `mesh`; None before the answer.
        level: S of the query with b.
    """
    query, ends = point_set.points[pair.query], point_set.points[[pair.a, pair.b]]
    radius = float(np.linalg.norm(ends[1] - query))
    figure = plane_neighbourhood(point_set, pair.query, scores, level, radius, title=title, height=height)
    figure.for_each_trace(
        lambda trace: trace.update(name=f"{trace.name[0]}: more similar than b"), {"showlegend": True}
    )
    figure.add_scatter(
        x=ends[:, 0].round(4), y=ends[:, 1].round(4), mode="markers+text", name="candidates", showlegend=False,
        text=["<b>a</b>", "<b>b</b>"], textposition="middle center", textfont={"color": "#11151C", "size": 15},
        hoverinfo="skip", marker={"size": 23, "color": "white", "line": {"color": PAIR, "width": 3}},
    )  # fmt: skip
    for axis, at, half in zip((figure.layout.xaxis, figure.layout.yaxis), query, _AROUND, strict=True):
        axis.update(range=[float(at) - half, float(at) + half], visible=False)
    return figure.update_layout(clickmode="none", hovermode=False)


def plane_searches(
    points: Float[np.ndarray, "items 2"], labels: Int[np.ndarray, " items"],
    searches: Mapping[str, Search] | None = None, *, title: str = "", height: int = 380,
) -> go.Figure:  # fmt: skip
    """Points by class, and a line to the most similar point of each for which that is of another class.

    Args:
        searches: by a key of `LETTERS`; None before the answer.
    """
    figure, (x, y) = new_figure(title, height), points.round(3).T
    figure.add_scatter(
        x=x, y=y, mode="markers", hoverinfo="skip", showlegend=False, name="points",
        marker={
            "size": 7, "opacity": 0.45 if searches else 1, "color": [class_colour(label) for label in labels],
            "symbol": [SYMBOLS[label % len(SYMBOLS)] for label in labels],
        },
    )  # fmt: skip
    for letter, search in (searches or {}).items():
        style, wrong = style_of(LETTERS[letter]), ~search.right
        gap = np.full((wrong.sum(), 2), np.nan)
        lines = np.stack([points[search.rows[wrong]], points[search.nearest[wrong]], gap], axis=1).reshape(-1, 2)
        x, y = lines.round(3).T if len(lines) else ([None], [None])  # an empty trace has no entry in the legend
        figure.add_scatter(
            x=x, y=y, mode="lines+markers", hoverinfo="skip", showlegend=True,
            name=f"{letter}: {wrong.sum()} of {len(wrong)} wrong", line={"color": style.colour, "width": 3},
            marker={"size": 6, "color": style.colour, "symbol": style.symbol},
        )  # fmt: skip
    figure.update_xaxes(visible=False, constrain="domain", constraintoward="left")
    figure.update_yaxes(visible=False, constrain="domain", constraintoward="top", scaleanchor="x")
    return figure.update_layout(hovermode=False, dragmode=False, margin={"t": 76 if title else 30})
