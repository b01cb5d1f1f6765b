"""Charts beyond retrieval: recognition from a few pictures, the cost of classes, and models on other data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pddm_lab.figures.style import DASHES, METRICS, NEGATIVE, PROTOCOL_TITLES, new_figure, style_of
from pddm_lab.figures.training import dots_by_protocol

_LOOKS = {
    "knn": (style_of("euclidean").colour, "circle"),
    "svm": (style_of("cosine").colour, "triangle-up"),
    "bayes": ("#7A5AC8", "x"),
    "mean": (style_of("mahalanobis").colour, "square"),
    "pddm": (style_of("pddm").colour, "diamond"),
}
_LAB, _CLASSIFIER = style_of("pddm").colour, style_of("euclidean").colour


def few_shot(
    table: pd.DataFrame, protocol: str, titles: Mapping[str, str], *, title: str = "", height: int = 380
) -> go.Figure:
    """Accuracy against the number of shots: a colour and marker per method, a dash per space, 95 % intervals as bars.

    Args:
        table: as `few_shot.summary` returns it, with a column `protocol`.
        titles: method -> title, in the order of the legend.
    """
    figure = new_figure(title, height)
    table = table[table["protocol"] == protocol]
    spaces = list(dict.fromkeys(table["space"]))[::-1]
    for method, name in titles.items():
        for number, space in enumerate(spaces):
            rows = table[(table["method"] == method) & (table["space"] == space)].sort_values("shots")
            if rows.empty:
                continue
            colour, symbol = _LOOKS.get(method, (NEGATIVE, "circle"))
            bars = {"array": 100 * (rows["high"] - rows["accuracy"]).fillna(0), "thickness": 1.2, "width": 3}
            figure.add_scatter(
                x=rows["shots"].astype(str), y=100 * rows["accuracy"], mode="lines+markers", error_y=bars,
                line={"color": colour, "width": 2, "dash": DASHES[2 * number % len(DASHES)]}, name=name,
                marker={"symbol": symbol, "size": 8}, legendgroup=method, showlegend=number == 0,
                hovertemplate=f"{name}, {space}: %{{y:.1f}} ± %{{error_y.array:.1f}} %<extra></extra>",
            )  # fmt: skip
    for number, space in enumerate(spaces if len(spaces) > 1 else ()):
        line = {"color": NEGATIVE, "width": 2, "dash": DASHES[2 * number % len(DASHES)]}
        figure.add_scatter(x=[None], y=[None], mode="lines", name=space, line=line)
    figure.update_xaxes(title="pictures of each class to learn from", type="category")
    return figure.update_yaxes(title=f"accuracy, % ({PROTOCOL_TITLES.get(protocol, protocol).lower()})")


def class_scaling(table: pd.DataFrame, *, title: str = "", height: int = 400) -> go.Figure:
    """The cost of classes on logarithmic axes: bytes on the left, seconds to add one class on the right.

    Args:
        table: as `pddm_lab.applications.class_scaling.class_costs` returns it.
    """
    figure = make_subplots(1, 2, horizontal_spacing=0.1, subplot_titles=["size", "one more class"])
    lines = (
        (1, "lab: the model", table["lab_bytes"], _LAB, "solid", "diamond"),
        (1, "lab: model and gallery", table["lab_bytes"] + table["gallery_bytes"], _LAB, "dot", "diamond-open"),
        (1, "classifier: the model", table["classifier_bytes"], _CLASSIFIER, "solid", "circle"),
        (2, "lab: into the index", table["add_gallery_seconds"], _LAB, "solid", "diamond"),
        (2, "classifier: a larger layer", table["enlarge_seconds"], _CLASSIFIER, "dash", "circle-open"),
        (2, "classifier: and a pass of training", table["enlarge_seconds"] + table["pass_seconds"], _CLASSIFIER,
         "solid", "circle"),
    )  # fmt: skip
    for column, name, values, colour, dash, symbol in lines:
        unit = ("%{y:.3s}B", "%{y:.2g} s")[column - 1]
        figure.add_scatter(
            x=table["classes"], y=values, row=1, col=column, name=name, mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 2}, marker={"symbol": symbol, "size": 8},
            hovertemplate=f"{name}: {unit}<extra></extra>",
        )  # fmt: skip
    _above(new_figure(title, height, figure), title, height, 130)
    figure.update_xaxes(type="log", title="classes", dtick=1)
    figure.update_yaxes(type="log", title="bytes", col=1, exponentformat="SI", dtick=1)
    return figure.update_yaxes(type="log", title="seconds", col=2, exponentformat="power")


def transferred(
    table: pd.DataFrame, metric: str = "recall@1", *, protocols: Sequence[str] = ("unseen", "known"), title: str = "",
    height: int | None = None,
) -> go.Figure:  # fmt: skip
    """One metric of every model on a target as dots: a panel per protocol, a row per model, a marker per similarity.

    Args:
        table: as `transfer.summary` returns it, of one target; with its intervals if there are any.
        metric: a key of `METRICS` that is a fraction.
    """
    table = table[table["metric"] == metric]
    shown = [name for name in protocols if (table["protocol"] == name).any()]
    models = list(dict.fromkeys(table["trained_on"]))
    table = table.assign(std=table["high"] - table["value"]).set_index("trained_on")
    figure = dots_by_protocol(table, models, models, shown)
    height = height or 150 + 40 * len(models)
    _above(new_figure(title, height, figure), title, height, 100).update_layout(hovermode="closest")
    return figure.update_xaxes(title=METRICS[metric].heading)


def _above(figure: go.Figure, title: str, height: int, room: int) -> go.Figure:
    """Title, legend and panel titles below one another, for any height of the figure."""
    if title:
        figure.update_layout(title={"y": 1 - 8 / height, "yanchor": "top"}, legend={"y": 1 - 34 / height})
    return figure.update_layout(margin={"t": room if title else room - 30, "b": 40})
