"""A service in a thread of this process, on a copy of a run, and pictures to send to it."""

from __future__ import annotations

import io
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import uvicorn
from PIL import Image

from pddm_lab.runs.run import Run
from pddm_lab.service.app import create
from pddm_lab.service.server import KEEP_ALIVE
from pddm_lab.service.settings import Settings

PATIENCE = 300
"""Seconds in which a request is answered, on a busy machine too."""


@contextmanager
def own_port() -> Iterator[int]:
    """A port that nobody listens on; no other process is given it, and a server that reuses addresses may take it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def copied(run: Run, folder: Path) -> Run:
    """A copy of a run, to be changed."""
    shutil.copytree(run.path, folder / run.name)
    return Run.open(folder / run.name)


@contextmanager
def serving(run: Run, **choices: object) -> Iterator[httpx.Client]:
    """A client of a service that is ready."""
    with own_port() as port:
        settings = Settings(
            **{"run": str(run.path), "rate": 0, "port": port, "timeout": PATIENCE, **choices}  # type: ignore[arg-type]
        )
        config = uvicorn.Config(
            create(settings), port=port, log_config=None, access_log=False, timeout_keep_alive=KEEP_ALIVE
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
                wait_until_ready(client)
                yield client
        finally:
            server.should_exit = True
            thread.join(PATIENCE)  # else it would still write to the run when its folder is deleted


def wait_until_ready(client: httpx.Client, seconds: float = 600) -> None:
    """Return when the service answers that it is ready."""
    end = time.monotonic() + seconds
    while True:
        try:
            if client.get("/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass  # it doesn't listen yet
        assert time.monotonic() < end, "the service did not become ready"
        time.sleep(0.1)


def png(seed: int, side: int = 24) -> bytes:
    """A picture of noise, another one for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
