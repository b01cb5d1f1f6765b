"""Charts of an audit: how much items prefer themselves, the slack of triangles, and calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from pddm_lab.figures.style import DASHES, NEGATIVE, in_order, new_figure, shown, style_of, ticks_at, translucent
from pddm_lab.metrics.density import DENSITIES

if TYPE_CHECKING:
    from pddm_lab.analysis.calibration import Calibration
    from pddm_lab.analysis.metric_axioms import Axioms

DENSITY_DASHES = dict(zip(DENSITIES, DASHES, strict=False))
_FAILS = "rgba(196,56,47,.10)"


def self_margins(axioms: Mapping[str, Axioms], *, title: str = "", height: int = 300) -> go.Figure:
    """How much more similar items are to themselves than to the closest other: the share of items up to each margin.

    Each similarity is a line. Where it crosses 0 it shows how many items have a closer other.
    """
    figure = new_figure(title, height)
    shares = np.linspace(0, 100, 201)
    low = -0.5
    for name in in_order(axioms):
        style, of = style_of(name), axioms[name]
        margins = (of.own[of.rows] - of.rival_score) / of.spread
        points = np.quantile(margins, shares / 100)
        low = min(low, float(points[0]) - 0.2)
        figure.add_scatter(
            x=points.round(4), y=shares, name=style.title, mode="lines", hovertemplate="%{y:.1f} %",
            line={"color": style.colour, "width": 2, "dash": style.dash},
        )  # fmt: skip
    figure.add_vrect(x0=low, x1=0, fillcolor=_FAILS, line_width=0, layer="below")
    figure.add_vline(x=0, line={"color": NEGATIVE, "width": 1.2})
    figure.update_xaxes(
        title="S(i,i) − S(i, closest other), in spreads of S; below 0 another item is closer", range=[low, None]
    )
    return figure.update_yaxes(title="items up to this margin, %", range=[-1, 101])


def slack(axioms: Mapping[str, Axioms], *, title: str = "", height: int = 300) -> go.Figure:
    """How much longer a detour through a third item is than the direct way, a line per similarity."""
    from pddm_lab.analysis.metric_axioms import SLACK_EDGES

    counts = {name: of.triangles.slack for name, of in axioms.items()}
    held = np.flatnonzero(sum(counts.values())) if counts else np.empty(0, int)
    first, last = (int(held[0]), int(held[-1])) if len(held) else (0, len(SLACK_EDGES) - 2)
    first = max(min(first, int(np.searchsorted(SLACK_EDGES, 0)) - 8), 0)
    edges = SLACK_EDGES[first : last + 2]
    figure = _lines({name: each[first : last + 1] for name, each in counts.items()}, edges, title, height, "of detours")
    return figure.update_xaxes(title="d(i,j) + d(j,k) − d(i,k), in spreads of S; below 0 the detour is shorter")


def _lines(counts: Mapping[str, np.ndarray], edges: np.ndarray, title: str, height: int, of: str) -> go.Figure:
    """Shares per bin on a logarithmic axis, which shows rare violations; their region is tinted."""
    figure = new_figure(title, height)
    figure.add_vrect(x0=float(edges[0]), x1=0, fillcolor=_FAILS, line_width=0, layer="below")
    centres = ((edges[:-1] + edges[1:]) / 2).round(4)
    lowest = 1.0
    for name in in_order(counts):
        style, values = style_of(name), np.asarray(counts[name])
        share = 100 * values / max(int(values.sum()), 1)
        lowest = min(lowest, float(share[share > 0].min(initial=1.0)))
        figure.add_scatter(
            x=centres, y=np.where(share > 0, share, np.nan).round(7), name=style.title, mode="lines",
            line={"color": style.colour, "width": 1.8, "dash": style.dash}, connectgaps=True,
            hovertemplate="%{y:.2g} %",
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": NEGATIVE, "width": 1.2})
    figure.update_xaxes(range=[float(edges[0]), float(edges[-1])])
    low = int(np.floor(np.log10(lowest)))
    ticks = ticks_at([10.0**power for power in range(low, 3)])
    return figure.update_yaxes(title=f"share {of}, %", type="log", range=[low, 2.05], **ticks)


def reliability_diagram(
    calibrations: Mapping[str, Calibration], by: str = "platt", *, log: bool = False, title: str = "",
    height: int = 360,
) -> go.Figure:  # fmt: skip
    """Observed shares of positive pairs against predicted probabilities; on the diagonal both agree.

    Args:
        by: the map, a key of `calibration.MAPS`.
        log: logarithmic axes, for probabilities near 0.
    """
    figure = new_figure(title, height).update_layout(hovermode="closest")
    low = 1.0
    for name in in_order(calibrations):
        style, measured = style_of(name), calibrations[name].maps[by]
        low = min(low, *(float(part[part > 0].min(initial=1.0)) for part in (measured.predicted, measured.observed)))
        figure.add_scatter(
            x=measured.predicted.round(6), y=measured.observed.round(6), name=style.title, mode="lines+markers",
            line={"color": style.colour, "width": 2, "dash": style.dash},
            marker={"symbol": style.symbol, "size": 7, "color": style.colour}, customdata=measured.pairs,
            hovertemplate=f"{style.title}: predicted %{{x:.3g}}, observed %{{y:.3g}} "
            "(%{customdata:,} pairs)<extra></extra>",
        )  # fmt: skip
    low = float(np.clip(low, 1e-5, 0.1)) if log else 0.0
    figure.add_scatter(
        x=[low, 1], y=[low, 1], mode="lines", line={"color": NEGATIVE, "width": 1.2, "dash": "dot"}, showlegend=False,
        hoverinfo="skip",
    )  # fmt: skip
    axis: dict[str, Any] = {"range": [-0.02, 1.02]}
    if log:
        ticks = ticks_at([10.0**power for power in range(-5, 1)])
        axis = {"type": "log", "range": [np.log10(low) - 0.1, 0.05], **ticks}
    figure.update_xaxes(title="predicted probability of one class", **axis)
    return figure.update_yaxes(title="observed share of one class", **axis)


def probability_by_density(calibration: Calibration, *, title: str = "", height: int = 360) -> go.Figure:
    """The probability that a pair is of one class by its similarity, for all pairs and in each third by density."""
    from pddm_lab.analysis.calibration import probability

    style, figure = style_of(calibration.similarity), new_figure(title, height)
    scores = np.linspace(*calibration.ends, 121)
    x = shown(calibration.similarity, scores)
    for name, curve in calibration.curves.items():
        whole = name == "all"
        figure.add_scatter(
            x=x.round(4), y=(100 * probability(curve, scores)).round(3), mode="lines",
            name="all pairs" if whole else name,
            line={"color": NEGATIVE if whole else style.colour, "width": 5 if whole else 2,
                  "dash": DENSITY_DASHES.get(name, "solid")},
            opacity=0.45 if whole else 1, hovertemplate="%{y:.1f} %",
        )  # fmt: skip
    figure.add_hline(y=50, line={"color": translucent(NEGATIVE, 0.8), "width": 1, "dash": "dot"})
    figure.update_xaxes(title=style.axis, range=[float(x[0]), float(x[-1])])
    return figure.update_yaxes(title="probability of one class, %", range=[-2, 102])
