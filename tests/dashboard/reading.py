"""What a page shows, read back by the tests."""

from __future__ import annotations

import base64
import html
import json
import re

import numpy as np

from pddm_lab.dashboard_server import PAGES

OF_A_RUN = tuple(page for page in PAGES if page != "local_global")
"""Pages that have nothing to show without a run."""
PATIENCE = 600.0
"""Seconds that a page may take on a machine that is busy with other work."""
DATA = {"name": "digits", "fingerprint": "-", "items": 1797, "classes": 10, "skipped": [], "licence": "CC-BY-4.0",
        "attribution": "E. Alpaydin", "root": ""}  # fmt: skip


def texts(app) -> str:
    """All text on the page, as a person reads it: without the marks that keep Markdown from being formatted."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown(app)).replace("\u2060", "")


def markdown(app) -> str:
    """All text on the page, as it is sent."""
    kinds = (app.title, app.markdown, app.caption, app.warning, app.error, app.info, app.header, app.subheader)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def rows_of(body: str) -> list[list[str]]:
    """The cells of a table block's rows, without marks."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body.split("<tbody>")[1], re.S)
    return [
        [html.unescape(re.sub(r"<[^>]+>", "", cell)) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in rows
    ]


def blocks(app, key: str) -> str:
    """The HTML of a block of pictures that can be clicked."""
    (component,) = [one for one in app.get("bidi_component") if one.key == key]
    return json.loads(component.proto.json)["html"]


def tiles(body: str) -> list[tuple[str, str, float, bool]]:
    """(id, class, number shown, marked right) of each result."""
    pattern = (
        r'class="pl-tile pl-(\w+)" data-pick="([^"]+)".*?class="pl-name">(.*?)<'
        r'.*?class="pl-value"><span><i[^>]*>[DSL](?:<sub>M</sub>)?</i> (\S+?)<'
    )
    return [
        (html.unescape(name), html.unescape(label), float(value.replace("−", "-")), look == "right")
        for look, name, label, value in re.findall(pattern, body, re.S)
    ]


def numbers(values) -> np.ndarray:
    """A trace's values, which plotly sends as a list or as base64."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
    return np.array(values, dtype=float)
