"""A browser that nobody sees and that nothing slows down: Chromium by its DevTools protocol, with no domain enabled.

A debugger that listens, as test tools attach one, has V8 keep source positions for every function that plotly defines:
a page that draws its charts in 2 s then takes 3 s. Here the page times itself by its own clock, and is only asked.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pddm_lab.dashboard_server import BROWSERS, browser_args, find_browser
from pddm_lab.errors import RunError

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

_START_SECONDS = 30.0
_ANSWER_SECONDS = 120.0


class Tab:
    """One tab of a browser; its answers are JSON values."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    def go(self, url: str) -> None:
        """Open a page; returns as soon as its first byte has come."""
        self.send("Page.navigate", url=url)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise.

        Raises:
            RunError: it threw.
        """
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RunError(f"The page threw: {details.get('exception', {}).get('description') or details['text']}")
        return answer["result"].get("value")

    def choose_file(self, expression: str, file: Path) -> None:
        """Choose a file in the input that a JavaScript expression gives."""
        found = self.send("Runtime.evaluate", expression=expression)["result"]
        self.send("DOM.setFileInputFiles", files=[str(file.resolve())], objectId=found["objectId"])

    def press(self, key: str) -> None:
        """Press and release a key, such as ArrowRight, on what has the focus."""
        for kind in ("rawKeyDown", "keyUp"):
            codes = {"ArrowRight": 39, "ArrowLeft": 37}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key])

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol and its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=_ANSWER_SECONDS))
            if message.get("id") == number:
                if "error" in message:
                    raise RunError(f"The browser refused {method}: {message['error']['message']}")
                return message["result"]


@contextlib.contextmanager
def browser(width: int = 1280, height: int = 800) -> Iterator[Browser]:
    """A Chromium with a profile of its own, so that its caches are its own too; it ends with the block.

    Raises:
        RunError: there is none, or it doesn't start.
    """
    path = find_browser()
    if not path:
        raise RunError(f"A browser is needed: one of {', '.join(BROWSERS)} on the PATH (apt-get install chromium).")
    # A browser that was told to end may still write to its profile for a moment.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--remote-debugging-port=0", f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        process = subprocess.Popen(
            [path, *browser_args(), *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield Browser(_port(Path(profile), process))
        finally:
            process.terminate()
            process.wait(20)


class Browser:
    """A running browser."""

    def __init__(self, port: int) -> None:
        self._port = port

    @contextlib.contextmanager
    def tab(self) -> Iterator[Tab]:
        """A new tab, closed at the end."""
        from websockets.sync.client import connect

        made = json.loads(self._http("new?about:blank", "PUT"))
        try:
            with connect(made["webSocketDebuggerUrl"], max_size=None, compression=None) as socket:
                yield Tab(socket)
        finally:
            self._http(f"close/{made['id']}", "GET")

    def _http(self, what: str, method: str) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/json/{what}", method=method)
        with urllib.request.urlopen(request, timeout=_START_SECONDS) as answer:
            return answer.read()


def _port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    """The port that the browser says it listens on."""
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError):
            return int((profile / "DevToolsActivePort").read_text().splitlines()[0])
        time.sleep(0.05)
    raise RunError("The browser did not start.")
