"""Charts of a study: its methods side by side with every seed, how fast they learn, and the effect of each choice."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pddm_lab.figures.style import DARK, NEGATIVE, Metric, in_order, metric_of, new_figure, style_of, translucent

COLOURS = ("#D9570B", "#2F78D0", "#0E9470", "#B83280", "#8A6D1C", "#5B4BC4")
"""Colours of the methods that are named."""
REST = "rgba(138,147,163,.45)"
_SPREAD = 0.52  # part of a row's height that the rankings of one method share


def side_by_side(
    table: pd.DataFrame, seeds: pd.DataFrame, metric: str | Metric, *, best: tuple[str, str] | None = None,
    title: str = "", height: int | None = None,
) -> go.Figure:  # fmt: skip
    """Methods as dots with 95 % intervals, the best on top, and each seed as a faint dot; a marker per similarity.

    Args:
        table: name (of the method), similarity (that ranks), value (mean over seeds), half (of its interval; NaN if
            there is none), seeds (how many).
        seeds: name, similarity, value of each seed.
        metric: a key of `METRICS`, or how to display another one.
        best: name and similarity of the best baseline, which is marked by a line.
    """
    known = metric_of(metric)
    scale = known.scale
    by_name = table.groupby("name")["value"]
    order = (by_name.max() if known.larger_is_better else -by_name.min()).sort_values(ascending=False, kind="stable")
    names = list(order.index)
    figure = new_figure(title, height or 96 + 32 * len(names))
    places = _places(table, names)
    if best and len(row := table[(table["name"] == best[0]) & (table["similarity"] == best[1])]):
        _mark(figure, scale * float(row["value"].iloc[0]), scale * float(row["half"].iloc[0]), "best baseline")
    for similarity in in_order(table["similarity"]):
        style = style_of(similarity)
        rows, every = table[table["similarity"] == similarity], seeds[seeds["similarity"] == similarity]
        figure.add_scatter(
            x=scale * every["value"], y=[places[name, similarity] for name in every["name"]], mode="markers",
            marker={"color": translucent(style.colour, 0.35), "size": 6}, hoverinfo="skip", showlegend=False,
            legendgroup=similarity,
        )  # fmt: skip
        _dots(figure, rows, [places[name, similarity] for name in rows["name"]], similarity, scale, known)
    labels = [f"<b>{_wrapped(name)}</b>" if best and name == best[0] else _wrapped(name) for name in names]
    _in_rows(figure, labels, known.heading)
    return figure.update_xaxes(range=_reach(table, seeds, scale, known))


def differences(
    table: pd.DataFrame, metric: str | Metric, *, against: str = "default", title: str = "", height: int | None = None
) -> go.Figure:  # fmt: skip
    """Differences to one of the rows with 95 % intervals, in the order given; a marker per similarity.

    Args:
        table: factor (that is varied), name (of the variant), similarity, value (the difference), half, seeds.
        metric: a key of `METRICS`, or how to display another one.
        against: name of the line at 0.
    """
    known = metric_of(metric)
    rows = list(dict.fromkeys(zip(table["factor"], table["name"], strict=True)))
    named = table.assign(name=list(zip(table["factor"], table["name"], strict=True)))
    figure = new_figure(title, height or 100 + 38 * len(rows))
    places = _places(named, rows)
    _mark(figure, 0.0, float("nan"), against)
    for similarity in in_order(table["similarity"]):
        own = named[named["similarity"] == similarity]
        at = [places[name, similarity] for name in own["name"]]
        _dots(figure, own, at, similarity, known.scale, known, sign="+")
    for number in range(1, len(rows)):
        if rows[number][0] != rows[number - 1][0]:
            figure.add_hline(number - 0.5, line={"color": REST, "width": 1}, layer="below")
    labels = [_wrapped(f"{factor}: {name}") for factor, name in rows]
    unit = " points" if known.unit == "%" else ""
    return _in_rows(figure, labels, f"difference in {known.title}{unit}")


def _reach(table: pd.DataFrame, seeds: pd.DataFrame, scale: float, known: Metric) -> list[float]:
    """From the lowest to the highest seed; the very long intervals of few seeds are cut off."""
    low, high = scale * seeds["value"].min(), scale * seeds["value"].max()
    room, half = 0.3 * (high - low) or 1.0, table["half"].fillna(0)
    low = max(scale * (table["value"] - half).min(), low - room)
    high = min(scale * (table["value"] + half).max(), high + room)
    pad = 0.03 * (high - low) or 1.0
    return [float(low - pad), float(high + pad)]


def _places(table: pd.DataFrame, names: Sequence) -> dict[tuple, float]:
    """Height of each (name, similarity): the similarities of one name lie around its row, in the order of legends."""
    heights = {}
    for number, name in enumerate(names):
        own = in_order(table.loc[table["name"].map(lambda other, name=name: other == name), "similarity"])
        for similarity, shift in zip(own, np.linspace(-0.5, 0.5, len(own)) if len(own) > 1 else [0.0], strict=True):
            heights[name, similarity] = number + _SPREAD * float(shift)
    return heights


def _dots(
    figure: go.Figure, rows: pd.DataFrame, at: Sequence[float], similarity: str, scale: float, known: Metric,
    sign: str = "",
) -> None:  # fmt: skip
    """The means of one similarity with their intervals; hollow without an interval."""
    style = style_of(similarity)
    symbols = [f"{style.symbol}-open" if np.isnan(half) else style.symbol for half in rows["half"]]
    names = [": ".join(name) if isinstance(name, tuple) else name for name in rows["name"]]
    bounds = [f" ± {scale * half:.{known.digits}f}" if np.isfinite(half) else "" for half in rows["half"]]
    figure.add_scatter(
        x=scale * rows["value"], y=at, mode="markers", legendgroup=similarity, showlegend=False,
        error_x={"array": scale * rows["half"].fillna(0), "thickness": 1.3, "width": 3},
        marker={"color": style.colour, "size": 9, "symbol": symbols, "line": {"width": 1.5, "color": style.colour}},
        customdata=np.column_stack([names, bounds, rows["seeds"]]) if len(rows) else None,
        hovertemplate=f"<b>%{{customdata[0]}}</b><br>by {style.title}: %{{x:{sign}.{known.digits}f}}%{{customdata[1]}} "
        f"{known.unit} (seeds: %{{customdata[2]}})<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[None], y=[None], mode="markers", name=style.title, legendgroup=similarity,
        marker={"color": style.colour, "size": 9, "symbol": style.symbol},
    )  # fmt: skip


def _mark(figure: go.Figure, value: float, half: float, name: str) -> None:
    """A line with its interval behind the dots, and its name above."""
    if np.isfinite(half) and half:
        figure.add_vrect(value - half, value + half, fillcolor=NEGATIVE, opacity=0.14, line_width=0, layer="below")
    figure.add_vline(value, line={"color": NEGATIVE, "dash": "dot", "width": 1.5}, layer="below")
    figure.add_annotation(x=value, y=1, yref="paper", yanchor="bottom", text=name, showarrow=False, font={"size": 12})


def _in_rows(figure: go.Figure, labels: Sequence[str], x: str) -> go.Figure:
    figure.update_layout(hovermode="closest", margin={"t": 92 if figure.layout.title.text else 58})
    figure.update_xaxes(title=x)
    return figure.update_yaxes(
        tickvals=list(range(len(labels))), ticktext=list(labels), range=[len(labels) - 0.4, -0.6], showgrid=False
    )


def _wrapped(name: str) -> str:
    return "<br>".join(textwrap.wrap(name, 44))


def learning(
    log: pd.DataFrame, named: Mapping[str, str], *, target: float | None = None, x: str = "step", title: str = "",
    height: int = 420,
) -> go.Figure:  # fmt: skip
    """MAP@R on held-out classes during training: named methods in colour, all others in grey.

    Args:
        log: run (the method), step, seconds, value, as `study.statistics.curves` gives it, of one data set.
        named: method -> its name in the legend; at most as many as there are `COLOURS`.
        target: a value to mark by a line.
        x: "step" or "seconds".
    """
    figure = new_figure(title, height)
    runs = list(dict.fromkeys(log["run"]))
    for run in sorted(runs, key=lambda run: run in named):  # the named ones on top
        rows = log[log["run"] == run].sort_values(x)
        colour = COLOURS[[*named].index(run) % len(COLOURS)] if run in named else REST
        figure.add_scatter(
            x=rows[x], y=100 * rows["value"], name=named.get(run, run), showlegend=run in named,
            mode="lines+markers" if run in named else "lines", marker={"size": 6},
            line={"color": colour, "width": 2 if run in named else 1},
            hovertemplate=f"{named.get(run, run)} %{{y:.1f}} %<extra></extra>",
        )  # fmt: skip
    if target is not None:
        figure.add_hline(100 * target, line={"color": DARK, "dash": "dot"}, annotation_text="best baseline, at its end")
    figure.update_layout(hovermode="closest").update_xaxes(title="training step" if x == "step" else "training time, s")
    return figure.update_yaxes(title="MAP@R, % (held-out classes)")
