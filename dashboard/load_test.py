"""A load test without browsers: sessions open the dashboard's pages, use the controls there, and are timed.

A session speaks the server's protocol as a browser does: it requests a rerun with the state of its widgets and waits
until the script has finished. It reads a page's controls from what the server sends, so a new page needs no change
here. `python load_test.py JSON` prints one JSON object per rerun; see `Plan` for the argument.
"""

from __future__ import annotations

import asyncio
import html
import json
import random
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Delta_pb2 import Delta
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

UNUSED = ("Run",)
"""Labels of controls that would switch to another run."""
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


@dataclass
class Control:
    """A control on a page, with a choice of its next state."""

    label: str
    fragment: str
    next: Callable[[random.Random], WidgetState | str]
    """Draws a widget's state, or the id of an item to pick."""


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

    async def open(self, page: str) -> Rerun:
        """Go to a page and forget the choices on others, as a browser does when it follows a link."""
        self.page, self.query = page, f"run={self.plan.run}"
        self.states.clear()
        self.controls.clear()
        return await self._rerun("open", "")

    async def use(self, rng: random.Random) -> Rerun:
        """Use one of the page's controls; a page without controls is run again."""
        controls = [control for control in self.controls.values() if control.label not in UNUSED]
        if not controls:
            return await self._rerun("run again", "")
        control = rng.choice(controls)
        chosen = control.next(rng)
        if isinstance(chosen, str):
            parts = [part for part in self.query.split("&") if not part.startswith("item=")]
            self.query = "&".join([*parts, f"item={chosen}"])
            return await self._rerun("an item", "")
        self.states[chosen.id] = chosen
        return await self._rerun(control.label, control.fragment)

    async def _rerun(self, what: str, fragment: str) -> Rerun:
        request = BackMsg()
        state = request.rerun_script
        state.query_string, state.page_name, state.fragment_id = self.query, self._page_name, fragment
        state.page_script_hash = self.hashes.get(self._page_name, "")
        state.widget_states.widgets.extend(self.states.values())
        if not fragment:
            self.controls.clear()
        start, received, error = time.perf_counter(), 0, ""
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await self.socket.send(request.SerializeToString())
                while True:
                    data = await self.socket.recv()
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
            error = f"not finished after {_TIMEOUT_SECONDS:.0f} s"
        return Rerun(self.number, self.page, what, time.perf_counter() - start, received, error)

    @property
    def _page_name(self) -> str:
        return "" if self.page == self.plan.pages[0] else self.page

    def _take(self, delta: Delta) -> str:
        """Keep a new element if it is a control; returns the error that it shows, or an empty string."""
        if delta.WhichOneof("type") != "new_element":
            return ""
        kind = delta.new_element.WhichOneof("type")
        element: Any = getattr(delta.new_element, kind) if kind else None
        if kind == "exception":
            return f"{element.type}: {element.message}"
        if kind in _NEXT and not element.disabled and (next_state := _NEXT[kind](element)):
            self.controls[element.id] = Control(getattr(element, "label", kind), delta.fragment_id, next_state)
        if kind == "bidi_component" and self.page == "search":
            picks = [html.unescape(pick) for pick in re.findall(r'data-pick=\\"(.*?)\\"', element.json)]
            if picks:
                self.controls[element.id] = Control("an item", delta.fragment_id, lambda rng: rng.choice(picks))
        return ""


def _of_options(element: Any, options: list[str], many: bool) -> Callable[[random.Random], WidgetState] | None:
    def choose(rng: random.Random) -> WidgetState:
        state, value = WidgetState(id=element.id), rng.choice(options)
        if many:
            state.string_array_value.data.append(value)
        else:
            state.string_value = value
        return state

    return choose if len(options) > 1 else None


def _slider(element: Any) -> Callable[[random.Random], WidgetState]:
    def choose(rng: random.Random) -> WidgetState:
        state = WidgetState(id=element.id)
        if element.options:  # a slider over texts
            places = sorted(rng.randrange(len(element.options)) for _ in element.default)
            state.string_array_value.data.extend(element.options[place] for place in places)
            return state
        steps = round((element.max - element.min) / (element.step or 1))
        values = sorted(element.min + element.step * rng.randint(0, steps) for _ in element.default)
        state.double_array_value.data.extend(values)
        return state

    return choose


def _checkbox(element: Any) -> Callable[[random.Random], WidgetState]:
    return lambda rng: WidgetState(id=element.id, bool_value=rng.random() < 0.5)


def _pagination(element: Any) -> Callable[[random.Random], WidgetState] | None:
    pages = min(element.num_pages, 10)
    return (lambda rng: WidgetState(id=element.id, int_value=rng.randint(1, pages))) if pages > 1 else None


_NEXT: dict[str, Callable[[Any], Callable[[random.Random], WidgetState] | None]] = {
    "button_group": lambda element: _of_options(element, [option.content for option in element.options], True),
    "selectbox": lambda element: _of_options(element, list(element.options), False),
    "radio": lambda element: _of_options(element, list(element.options), False),
    "multiselect": lambda element: _of_options(element, list(element.options), True),
    "slider": _slider,
    "checkbox": _checkbox,
    "pagination": _pagination,
}


async def run_session(number: int, plan: Plan) -> list[Rerun]:
    """One session from connection to end."""
    rng, reruns = random.Random(plan.seed * 1000 + number), []
    url = f"{plan.address.replace('http', 'ws', 1)}/_stcore/stream"
    try:
        async with connect(url, subprotocols=["streamlit"], origin=plan.address, max_size=None) as socket:  # type: ignore[list-item, arg-type]
            session = Session(number, plan, socket)
            left = {page: plan.reruns for page in plan.pages}
            order = rng.sample(plan.pages, len(plan.pages)) if plan.mixed else list(plan.pages)
            while any(left.values()):
                for page in [page for page in order if left[page]]:
                    reruns.append(await session.open(page))
                    await _think(rng, plan)
                    count = min(left[page], rng.randint(1, 4)) if plan.mixed else left[page]
                    left[page] -= count
                    for _ in range(count):
                        reruns.append(await session.use(rng))
                        await _think(rng, plan)
    except (WebSocketException, OSError) as error:
        reruns.append(Rerun(number, "", "connection", 0.0, 0, f"{type(error).__name__}: {error}"))
    return reruns


async def _think(rng: random.Random, plan: Plan) -> None:
    if plan.think:
        await asyncio.sleep(rng.expovariate(1 / plan.think))


async def main(plan: Plan) -> None:
    """Run all sessions at once and print their reruns as JSON lines."""
    for reruns in await asyncio.gather(*(run_session(number, plan) for number in range(plan.sessions))):
        for rerun in reruns:
            print(json.dumps(asdict(rerun)))


if __name__ == "__main__":
    asyncio.run(main(Plan(**json.loads(sys.argv[1]))))
