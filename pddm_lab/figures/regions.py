"""Charts of two regions of a plane, and of the points that are most similar to one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Int
from plotly.subplots import make_subplots
from torch import Tensor

from pddm_lab.figures.maps import class_colour
from pddm_lab.figures.plane import ANCHOR
from pddm_lab.figures.style import NEGATIVE, RIGHT, WRONG, new_figure
from pddm_lab.teaching.regions import Region


def plane_regions(regions: Sequence[Region], names: Sequence[str], *, title: str = "", height: int = 380) -> go.Figure:
    """Regions side by side; each class has a colour, each region a symbol."""
    figure = new_figure(title, height)
    for region, name, mark in zip(regions, names, ("circle", "square"), strict=True):
        labels = region.labels.tolist()
        figure.add_scatter(
            x=region.points[:, 0], y=region.points[:, 1], name=name, mode="markers",
            text=[f"class {label + 1}" for label in labels], hovertemplate="%{text}<extra></extra>",
            marker={"symbol": mark, "size": 6, "color": [class_colour(label) for label in labels]},
        )  # fmt: skip
    return _without_axes(figure)


def plane_nearest(
    region: Region, anchor: int, nearest: Mapping[str, Int[Tensor, " nearest"]], *, title: str = "", height: int = 380
) -> go.Figure:
    """The most similar points of one point, by several similarities: right ones are circles, wrong ones crosses.

    Args:
        anchor: a row of the region's points.
        nearest: rows, by the similarity's name.
    """
    figure = new_figure(title, height, make_subplots(cols=len(nearest), subplot_titles=list(nearest)))
    for column, rows in enumerate(nearest.values(), 1):
        same = region.labels[rows] == region.labels[anchor]
        parts = (
            ("others", slice(None), {"symbol": "circle", "size": 4, "color": NEGATIVE, "opacity": 0.4}),
            ("right class", rows[same], {"symbol": "circle", "size": 8, "color": RIGHT}),
            ("wrong class", rows[~same], {"symbol": "x", "size": 7, "color": WRONG}),
            ("the point", [anchor], ANCHOR),
        )
        for name, some, marker in parts:
            x, y = region.points[some].T.numpy()
            figure.add_scatter(
                x=x, y=y, name=name, legendgroup=name, showlegend=column == 1, mode="markers", marker=marker,
                hoverinfo="none", customdata=np.arange(len(region.labels))[some], row=1, col=column,
            )  # fmt: skip
    figure.update_annotations(font_size=14)
    return _without_axes(figure).update_layout(margin={"t": 92 if title else 58})  # room for the legend and the names


def _without_axes(figure: go.Figure) -> go.Figure:
    """Equal scales, and no numbers: only distances matter."""
    figure.update_xaxes(visible=False, constrain="domain").update_yaxes(visible=False)
    for axis in [axis for axis in figure.layout if axis.startswith("yaxis")]:
        figure.layout[axis].update(scaleanchor=axis.replace("yaxis", "x"), scaleratio=1)
    return figure.update_layout(hovermode="closest")
