"""A plotly chart as every page shows it: without plotly's toolbar, and with a text that describes it."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import streamlit as st


def chart(figure: go.Figure, key: str, alt: str, **options: Any) -> None:
    """Show a figure; `alt` is read by screen readers, `options` are those of `st.plotly_chart`."""
    st.plotly_chart(figure, key=key, alt=alt, config={"displayModeBar": False}, **options)
