"""The dashboard with what browsers need: `streamlit run dashboard/serve.py`, as `pddm-lab dashboard` does.

A content security policy keeps a page from fetching anything from elsewhere, whatever a run's files contain. A hint
makes the browser fetch and parse plotly.js (4.7 MB) at once, which a page would request only for its first chart.
A line of script says where the server is: on a linked page Streamlit would look for it under the page's own path first,
which logs two errors 404. `streamlit run dashboard/app.py` serves the same pages without these.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pddm_lab.dashboard_server import PAGES

POLICY = (
    "default-src 'self'; script-src 'self' blob: data: 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; font-src 'self' data:; "
    "connect-src 'self' blob: data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)
"""No host but this one. The unsafe words are needed: Streamlit puts scripts of components and styles into the page."""


_PATHS = "|".join(PAGES)
HOME = (
    "<script>window.__streamlit = { BACKEND_BASE_URL: location.origin + "
    rf"location.pathname.replace(/\/({_PATHS})?\/?$/, '') + '/' }}</script>"
).encode()
"""Where the server is: the address without a page's path, whatever a proxy has put before it."""


class Headers:
    """Add both headers and the script to every HTML response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        static = Path(st.__file__).parent / "static"
        chunks = sorted(static.glob("static/js/PlotlyChart.*.js"))
        link = ", ".join(f"</{chunk.relative_to(static)}>; rel=modulepreload" for chunk in chunks)
        self.headers = [(b"link", link.encode()), (b"content-security-policy", POLICY.encode())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: list[Message] = []  # of an HTML response, until its first part is here

        async def send_with_headers(message: Message) -> None:
            headers = message.get("headers", [])
            names = dict(headers)
            if message["type"] == "http.response.start" and names.get(b"content-type", b"").startswith(b"text/html"):
                start.append({**message, "headers": [*headers, *self.headers]})
                return
            if start:
                message = _with_script(start[0], message)
                await send(start.pop())
            await send(message)

        if scope["type"] == "http" and any(
            name == b"accept" and b"text/html" in value for name, value in scope["headers"]
        ):  # a page, to be changed: not compressed
            plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
            scope = {**scope, "headers": plain}
        await self.app(scope, receive, send_with_headers)


def _with_script(start: Message, body: Message) -> Message:
    """The first part of an HTML response with the script in its head; the length in `start` follows."""
    if b"<head>" not in body.get("body", b""):
        return body
    longer = body["body"].replace(b"<head>", b"<head>" + HOME, 1)
    more = len(longer) - len(body["body"])
    start["headers"] = [
        (name, str(int(value) + more).encode() if name == b"content-length" else value)
        for name, value in start["headers"]
    ]
    return {**body, "body": longer}


app = st.App("app.py", middleware=[Middleware(Headers)])
