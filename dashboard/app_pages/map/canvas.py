"""Maps on canvases: an inline component without a build step that draws a million points.

Points are sent as packed bytes at an address derived from their content, so that a browser fetches them once; choices,
hovering and descriptions are sent as text. points.js draws, layers.js draws over the points, views.js reads and writes
links, panel.js handles a pointer on one map, canvas.js both maps and keys.

embedding-atlas 0.26.0 has a component for Streamlit with labels and contours. It can't replace this one: a component
shows one projection and takes no selection from Python, so that two maps can't share a lasso; it returns a condition in
SQL; it takes the whole table with its pictures; and it loads DuckDB from a host on the internet.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from streamlit import runtime

from pddm_lab.figures import Colouring

MOST_WANTED = 150
"""Pictures that the canvas requests at a time (canvas.js)."""

_HERE = Path(__file__).parent
_TOOLS = {
    "lasso": (
        "Lasso: or hold Shift and drag (L)",
        "M12 4c5 0 9 2.4 9 5.5S17 15 12 15s-9-2.4-9-5.5S7 4 12 4z M7 14.5c-2 1-1 3.5 1 3.5s2 3-1 3",
    ),
    "view": ("Select the items in view (V)", "M4 8V4h4 M16 4h4v4 M20 16v4h-4 M8 20H4v-4 M9 12h6 M12 9v6"),
    "in": ("Zoom in (+)", "M12 5v14 M5 12h14"),
    "out": ("Zoom out (−)", "M5 12h14"),
    "fit": ("Show all (0, or double click)", "M9 4H4v5 M15 4h5v5 M9 20H4v-5 M15 20h5v-5"),
    "clear": ("Clear the selection (Escape)", "M6 6l12 12 M18 6L6 18"),
}
"""Title and icon of each button."""
_BUTTONS = "".join(
    f'<button type="button" data-do="{name}" title="{title}" aria-label="{title}"><svg viewBox="0 0 24 24">'
    f'<path d="{icon}"/></svg></button>\n'
    for name, (title, icon) in _TOOLS.items()
)
_CANVAS = st.components.v2.component(
    "pddm_lab_map",
    html=f'<div class="map"><div class="tools" role="toolbar" aria-label="Map">{_BUTTONS}</div>\n'
    '<div class="panels"></div><div class="tip" hidden></div><div class="spoken" aria-live="polite"></div></div>',
    css=(_HERE / "canvas.css").read_text(encoding="utf-8"),
    js="\n".join(
        (_HERE / f"{part}.js").read_text(encoding="utf-8") for part in ("points", "views", "layers", "panel", "canvas")
    ),
)


@dataclass(frozen=True)
class Ring:
    """Items with an outline around them."""

    rows: list[int]
    colour: str
    shape: str
    """circle, square, diamond or triangle-up."""
    size: int = 7


@dataclass(frozen=True, eq=False)
class Panel:
    """One map."""

    title: str
    places: np.ndarray
    """(items, 2) uint16, on a grid of lasso.py."""
    colouring: Colouring
    spots: np.ndarray
    """(spots, 3) uint32: where names are written, as spots.py returns them."""
    alt: str
    rings: list[Ring] = field(default_factory=list)


@dataclass(frozen=True)
class Description:
    """The tooltip of an item, as the canvas requested it."""

    row: int
    id: str
    picture: bytes
    lines: list[str]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Thumbnails of items, as the canvas requested them."""

    rows: list[int]
    jpegs: list[bytes]


@dataclass(frozen=True)
class State:
    """The choices made on the canvas."""

    hovered: int
    """Row under the pointer; -1 for none."""
    picked: int
    """Row that was clicked and isn't the anchor yet; -1 for none."""
    lasso: str
    """As lasso.py writes it; empty for none."""
    view: str
    """As the canvas writes it; empty if all items are in view."""
    wanted: tuple[int, ...] = ()
    """Rows whose pictures are to be shown."""

    @classmethod
    def read(cls, sent: Any, items: int) -> State | None:
        """A message from the browser, checked; None if it is invalid."""
        if not isinstance(sent, dict):
            return None
        rows = [row for row in (sent.get("hovered"), sent.get("picked")) if type(row) is int and -1 <= row < items]
        texts = [text for text in (sent.get("lasso"), sent.get("view")) if isinstance(text, str)]
        wanted = sent.get("wanted", [])
        if not isinstance(wanted, list) or len(wanted) > MOST_WANTED:
            return None
        if any(type(row) is not int or not 0 <= row < items for row in wanted) or not len(rows) == len(texts) == 2:
            return None
        return cls(rows[0], rows[1], texts[0], texts[1], tuple(wanted))


def draw(
    panels: Sequence[Panel], names: Sequence[str], labels: np.ndarray, *, key: str, scope: str, linked: bool,
    context: str, on_change: Callable[[State], None], lasso: str = "", view: str = "", anchor: int = -1,
    description: Description | None = None, shown: Mapping[str, int] | None = None, kept: np.ndarray | None = None,
    layers: Sequence[str] = (), stock: str = "", pictures: Pictures | None = None,
) -> None:  # fmt: skip
    """Draw one map, or two side by side.

    Args:
        panels: of the same items in the same order.
        names: of the classes, then of groups.
        labels: class of each item, an index into `names`.
        scope: identifies the maps; when it changes, all items are in view.
        linked: whether the panels share a layout and move together.
        context: identifies what descriptions depend on; when it changes, they are requested again.
        on_change: called with the choices on the canvas when they change.
        lasso: as lasso.py writes it.
        view: as the component writes it.
        anchor: row to mark; -1 for none.
        description: of the item under the pointer.
        shown: rows by id of the items with pictures on the page; pointing at a picture marks its item on the maps.
        kept: (items,) uint8, 1 for each item that is drawn; None for all.
        layers: what is drawn over the points: names, contours, pictures.
        stock: identifies the items; when it changes, their pictures are requested again.
        pictures: of the items that the canvas requested.
    """

    def receive() -> None:
        state = State.read(st.session_state[key].get("now"), len(labels))
        if state:
            on_change(state)

    filtered = "" if kept is None else _address(kept, f"{key}-kept")
    sent = [
        {
            "title": panel.title, "alt": panel.alt, "places": _address(panel.places, f"{key}-places-{at}"),
            "codes": _address(panel.colouring.codes, f"{key}-codes-{at}"), "palette": panel.colouring.palette,
            "glyphs": panel.colouring.glyphs, "layers": panel.colouring.layers, "ends": panel.colouring.ends,
            "spots": _address(panel.spots, f"{key}-spots-{at}"), "kept": filtered,
            "keys": [vars(one) for one in panel.colouring.keys], "rings": [vars(ring) for ring in panel.rings],
        }
        for at, panel in enumerate(panels)
    ]  # fmt: skip
    tooltip = None
    if description:
        picture = f"data:image/jpeg;base64,{base64.b64encode(description.picture).decode()}"
        tooltip = vars(description) | {"picture": picture}
    packed = None
    if pictures:
        ends = np.cumsum([len(jpeg) for jpeg in pictures.jpegs]).tolist()
        address = _address(b"".join(pictures.jpegs), f"{key}-pictures")
        packed = {"address": address, "rows": pictures.rows, "ends": ends}
    _CANVAS(
        data={
            "panels": sent, "linked": linked, "scope": scope, "context": context, "lasso": lasso, "view": view,
            "anchor": anchor, "description": tooltip, "shown": dict(shown or {}),
            "layers": list(layers), "stock": stock, "pictures": packed,
            "names": _address(json.dumps(list(names)).encode(), f"{key}-names"),
            "labels": _address(labels.astype(np.uint32), f"{key}-labels"),
        },
        key=key, on_now_change=receive,
    )  # fmt: skip


def _address(content: np.ndarray | bytes, place: str) -> str:
    """An address from which a browser can fetch bytes while this session's page shows them."""
    data = content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes()
    return runtime.get_instance().media_file_mgr.add(data, "application/octet-stream", place)
