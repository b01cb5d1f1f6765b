"""The dashboard with a hint to browsers: `streamlit run dashboard/serve.py`, as `pddm-lab dashboard` does.

plotly.js is 4.7 MB, and a page requests it only for its first chart. A header of the page's first response makes the
browser fetch and parse it earlier. `streamlit run dashboard/app.py` serves the same pages without the hint.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class EarlyCharts:
    """Name the chunks that draw charts in the header of every HTML response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        static = Path(st.__file__).parent / "static"
        chunks = sorted(static.glob("static/js/PlotlyChart.*.js"))
        self.link = ", ".join(f"</{chunk.relative_to(static)}>; rel=modulepreload" for chunk in chunks).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_hint(message: Message) -> None:
            headers = message.get("headers", [])
            if message["type"] == "http.response.start" and any(
                name == b"content-type" and value.startswith(b"text/html") for name, value in headers
            ):
                message = {**message, "headers": [*headers, (b"link", self.link)]}
            await send(message)

        await self.app(scope, receive, send_with_hint)


app = st.App("app.py", middleware=[Middleware(EarlyCharts)])
