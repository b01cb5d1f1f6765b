"""The dashboard with two headers for browsers: `streamlit run dashboard/serve.py`, as `pddm-lab dashboard` does.

A content security policy keeps a page from fetching anything from elsewhere, whatever a run's files contain. A hint
makes the browser fetch and parse plotly.js (4.7 MB) at once, which a page would request only for its first chart.
`streamlit run dashboard/app.py` serves the same pages without these headers.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'self'; script-src 'self' blob: data: 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; font-src 'self' data:; "
    "connect-src 'self' blob: data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)
"""No host but this one. The unsafe words are needed: Streamlit puts scripts of components and styles into the page."""


class Headers:
    """Add both headers to every HTML response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        static = Path(st.__file__).parent / "static"
        chunks = sorted(static.glob("static/js/PlotlyChart.*.js"))
        link = ", ".join(f"</{chunk.relative_to(static)}>; rel=modulepreload" for chunk in chunks)
        self.headers = [(b"link", link.encode()), (b"content-security-policy", POLICY.encode())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            headers = message.get("headers", [])
            if message["type"] == "http.response.start" and any(
                name == b"content-type" and value.startswith(b"text/html") for name, value in headers
            ):
                message = {**message, "headers": [*headers, *self.headers]}
            await send(message)

        await self.app(scope, receive, send_with_headers)


app = st.App("app.py", middleware=[Middleware(Headers)])
