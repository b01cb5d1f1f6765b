"""Serve a run until the process is ended: the workers finish what they have begun, and take nothing new."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from contextlib import ExitStack

from pddm_lab.errors import ConfigError
from pddm_lab.runs.run import Run
from pddm_lab.service.observed import FOLDER_VARIABLE
from pddm_lab.service.settings import Settings
from pddm_lab.update.serving import served

_GRACE = 30
"""Seconds that running requests have to finish."""
_HEADER_BYTES = 65_536
KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than clients and proxies keep theirs, so that none sends into one
that closes."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        LabError: no such run or gallery, no key where one is needed, or a port that is taken.
    """
    from uvicorn import Config, Server
    from uvicorn.supervisors import Multiprocess

    settings.keys()
    run = served(Run.open(settings.run))
    run.gallery(settings.protocol or next(iter(run.galleries()), "catalogue"))
    settings.to_environment()
    with _listening(settings.host, settings.port) as listening, ExitStack() as stack:
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        where = f"http://{shown}:{settings.port}/v1, described in /openapi.json"
        print(f"Serving {run.name} at {where}.", file=sys.stderr, flush=True)  # stdout is the log
        if settings.workers > 1:
            os.environ[FOLDER_VARIABLE] = stack.enter_context(tempfile.TemporaryDirectory())
        config = Config(
            "pddm_lab.service.app:from_environment", factory=True, workers=settings.workers, log_config=None,
            access_log=False, proxy_headers=False, server_header=False, timeout_graceful_shutdown=_GRACE,
            timeout_keep_alive=KEEP_ALIVE, timeout_worker_healthcheck=60, h11_max_incomplete_event_size=_HEADER_BYTES,
        )  # fmt: skip
        if settings.workers > 1:
            Multiprocess(config, [listening]).run()
        else:
            Server(config).run([listening])


def _listening(host: str, port: int) -> socket.socket:
    """A socket at an address.

    Its protocol is named, as asyncio lets small packets go at once only then: the body of each answer would wait for
    the client to acknowledge its head, for 40 ms.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        message = f"--port {port} on {host} can't be used: {error.strerror}. Choose another one."
        raise ConfigError(message) from error
    made.set_inheritable(True)
    return made
