"""Charts of pairs: how a similarity parts positive ones from negative ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from pddm_lab.figures.looks import NEGATIVE, RING, in_order, new_figure, shown, style_of, translucent

if TYPE_CHECKING:
    from pddm_lab.separation import Distribution


def distributions(
    distribution: Distribution, similarity: str, *, threshold: float | None = None, bins: int = 100,
    title: str = "", height: int = 260,
) -> go.Figure:  # fmt: skip
    """Positive and negative pairs, each kind's share per bin: a few positives show beside many negatives.

    Args:
        distribution: of the similarity, larger = more similar.
        threshold: a similarity (not a distance) to mark.
        bins: neighbouring bins are added up to about this many.
    """
    style, figure = style_of(similarity), new_figure(title, height)
    starts = np.arange(0, len(distribution.positive), max(1, len(distribution.positive) // bins))
    edges = np.append(distribution.edges[starts], distribution.edges[-1])
    centres = shown(similarity, (edges[:-1] + edges[1:]) / 2)
    for name, counts, colour, line in (
        ("negative pairs", distribution.negative, NEGATIVE, "dot"),
        ("positive pairs", distribution.positive, style.colour, "solid"),
    ):
        share = 100 * np.add.reduceat(counts, starts) / max(counts.sum(), 1)
        figure.add_scatter(
            x=centres.round(5), y=share.round(4), name=name, mode="lines", hovertemplate="%{y:.2f} %",
            line={"color": colour, "width": 1.8, "shape": "hvh", "dash": line},
            fill="tozeroy", fillcolor=translucent(colour, 0.22),
        )  # fmt: skip
    if threshold is not None:
        figure.add_vline(x=float(shown(similarity, np.array(threshold))), line={"color": "#6B7686", "width": 1.5})
    # From less to more similar: a distance's axis runs backwards.
    figure.update_xaxes(title=style.axis, range=[float(end) for end in shown(similarity, edges[[0, -1]])])
    return figure.update_yaxes(title="share of its kind, %", rangemode="tozero")


def roc(
    distributions: Mapping[str, Distribution], *, thresholds: Mapping[str, float] | None = None, log_x: bool = True,
    title: str = "", height: int = 320,
) -> go.Figure:  # fmt: skip
    """TPR against FPR, a line per similarity.

    Args:
        distributions: by similarity.
        thresholds: similarities (not distances) to mark on their lines.
        log_x: a logarithmic axis, for the rare false positives that matter when a gallery is large.
    """
    figure = new_figure(title, height)
    for name in in_order(distributions):
        style, distribution = style_of(name), distributions[name]
        curve = distribution.roc()
        # A few hundred points: those at which the line has moved by a pixel or two on either axis.
        places = np.column_stack([60 * np.log10(curve.fpr.clip(1e-5)), 150 * curve.fpr, 150 * curve.tpr]).round()
        moved = np.append(True, (np.diff(places, axis=0) != 0).any(axis=1))
        moved[-1] = True
        points = np.column_stack([100 * curve.fpr, 100 * curve.tpr])[moved].round(4)
        figure.add_scatter(
            x=points[:, 0], y=points[:, 1], name=style.title, mode="lines", hovertemplate="%{y:.1f} %",
            line={"color": style.colour, "width": 2, "dash": style.dash},
        )  # fmt: skip
        if thresholds and name in thresholds:
            tpr, fpr = distribution.rates_at(thresholds[name])
            figure.add_scatter(
                x=[100 * fpr], y=[100 * tpr], mode="markers", showlegend=False, hoverinfo="skip",
                marker={"color": style.colour, "symbol": style.symbol, "size": 11, "line": RING},
            )  # fmt: skip
    if log_x:
        ticks = [0.01, 0.1, 1, 10, 100]
        figure.update_xaxes(type="log", range=[-2, 2], tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    figure.add_vline(x=1, line={"color": NEGATIVE, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="false positive rate (FPR), %")
    return figure.update_yaxes(title="true positive rate (TPR), %", range=[0, 101])
