"""Charts of a similarity on the plane: what it accepts around an anchor, and the score of one difference everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pddm_lab.figures.maps import class_colour
from pddm_lab.figures.style import DARK, DASHES, METRICS, NEGATIVE, RING, new_figure, style_of, translucent
from pddm_lab.teaching.point_sets import EXTENT, LAYOUTS, PointSet, mesh, path, spans

if TYPE_CHECKING:
    from jaxtyping import Float

    from pddm_lab.teaching.plane import Inside, Measured, Snapshot

PAIR = "#7A55D6"
"""Colour of the pair whose mean moves."""
ANCHOR = {"symbol": "cross", "size": 16, "color": "#11151C", "line": {"color": "white", "width": 2}}
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "pentagon", "star")
"""Of classes, by label."""
_LEVELS = 9


def plane_neighbourhood(
    point_set: PointSet, anchor: int, scores: Float[np.ndarray, "rows columns"] | None, threshold: float,
    radius: float, *, pair: Float[np.ndarray, "2 2"] | None = None, hover: Sequence[str] = (), title: str = "",
    height: int = 380,
) -> go.Figure:  # fmt: skip
    """Contours of S around an anchor, and circles of D.

    Args:
        anchor: a row of the points.
        scores: S of the anchor with the points of `mesh`; None if no unit is trained yet.
        threshold: S above which a pair is accepted.
        radius: D below which a pair is accepted.
        pair: both ends of a pair to draw.
        hover: a text per point.
    """
    figure = new_figure(title, height)
    euclidean, (x, y) = style_of("euclidean"), point_set.points[anchor].tolist()
    if scores is not None:
        _terrain(figure, scores, threshold, "S accepts")
        far = {"color": translucent(euclidean.colour, 0.55), "width": 1, "dash": "dot"}
        _circles(figure, x, y, (0.5, 1.0, 1.5, 2.0, 2.5, 3.0), far)
        _circles(figure, x, y, (radius,), {"color": euclidean.colour, "width": 2.5}, "D accepts")
    _points(figure, point_set, hover)
    _pair(figure, pair)
    figure.add_scatter(x=[x], y=[y], name="anchor", mode="markers", hoverinfo="skip", showlegend=False, marker=ANCHOR)
    return _framed(figure)


def plane_everywhere(
    point_set: PointSet, scores: Float[np.ndarray, "rows columns"], threshold: float, *,
    pair: Float[np.ndarray, "2 2"] | None = None, hover: Sequence[str] = (),
    title: str = "", height: int = 380,
) -> go.Figure:  # fmt: skip
    """S of one difference with its mean at each point of `mesh`, and the path along which `plane_along` moves it.

    Args:
        scores: S at the points of `mesh`.
        threshold: S above which a pair is accepted.
        pair: both ends of the pair at its current place.
        hover: a text per point.
    """
    figure = new_figure(title, height)
    _terrain(figure, scores, threshold, "S accepts the difference here")
    _points(figure, point_set, hover)
    ends = np.array(LAYOUTS[point_set.name].path)
    figure.add_scatter(
        x=ends[:, 0], y=ends[:, 1], name="path of the mean", mode="lines", hoverinfo="skip",
        line={"color": PAIR, "width": 1.5, "dash": "dash"},
    )  # fmt: skip
    _pair(figure, pair)
    return _framed(figure)


def plane_along(
    point_set: PointSet, scores: Float[np.ndarray, " places"], threshold: float, distance: float, radius: float,
    at: float, *, title: str = "", height: int = 280,
) -> go.Figure:  # fmt: skip
    """S and D of one difference while its mean moves along the point set's path.

    Args:
        scores: S at even steps along the path.
        threshold: S above which a pair is accepted.
        distance: D of the pair, the same everywhere.
        radius: D below which a pair is accepted.
        at: the mean's current place on the path, 0 to 1.
    """
    figure = new_figure(title, height, make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08))
    places = np.linspace(0, 100, len(scores))
    now = float(np.interp(100 * at, places, scores))
    for row, (name, values, limit, here) in enumerate(
        (("pddm", scores, threshold, now), ("euclidean", np.full(len(scores), distance), radius, distance)), start=1
    ):
        style = style_of(name)
        figure.add_scatter(
            x=places, y=np.round(values, 4), row=row, col=1, mode="lines", name=style.letter,
            line={"color": style.colour, "width": 2.5}, hovertemplate="%{y:.2f}",
        )  # fmt: skip
        figure.add_scatter(
            x=[100 * at], y=[here], row=row, col=1, mode="markers", showlegend=False, hoverinfo="skip",
            marker={"color": PAIR, "symbol": "diamond", "size": 11, "line": RING},
        )  # fmt: skip
        # The label is on the side of the line where the end of the curve isn't.
        end = np.mean(values[-len(values) // 3 :])
        passes = end > limit if row == 1 else end < limit
        figure.add_hline(
            y=limit, row=row, col=1, line={"color": style.colour, "width": 1.2, "dash": "dot"},
            annotation_text="accepted above", annotation_font_size=11,
            annotation_position="bottom right" if passes else "top right",
        )  # fmt: skip
    figure.add_vline(x=100 * at, line={"color": PAIR, "width": 1, "dash": "dot"})
    span = max(np.ptp(np.append(scores, threshold)), 0.1)
    figure.update_yaxes(
        title="S", range=[min(scores.min(), threshold) - 0.12 * span, max(scores.max(), threshold) + 0.2 * span],
        row=1, col=1,
    )  # fmt: skip
    # Up is more similar everywhere, so the axis of a distance is reversed.
    figure.update_yaxes(title="D", range=[1.6 * max(distance, radius), 0], row=2, col=1)
    start, end = (point_set.region_of(np.array([row]))[0] for row in _ends(point_set))
    figure.update_xaxes(
        range=[0, 100], tickvals=[7, 50, 93], ticktext=[start, "the mean moves", end], showgrid=False, row=2, col=1
    )
    return figure.update_layout(showlegend=False, margin={"t": 40 if title else 8})


def plane_steps(
    snapshots: Sequence[Snapshot], distance: dict[str, Measured], at: int, *, metric: str = "tpr@1%fpr",
    title: str = "", height: int = 260,
) -> go.Figure:  # fmt: skip
    """One metric of S at each snapshot on known and unseen classes, and that of D, which doesn't learn.

    Args:
        snapshots: of a training, in order.
        distance: the metrics of D, by protocol.
        at: the snapshot to mark.
        metric: a key of `METRICS`.
    """
    figure, known = new_figure(title, height), METRICS[metric]
    numbers = np.arange(len(snapshots))
    for style, of in ((style_of("pddm"), None), (style_of("euclidean"), distance)):
        for protocol, dash in (("known", "solid"), ("unseen", "dash")):
            measured = [of[protocol] if of else getattr(snapshot, protocol) for snapshot in snapshots]
            figure.add_scatter(
                x=numbers, y=[round(known.scale * one.metrics[metric], 3) for one in measured], mode="lines",
                name=f"{style.letter}, {protocol} classes", hovertemplate=f"%{{y:.{known.digits}f}} {known.unit}",
                line={"color": style.colour, "width": 2, "dash": dash},
            )  # fmt: skip
    figure.add_vline(x=at, line={"color": DARK, "width": 1.5})
    ticks = numbers[:: max(1, len(numbers) // 8)]
    figure.update_xaxes(
        title="training step", tickvals=ticks, ticktext=[f"{snapshots[int(number)].step:,}" for number in ticks]
    )
    return figure.update_yaxes(title=known.heading, range=[0, 1.04 * known.scale])


def plane_rulers(point_set: PointSet, radii: Mapping[str, float], *, title: str = "", height: int = 460) -> go.Figure:
    """How far a ruler must reach for each class, to half of its pairs, and must not reach, to the next class.

    A radius suits a class if it lies between the class's two bars. One ruler suits all if it does so for every class.

    Args:
        radii: rulers to draw, by name.
    """
    figure, ordered = new_figure(title, height), sorted(spans(point_set), key=lambda span: span.half)
    end = 1.15 * max(span.nearest for span in ordered)
    names = [f"class {span.label}, {span.region}" for span in ordered]
    colour = style_of("euclidean").colour
    bars = {
        "half of its own pairs lie within": ([(0.0, span.half) for span in ordered], colour, ""),
        "the next class begins": ([(span.nearest, end) for span in ordered], NEGATIVE, "/"),
    }
    for name, (ends, kind, hatch) in bars.items():
        figure.add_bar(
            y=list(range(len(ordered))), x=[round(to - begin, 4) for begin, to in ends], orientation="h", name=name,
            base=[round(begin, 4) for begin, _ in ends], text=names, textposition="none",
            hovertemplate=f"%{{text}}: {name} at %{{customdata:.2f}}<extra></extra>",
            customdata=[begin or to for begin, to in ends],
            marker={"color": translucent(kind, 0.55), "line": {"width": 0}, "pattern": {"shape": hatch, "size": 5}},
        )  # fmt: skip
    for place, (name, radius) in enumerate(radii.items()):
        line = {"color": PAIR, "width": 2, "dash": DASHES[place % len(DASHES)]}
        figure.add_vline(x=radius, line=line, annotation_text=name, annotation_position="top")
    figure.update_layout(barmode="overlay", bargap=0.25, hovermode="closest", margin={"t": 104 if title else 72})
    figure.update_xaxes(title="Euclidean distance D", range=[0, end])
    rows: dict[str, list[int]] = {}
    for row, span in enumerate(ordered):
        rows.setdefault(span.region, []).append(row)
    middle = [float(np.mean(of_region)) for of_region in rows.values()]
    return figure.update_yaxes(tickvals=middle, ticktext=list(rows), showgrid=False)


def plane_pairs(
    point_set: PointSet, pairs: Mapping[str, Float[np.ndarray, "2 2"]], *, title: str = "", height: int = 380
) -> go.Figure:
    """Pairs of places on the plane: their ends, their difference along each axis (u), and their mean (v).

    Args:
        pairs: both ends of each, by name.
    """
    figure = new_figure(title, height)
    _points(figure, point_set, ())
    named: list[list[float]] = []
    for name, ends in pairs.items():
        (x0, y0), (x1, y1) = ends.round(4).tolist()
        figure.add_scatter(
            x=[x0, x1, x1], y=[y0, y0, y1], mode="lines", name="u", showlegend=False, hoverinfo="skip",
            line={"color": PAIR, "width": 1.5, "dash": "dot"},
        )  # fmt: skip
        _pair(figure, ends, ("", ""))
        v = ends.mean(axis=0).round(4).tolist()
        figure.add_scatter(
            x=v[:1], y=v[1:], mode="markers+text", name=f"v of {name}", text=[f"<b>{name}</b>"], showlegend=False,
            textposition=f"middle {'left' if v in named else 'right'}", textfont={"color": PAIR, "size": 15},
            hovertemplate="v = (%{x}, %{y})",
            marker={"symbol": "x", "size": 10, "color": "#11151C", "line": {"color": "white", "width": 1.2}},
        )  # fmt: skip
        named.append(v)
    return _framed(figure)


def plane_unit(
    steps: Inside, weights: Float[np.ndarray, " hidden"], names: Sequence[str], *, title: str = "", height: int = 430
) -> go.Figure:
    """The output of a unit's layers for some pairs: a row per pair, a column per number of u', v', c and W_s c.

    Args:
        weights: W_s.
    """
    parts = {
        "u′: the difference": steps.u_hidden.numpy(), "v′: the place": steps.v_hidden.numpy(),
        "c: both together": steps.joint.numpy(),
        "W<sub>s</sub> c: what each contributes to S": steps.joint.numpy() * weights,
    }  # fmt: skip
    figure = make_subplots(len(parts), 1, shared_xaxes=True, vertical_spacing=0.07, subplot_titles=list(parts))
    figure.update_annotations(font_size=13, x=0, xanchor="left")
    new_figure(title, height, figure)
    colour, against = style_of("pddm").colour, style_of("euclidean").colour
    for row, values in enumerate(parts.values(), 1):
        signed = row == len(parts)
        most = float(np.abs(values).max()) or 1.0
        clear = "rgba(255,255,255,0)"
        scale = [[0, against], [0.5, clear], [1, colour]] if signed else [[0, clear], [1, colour]]
        figure.add_heatmap(
            z=values.round(4), y=[f"<b>{name}</b>" for name in names], row=row, col=1, colorscale=scale, zmax=most,
            zmin=-most if signed else 0, showscale=False, xgap=1, ygap=2, hovertemplate="%{z:.3f}<extra></extra>",
        )  # fmt: skip
        figure.update_yaxes(autorange="reversed", showgrid=False, row=row, col=1)
    figure.update_layout(hovermode="closest", margin={"t": 70 if title else 34})
    figure.update_xaxes(showgrid=False, ticks="")
    return figure.update_xaxes(title="unit of the layer", row=len(parts), col=1)


def plane_through(
    point_set: PointSet, anchor: int, steps: Sequence[Snapshot], radius: float, *, title: str = "", height: int = 560
) -> go.Figure:
    """What S accepts around an anchor at some steps of a training, two to a row, and the circle of D.

    Args:
        anchor: a row of the points.
        radius: D below which a pair is accepted.
    """
    from pddm_lab.teaching.plane import score

    rows = -(-len(steps) // 2)
    figure = make_subplots(
        rows, 2, subplot_titles=[f"step {one.step:,}" for one in steps], horizontal_spacing=0.03, vertical_spacing=0.09
    )
    figure.update_annotations(font_size=13)
    new_figure(title, height, figure)
    (left, right), (low, high) = EXTENT
    for place, one in enumerate(steps):
        panel = go.Figure()
        _terrain(panel, score(one.unit, point_set.points[anchor], mesh()[2]), one.known.threshold, "S accepts")
        x, y = point_set.points[anchor].tolist()
        _circles(panel, x, y, (radius,), {"color": style_of("euclidean").colour, "width": 2.5}, "D accepts")
        _points(panel, point_set, ())
        panel.add_scatter(x=[x], y=[y], mode="markers", marker=ANCHOR, showlegend=False, hoverinfo="skip")
        where = {"row": place // 2 + 1, "col": place % 2 + 1}
        for trace in panel.data:
            figure.add_trace(trace.update(showlegend=bool(trace.showlegend) and not place), **where)
        figure.update_xaxes(range=[left, right], showticklabels=False, **where)
        figure.update_yaxes(range=[low, high], showticklabels=False, **where)
    return figure.update_layout(hovermode=False, dragmode=False, margin={"t": 84 if title else 58})


def _terrain(figure: go.Figure, scores: np.ndarray, threshold: float, name: str) -> None:
    """S over the plane in levels of one colour, and the contour inside which it accepts."""
    colour, (x, y, _) = style_of("pddm").colour, mesh(scores.shape[1])
    scores = scores.astype(np.float32)
    low, high = np.quantile(scores, 0.02), scores.max()
    step = max(float(high - low) / _LEVELS, 1e-6)
    line = {"x": x.round(3), "y": y.round(3), "z": scores, "showscale": False}
    figure.add_contour(
        **line, hoverinfo="skip", line={"width": 0.6, "color": translucent(colour, 0.5)},
        colorscale=[[0, translucent(colour, 0)], [1, translucent(colour, 0.4)]],
        contours={"start": float(low) + step, "end": float(high) - step / 2, "size": step},
    )  # fmt: skip
    figure.add_contour(
        **line, hoverinfo="skip", name=name, showlegend=True, line={"width": 3, "color": colour},
        contours={"start": threshold, "end": threshold, "size": 1, "coloring": "none"},
    )  # fmt: skip


def _circles(figure: go.Figure, x: float, y: float, radii: Sequence[float], line: dict, name: str = "") -> None:
    angle = np.append(np.linspace(0, 2 * np.pi, 73), np.nan)  # a gap between two circles
    figure.add_scatter(
        x=np.concatenate([x + radius * np.cos(angle) for radius in radii]).round(3),
        y=np.concatenate([y + radius * np.sin(angle) for radius in radii]).round(3),
        mode="lines", line=line, name=name, showlegend=bool(name), hoverinfo="skip",
    )  # fmt: skip


def _points(figure: go.Figure, point_set: PointSet, hover: Sequence[str]) -> None:
    """Training points are small; points of classes that never train are open."""
    x, y = point_set.points.round(3).T
    for name, chosen, size, opacity, suffix, edge in (
        ("trains", point_set.trains, 4, 0.45, "", 0),  # an edge would double the drawing time
        ("held out", ~point_set.trains & ~point_set.unseen, 8, 1, "", 0.7),
        ("class never trains", point_set.unseen, 8, 1, "-open", 1.5),
    ):
        rows = np.flatnonzero(chosen)
        figure.add_scatter(
            x=x[rows], y=y[rows], mode="markers", showlegend=False, name=name, customdata=rows,
            text=[hover[int(row)] for row in rows] if hover else None,
            hovertemplate="%{text}<extra></extra>" if hover else None, hoverinfo=None if hover else "skip",
            unselected={"marker": {"opacity": opacity}}, cliponaxis=False,
            marker={
                "size": size, "opacity": opacity,
                "color": [class_colour(label) for label in point_set.labels[rows]],
                "symbol": [SYMBOLS[label % len(SYMBOLS)] + suffix for label in point_set.labels[rows]],
                "line": {"width": edge, "color": None if suffix else "rgba(255,255,255,.8)"},
            },
        )  # fmt: skip


def _pair(figure: go.Figure, pair: np.ndarray | None, letters: Sequence[str] = ("a", "b")) -> None:
    if pair is not None:
        figure.add_scatter(
            x=pair[:, 0].round(4), y=pair[:, 1].round(4), mode="lines+markers+text", name="pair", showlegend=False,
            text=list(letters), textposition="middle right", textfont={"color": PAIR, "size": 14}, hoverinfo="skip",
            line={"color": PAIR, "width": 3}, marker={"symbol": "diamond", "size": 11, "color": PAIR, "line": RING},
        )  # fmt: skip


def _framed(figure: go.Figure) -> go.Figure:
    (left, right), (low, high) = EXTENT
    figure.update_xaxes(range=[left, right], constrain="domain", constraintoward="left")
    figure.update_yaxes(range=[low, high], constrain="domain", constraintoward="top", scaleanchor="x")
    top = {"t": 76 if figure.layout.title.text else 30}
    return figure.update_layout(hovermode="closest", dragmode=False, clickmode="event+select", margin=top)


def _ends(point_set: PointSet) -> list[int]:
    """The points nearest to both ends of the path."""
    return [int(np.linalg.norm(point_set.points - end, axis=1).argmin()) for end in path(point_set, 2)]
