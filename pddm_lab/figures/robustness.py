"""Charts of a run's robustness: what is left under each corruption, and how scores move with its strength."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pddm_lab.figures.style import NEGATIVE, in_order, metric_of, new_figure, shown, style_of, translucent

_VALUES = ((0.0, "#F3F6FA"), (1.0, "#7FB0EA"))
_DIFFERENCES = ((0.0, "#E0796F"), (0.5, "#F3F6FA"), (1.0, "#7FB0EA"))
_ROW = 24
"""Pixels."""
CLEAN = "clean"


def corruption_map(
    cells: pd.DataFrame, metric: str, titles: dict[str, str], *, relative: bool = False, largest: float = 0.0,
    title: str = "",
) -> go.Figure:  # fmt: skip
    """A corruption a row and a strength a column, with the metric in each cell.

    Args:
        cells: corruption, strength and the metric, of one similarity and one side; the row "clean" is the pictures as
            they are.
        metric: a key of `METRICS`.
        titles: of the corruptions; they are drawn in this order.
        relative: draw the difference to the pictures as they are.
        largest: difference at both ends of the colours; 0: the largest in `cells`.
    """
    known, scale = metric_of(metric), metric_of(metric).scale
    clean = float(cells.loc[cells["corruption"] == CLEAN, metric].iloc[0])
    table = cells[cells["corruption"] != CLEAN].pivot(index="corruption", columns="strength", values=metric)
    table = table.loc[[name for name in titles if name in table.index]] * scale
    values = table - clean * scale if relative else table
    bound = largest * scale or max(float(np.nanmax(np.abs(values.to_numpy()))), 0.1)
    low, high = (-bound, bound) if relative else (0, scale)
    sign = "+" if relative else ""
    text = table.copy().astype(object)
    for row, column in np.ndindex(*values.shape):
        value = float(values.iloc[row, column])
        text.iloc[row, column] = f"{value:{sign}.{known.digits}f}".replace("-", "−") if np.isfinite(value) else ""
    figure = new_figure(title, 66 + _ROW * len(table) + (32 if title else 0))
    figure.add_heatmap(
        z=values, x=[f"{strength}" for strength in table], y=[titles[name] for name in table.index], zmin=low,
        zmax=high, colorscale=_DIFFERENCES if relative else _VALUES, xgap=2, ygap=2, showscale=False, hoverongaps=False,
        text=text, texttemplate="%{text}", textfont={"color": "#10141C"}, customdata=table,
        hovertemplate=f"%{{y}}, strength %{{x}}: {known.title} %{{customdata:.{known.digits}f}} {known.unit}"
        f", clean {clean * scale:.{known.digits}f}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(hovermode="closest", margin={"t": 64 if title else 30})
    figure.update_xaxes(title="strength", side="top", type="category", showgrid=False, fixedrange=True)
    return figure.update_yaxes(autorange="reversed", showgrid=False, fixedrange=True)


def by_strength(cells: pd.DataFrame, metric: str, *, title: str = "", height: int = 300) -> go.Figure:
    """A line a similarity: the metric against the strength of a corruption, from the pictures as they are.

    Args:
        cells: corruption, strength, similarity and the metric, of one corruption on one side, and of "clean".
        metric: a key of `METRICS`.
    """
    known, figure = metric_of(metric), new_figure(title, height)
    for name in in_order(cells["similarity"]):
        rows, style = cells[cells["similarity"] == name].sort_values("strength"), style_of(name)
        figure.add_scatter(
            x=rows["strength"], y=rows[metric] * known.scale, name=style.title, mode="lines+markers",
            line={"color": style.colour, "width": 2, "dash": style.dash},
            marker={"symbol": style.symbol, "size": 7}, hovertemplate=f"%{{y:.{known.digits}f}} {known.unit}",
        )  # fmt: skip
    _strengths(figure, cells)
    return figure.update_yaxes(title=known.heading)


def score_bands(cells: pd.DataFrame, similarity: str, *, title: str = "", height: int = 300) -> go.Figure:
    """Mean and one deviation of the scores of positive and of negative pairs against the strength.

    Args:
        cells: corruption, strength, and mean and deviation of both, of one corruption and similarity, and of "clean".
        similarity: a distance is drawn as one.
    """
    style, figure = style_of(similarity), new_figure(title, height)
    rows = cells.sort_values("strength")
    for kind, colour, dash in (("positive", style.colour, style.dash), ("negative", NEGATIVE, "dot")):
        mean, deviation = (rows[f"{kind}_{what}"].to_numpy(float) for what in ("mean", "deviation"))
        low, high = (shown(similarity, mean + way * deviation) for way in (-1, 1))
        x = rows["strength"].to_numpy()
        figure.add_scatter(
            x=np.concatenate([x, x[::-1]]), y=np.concatenate([low, high[::-1]]), mode="lines", fill="toself",
            fillcolor=translucent(colour, 0.18), line={"width": 0}, hoverinfo="skip", showlegend=False,
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=shown(similarity, mean), mode="lines+markers", name=f"{kind} pairs", customdata=deviation,
            line={"color": colour, "width": 2, "dash": dash},
            marker={"symbol": style.symbol if kind == "positive" else "circle", "size": 7},
            hovertemplate="%{y:.3f} ± %{customdata:.3f}",
        )  # fmt: skip
    _strengths(figure, rows)
    return figure.update_yaxes(title=style.axis, autorange="reversed" if style.is_distance else True)


def by_angle(table: pd.DataFrame, *, title: str = "", height: int = 320) -> go.Figure:
    """A line a similarity: R@1 against the angle to the nearest view in the gallery, with its interval.

    Args:
        table: angle, similarity, value, low, high.
    """
    known, figure = metric_of("recall@1"), new_figure(title, height)
    for name in in_order(table["similarity"]):
        rows, style = table[table["similarity"] == name].sort_values("angle"), style_of(name)
        values, low, high = (rows[column] * known.scale for column in ("value", "low", "high"))
        figure.add_scatter(
            x=rows["angle"], y=values, name=style.title, mode="lines+markers",
            line={"color": style.colour, "width": 2, "dash": style.dash}, marker={"symbol": style.symbol, "size": 7},
            error_y={"array": high - values, "arrayminus": values - low, "thickness": 1, "width": 2},
            hovertemplate=f"%{{y:.{known.digits}f}} {known.unit}",
        )  # fmt: skip
    figure.update_xaxes(title="degrees to the nearest view in the gallery", tickvals=sorted(table["angle"].unique()))
    return figure.update_yaxes(title=known.heading)


def _strengths(figure: go.Figure, cells: pd.DataFrame) -> None:
    strengths = sorted(cells["strength"].unique())
    names = ["clean" if strength == 0 else f"{strength}" for strength in strengths]
    figure.update_xaxes(title="strength", tickvals=strengths, ticktext=names)
