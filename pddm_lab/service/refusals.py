"""What the service refuses before it reads a request: no key, too many, too much, too slow.

Middlewares around the whole application, so that what they refuse was neither parsed nor written anywhere. A body is
read here, into memory and up to its limit: the form parser inside would write it to disk before any handler runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pddm_lab.service.settings import is_loopback

HEADER = "X-API-Key"
OPEN = ("/health", "/ready")
"""Paths that answer without a key and at any rate: a machine asks them whether the service is well."""
BURST = 2.0
"""Requests at once, as a multiple of those of a second."""
CLIENTS = 10_000
"""Clients that are remembered; who was silent for longest is forgotten, and starts with a full bucket."""
_DIGITS = 15
"""Of a body's length, as a header says it: a longer number is too large, whatever it is."""
ONLY_HERE = "Without an API key the service answers only this machine: expected localhost as Host and Origin."


async def refuse(send: Send, status: int, message: str, headers: dict[str, str] | None = None) -> None:
    """Answer with an error."""
    content = json.dumps({"error": message}).encode()
    shown = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
    await send({
        "type": "http.response.start", "status": status,
        "headers": [(name.lower().encode(), value.encode()) for name, value in shown.items()],
    })  # fmt: skip
    await send({"type": "http.response.body", "body": content})


class Doorkeeper:
    """Lets in who has a key; without keys, what comes from this machine and from no page of another site.

    A browser lets any page send a form to 127.0.0.1, and a name that leads there read the answer.

    Args:
        app: what is behind it.
        keys: that open the service.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app, self._keys = app, [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http" and scope["path"] not in OPEN:
            headers = Headers(scope=scope)
            if self._keys:
                given = _digest(headers.get(HEADER, ""))
                # Each key takes the same time, whichever fits.
                if not sum(hmac.compare_digest(given, key) for key in self._keys):
                    what = "a wrong one" if headers.get(HEADER) else "none"
                    message = f"Expected one of the service's API keys in the header {HEADER}, got {what}."
                    return await refuse(send, 401, message, {"WWW-Authenticate": "ApiKey"})
                scope["state"]["key"] = given.hex()
            elif not (_is_here("//" + headers.get("host", "")) and _is_here(headers.get("origin", "//localhost"))):
                return await refuse(send, 403, ONLY_HERE)
        await self._app(scope, receive, send)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="replace")).digest()


def _is_here(address: str) -> bool:
    try:
        return is_loopback(urlsplit(address).hostname or "")
    except ValueError:
        return False


class Buckets:
    """Buckets of clients. Each holds tokens for `BURST` seconds and gets `rate` a second; a request takes one.

    Args:
        rate: requests a second.
        clock: seconds, from any start.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock, self._most = rate, clock, max(BURST * rate, 1.0)
        self._of: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> int:
        """Take a token of a client; 0, or the whole seconds until there is one."""
        now = self._clock()
        tokens, last = self._of.pop(client, (self._most, now))
        tokens = min(self._most, tokens + (now - last) * self._rate)
        allowed = tokens >= 1
        self._of[client] = (tokens - allowed, now)
        if len(self._of) > CLIENTS:
            self._of.popitem(last=False)
        return 0 if allowed else max(math.ceil((1 - tokens) / self._rate), 1)


class Limits:
    """Limits the rate of each client, what a worker does at once, the size of a body, and the time.

    Args:
        app: what is behind it.
        rate: requests a second of one client; 0: any number.
        at_once: requests that are worked on.
        most_bytes: of a body.
        timeout: seconds in which a body must arrive, and in which it must be answered.
    """

    def __init__(self, app: ASGIApp, rate: float, at_once: int, most_bytes: int, timeout: float) -> None:
        self._app, self._free, self._most, self._timeout = app, at_once, most_bytes, timeout
        self._buckets = Buckets(rate) if rate else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        if self._buckets and (wait := self._buckets.wait(_client(scope))):
            return await refuse(
                send, 429, f"Too many requests: try again in {wait} s.", {"Retry-After": str(wait)}
            )  # fmt: skip
        if self._free <= 0:
            return await refuse(send, 503, "The service is busy: try again in a second.", {"Retry-After": "1"})
        self._free -= 1
        try:
            await self._limited(scope, receive, send, headers)
        finally:
            self._free += 1

    async def _limited(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        length = headers.get("content-length", "")
        if length.isdecimal() and (len(length) > _DIGITS or int(length) > self._most):
            return await self._too_large(send)
        try:
            async with asyncio.timeout(self._timeout):
                body = await _body(receive, self._most)
        except TimeoutError:
            message = f"The request did not arrive within {self._timeout:g} s: send it again, or a smaller one."
            return await refuse(send, 408, message, {"Connection": "close"})
        if body is None:
            return await self._too_large(send)
        if isinstance(body, ConnectionError):
            return None
        scope["state"]["bytes"] = len(body)
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(self._timeout):
                await self._app(scope, _replay(body, receive), noting)
        except TimeoutError:
            if begun:
                raise
            await refuse(send, 504, f"No answer within {self._timeout:g} s: try again later, or with fewer pictures.")

    async def _too_large(self, send: Send) -> None:
        message = f"The request is too large: expected at most {self._most / 1e6:g} MB. Send fewer or smaller pictures."
        await refuse(send, 413, message, {"Connection": "close"})


def _client(scope: Scope) -> str:
    """The key of a client, or its address where none is needed."""
    return str(scope["state"].get("key") or (scope.get("client") or ["?"])[0])


async def _body(receive: Receive, most: int) -> bytes | ConnectionError | None:
    """The body of a request; None as soon as it is too large."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return ConnectionError()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A channel that delivers a body which was read already, and then what still comes."""
    first: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return first.pop() if first else await receive()

    return again
