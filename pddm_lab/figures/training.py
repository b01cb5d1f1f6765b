"""Charts of trainings: metrics and losses over time, and the final metrics of several runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pddm_lab.figures.style import DARK, DASHES, PROTOCOL_TITLES, in_order, metric_of, new_figure, style_of, translucent


def curves(
    frame: pd.DataFrame, metric: str, *, x: str = "step", protocol: str = "validation",
    title: str = "", height: int = 300,
) -> go.Figure:  # fmt: skip
    """One metric during training: a line per similarity in its colour, with a dash per run if there are several.

    Args:
        frame: metrics (step, seconds, protocol, similarity, metric, value) of a run, or of several with a column `run`.
            Columns `std` and `seeds` draw a band of one standard deviation.
        metric: a key of `METRICS`.
        x: "step" or "seconds".
    """
    known, figure = metric_of(metric), new_figure(title, height)
    frame = frame[(frame["metric"] == metric) & (frame["protocol"] == protocol)]
    frames = _by_run(frame)
    named: set[str] = set()
    for number, (run, of_run) in enumerate(frames.items()):
        for name in in_order(of_run["similarity"]):
            rows, style = of_run[of_run["similarity"] == name].sort_values(x), style_of(name)
            dash = DASHES[number % len(DASHES)] if len(frames) > 1 else style.dash
            hover, spread = f"%{{y:.{known.digits}f}} {known.unit} {run}", None
            if "std" in rows:
                _band(figure, rows, x, known.scale, style.colour)
                spread = np.column_stack([rows["std"].fillna(0) * known.scale, rows["seeds"]])
                hover = f"%{{y:.{known.digits}f}} ± %{{customdata[0]:.{known.digits}f}} {known.unit} {run}"
                hover += " (seeds: %{customdata[1]:d})"
            figure.add_scatter(
                x=rows[x], y=rows["value"] * known.scale, mode="lines+markers" if len(rows) <= 60 else "lines",
                name=style.title, showlegend=name not in named, line={"color": style.colour, "width": 2, "dash": dash},
                marker={"symbol": style.symbol, "size": 6}, hovertemplate=hover, customdata=spread,
            )  # fmt: skip
            named.add(name)
    _name_dashes(figure, list(frames))
    figure.update_xaxes(title=_time_title(x))
    return figure.update_yaxes(title=f"{known.heading} ({PROTOCOL_TITLES.get(protocol, protocol).lower()})")


def _by_run(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {str(run): rows for run, rows in frame.groupby("run", sort=False)} if "run" in frame else {"": frame}


def _band(figure: go.Figure, rows: pd.DataFrame, x: str, scale: float, colour: str) -> None:
    """One standard deviation on both sides of a line, where there is more than one seed."""
    rows = rows[rows["std"].notna()]
    low, high = ((rows["value"] + side * rows["std"]) * scale for side in (-1, 1))
    figure.add_scatter(
        x=np.concatenate([rows[x], rows[x][::-1]]), y=np.concatenate([low, high[::-1]]), mode="lines", fill="toself",
        fillcolor=translucent(colour, 0.18), line={"width": 0}, hoverinfo="skip", showlegend=False,
    )  # fmt: skip


def losses(frame: pd.DataFrame, *, x: str = "step", points: int = 200, title: str = "", height: int = 300) -> go.Figure:
    """Loss terms during training: E and its parts, E_m on scores (PDDM's colour), E_e on distances (Euclidean's).

    Args:
        frame: metrics of a run, or of several with a column `run`; only rows of protocol "train" are used.
        x: "step" or "seconds".
        points: neighbouring steps are averaged to about this many points a term; the axis title says how many steps.
    """
    terms = {
        "loss": ("E, the sum", DARK),
        "E_m": ("E<sub>m</sub>, on scores", style_of("pddm").colour),
        "E_e": ("E<sub>e</sub>, on distances", style_of("euclidean").colour),
        "mahalanobis_loss": ("Mahalanobis, its own", style_of("mahalanobis").colour),
    }
    frame = frame[frame["protocol"] == "train"]
    frames = _by_run(frame)
    figure, window, named = new_figure(title, height), 1, set()
    for number, (run, of_run) in enumerate(frames.items()):
        for term, (name, colour) in terms.items():
            rows = of_run[of_run["metric"] == term].sort_values("step")
            if rows.empty:
                continue
            size = max(1, len(rows) * len(frames) // points)
            window = max(window, size)
            means = rows[[x, "value"]].groupby(np.arange(len(rows)) // size).mean()
            figure.add_scatter(
                x=means[x], y=means["value"], mode="lines", name=name, showlegend=name not in named,
                line={"color": colour, "width": 2, "dash": DASHES[number % len(DASHES)]},
                hovertemplate=f"%{{y:.4f}} {run}",
            )  # fmt: skip
            named.add(name)
    _name_dashes(figure, list(frames))
    figure.update_xaxes(title=_time_title(x))
    return figure.update_yaxes(title="loss" + (f", mean of {window} steps" if window > 1 else ""), rangemode="tozero")


def _name_dashes(figure: go.Figure, runs: Sequence[str]) -> None:
    """Legend entries for the runs' dashes, in addition to those for the colours."""
    for number, run in enumerate(runs if len(runs) > 1 else ()):
        line = {"color": DARK, "width": 2, "dash": DASHES[number % len(DASHES)]}
        # Both ends of a long name: it begins with the data set and ends with the time.
        name = run if len(run) <= 28 else f"{run[:16]}…{run[-11:]}"
        figure.add_scatter(x=[None], y=[None], mode="lines", name=name, line=line)


def _time_title(x: str) -> str:
    return "training time, s" if x == "seconds" else "training step"


def comparison(
    table: pd.DataFrame, metrics: Sequence[str] = ("recall@1", "map@r"), *,
    protocols: Sequence[str] = ("unseen", "known"), title: str = "", height: int | None = None,
) -> go.Figure:  # fmt: skip
    """Final metrics as dots: a panel per protocol, a row per metric (and run), a marker per similarity.

    Args:
        table: run, protocol, similarity, metric, value; a column `std` draws one standard deviation on both sides.
        metrics: keys of `METRICS` that are fractions.
    """
    protocols = [name for name in protocols if (table["protocol"] == name).any()] or list(protocols)
    runs = list(dict.fromkeys(table["run"]))
    rows = [(metric, run) for metric in metrics for run in runs]
    names = [metric_of(metric).title + (f" · {run}" if len(runs) > 1 else "") for metric, run in rows]
    figure = dots_by_protocol(table.set_index(["metric", "run"]), pd.MultiIndex.from_tuples(rows), names, protocols)
    legend = 18 * -(-table["similarity"].nunique() // 5)  # five titles and more make another line of it
    new_figure(title, height or 92 + legend + 34 * len(rows), figure).update_layout(
        hovermode="closest", margin={"t": (78 if title else 48) + legend}
    )
    return figure.update_xaxes(title="%")


def dots_by_protocol(
    table: pd.DataFrame, rows: pd.Index | Sequence[str], names: Sequence[str], protocols: Sequence[str]
) -> go.Figure:
    """Values in % as dots: a panel per protocol, a row per name, a marker per similarity.

    Args:
        table: protocol, similarity, value, and optionally std, the half width of a bar.
        rows: entries of the table's index, from top to bottom.
    """
    figure = make_subplots(
        1, max(len(protocols), 1), shared_yaxes=True, horizontal_spacing=0.04,
        subplot_titles=[PROTOCOL_TITLES.get(name, name) for name in protocols],
    )  # fmt: skip
    for column, protocol in enumerate(protocols, 1):
        for name in in_order(table["similarity"]):
            style = style_of(name)
            values = table[(table["protocol"] == protocol) & (table["similarity"] == name)].reindex(rows)
            bars, hover = None, f"{style.title} %{{x:.1f}} %<extra></extra>"
            if "std" in values:
                bars = {"array": 100 * values["std"].fillna(0), "thickness": 1.5, "width": 5}
                hover = hover.replace(" %<", " ± %{error_x.array:.1f} %<")
            figure.add_scatter(
                x=100 * values["value"], y=names, row=1, col=column, mode="markers", error_x=bars,
                marker={"color": style.colour, "symbol": style.symbol, "size": 11}, name=style.title, legendgroup=name,
                showlegend=column == 1, hovertemplate=hover,
            )  # fmt: skip
    return figure.update_yaxes(autorange="reversed")
