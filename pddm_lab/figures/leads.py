"""How far one way of ranking is ahead of others: a row for each comparison, with two intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pddm_lab.figures.style import NEGATIVE, new_figure, translucent

RIVALS = {
    "D": ("D", "#2F78D0", "circle"),
    "global": ("the best global metric", "#D9570B", "diamond"),
    "local without training": ("the best local metric without training", "#0E9470", "square"),
}
"""What is compared with: title, colour and marker."""


def leads(table: pd.DataFrame, places: Mapping[tuple[str, str], str], unit: str) -> go.Figure:
    """Differences in points; above 0 the way is ahead. Thin bars: over seeds (t). Thick ones: over classes (bootstrap).

    Args:
        table: dataset, protocol, against (a key of `RIVALS`), difference, ± (half of the interval over seeds; NaN if
            there is none), low, high (of the interval over classes; NaN if there is none).
        places: (dataset, protocol) -> label of its row, in the order to show.
        unit: what the differences are of.
    """
    rows = {place: number for number, place in enumerate(places)}
    figure = new_figure("", 110 + 66 * len(rows))
    for (against, (title, colour, symbol)), shift in zip(RIVALS.items(), (-0.26, 0.0, 0.26), strict=True):
        own = table[table["against"] == against]
        at = [rows[place] + shift for place in zip(own["dataset"], own["protocol"], strict=True)]
        value = own["difference"].to_numpy(float)
        halves = own["±"].to_numpy(float)
        figure.add_scatter(
            x=value, y=at, mode="markers", hoverinfo="skip", showlegend=False, legendgroup=against,
            marker={"opacity": 0},
            error_x={"array": np.nan_to_num(own["high"] - value), "arrayminus": np.nan_to_num(value - own["low"]),
                     "color": translucent(colour, 0.35), "thickness": 7, "width": 0},
        )  # fmt: skip
        texts = [f" ± {half:.1f}" if np.isfinite(half) else "" for half in halves]
        figure.add_scatter(
            x=value, y=at, mode="markers", name=f"against {title}", legendgroup=against,
            error_x={"array": np.nan_to_num(halves), "thickness": 1.3, "width": 3},
            marker={"color": colour, "size": 9, "symbol": symbol}, customdata=np.column_stack([own["rival"], texts]),
            hovertemplate=f"against {title}, %{{customdata[0]}}: %{{x:+.1f}}%{{customdata[1]}} points<extra></extra>",
        )  # fmt: skip
    figure.add_vline(0.0, line={"color": NEGATIVE, "dash": "dot", "width": 1.5}, layer="below")
    figure.update_layout(hovermode="closest", margin={"t": 58})
    figure.update_xaxes(title=f"lead of local structure in {unit}, points")
    labels = list(places.values())
    return figure.update_yaxes(
        tickvals=list(range(len(labels))), ticktext=labels, range=[len(labels) - 0.4, -0.6], showgrid=False
    )
