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


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def copied(run: Run, folder: Path) -> Run:
    """A copy of a run, to be changed."""
    shutil.copytree(run.path, folder / run.name)
    return Run.open(folder / run.name)


@contextmanager
def serving(run: Run, **choices: object) -> Iterator[httpx.Client]:
    """A client of a service that is ready."""
    settings = Settings(**{"run": str(run.path), "rate": 0, "port": free_port(), **choices})  # type: ignore[arg-type]
    config = uvicorn.Config(
        create(settings), port=settings.port, log_config=None, access_log=False, timeout_keep_alive=KEEP_ALIVE
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=60) as client:
            wait_until_ready(client)
            yield client
    finally:
        server.should_exit = True
        thread.join(20)


def wait_until_ready(client: httpx.Client, seconds: float = 300) -> None:
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
