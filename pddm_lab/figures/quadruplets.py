"""Charts of mined quadruplets: a batch's similarities, how hard they were, and which classes are confused."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from pddm_lab.figures.style import DARK, NEGATIVE, WRONG, new_figure, shown, style_of, translucent

HARDNESS = {
    "violated": "Violated hinges", "slack": "Slack", "s": "S of the pairs", "d": "D of the pairs",
    "same": "Same as Euclidean",
}  # fmt: skip
"""What `hardness` can draw, with titles."""


def hardness(
    table: pd.DataFrame, what: str = "violated", *, similarity: str = "pddm", title: str = "", height: int = 260
) -> go.Figure:
    """How hard the mined quadruplets were through training.

    Args:
        table: as `pddm_lab.analysis.hardness.through_training` returns it.
        what: `violated`: the share that violates each hinge; `slack`, `s` (similarities) and `d` (distances): the
            median as a line, the middle 80 % as a band; `same`: the share where Euclidean mining agrees.
        similarity: the trained one, whose scores S are.
    """
    figure = new_figure(title, height)
    unit, lines = _LINES[what]
    trained = style_of(similarity).colour
    for column, name, colour, dash in lines:
        colour = trained if colour == "similarity" else colour
        if unit == "%":
            figure.add_scatter(
                x=table["step"], y=(100 * table[column]).round(3), name=name, mode="lines",
                hovertemplate="%{y:.1f} %", line={"color": colour, "width": 2, "dash": dash},
            )  # fmt: skip
            continue
        ends = [table[f"{column}_{quantile}"].round(5) for quantile in (10, 90)]
        figure.add_scatter(
            x=pd.concat([table["step"], table["step"][::-1]]), y=pd.concat([ends[1], ends[0][::-1]]), mode="lines",
            fill="toself", fillcolor=translucent(colour, 0.13), line={"width": 0}, hoverinfo="skip",
            showlegend=False, legendgroup=column,
        )  # fmt: skip
        figure.add_scatter(
            x=table["step"], y=table[f"{column}_50"].round(5), name=name, mode="lines", legendgroup=column,
            customdata=np.column_stack(ends), line={"color": colour, "width": 2, "dash": dash},
            hovertemplate="%{y:.3f} (%{customdata[0]:.3f} to %{customdata[1]:.3f})",
        )  # fmt: skip
    width = int(table["width"].max()) if len(table) else 1
    figure.update_xaxes(title="training step" + (f", groups of {width}" if width > 1 else ""))
    if unit == "%":
        return figure.update_yaxes(title=_TITLES[what], range=[0, 101])
    if what == "slack":
        figure.add_hline(y=0, line={"color": DARK, "width": 1.5, "dash": "dot"})
    return figure.update_yaxes(title=_TITLES[what].format(style_of(similarity).title))


def confusion(
    table: pd.DataFrame, *, chosen: Sequence[str] = (), most: int = 18, title: str = "", height: int = 460
) -> go.Figure:
    """Which classes give each other hard negatives: a row per class of the anchor, a column per class of the negative.

    Args:
        table: as `pddm_lab.analysis.hardness.confusions` returns it.
        chosen: two classes whose cells are marked.
        most: draw about this many classes, those of the most frequent pairs, with confused ones next to each other.
    """
    figure = new_figure(title, height)
    classes = _seriated(table, most)
    place = {name: number for number, name in enumerate(classes)}
    cells = table[table["own"].isin(place) & table["other"].isin(place)]
    count = np.full((len(classes), len(classes)), np.nan)
    rows, columns = cells["own"].map(place).to_numpy(dtype=int), cells["other"].map(place).to_numpy(dtype=int)
    count[rows, columns] = cells["count"]
    figure.add_heatmap(
        z=count, x=list(range(len(classes))), y=list(range(len(classes))), xgap=1, ygap=1, zmin=0,
        colorscale=[[0, translucent(WRONG, 0.08)], [1, WRONG]], hoverinfo="skip", showscale=False,
    )  # fmt: skip
    # Cells of a heatmap can't be selected; points over them can.
    figure.add_scatter(
        x=columns, y=rows, mode="markers", showlegend=False, marker={"symbol": "square", "size": 16, "opacity": 0},
        selected={"marker": {"opacity": 0}}, unselected={"marker": {"opacity": 0}},
        customdata=np.column_stack([cells["own"], cells["other"], cells["count"], 100 * cells["share"]]),
        hovertemplate="anchor %{customdata[0]}<br>negative %{customdata[1]}<br>%{customdata[2]:,} times, "
        "%{customdata[3]:.0f} % of its hard negatives<extra></extra>",
    )  # fmt: skip
    for one, other in (chosen, chosen[::-1]) if len(chosen) == 2 else ():
        if one in place and other in place:
            x, y = place[other], place[one]
            line = {"color": _EUCLIDEAN.colour, "width": 2.5}
            figure.add_shape(type="rect", x0=x - 0.5, x1=x + 0.5, y0=y - 0.5, y1=y + 0.5, line=line)
    names = [name if len(name) <= 15 else f"{name[:7]}…{name[-7:]}" for name in classes]
    ticks = {"tickvals": list(range(len(classes))), "ticktext": names, "showgrid": False, "tickfont": {"size": 10.5}}
    figure.update_xaxes(title="class of the negative", tickangle=-90, range=[-0.5, len(classes) - 0.5], **ticks)
    figure.update_yaxes(title="class of the anchor", range=[len(classes) - 0.5, -0.5], **ticks)
    return figure.update_layout(hovermode="closest", margin={"t": 44 if title else 8})


def batch_matrix(
    scores: Float[np.ndarray, "items items"], labels: Sequence[object], pictures: Sequence[bytes], similarity: str, *,
    marks: Mapping[str, Sequence[tuple[int, int]]] | None = None, title: str = "", height: int = 640,
) -> go.Figure:  # fmt: skip
    """All similarities of a batch as a matrix: a picture per row and column, frames around the pairs of one class.

    Args:
        scores: of every item (row) with every item (column), larger = more similar.
        labels: class of each item, those of a class next to each other.
        pictures: of each item, PNG bytes; empty to draw none.
        marks: cells to mark, (row, column), by what they are.
    """
    figure, items, style = new_figure(title, height), len(labels), style_of(similarity)
    values = np.where(np.eye(items, dtype=bool), np.nan, scores)
    names = np.array([str(label) for label in labels])
    figure.add_heatmap(
        z=values.round(4), xgap=1, ygap=1, colorscale=[[0, translucent(style.colour, 0.04)], [1, style.colour]],
        customdata=np.stack(np.broadcast_arrays(names[:, None], names), -1), text=shown(similarity, values).round(3),
        colorbar={"thickness": 10, "title": {"text": f"{style.title}<br>more similar ↑", "font": {"size": 11}}},
        hovertemplate="%{customdata[0]} and %{customdata[1]}: %{text}<extra></extra>",
    )  # fmt: skip
    edges = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
    for start, end in zip(edges, np.append(edges[1:], items), strict=True):
        figure.add_shape(
            type="rect", x0=start - 0.5, x1=end - 0.5, y0=start - 0.5, y1=end - 0.5,
            line={"color": DARK, "width": 2},
        )  # fmt: skip
    for (name, cells), (symbol, colour) in zip((marks or {}).items(), _MARKS, strict=False):
        rows, columns = zip(*cells, strict=True) if cells else ((), ())
        figure.add_scatter(
            x=columns, y=rows, mode="markers", name=name, hoverinfo="skip",
            marker={"symbol": symbol, "size": 11, "color": colour, "line": {"color": colour, "width": 2.5}},
        )  # fmt: skip
    # The pictures along the axes are a little larger than one cell.
    for place, data in enumerate(pictures):
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        for x, y in ((place, -1.15), (-1.15, place)):
            figure.add_layout_image(
                source=source, xref="x", yref="y", x=x, y=y, sizex=0.9, sizey=0.9, xanchor="center", yanchor="middle"
            )
    low = -1.9 if len(pictures) else -0.5
    figure.update_xaxes(range=[low, items - 0.5], visible=False, constrain="domain")
    figure.update_yaxes(range=[items - 0.5, low], visible=False, scaleanchor="x", constrain="domain")
    return figure.update_layout(hovermode="closest", dragmode=False, margin={"t": 76 if title else 36})


def _seriated(table: pd.DataFrame, most: int) -> list[str]:
    """The classes of the most frequent pairs, each next to the remaining one that it is confused with most."""
    chosen: dict[str, None] = {}
    for own, other in zip(table["own"], table["other"], strict=True):
        if len(chosen) >= most:
            break
        chosen |= {own: None, other: None}
    cells = table[table["own"].isin(chosen) & table["other"].isin(chosen)]
    strength: dict[tuple[str, str], int] = {}
    for own, other, count in zip(cells["own"], cells["other"], cells["count"], strict=True):
        for pair in ((own, other), (other, own)):
            strength[pair] = strength.get(pair, 0) + int(count)
    left, order = list(chosen), list(chosen)[:1]
    while len(order) < len(left):
        rest = [name for name in left if name not in order]
        order.append(max(rest, key=lambda name: strength.get((order[-1], name), 0)))
    return order


_MARKS = (("circle-open", "#11151C"), ("x-thin", WRONG), ("diamond-open", "#7A55D6"))
_EUCLIDEAN = style_of("euclidean")
_HINGES = (("ik", "hinge i–k", DARK, "solid"), ("jl", "hinge j–l", NEGATIVE, "dash"))
_PAIRS = (("ik", "i–k, negative", DARK, "dash"), ("jl", "j–l, negative", NEGATIVE, "dot"))
_LINES: dict[str, tuple[str, list[tuple[str, ...]]]] = {
    "violated": ("%", [(f"violated_{end}", *look) for end, *look in _HINGES]),
    "slack": ("", [(f"slack_{end}", *look) for end, *look in _HINGES]),
    "s": ("", [("s_ij", "i–j, positive", "similarity", "solid"), *((f"s_{end}", *look) for end, *look in _PAIRS)]),
    "d": ("", [("d_ij", "i–j, positive", _EUCLIDEAN.colour, "solid"), *((f"d_{end}", *look) for end, *look in _PAIRS)]),
    "same": ("%", [("same_j", "same j", _EUCLIDEAN.colour, "solid"), ("same_k", "same k", _EUCLIDEAN.colour, "dash")]),
}
_TITLES = {
    "violated": "violated, %", "slack": "slack, above 0: violated", "s": "{} score S", "d": "Euclidean distance D",
    "same": "Euclidean mining chooses the same, %",
}  # fmt: skip
