"""Figures as PNG: what is drawn lies where the axes say, in its colour."""

from __future__ import annotations

import io
import json
import math
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go
import plotly.io
import pytest
from PIL import Image, ImageFont
from plotly.subplots import make_subplots

from pddm_lab import figures
from pddm_lab.static.axes import Axis, axes_of, values_of
from pddm_lab.static.chart import SCALE, WIDTH, _Chart, colour_of, png_of
from pddm_lab.static.marks import dashed, outline
from pddm_lab.static.renderer import PngRenderer

RED, BLUE = (255, 0, 0), (0, 0, 255)
PAPER = 190  # white, or a line of the grid


def drawn(figure: go.Figure) -> tuple[np.ndarray, _Chart]:
    """The pixels of a figure, and where its axes lie."""
    content = figure.to_dict()
    image = Image.open(io.BytesIO(png_of(content)))
    assert image.size == (WIDTH * SCALE, round((figure.layout.height or 400) * SCALE))
    return np.asarray(image), _Chart(content)


def at(pixels: np.ndarray, chart: _Chart, x: float, y: float) -> tuple[int, ...]:
    """The colour at a place of the first pair of axes."""
    column, row = chart.axes["xaxis"].pixel(x), chart.axes["yaxis"].pixel(y)
    return tuple(int(part) for part in pixels[round(row), round(column)])


def test_lines_points_and_bars_lie_where_their_values_are() -> None:
    figure = go.Figure(layout={"height": 300, "xaxis": {"range": [0, 4]}, "yaxis": {"range": [0, 4]}})
    figure.add_scatter(x=[0.5, None, 1, 3], y=[1, 1, 2, 2], mode="lines", line={"color": "#ff0000", "width": 4})
    figure.add_scatter(x=np.array([2.0]), y=np.array([3.0]), mode="markers", marker={"color": "#0000ff", "size": 12})
    pixels, chart = drawn(figure)
    assert at(pixels, chart, 2, 2) == RED
    assert min(at(pixels, chart, 0.75, 1.5)) > PAPER, "a gap is not drawn"
    assert at(pixels, chart, 2, 3) == BLUE

    bars = go.Figure(go.Bar(x=[2, 3], base=[0, 1], y=["a", "b"], orientation="h", marker={"color": "#ff0000"}))
    pixels, chart = drawn(bars.update_layout(height=200))
    places = [at(pixels, chart, x, chart.axes["yaxis"].place("b")) for x in (0.5, 1.5, 3.9)]
    assert min(places[0]) > PAPER and places[1:] == [RED, RED]


def test_bars_are_as_wide_as_their_places_are_apart_and_points_have_the_colour_of_their_line() -> None:
    figure = go.Figure(layout={"height": 300, "xaxis": {"range": [0, 1]}, "yaxis": {"range": [0, 4]}, "bargap": 0})
    figure.add_bar(x=[0.2, 0.3, 0.7], y=[1, 3, 1], marker={"color": "#ff0000"})
    figure.add_scatter(x=[0.5], y=[3.5], mode="lines+markers", line={"color": "#0000ff"}, marker={"size": 12})
    pixels, chart = drawn(figure)
    assert [at(pixels, chart, x, 0.5) == RED for x in (0.2, 0.3, 0.5, 0.7)] == [True, True, False, True]
    assert at(pixels, chart, 0.3, 2) == RED and min(at(pixels, chart, 0.2, 2)) > PAPER
    assert at(pixels, chart, 0.5, 3.5) == BLUE


def test_a_heatmap_has_a_cell_per_value_and_none_for_a_gap() -> None:
    z = [[0.0, 1.0], [math.nan, 0.5]]
    figure = go.Figure(
        go.Heatmap(z=z, colorscale=[[0, "#0000ff"], [1, "#ff0000"]]), {"yaxis": {"autorange": "reversed"}}
    )
    pixels, chart = drawn(figure)
    assert [at(pixels, chart, *place) for place in ((0, 0), (1, 0), (1, 1))] == [BLUE, RED, (127, 0, 127)]
    assert min(at(pixels, chart, 0, 1)) > PAPER
    written, _ = drawn(figure.update_traces(text=[["8", "8"], ["", "8"]], texttemplate="%{text}"))
    assert at(written, chart, 0, 0) != BLUE or (written != pixels).any()


def test_a_contour_is_filled_by_level_and_its_line_lies_on_the_level() -> None:
    x, y = np.linspace(0, 4, 41), np.linspace(0, 2, 21)
    z = np.broadcast_to(x, (21, 41))
    figure = go.Figure(layout={"height": 300})
    levels = {"start": 1, "end": 3, "size": 1}
    figure.add_contour(x=x, y=y, z=z, contours=levels, colorscale=[[0, "#ffffff"], [1, "#0000ff"]], line={"width": 0})
    line = {"start": 2.5, "end": 2.5, "size": 1, "coloring": "none"}
    figure.add_contour(x=x, y=y, z=z, contours=line, line={"color": "#ff0000", "width": 4})
    pixels, chart = drawn(figure)
    assert min(at(pixels, chart, 0.5, 1)) > PAPER
    assert at(pixels, chart, 3.5, 1) == BLUE
    assert 80 < at(pixels, chart, 1.5, 1)[0] < 230
    assert at(pixels, chart, 2.5, 0.4) == RED


def test_two_panels_have_axes_of_their_own_and_equal_scales_where_anchored() -> None:
    figure = make_subplots(1, 2)
    for column in (1, 2):
        figure.add_scatter(x=[0, 10 * column], y=[0, 1], row=1, col=column)
    figure.update_layout(height=400, yaxis={"scaleanchor": "x"})
    axes = axes_of(figure.to_dict(), (0, 0, 1000, 400))
    assert max(axes["xaxis"].ends) < min(axes["xaxis2"].ends)
    assert axes["xaxis2"].pixel(20) == pytest.approx(1000, abs=20)
    unit = [abs(axes[name].pixel(1) - axes[name].pixel(0)) for name in ("xaxis", "yaxis")]
    assert unit[0] == pytest.approx(unit[1])


def test_ticks_are_round_numbers_inside_the_axis() -> None:
    axis = Axis({"range": [-0.3, 9.7]}, (100, 1100), [])
    assert [text for _, text in axis.ticks()] == ["0", "2", "4", "6", "8"]
    assert [at for at, _ in axis.ticks()] == pytest.approx([130, 330, 530, 730, 930])
    assert [text for _, text in Axis({"type": "log"}, (0, 10), [1, 1000]).ticks()] == ["1", "10", "100", "1000"]


def test_dashes_cover_their_share_of_a_line_with_corners() -> None:
    points = [(0.0, 0.0), (100.0, 0.0), (100.0, 180.0)]
    parts = dashed(points, "dash", 1)
    length = sum(math.dist(one, other) for part in parts for one, other in pairwise(part))
    assert length == pytest.approx(280 * 9 / 14, abs=5)
    assert dashed(points, "solid", 1) == [points]


@pytest.mark.parametrize("symbol", ["circle", "square", "diamond", "star", "cross", "pentagon", "hexagon"])
def test_a_symbol_lies_around_its_place(symbol: str) -> None:
    points, closed = outline(symbol, 5, 7, 2)
    assert closed
    assert np.mean(points, axis=0) == pytest.approx((5, 7), abs=1e-6)
    assert max(math.dist(point, (5, 7)) for point in points) < 3


def test_colours_and_values_as_plotly_writes_them() -> None:
    assert colour_of("rgba(10, 20,30,.5)") == (10, 20, 30, 128)
    assert colour_of("#0000ff80", 0.5) == (0, 0, 255, 64)
    content = go.Figure(go.Scatter(x=np.arange(6, dtype="int16").reshape(6), y=["a", "b"])).to_dict()["data"][0]
    assert values_of(content["x"]).tolist() == [0, 1, 2, 3, 4, 5]
    assert values_of(content["y"]).tolist() == ["a", "b"]


def test_no_text_of_a_figure_lacks_its_letters() -> None:
    """Pillow's font draws an empty box for a letter that it lacks."""
    from pddm_lab.static.chart import _plain

    font = ImageFont.load_default(20)
    box = font.getmask("\uffff").getbbox(), bytes(font.getmask("\uffff"))
    texts = [one.title + one.help for one in figures.METRICS.values()]
    texts += [figures.style_of(name).axis for name in ("euclidean", "mahalanobis", "pddm", "local")]
    for letter in set("".join(map(_plain, [*texts, "α β λ γ −1 u′ more ↑ 5 % – “a” × ° →"]))) - {"\n", " ", "\u00a0"}:
        assert (font.getmask(letter).getbbox(), bytes(font.getmask(letter))) != box, letter


def test_a_notebook_gets_data_and_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    from pddm_lab.static.renderer import show_figures_with_pictures

    monkeypatch.setattr(plotly.io.renderers, "default", plotly.io.renderers.default)
    show_figures_with_pictures()
    figure = go.Figure(go.Scatter(x=[0, 1], y=[0, 1]))
    bundle = plotly.io.renderers._build_mime_bundle(json.loads(figure.to_json()))
    assert set(bundle) == {"application/vnd.plotly.v1+json", "image/png"}
    assert PngRenderer().to_mimebundle(go.Figure(go.Pie(values=[1])).to_dict()) == {}, "plotly alone shows that"
