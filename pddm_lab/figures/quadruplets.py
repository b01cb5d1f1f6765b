"""Charts of mined quadruplets."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from pddm_lab.figures.looks import NEGATIVE, new_figure


def hardness(quadruplets: pd.DataFrame, *, points: int = 100, title: str = "", height: int = 200) -> go.Figure:
    """How hard the mined quadruplets were through training: the share that violates each hinge.

    Args:
        quadruplets: step, slack_ik, slack_jl (> 0 = violated).
        points: steps are grouped into at most about this many.
    """
    figure = new_figure(title, height)
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
