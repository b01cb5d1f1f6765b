"""How a search fares while a gallery changes: recall, the slowest answers and the time of a change, for each store."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pddm_lab.figures.style import DASHES, NEGATIVE, new_figure

_COLOURS = ("#2F78D0", "#D9570B", "#0E9470", "#8A63D2")
_SYMBOLS = ("circle", "diamond", "square", "cross")
_PANELS = ("recall of the 100 nearest", "p99 of a search, over p99 without changes", "a change, ms")


def churn(table: pd.DataFrame, recall: float, slower: float) -> go.Figure:
    """Three panels over the changes so far, a line for each store.

    Args:
        table: store, changes, recall, p99, p99 during, change, as `bench.churn.measure` returns them.
        recall: lowest that is wanted.
        slower: the largest ratio of p99 that is wanted.
    """
    figure = new_figure("", 620, make_subplots(3, 1, shared_xaxes=True, vertical_spacing=0.07))
    for place, (store, rows) in enumerate(table.groupby("store", sort=False)):
        colour, symbol = (of[place % len(of)] for of in (_COLOURS, _SYMBOLS))
        panels = (rows["recall"], rows["p99 during"] / rows["p99"], rows["change"])
        for panel, values in enumerate(panels, 1):
            figure.add_scatter(
                x=rows["changes"], y=values, name=str(store), legendgroup=str(store), showlegend=panel == 1,
                mode="lines+markers", line={"color": colour, "dash": DASHES[place % len(DASHES)]},
                marker={"symbol": symbol, "size": 7}, row=panel, col=1,
            )  # fmt: skip
    for panel, wanted in ((1, recall), (2, slower)):
        figure.add_hline(wanted, row=panel, col=1, line={"color": NEGATIVE, "dash": "dot", "width": 1.5})  # type: ignore[arg-type]
    for panel, title in enumerate(_PANELS, 1):
        figure.update_yaxes(title=title, row=panel, col=1)
    return figure.update_xaxes(title="changes", row=3, col=1)
