"""Charts of pairs: how a similarity separates positive from negative ones, where two similarities disagree, and whether
one threshold suits every density."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pddm_lab.figures.style import DARK, DASHES, NEGATIVE, RING, in_order, new_figure, shown, style_of, translucent
from pddm_lab.metrics.density import DENSITIES

if TYPE_CHECKING:
    from pddm_lab.analysis.thresholds import ByDensity
    from pddm_lab.metrics.separation import Distribution

HELD = (0.5, 0.9, 0.99)
"""Shares of each kind of pairs that the outlines of the joint plot contain."""
PICKED = {"color": "#F2B705", "symbol": "star", "size": 17, "line": {"color": "#1C2530", "width": 1.5}}
_CELLS = 56  # of the joint plot, along each axis


def distributions(
    distribution: Distribution, similarity: str, *, threshold: float | None = None, picked: float | None = None,
    bins: int = 100, title: str = "", height: int = 260,
) -> go.Figure:  # fmt: skip
    """The share of positive and of negative pairs per bin: few positives are visible beside many negatives.

    Args:
        distribution: of the similarity, larger = more similar.
        threshold: a similarity (not a distance) to mark.
        picked: the similarity of a pair to mark.
        bins: neighbouring bins are merged into about this many.
    """
    style, figure = style_of(similarity), new_figure(title, height)
    edges = _add_kinds(figure, distribution, similarity, bins)
    _mark_threshold(figure, similarity, threshold)
    if picked is not None:
        figure.add_scatter(
            x=[float(shown(similarity, np.array(picked)))], y=[0], name="picked pair", mode="markers", marker=PICKED,
            cliponaxis=False, hovertemplate="%{x:.3f}",
        )  # fmt: skip
    # From less to more similar: the axis of a distance is reversed.
    figure.update_xaxes(title=style.axis, range=[float(end) for end in shown(similarity, edges[[0, -1]])])
    return figure.update_yaxes(title="share of its kind, %", rangemode="tozero")


def distributions_by_density(
    thirds: Mapping[str, Distribution], similarity: str, *, threshold: float | None = None, bins: int = 60,
    title: str = "", height: int = 360,
) -> go.Figure:  # fmt: skip
    """Positive and negative pairs in each third by density, one above the other.

    Args:
        threshold: a similarity (not a distance) to mark in all of them.
        bins: neighbouring bins are merged into about this many.
    """
    shares = [density for density in DENSITIES if density in thirds]
    figure = make_subplots(max(len(shares), 1), 1, shared_xaxes=True, vertical_spacing=0.05)
    new_figure(title, height, figure)
    style, ends = style_of(similarity), []
    for row, density in enumerate(shares, 1):
        edges = _add_kinds(figure, thirds[density], similarity, bins, row)
        figure.update_yaxes(title=density, rangemode="tozero", nticks=4, row=row, col=1)
        ends += [edges[0], edges[-1]]
    _mark_threshold(figure, similarity, threshold)
    if ends:
        figure.update_xaxes(range=[float(end) for end in shown(similarity, np.array([min(ends), max(ends)]))])
        figure.update_xaxes(title=style.axis, row=len(shares), col=1)
    return figure


def _add_kinds(figure: go.Figure, distribution: Distribution, similarity: str, bins: int, row: int = 0) -> np.ndarray:
    """Draw the share of negative and of positive pairs per bin, in a row of the figure if it has several.

    Returns:
        Edges of the bins.
    """
    starts = np.arange(0, len(distribution.positive), max(1, len(distribution.positive) // bins))
    edges = np.append(distribution.edges[starts], distribution.edges[-1])
    centres = shown(similarity, (edges[:-1] + edges[1:]) / 2)
    place = {"row": row, "col": 1, "showlegend": row == 1} if row else {}
    for name, counts, of_kind, line in (
        ("negative pairs", distribution.negative, NEGATIVE, "dot"),
        ("positive pairs", distribution.positive, style_of(similarity).colour, "solid"),
    ):
        share = 100 * np.add.reduceat(counts, starts) / max(counts.sum(), 1)
        figure.add_scatter(
            x=centres.round(5), y=share.round(4), name=name, mode="lines", hovertemplate="%{y:.2f} %",
            line={"color": of_kind, "width": 1.8, "shape": "hvh", "dash": line},
            fill="tozeroy", fillcolor=translucent(of_kind, 0.22), legendgroup=name, **place,
        )  # fmt: skip
    return edges


def _mark_threshold(figure: go.Figure, similarity: str, threshold: float | None) -> None:
    if threshold is not None:
        figure.add_vline(x=float(shown(similarity, np.array(threshold))), line={"color": DARK, "width": 1.5})


def roc(
    distributions: Mapping[str, Distribution], *, thresholds: Mapping[str, float] | None = None, log_x: bool = True,
    title: str = "", height: int = 320,
) -> go.Figure:  # fmt: skip
    """TPR against FPR, a line per similarity.

    Args:
        thresholds: similarities (not distances) to mark on their lines.
        log_x: a logarithmic axis shows the rare false positives that matter in a large gallery.
    """
    figure = new_figure(title, height)
    for name in in_order(distributions):
        style = style_of(name)
        _add_roc(figure, distributions[name], name, style.title, style.dash, (thresholds or {}).get(name))
    return _roc_axes(figure, log_x)


def roc_by_density(
    thirds: Mapping[str, Distribution], similarity: str, *, threshold: float | None = None, log_x: bool = True,
    title: str = "", height: int = 320,
) -> go.Figure:  # fmt: skip
    """TPR against FPR in each third by density: a dash each.

    Args:
        threshold: a similarity (not a distance) to mark on each line. The marks coincide if one threshold works
            equally well everywhere.
    """
    figure = new_figure(title, height)
    for density, dash in zip(DENSITIES, DASHES, strict=False):
        if density in thirds:
            _add_roc(figure, thirds[density], similarity, density, dash, threshold)
    return _roc_axes(figure, log_x)


def _add_roc(
    figure: go.Figure, distribution: Distribution, similarity: str, name: str, dash: str, threshold: float | None
) -> None:
    style, curve = style_of(similarity), distribution.roc()
    # A few hundred points are enough: those where the line has moved by a pixel or two on either axis.
    places = np.column_stack([60 * np.log10(curve.fpr.clip(1e-5)), 150 * curve.fpr, 150 * curve.tpr]).round()
    moved = np.append(True, (np.diff(places, axis=0) != 0).any(axis=1))
    moved[-1] = True
    points = np.column_stack([100 * curve.fpr, 100 * curve.tpr])[moved].round(4)
    figure.add_scatter(
        x=points[:, 0], y=points[:, 1], name=name, mode="lines", hovertemplate="%{y:.1f} %",
        line={"color": style.colour, "width": 2, "dash": dash},
    )  # fmt: skip
    if threshold is not None:
        tpr, fpr = distribution.rates_at(threshold)
        figure.add_scatter(
            x=[100 * fpr], y=[100 * tpr], mode="markers", showlegend=False, hoverinfo="skip",
            marker={"color": style.colour, "symbol": style.symbol, "size": 11, "line": RING},
        )  # fmt: skip


def _roc_axes(figure: go.Figure, log_x: bool) -> go.Figure:
    if log_x:
        figure.update_xaxes(type="log", range=[-2, 2], dtick=1)
    figure.add_vline(x=1, line={"color": NEGATIVE, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="false positive rate (FPR), %")
    return figure.update_yaxes(title="true positive rate (TPR), %", range=[0, 101])


def joint(
    pairs: pd.DataFrame, x: str, y: str, *, at_x: float, at_y: float, names: tuple[str, str] | None = None,
    points: int = 800, picked: tuple[float, float] | None = None, title: str = "", height: int = 520,
) -> go.Figure:  # fmt: skip
    """Pairs by two similarities at once, with both thresholds: above and to the right is more similar.

    Outlines contain 50, 90 and 99 % of the positive and of the negative pairs. Some of each kind are drawn as points,
    whose `customdata` is their row in `pairs`. In the shaded quadrants the similarities disagree.

    Args:
        pairs: positive, and both similarities; each kind in random order, so that its first pairs are a sample.
        at_x, at_y: thresholds on both, similarities (not distances).
        names: columns with the classes of both items, for hover texts.
        points: drawn at most, half of each kind.
        picked: similarities by x and y of a pair to mark.
    """
    figure, positive = new_figure(title, height), pairs["positive"].to_numpy()
    values = [pairs[name].to_numpy(dtype=float) for name in (x, y)]
    ends = [
        _ends(of, at, None if picked is None else picked[axis])
        for axis, (of, at) in enumerate(zip(values, (at_x, at_y), strict=True))
    ]
    (left, right), (bottom, top) = (shown(name, np.array(end)) for name, end in zip((x, y), ends, strict=True))
    line_x, line_y = (float(shown(name, np.array(at))) for name, at in ((x, at_x), (y, at_y)))
    for x0, x1, y0, y1 in ((left, line_x, line_y, top), (line_x, right, bottom, line_y)):
        figure.add_shape(
            type="rect", x0=x0, x1=x1, y0=y0, y1=y1, fillcolor="rgba(138,147,163,.13)", line_width=0, layer="below"
        )
    kinds = (("negative pairs", False, NEGATIVE, "x-thin-open"), ("positive pairs", True, style_of(y).colour, "circle"))
    for name, kind, colour, _ in kinds:
        rows = positive == kind
        if rows.any():
            figure.add_trace(_outlines([of[rows] for of in values], ends, (x, y), name, colour))
    for name, kind, colour, symbol in kinds:
        rows = np.flatnonzero(positive == kind)[: points // 2]
        texts = None
        if names:
            classes = zip(*(pairs[name].iloc[rows] for name in names), strict=True)
            texts = [a if a == b else f"{a} · {b}" for a, b in classes]
        figure.add_scatter(
            x=shown(x, values[0][rows]).round(4), y=shown(y, values[1][rows]).round(4), name=name, mode="markers",
            customdata=rows, text=texts, opacity=0.7,
            marker={"color": colour, "symbol": symbol, "size": 5, "line": {"color": colour, "width": 1 - kind}},
            hovertemplate=("%{text}<br>" if names else "")
            + f"{style_of(x).title} %{{x:.3f}}<br>{style_of(y).title} %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    for add, at, name in ((figure.add_vline, line_x, x), (figure.add_hline, line_y, y)):
        style = style_of(name)
        add(at, line={"color": style.colour, "width": 1.8, "dash": style.dash})
    if picked is not None:
        place = [[float(shown(name, np.array(value)))] for name, value in zip((x, y), picked, strict=True)]
        figure.add_scatter(x=place[0], y=place[1], name="picked pair", mode="markers", marker=PICKED, hoverinfo="skip")
    for side, name, across, down in ((0, y, "left", "top"), (1, x, "right", "bottom")):
        figure.add_annotation(
            x=side, y=1 - side, xref="paper", yref="paper", text=f"only {style_of(name).title} accepts",
            showarrow=False, font={"size": 12}, xanchor=across, yanchor=down, xshift=6 - 12 * side,
        )  # fmt: skip
    figure.update_layout(hovermode="closest", dragmode="pan")
    figure.update_xaxes(title=style_of(x).axis, range=[float(left), float(right)])
    return figure.update_yaxes(title=style_of(y).axis, range=[float(bottom), float(top)])


def _ends(values: np.ndarray, *held: float | None) -> tuple[float, float]:
    """A range that contains all but the outermost values, and the values in `held`."""
    known = [value for value in held if value is not None and np.isfinite(value)]
    low, high = np.quantile(values, [0.0005, 0.9995]) if len(values) else (0.0, 1.0)
    low, high = min(low, *known), max(high, *known)
    room = 0.05 * (high - low) or 0.5
    return low - room, high + room


def _outlines(
    values: list[np.ndarray], ends: list[tuple[float, float]], axes: tuple[str, str], name: str, colour: str
) -> go.Contour:
    """Lines around the densest regions that contain the shares `HELD` of some pairs."""
    from scipy.ndimage import convolve1d

    places = [
        ((of - low) / (high - low) * _CELLS).astype(int).clip(0, _CELLS - 1)
        for of, (low, high) in zip(values, ends, strict=True)
    ]
    counts = np.bincount(places[1] * _CELLS + places[0], minlength=_CELLS**2).reshape(_CELLS, _CELLS).astype(float)
    smooth = counts
    for axis in (0, 1, 0, 1):  # few pairs per cell leave holes
        smooth = convolve1d(smooth, [0.25, 0.5, 0.25], axis, mode="nearest")
    falling = np.argsort(-smooth, axis=None)
    within = np.empty(counts.size)
    within[falling] = counts.ravel()[falling].cumsum() / counts.sum()
    # A contour draws evenly spaced levels: level 1 contains the largest share.
    level = np.interp(within, [0, *HELD, 1], [*range(len(HELD) + 1, 0, -1), 0]).reshape(counts.shape)
    level[[0, -1]] = level[:, [0, -1]] = 0  # so that they close
    centres = [
        shown(axis, low + (np.arange(_CELLS) + 0.5) * (high - low) / _CELLS).round(5)
        for axis, (low, high) in zip(axes, ends, strict=True)
    ]
    return go.Contour(
        x=centres[0], y=centres[1], z=level.round(2), name=name, showscale=False, hoverinfo="skip",
        contours={"start": 1, "end": len(HELD), "size": 1, "coloring": "fill"}, line={"color": colour, "width": 1.2},
        colorscale=[[share, translucent(colour, 0.3 * share)] for share in np.linspace(0, 1, len(HELD) + 1)],
    )  # fmt: skip


def by_density(results: Mapping[str, ByDensity], *, share: float, title: str = "", height: int = 300) -> go.Figure:
    """TPR and FPR of one threshold in each third by density, with 95 % intervals.

    Hollow markers: the TPR at the third's own threshold, which accepts the same share of its negative pairs.

    Args:
        share: of the negative pairs that the thresholds accept.
    """
    figure = make_subplots(1, 2, horizontal_spacing=0.12, subplot_titles=["TPR, %", "FPR, %"])
    figure.update_annotations(font_size=13)
    new_figure(title, height, figure)
    for number, name in enumerate(in_order(results)):
        style, table = style_of(name), results[name].table
        at = np.arange(len(table)) + 0.09 * (number - (len(results) - 1) / 2)
        for column, rate in enumerate(("tpr", "fpr"), 1):
            value, low, high = (100 * table[f"{rate}{end}"].to_numpy() for end in ("", "_low", "_high"))
            figure.add_scatter(
                x=at, y=value.round(3), row=1, col=column, name=style.title, legendgroup=name, showlegend=column == 1,
                mode="lines+markers", line={"color": style.colour, "width": 2, "dash": style.dash},
                marker={"symbol": style.symbol, "size": 9},
                error_y={"array": (high - value).round(3), "arrayminus": (value - low).round(3), "thickness": 1.3,
                         "width": 4},
                customdata=np.column_stack([low, high]).round(2),
                hovertemplate=f"{style.title} %{{y:.2f}} % (%{{customdata[0]}} to %{{customdata[1]}})<extra></extra>",
            )  # fmt: skip
        figure.add_scatter(
            x=at, y=100 * table["own_tpr"].round(5), row=1, col=1, name="at its own threshold", mode="markers",
            marker={"symbol": f"{style.symbol}-open", "size": 9, "color": style.colour, "line": {"width": 1.8}},
            showlegend=False, hovertemplate=f"{style.title}, at its own threshold: %{{y:.1f}} %<extra></extra>",
        )  # fmt: skip
    figure.add_hline(100 * share, row=1, col=2, line={"color": NEGATIVE, "width": 1, "dash": "dot"})
    figure.update_xaxes(tickvals=list(range(len(DENSITIES))), ticktext=list(DENSITIES), range=[-0.35, 2.35])
    figure.update_yaxes(range=[0, 102], row=1, col=1)
    figure.update_yaxes(rangemode="tozero", row=1, col=2)
    return figure.update_layout(hovermode="closest", margin={"t": 92 if title else 62})
