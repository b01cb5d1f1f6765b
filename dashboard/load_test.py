"""A load test without browsers: sessions open the dashboard's pages, use the controls there, and are timed.

A session speaks the server's protocol as a browser does: it requests a rerun with the state of its widgets and waits
until the script has finished. It reads a page's controls from what the server sends, so a new page needs no change
here. `python load_test.py JSON` prints one JSON object per rerun; see `Plan` for the argument.
"""

from __future__ import annotations

import html
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Delta_pb2 import Delta
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

UNUSED = "Run"
"""Label of the control that would switch to another run."""
OPTIONS = ("button_group", "selectbox", "radio", "multiselect")
CONTROLS = (*OPTIONS, "slider", "checkbox", "pagination")
"""Kinds of elements that are used."""
TIMED_OUT = "not finished"
"""How the error of a rerun that took too long begins."""
_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True)
class Plan:
    """What the sessions do."""

    address: str
    """http://host:port of the dashboard."""
    run: str
    pages: list[str]
    """As in the URL; the first is the one at /."""
    sessions: int = 1
    reruns: int = 20
    """On each page of each session, not counting its opening."""
    think: float = 0.0
    """Mean of the pause after each rerun, in seconds; exponentially distributed."""
    mixed: bool = False
    """Change pages after one to four reruns, each session in its own order, instead of finishing page after page."""
    seed: int = 0
    minutes: float = 0.0
    """Repeat all of it for so long, and end there; 0: once."""


@dataclass(frozen=True)
class Rerun:
    """One rerun of a page's script."""

    session: int
    page: str
    what: str
    """The control used; "open" for opening the page."""
    seconds: float
    """Until the server reported that the script had finished."""
    bytes: int
    """Sent by the server."""
    error: str = ""


@dataclass(frozen=True)
class Control:
    """A control on a page."""

    label: str
    fragment: str
    kind: str
    element: Any
    """As the server sent it; of the kind "items", ids of items to pick."""

    @property
    def options(self) -> list[str]:
        """The choices of one that offers a few."""
        options = self.element.options
        return [option.content for option in options] if self.kind == "button_group" else list(options)

    @property
    def usable(self) -> bool:
        """Whether it has another state."""
        if self.kind == "pagination":
            return self.element.num_pages > 1
        return not self.element.disabled and (self.kind not in OPTIONS or len(self.options) > 1)

    def next(self, rng: random.Random) -> WidgetState:
        """A random next state."""
        element, state = self.element, WidgetState(id=self.element.id)
        if self.kind == "checkbox":
            state.bool_value = rng.random() < 0.5
        elif self.kind == "pagination":
            state.int_value = rng.randint(1, min(element.num_pages, 10))
        elif self.kind in ("button_group", "multiselect"):
            state.string_array_value.data.append(rng.choice(self.options))
        elif self.kind in OPTIONS:
            state.string_value = rng.choice(self.options)
        elif element.options:  # a slider over texts
            places = sorted(rng.randrange(len(element.options)) for _ in element.default)
            state.string_array_value.data.extend(element.options[place] for place in places)
        else:
            steps = round((element.max - element.min) / (element.step or 1))
            values = sorted(element.min + element.step * rng.randint(0, steps) for _ in element.default)
            state.double_array_value.data.extend(values)
        return state


@dataclass
class Session:
    """One connection, with the state that a browser keeps for it."""

    number: int
    plan: Plan
    socket: ClientConnection
    page: str = ""
    query: str = ""
    hashes: dict[str, str] = field(default_factory=dict)
    states: dict[str, WidgetState] = field(default_factory=dict)
    controls: dict[str, Control] = field(default_factory=dict)

    def open(self, page: str) -> Rerun:
        """Go to a page and forget the choices on others, as a browser does when it follows a link."""
        self.page, self.query = page, f"run={quote(self.plan.run)}"
        self.states.clear()
        self.controls.clear()
        return self._rerun("open", "")

    def use(self, rng: random.Random) -> Rerun:
        """Use one of the page's controls; a page without controls is run again."""
        controls = [control for control in self.controls.values() if control.label != UNUSED]
        if not controls:
            return self._rerun("run again", "")
        control = rng.choice(controls)
        if control.kind == "items":
            parts = [part for part in self.query.split("&") if not part.startswith("item=")]
            self.query = "&".join([*parts, f"item={quote(rng.choice(control.element))}"])
            return self._rerun("an item", "")
        self.states[control.element.id] = control.next(rng)
        return self._rerun(control.label, control.fragment)

    def _rerun(self, what: str, fragment: str) -> Rerun:
        request, page_name = BackMsg(), "" if self.page == self.plan.pages[0] else self.page
        state = request.rerun_script
        state.query_string, state.page_name, state.fragment_id = self.query, page_name, fragment
        state.page_script_hash = self.hashes.get(page_name, "")
        state.widget_states.widgets.extend(self.states.values())
        if not fragment:
            self.controls.clear()
        start, received, error = time.perf_counter(), 0, ""
        self.socket.send(request.SerializeToString())
        try:
            while True:
                data = self.socket.recv(max(start + _TIMEOUT_SECONDS - time.perf_counter(), 0))
                assert isinstance(data, bytes)
                received += len(data)
                message = ForwardMsg.FromString(data)
                kind = message.WhichOneof("type")
                if kind == "delta":
                    error = self._take(message.delta) or error
                elif kind in ("new_session", "navigation"):
                    pages = getattr(message, kind).app_pages
                    self.hashes = {page.url_pathname: page.page_script_hash for page in pages}
                elif kind == "page_info_changed":
                    self.query = message.page_info_changed.query_string
                elif kind == "page_not_found":
                    error = f"no page {self.page}"
                elif kind == "script_finished" and message.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                    break
        except TimeoutError:
            error = f"{TIMED_OUT} after {_TIMEOUT_SECONDS:.0f} s"
        return Rerun(self.number, self.page, what, time.perf_counter() - start, received, error)

    def _take(self, delta: Delta) -> str:
        """Keep a new element if it is a control; returns the error that it shows, or an empty string."""
        kind = delta.new_element.WhichOneof("type") if delta.WhichOneof("type") == "new_element" else None
        element: Any = getattr(delta.new_element, kind) if kind else None
        if kind == "exception":
            return f"{element.type}: {element.message}"
        if kind == "bidi_component" and self.page == "search":
            picks = [html.unescape(pick) for pick in re.findall(r'data-pick=\\"(.*?)\\"', element.json)]
            if picks:
                self.controls[element.id] = Control("an item", delta.fragment_id, "items", picks)
        if kind in CONTROLS:
            control = Control(getattr(element, "label", kind), delta.fragment_id, str(kind), element)
            if control.usable:
                self.controls[element.id] = control
        return ""


def run_session(number: int, plan: Plan) -> list[Rerun]:
    """One session from connection to end."""
    rng = random.Random(plan.seed * 1000 + number)
    reruns: list[Rerun] = []
    url = f"{plan.address.replace('http', 'ws', 1)}/_stcore/stream"
    try:
        with connect(url, subprotocols=["streamlit"], origin=plan.address, max_size=None) as socket:  # type: ignore[call-overload]
            session = Session(number, plan, socket)
            end = time.monotonic() + 60 * plan.minutes
            while not reruns or time.monotonic() < end:
                for rerun in _round(session, rng):
                    reruns.append(rerun)
                    if plan.minutes and time.monotonic() > end:
                        break
    except (WebSocketException, OSError) as error:
        reruns.append(Rerun(number, "", "connection", 0.0, 0, f"{type(error).__name__}: {error}"))
    return reruns


def _round(session: Session, rng: random.Random) -> Iterator[Rerun]:
    """Every page of a plan with all its reruns, once."""
    plan = session.plan
    left = {page: plan.reruns for page in plan.pages}
    order = rng.sample(plan.pages, len(plan.pages)) if plan.mixed else list(plan.pages)
    while any(left.values()):
        for page in [page for page in order if left[page]]:
            yield session.open(page)
            _think(rng, plan)
            count = min(left[page], rng.randint(1, 4)) if plan.mixed else left[page]
            left[page] -= count
            for _ in range(count):
                yield session.use(rng)
                _think(rng, plan)


def _think(rng: random.Random, plan: Plan) -> None:
    if plan.think:
        time.sleep(rng.expovariate(1 / plan.think))


def main(plan: Plan) -> None:
    """Run all sessions at once and print their reruns as JSON lines."""
    with ThreadPoolExecutor(plan.sessions) as pool:
        for reruns in pool.map(run_session, range(plan.sessions), [plan] * plan.sessions):
            for rerun in reruns:
                print(json.dumps(asdict(rerun)))


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
