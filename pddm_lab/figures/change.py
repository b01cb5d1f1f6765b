"""Charts of a range that changes.

Drift: signals over a stream with their threshold, and the distribution of a signal then and now. Updates with new
classes: the matrix of accuracies, the accuracy while training, and what backfill brings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from pddm_lab.figures.style import DASHES, NEGATIVE, WRONG, new_figure, style_of

_COLOURS = [
    style_of(name).colour
    for name in ("euclidean", "pddm", "mahalanobis", "local", "cosine", "csls", "expansion", "both_expansion")
]
_NOW = style_of("pddm").colour
_FLAT = 0.5
_LOWEST = 10.0
"""Per cent of a threshold: what is below is drawn there."""


def drift_over_stream(
    ends: Sequence[int], ratios: Mapping[str, Sequence[float]], *, title: str = "", height: int = 340
) -> go.Figure:
    """Each signal's statistic over its threshold, in percent, against the number of queries seen.

    Args:
        ends: queries after which each window ends.
        ratios: title of the signal -> its ratio for each window.
    """
    figure = new_figure(title, height)
    figure.add_scatter(
        x=[ends[0], ends[-1]], y=[100, 100], name="threshold", mode="lines", line={"color": WRONG, "width": 1.5},
        hoverinfo="skip",
    )  # fmt: skip
    for number, (name, values) in enumerate(ratios.items()):
        colour, dash = _COLOURS[number % len(_COLOURS)], DASHES[number % len(DASHES)]
        figure.add_scatter(
            x=list(ends), y=np.maximum(100 * np.asarray(values), _LOWEST), name=name,
            mode="lines+markers" if len(ends) < 2 else "lines",
            line={"color": colour, "width": 2, "dash": dash}, hovertemplate=f"{name}: %{{y:.0f}} %<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title="queries seen")
    highest = max(100, *(100 * max(values) for values in ratios.values()))
    return figure.update_yaxes(
        title="of its threshold, %", type="log", range=[math.log10(_LOWEST), math.log10(1.5 * highest)], dtick=1
    )


def then_and_now(
    edges: Sequence[float], then: Sequence[float], now: Sequence[float], *, title: str = "", height: int = 240
) -> go.Figure:
    """The distribution of a signal: grey for the run's own queries, a coloured line for the last window.

    Args:
        edges: of the bins.
        then: share of the run's own queries in each bin.
        now: share of the last queries in each bin.
    """
    figure = new_figure(title, height)
    middle = (np.asarray(edges[1:]) + np.asarray(edges[:-1])) / 2
    figure.add_bar(
        x=middle, y=100 * np.asarray(then), name="then", marker={"color": NEGATIVE, "opacity": _FLAT, "line_width": 0},
        hovertemplate="%{y:.1f} %",
    )  # fmt: skip
    figure.add_scatter(
        x=middle, y=100 * np.asarray(now), name="now", mode="lines", hovertemplate="%{y:.1f} %",
        line={"color": _NOW, "width": 2.5, "shape": "hvh"},
    )  # fmt: skip
    figure.update_layout(bargap=0)
    return figure.update_yaxes(title="queries, %", rangemode="tozero")


def matrices(of_ways: Mapping[str, Float[np.ndarray, "sessions sessions"]], title: str = "") -> go.Figure:
    """A heat map of each way: R@1 in % on the classes of each session, after each session.

    Args:
        of_ways: title of the way -> R; NaN is left empty.
        title: of the figure.
    """
    columns = min(3, len(of_ways))
    rows = -(-len(of_ways) // columns)
    grid = make_subplots(rows, columns, subplot_titles=list(of_ways), vertical_spacing=0.35 / rows)
    figure = new_figure(title, 130 + 270 * rows, grid)
    for place, values in enumerate(of_ways.values()):
        numbers = [str(session) for session in range(len(values))]
        text = [["" if np.isnan(one) else f"{100 * one:.0f}" for one in row] for row in values]
        figure.add_heatmap(
            x=numbers, y=numbers, z=100 * values, zmin=0, zmax=100, text=text, texttemplate="%{text}",
            colorscale="Blues", showscale=False, row=place // columns + 1, col=place % columns + 1,
            hovertemplate="after session %{y}, classes of %{x}: %{z:.1f} %<extra></extra>",
        )  # fmt: skip
    return figure.update_yaxes(autorange="reversed", title="after session").update_xaxes(title="classes of session")


def while_training(of_ways: Mapping[str, Sequence[Sequence[float]]], every: int) -> go.Figure:
    """R@1 on all earlier classes, update after update.

    Args:
        of_ways: title of the way -> for each update its values, the first of which is before it.
        every: steps between two values.
    """
    figure = new_figure("R@1 on earlier classes while the updates are under way", 420)
    for place, (title, curves) in enumerate(of_ways.items()):
        steps, values, begin = [], [], 0
        for curve in curves:
            steps += [begin + every * at for at in range(len(curve))]
            values += [100 * value for value in curve]
            begin = steps[-1]
        figure.add_scatter(
            x=steps, y=values, name=title, mode="lines",
            line={"color": _COLOURS[place % len(_COLOURS)], "dash": DASHES[place % len(DASHES)]},
        )  # fmt: skip
    return figure.update_xaxes(title="steps of all updates").update_yaxes(title="R@1, %")


def backfill(of_ways: Mapping[str, Mapping[str, Sequence[float]]], shares: Sequence[float]) -> go.Figure:
    """MAP@R of new queries against the share of the old items that is embedded again, a line a way and order.

    Args:
        of_ways: title of the way -> order -> a value for each share.
        shares: from 0 to 1.
    """
    figure = new_figure("What embedding the old items again brings", 420)
    for place, (title, orders) in enumerate(of_ways.items()):
        for number, (order, values) in enumerate(orders.items()):
            figure.add_scatter(
                x=[100 * share for share in shares], y=[100 * value for value in values], name=f"{title}, {order}",
                mode="lines+markers", line={"color": _COLOURS[place % len(_COLOURS)], "dash": DASHES[number]},
            )  # fmt: skip
    return figure.update_xaxes(title="old items embedded again, %").update_yaxes(title="MAP@R, %")
