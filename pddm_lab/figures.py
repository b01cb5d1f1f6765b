"""Arrays and frames to plotly figures, for notebooks and the dashboard alike.

Every similarity has one colour, dash and marker everywhere, so that a chart reads without its colours too. Positive
pairs carry the similarity's colour, negative pairs are grey. The colours keep a contrast of 3:1 or more on white and on
near-black, and backgrounds are transparent: one figure serves a light and a dark page. A distance is drawn as the
distance (D = -S) on a reversed axis, so that right is more similar in every chart. Pictures are in cards.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pddm_lab.config import SIMILARITIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pddm_lab.separation import Distribution


@dataclass(frozen=True)
class Style:
    """How one similarity looks everywhere."""

    title: str
    colour: str
    dash: str
    symbol: str
    axis: str
    """What its values are called, with the direction that is more similar."""
    distance: bool = False
    """Shown as the distance D = -S."""


STYLES: dict[str, Style] = {
    "euclidean": Style(
        "Euclidean", "#2F78D0", "solid", "circle", "Euclidean distance D (smaller = more similar)", True
    ),
    "cosine": Style("Cosine", "#B83280", "dot", "triangle-up", "cosine (larger = more similar)"),
    "mahalanobis": Style(
        "Mahalanobis", "#0E9470", "dash", "square", "Mahalanobis distance D (smaller = more similar)", True
    ),
    "pddm": Style("PDDM", "#D9570B", "solid", "diamond", "PDDM score S (larger = more similar)"),
}
NEGATIVE = "#8A93A3"
"""Colour of negative pairs."""
PROTOCOL_TITLES = {
    "unseen": "Unseen classes",
    "known": "Known classes",
    "validation": "Validation classes",
    "train": "Training batches",
}
PHASE_TITLES = {
    "select": "Choosing the best step",
    "refit": "Refit on all training classes",
    "evaluate": "Measuring",
    "gallery": "Building the galleries",
    "done": "Done",
}


@dataclass(frozen=True)
class Metric:
    """How one metric is written."""

    title: str
    unit: str
    """ "%" for fractions, which are shown times 100; "" for plain numbers."""
    help: str
    digits: int = 1
    larger_is_better: bool = True

    def format(self, value: float) -> str:
        """The value as text without its unit; a dash where there is none."""
        if value is None or not np.isfinite(value):
            return "–"
        return f"{value * (100 if self.unit == '%' else 1):.{self.digits}f}"

    @property
    def heading(self) -> str:
        """Title with its unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


METRICS: dict[str, Metric] = {
    **{
        f"recall@{k}": Metric(f"R@{k}", "%", f"Queries with a right item among the first {k}.")
        for k in (1, 2, 4, 8, 16, 32)
    },
    "r_precision": Metric("R-precision", "%", "Share of right items among the first R, R being how many there are."),
    "map@r": Metric("MAP@R", "%", "R-precision that also rewards right items for coming early."),
    "nmi": Metric("NMI", "%", "Normalised mutual information of k-means clusters and classes."),
    "auc": Metric("ROC AUC", "", "Chance that a positive pair is more similar than a negative one.", 4),
    "eer": Metric("EER", "%", "Error rate where as many positives are missed as negatives pass.", 1, False),
    "dprime": Metric("d′", "", "Distance of the means of positive and negative pairs, in standard deviations.", 2),
    "tpr@1%fpr": Metric("TPR at 1 % FPR", "%", "Positive pairs found when 1 % of the negative ones pass."),
}
"""Every metric a run measures, in the order tables show them."""


_TEMPLATE = go.layout.Template(
    layout=go.Layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#7B8594", "size": 13},
        xaxis={"gridcolor": "rgba(138,147,163,.22)", "zeroline": False, "automargin": True},
        yaxis={"gridcolor": "rgba(138,147,163,.22)", "zeroline": False, "automargin": True},
    )
)
_RING = {"color": "white", "width": 1.5}
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def _figure(title: str, height: int, figure: go.Figure | None = None) -> go.Figure:
    figure = figure or go.Figure()
    return figure.update_layout(
        template=_TEMPLATE,
        height=height,
        title={"text": title, "x": 0, "xanchor": "left", "font": {"size": 15}} if title else None,
        margin={"l": 8, "r": 12, "t": 72 if title else 40, "b": 4},
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "yref": "container",
            "y": 0.88 if title else 0.995,
            "yanchor": "top",
            "title": None,
        },
        hovermode="x unified",
    )


def style_of(similarity: str) -> Style:
    """The look of a similarity; one the lab has no colour for is drawn in grey under its own name."""
    plain = Style(similarity, "#6B7686", "dashdot", "x", f"{similarity} (larger = more similar)")
    return STYLES.get(similarity, plain)


def shown(similarity: str, values: NDArray) -> NDArray:
    """Similarities as they are shown: a distance's sign is turned back."""
    return -np.asarray(values) if style_of(similarity).distance else np.asarray(values)


def in_order(similarities: Iterable[str]) -> list[str]:
    """Similarities in the order every table and legend uses."""
    order: dict[str, int] = {name: rank for rank, name in enumerate(SIMILARITIES)}
    return sorted(set(similarities), key=lambda name: (order.get(name, len(order)), name))


def curves(
    frame: pd.DataFrame, metric: str, *, x: str = "step", protocol: str = "validation",
    title: str = "", height: int = 300,
) -> go.Figure:  # fmt: skip
    """One metric through training: a line per similarity, coloured by it, dashed by the run where there are several.

    Args:
        frame: a run's metrics (step, seconds, protocol, similarity, metric, value); a `run` column tells several apart.
        metric: a key of `METRICS`.
        x: "step" or "seconds".
    """
    known = METRICS.get(metric) or Metric(metric, "", "")
    scale = 100 if known.unit == "%" else 1
    figure = _figure(title, height)
    frame = frame[(frame["metric"] == metric) & (frame["protocol"] == protocol)]
    runs = list(dict.fromkeys(frame["run"])) if "run" in frame else [""]
    named: set[str] = set()
    for number, run in enumerate(runs):
        of_run = frame[frame["run"] == run] if "run" in frame else frame
        for name in in_order(of_run["similarity"]):
            rows, style = of_run[of_run["similarity"] == name].sort_values(x), style_of(name)
            dash = _DASHES[number % len(_DASHES)] if len(runs) > 1 else style.dash
            figure.add_scatter(
                x=rows[x], y=rows["value"] * scale, mode="lines+markers" if len(rows) <= 60 else "lines",
                name=style.title, showlegend=name not in named, line={"color": style.colour, "width": 2, "dash": dash},
                marker={"symbol": style.symbol, "size": 6}, hovertemplate=f"%{{y:.{known.digits}f}} {known.unit} {run}",
            )  # fmt: skip
            named.add(name)
    _name_dashes(figure, runs)
    figure.update_xaxes(title=_time_title(x))
    return figure.update_yaxes(title=f"{known.heading} ({PROTOCOL_TITLES.get(protocol, protocol).lower()})")


def losses(frame: pd.DataFrame, *, x: str = "step", points: int = 200, title: str = "", height: int = 300) -> go.Figure:
    """Loss terms through training: E and its parts, E_m on scores (PDDM's colour), E_e on distances (Euclidean's).

    Args:
        frame: a run's metrics; rows of protocol "train" are used. A `run` column tells several runs apart.
        x: "step" or "seconds".
        points: neighbouring steps are averaged down to about this many points a line; the axis says over how many.
    """
    terms = {
        "loss": ("E, the sum", "#6B7686"),
        "E_m": ("E<sub>m</sub>, on scores", STYLES["pddm"].colour),
        "E_e": ("E<sub>e</sub>, on distances", STYLES["euclidean"].colour),
        "mahalanobis_loss": ("Mahalanobis, its own", STYLES["mahalanobis"].colour),
    }
    frame = frame[frame["protocol"] == "train"]
    runs = list(dict.fromkeys(frame["run"])) if "run" in frame else [""]
    figure, window, named = _figure(title, height), 1, set()
    for number, run in enumerate(runs):
        of_run = frame[frame["run"] == run] if "run" in frame else frame
        for term, (name, colour) in terms.items():
            rows = of_run[of_run["metric"] == term].sort_values("step")
            if rows.empty:
                continue
            size = max(1, len(rows) // points)
            window = max(window, size)
            means = rows[[x, "value"]].groupby(np.arange(len(rows)) // size).mean()
            figure.add_scatter(
                x=means[x], y=means["value"], mode="lines", name=name, showlegend=name not in named,
                line={"color": colour, "width": 2, "dash": _DASHES[number % len(_DASHES)]},
                hovertemplate=f"%{{y:.4f}} {run}",
            )  # fmt: skip
            named.add(name)
    _name_dashes(figure, runs)
    figure.update_xaxes(title=_time_title(x))
    return figure.update_yaxes(title="loss" + (f", mean of {window} steps" if window > 1 else ""), rangemode="tozero")


def _name_dashes(figure: go.Figure, runs: Sequence[str]) -> None:
    """Legend entries for the runs' dashes: beside those for the colours, instead of one for each pair of both."""
    for number, run in enumerate(runs if len(runs) > 1 else ()):
        line = {"color": "#6B7686", "width": 2, "dash": _DASHES[number % len(_DASHES)]}
        # Of a long name both ends: it begins with its data and ends with its time.
        name = run if len(run) <= 28 else f"{run[:16]}…{run[-11:]}"
        figure.add_scatter(x=[None], y=[None], mode="lines", name=name, line=line)


def _time_title(x: str) -> str:
    return "training time, s" if x == "seconds" else "training step"


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
    style, figure = style_of(similarity), _figure(title, height)
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
            fill="tozeroy", fillcolor=_translucent(colour, 0.22),
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
    figure = _figure(title, height)
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
                marker={"color": style.colour, "symbol": style.symbol, "size": 11, "line": _RING},
            )  # fmt: skip
    if log_x:
        ticks = [0.01, 0.1, 1, 10, 100]
        figure.update_xaxes(type="log", range=[-2, 2], tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    figure.add_vline(x=1, line={"color": NEGATIVE, "width": 1, "dash": "dot"})
    figure.update_xaxes(title="false positive rate (FPR), %")
    return figure.update_yaxes(title="true positive rate (TPR), %", range=[0, 101])


def comparison(
    table: pd.DataFrame, metrics: Sequence[str] = ("recall@1", "map@r"), *,
    protocols: Sequence[str] = ("unseen", "known"), title: str = "", height: int | None = None,
) -> go.Figure:  # fmt: skip
    """Final metrics as dots: a panel per protocol, a row per metric (and run), a marker per similarity.

    Args:
        table: run, protocol, similarity, metric, value, as `runs.compare` returns it.
        metrics: keys of `METRICS` that are fractions.
    """
    protocols = [name for name in protocols if (table["protocol"] == name).any()] or list(protocols)
    runs = list(dict.fromkeys(table["run"]))
    rows = [(metric, run) for metric in metrics for run in runs]
    names = [METRICS[metric].title + (f" · {run}" if len(runs) > 1 else "") for metric, run in rows]
    figure = make_subplots(
        1, len(protocols), shared_yaxes=True, horizontal_spacing=0.04,
        subplot_titles=[PROTOCOL_TITLES.get(name, name) for name in protocols],
    )  # fmt: skip
    for column, protocol in enumerate(protocols, 1):
        for name in in_order(table["similarity"]):
            style = style_of(name)
            chosen = table[(table["protocol"] == protocol) & (table["similarity"] == name)]
            values = chosen.set_index(["metric", "run"])["value"]
            figure.add_scatter(
                x=[100 * values.get(row, np.nan) for row in rows], y=names, row=1, col=column, mode="markers",
                marker={"color": style.colour, "symbol": style.symbol, "size": 11}, name=style.title, legendgroup=name,
                showlegend=column == 1, hovertemplate=f"{style.title} %{{x:.1f}} %<extra></extra>",
            )  # fmt: skip
    _figure(title, height or 110 + 34 * len(rows), figure).update_layout(
        hovermode="closest", margin={"t": 96 if title else 66}
    )
    figure.update_xaxes(title="%")
    return figure.update_yaxes(autorange="reversed")


def hardness(quadruplets: pd.DataFrame, *, points: int = 100, title: str = "", height: int = 200) -> go.Figure:
    """How hard the mined quadruplets were through training: the share that violates each hinge.

    Args:
        quadruplets: step, slack_ik, slack_jl (> 0 = violated).
        points: steps are grouped into at most about this many.
    """
    figure = _figure(title, height)
    span = max(int(quadruplets["step"].max() - quadruplets["step"].min()) + 1, 1) if len(quadruplets) else 1
    width = max(1, -(-span // points))
    grouped = (quadruplets[["slack_ik", "slack_jl"]] > 0).groupby(quadruplets["step"] // width * width).mean() * 100
    for column, name, colour, dash in (
        ("slack_ik", "hinge i–k", "#6B7686", "solid"),
        ("slack_jl", "hinge j–l", NEGATIVE, "dash"),
    ):
        figure.add_scatter(
            x=grouped.index, y=grouped[column], name=name, mode="lines", hovertemplate="%{y:.1f} %",
            line={"color": colour, "width": 2, "dash": dash},
        )  # fmt: skip
    figure.update_xaxes(title="training step" + (f", groups of {width}" if width > 1 else ""))
    return figure.update_yaxes(title="violated, %", range=[0, 101])


def _translucent(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
