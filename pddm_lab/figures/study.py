"""Charts of a study: how fast methods learn, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from pddm_lab.figures.looks import new_figure

COLOURS = ("#D9570B", "#2F78D0", "#0E9470", "#B83280", "#8A6D1C", "#5B4BC4")
"""Of the methods that are named."""
REST = "rgba(138,147,163,.45)"


def learning(
    log: pd.DataFrame, named: Mapping[str, str], *, target: float | None = None, x: str = "step", title: str = "",
    height: int = 420,
) -> go.Figure:  # fmt: skip
    """MAP@R on held-out classes through training: methods that are named in colour, all others in grey.

    Args:
        log: run (the method), step, seconds, value, as `study.statistics.curves` gives it, of one data set.
        named: method -> what the legend calls it; as many as there are `COLOURS`.
        target: value to reach, drawn as a line.
        x: "step" or "seconds".
    """
    figure = new_figure(title, height)
    runs = list(dict.fromkeys(log["run"]))
    for run in sorted(runs, key=lambda run: run in named):  # the named ones on top
        rows = log[log["run"] == run].sort_values(x)
        colour = COLOURS[[*named].index(run) % len(COLOURS)] if run in named else REST
        figure.add_scatter(
            x=rows[x], y=100 * rows["value"], name=named.get(run, run), showlegend=run in named,
            mode="lines+markers" if run in named else "lines", marker={"size": 6},
            line={"color": colour, "width": 2 if run in named else 1},
            hovertemplate=f"{named.get(run, run)} %{{y:.1f}} %<extra></extra>",
        )  # fmt: skip
    if target is not None:
        figure.add_hline(
            100 * target, line={"color": "#6B7686", "dash": "dot"}, annotation_text="best baseline, at its end"
        )
    figure.update_layout(hovermode="closest").update_xaxes(title="training step" if x == "step" else "training time, s")
    return figure.update_yaxes(title="MAP@R, % (held-out classes)")
