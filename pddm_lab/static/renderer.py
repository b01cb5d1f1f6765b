"""Shows a figure of a notebook twice: as data for plotly, and as PNG for readers without JavaScript."""

from __future__ import annotations

import base64
from typing import Any

import plotly.io
from plotly.io.base_renderers import MimetypeRenderer

from pddm_lab.static.chart import png_of


class PngRenderer(MimetypeRenderer):
    """A figure as image/png, drawn by `png_of`."""

    def to_mimebundle(self, fig_dict: dict[str, Any]) -> dict[str, str]:
        """The picture in base64; none for a figure that `png_of` can't draw, which plotly still shows."""
        try:
            return {"image/png": base64.b64encode(png_of(fig_dict)).decode()}
        except (KeyError, TypeError, ValueError):
            return {}


def show_figures_with_pictures() -> None:
    """Make both the way that this process shows figures. Neither needs a network."""
    plotly.io.renderers["pddm_png"] = PngRenderer()
    plotly.io.renderers.default = "plotly_mimetype+pddm_png"
