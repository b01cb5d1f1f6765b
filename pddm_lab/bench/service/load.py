"""A load on the service, in a process of its own: an open loop, which sends at a fixed rate whatever comes back.

A request's time counts from the moment at which it was due, so that a service that falls behind is not asked less.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

EDGE = "edge-of-a-part"
"""Boundary of the parts of a form."""
IDLE = 3.0
"""Seconds without a request after which a connection is not used any more; the service closes it after 5."""


def form(field: str, name: str, picture: bytes, texts: dict[str, str] | None = None) -> bytes:
    """A form with a file, and texts before it."""
    parts = [
        f'--{EDGE}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in (texts or {}).items()
    ]
    head = f'--{EDGE}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
    parts += [f"{head}Content-Type: image/jpeg\r\n\r\n".encode(), picture, f"\r\n--{EDGE}--\r\n".encode()]
    return b"".join(parts)


class _Sender:
    """Sends requests over as many connections as it needs; libraries for HTTP would take more time than the service.

    Args:
        port: of the service.
        sent: the requests as bytes, in turns.
    """

    def __init__(self, port: int, sent: Sequence[bytes]) -> None:
        self._port, self._sent = port, sent
        self._idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.ms: list[float] = []
        self.errors: Counter[str] = Counter()

    async def all(self, requests: int, rate: float) -> float:
        """Send all at a rate; the seconds until the last one is answered."""
        start, tasks = time.perf_counter(), []
        for number in range(requests):
            due = start + number / rate
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            tasks.append(asyncio.create_task(self._one(self._sent[number % len(self._sent)], due)))
        await asyncio.gather(*tasks)
        return time.perf_counter() - start

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection that was used last, or a new one where the service may be about to close it."""
        while self._idle:
            used, reader, writer = self._idle.pop()
            if time.perf_counter() - used < IDLE:
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def _one(self, request: bytes, due: float) -> None:
        try:
            reader, writer = await self._connection()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            (length,) = (line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            body = await reader.readexactly(int(length))
            if head[9:12] == b"200":
                self.ms.append(1000 * (time.perf_counter() - due))
            else:
                self.errors[f"{head[9:12].decode()} {body[:200].decode(errors='replace')}"] += 1
            self._idle.append((time.perf_counter(), reader, writer))
        except (OSError, EOFError, ValueError) as error:
            self.errors[f"{type(error).__name__}: {error}"] += 1


def send(plan: dict[str, Any]) -> dict[str, Any]:
    """Send the requests of a plan.

    Args:
        plan: port, requests, rate; photos (files) or ids (items) to search with, in turns.

    Returns:
        ms of each answer, how often each error came, and the seconds from the first to the last.
    """
    host = f"Host: 127.0.0.1:{plan['port']}\r\n"
    if "photos" in plan:
        kind = f"Content-Type: multipart/form-data; boundary={EDGE}\r\n"
        bodies = [form("picture", "a.jpg", Path(photo).read_bytes()) for photo in plan["photos"]]
        heads = [f"POST /v1/search HTTP/1.1\r\n{host}{kind}Content-Length: {len(body)}\r\n\r\n" for body in bodies]
        sent = [head.encode() + body for head, body in zip(heads, bodies, strict=True)]
    else:
        sent = [f"GET /v1/search?item={quote(one)} HTTP/1.1\r\n{host}\r\n".encode() for one in plan["ids"]]
    sender = _Sender(plan["port"], sent)
    seconds = asyncio.run(sender.all(plan["requests"], plan["rate"]))
    return {"ms": sender.ms, "errors": sender.errors, "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(send(json.loads(sys.argv[1]))))
