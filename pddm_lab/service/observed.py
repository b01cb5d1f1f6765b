"""What the service says of each request: a line of its log, and its metrics.

A line holds no picture, no key and no query string; that of a search with a picture by D holds its scores, which
`pddm-lab drift --log` reads. Several workers write their metrics to files in a folder that
$PROMETHEUS_MULTIPROC_DIR names, and any of them answers for all.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
import uuid
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pddm_lab.service.refusals import refuse

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_OTHER = "other"
"""Stands for all paths that the service doesn't have: else anybody could fill its memory with names."""
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

_registry = CollectorRegistry()
REQUESTS = Counter(
    "pddm_lab_requests", "Requests answered.", ("method", "path", "status"), registry=_registry
)  # fmt: skip
SECONDS = Histogram(
    "pddm_lab_request_seconds", "Time to an answer.", ("path",), registry=_registry,
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)  # fmt: skip
WORKERS = Gauge(
    "pddm_lab_ready_workers", "Workers that are ready.", registry=_registry, multiprocess_mode="livesum"
)  # fmt: skip
SERVING = Gauge(
    "pddm_lab_serving_workers", "Workers that answer by the model of a run.", ("run",), registry=_registry,
    multiprocess_mode="livesum",
)  # fmt: skip
ITEMS = Gauge(
    "pddm_lab_items", "Items of the catalogue.", registry=_registry, multiprocess_mode="mostrecent"
)  # fmt: skip


def registry() -> CollectorRegistry:
    """The metrics of all workers."""
    if FOLDER_VARIABLE not in os.environ:
        return _registry
    of_all = CollectorRegistry()
    multiprocess.MultiProcessCollector(of_all)
    return of_all


def metrics() -> bytes:
    """The metrics of all workers, in Prometheus's text format."""
    return generate_latest(registry())


def ready_workers() -> int:
    """How many workers are ready."""
    return int(registry().get_sample_value("pddm_lab_ready_workers") or 0)


def forget_worker() -> None:
    """Take this worker out of the metrics, at its end."""
    WORKERS.set(0)
    if FOLDER_VARIABLE in os.environ:
        multiprocess.mark_process_dead(os.getpid())


class Observed:
    """Counts, times and logs the requests of an application; what fails in it becomes an error without details.

    Args:
        app: what is observed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        scope.setdefault("state", {})
        request, status, start, failure = uuid.uuid4().hex[:16], 0, time.perf_counter(), ""

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).append((b"x-request-id", request.encode()))
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            failure = traceback.format_exc()
            if not status:
                await refuse(noting, 500, f"The service failed on this request; its log has the details: {request}.")
        finally:
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", _OTHER)
            method = scope["method"] if scope["method"] in _METHODS else _OTHER
            REQUESTS.labels(method, route, status).inc()
            SECONDS.labels(route).observe(seconds)
            line: dict[str, Any] = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "request": request, "worker": os.getpid(),
                "method": method,
                "path": scope["path"][:200], "status": status, "ms": round(1000 * seconds, 1),
                "bytes": scope["state"].get("bytes", 0), "client": (scope.get("client") or ["?"])[0],
            }  # fmt: skip
            line |= scope["state"].get("scores", {})
            print(json.dumps(line | ({"failure": failure} if failure else {})), flush=True, file=sys.stdout)
