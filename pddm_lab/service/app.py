"""The service as an ASGI application: every worker process makes one."""

from __future__ import annotations

import asyncio
import logging
import reprlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from pddm_lab.errors import BusyError, ConfigError, DataError, LabError
from pddm_lab.service import items, searches
from pddm_lab.service.answers import Health, Version
from pddm_lab.service.document import ERRORS, document, problem
from pddm_lab.service.observed import Observed, forget_worker, metrics, ready_workers
from pddm_lab.service.refusals import Doorkeeper, Limits
from pddm_lab.service.settings import Settings
from pddm_lab.service.worker import Worker, similarities_of

_RETRY = {"Retry-After": "1"}


def from_environment() -> FastAPI:
    """The application of a worker process (`Settings.from_environment`)."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    return create(Settings.from_environment())


def create(settings: Settings) -> FastAPI:
    """The application.

    Args:
        settings: of the service.

    Raises:
        LabError: there is no such run, or the keys are missing.
    """
    worker, keys = Worker(settings), settings.keys()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(worker.start())
        yield
        loading.cancel()
        worker.stop()
        forget_worker()

    # Its pages of documentation would fetch scripts from elsewhere; /openapi.json holds the same.
    app = FastAPI(
        title="PDDM Lab", version="1", description=f"Search in the catalogue of the run {worker.run.name}.",
        lifespan=lifespan, docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.state.worker = worker
    for router in (searches.router, items.router):
        app.include_router(router)
    _add_state(app)
    _add_errors(app)
    cache: list[dict[str, Any]] = []

    def openapi() -> dict[str, Any]:
        if not cache:
            cache.append(document(app, similarities_of(worker.run), bool(keys)))
        return cache[0]

    app.openapi = openapi  # type: ignore[method-assign]
    # The last one added is the outermost.
    app.add_middleware(
        Limits, rate=settings.rate / settings.workers, at_once=settings.at_once,
        most_bytes=settings.megabytes * 1_000_000, timeout=settings.timeout,
    )  # fmt: skip
    app.add_middleware(Doorkeeper, keys=keys)
    app.add_middleware(Observed)
    return app


def _the_worker(request: Request) -> Worker:
    """The worker, whether it is ready or not."""
    return request.app.state.worker


_Any = Annotated[Worker, Depends(_the_worker)]


def _add_state(app: FastAPI) -> None:
    """/health, /ready, /version and /metrics."""

    @app.get("/health", tags=["state"], summary="Whether the process lives")
    async def health() -> Health:
        return Health(status="alive")

    @app.get("/ready", tags=["state"], summary="Whether it answers searches",
             responses=problem(503, "1 of 2 workers is ready: wait."))  # fmt: skip
    async def ready(worker: _Any) -> Health:
        if worker.failure:
            raise HTTPException(503, worker.failure)
        expected, count = worker.settings.workers, ready_workers()
        if count < expected or not worker.is_ready:
            raise HTTPException(503, f"{count} of {expected} workers are ready: wait.", _RETRY)
        if worker.served.removed:
            raise HTTPException(503, worker.served.removed)
        return Health(status="ready")

    @app.get("/version", tags=["state"], summary="What answers here", responses=ERRORS)
    async def show_version(worker: _Any) -> Version:
        await worker.started.wait()
        if worker.failure:
            raise HTTPException(503, worker.failure)
        served = worker.served
        return Version(
            version=version("pddm-lab"), api="v1", run=served.run.name, model=served.model,
            gallery=served.catalogue.latest.gallery.protocol, similarities=served.similarities,
            pictures=served.pictures.reason,
        )  # fmt: skip

    text = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    responses: Any = ERRORS | text

    @app.get("/metrics", tags=["state"], summary="Metrics for Prometheus", response_class=Response, responses=responses)
    async def show_metrics() -> Response:
        return Response(metrics(), media_type=CONTENT_TYPE_LATEST)


def _add_errors(app: FastAPI) -> None:
    """Every error is {"error": a sentence}."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        message, path = str(error.detail), request.url.path
        if message == HTTPStatus.NOT_FOUND.phrase:
            message = f"There is no {path}: /openapi.json describes all paths."
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            message = f"{path} has no {request.method}: /openapi.json describes all paths."
        return _answer(error.status_code, message, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return _answer(422, _in_words(error.errors()[0]))

    @app.exception_handler(LabError)
    async def failed(_: Request, error: LabError) -> Response:
        if isinstance(error, (DataError, ConfigError)):
            return _answer(422, str(error))
        return _answer(503, str(error), _RETRY if isinstance(error, BusyError) else None)


def _answer(status: int, message: str, headers: Any = None) -> Response:
    return JSONResponse({"error": message}, status, headers)


def _in_words(error: dict[str, Any]) -> str:
    """A complaint of pydantic's as the lab says it: the field, what was expected, what came."""
    field = ".".join(str(part) for part in error["loc"][1:] if isinstance(part, str)) or "the request"
    expected = error["msg"].replace("Input should be", "expected").replace("Field required", "expected, but missing")
    came = error.get("input")
    if "UploadFile" in expected:
        return f"{field}: expected a file, got a text. `curl -F {field}=@FILE` sends one."
    shown = f", got {reprlib.repr(came)}" if isinstance(came, (str, int, float)) else ""
    return f"{field}: {expected[:1].lower()}{expected[1:]}{shown}."
