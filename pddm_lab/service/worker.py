"""A worker process: a run with its catalogue and its model, loaded once, and everything that answers with them.

Of a run that is updated, the worker follows the update that serves: it opens that one beside the one that answers, and
changes over between two requests. A request takes what answers once, so that its features, vectors and similarities
are of one model. A change of a catalogue is made where it is found: if another run serves by now, it waits until this
worker has changed over, and is made there.

The run that answers and the one that was named are kept from being removed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

import joblib
from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from pddm_lab.errors import BusyError, LabError
from pddm_lab.local.unit import LocalStructure
from pddm_lab.model.similarity import Similarity
from pddm_lab.runs.local import load_local
from pddm_lab.runs.model import load_similarities
from pddm_lab.runs.process import being_served
from pddm_lab.runs.run import Run
from pddm_lab.runs.versions import model_stamp
from pddm_lab.service.catalogue import PATIENCE, Catalogue
from pddm_lab.service.decisions import Decisions
from pddm_lab.service.observed import ITEMS, SERVING, WORKERS
from pddm_lab.service.pictures import Pictures
from pddm_lab.service.search import EUCLIDEAN, LOCAL, Search
from pddm_lab.service.settings import Settings
from pddm_lab.update.serving import SupersededError, served, serving_path, while_it_serves

LOOK = 0.5
"""Seconds between two looks at which run serves."""
AGAIN = 60.0
"""Seconds after which a run that can't be opened is tried again."""
Made = TypeVar("Made")


class Pools(NamedTuple):
    """Threads, shared by all that a worker has open."""

    pictures: ThreadPoolExecutor
    search: ThreadPoolExecutor
    opening: ThreadPoolExecutor
    background: ThreadPoolExecutor


class Served:
    """A run, opened: all that answers by its model. It takes seconds.

    Args:
        run: the run.
        named: the run that the service was started with.
        settings: of the service.
        pools: where it works.
        threads: that may work at the same time.

    Raises:
        LabError: a file of the run is missing or damaged.
    """

    def __init__(self, run: Run, named: Run, settings: Settings, pools: Pools, threads: int) -> None:
        self.run, self._named = run, named
        self.kept = ExitStack()
        """What keeps its folder from being removed, until `let_go`."""
        self.similarities = similarities_of(run)
        self.model = model_stamp(run.path)
        local, known = load_local(run), load_similarities(run)
        self.structure = structure = None if local is None else local.structure
        by: Mapping[str, Similarity | LocalStructure] = {EUCLIDEAN: known[EUCLIDEAN]} | {
            name: known[name] for name in run.learned
        } | ({} if structure is None else {LOCAL: structure})  # fmt: skip
        self.catalogue = Catalogue(
            run, settings.protocol, structure, pools.opening, pools.background, self._while_it_serves
        )
        self.pictures = Pictures(run, settings.model, pools.pictures, threads)
        self.decisions = Decisions(by, run.is_labelled, pools.background)
        self.decisions.start(self.catalogue.latest.gallery)
        learned = {name: known[name] for name in run.learned}
        self.search = Search(run.name, learned, structure, self.decisions, pools.search, threads)

    @property
    def removed(self) -> str:
        """That its folder is gone, in a sentence; empty while it is there."""
        if (self.run.path / "run.json").is_file():
            return ""
        return f"The run {self.run.name} was removed: end this service, and serve another run."

    def let_go(self) -> None:
        """Its catalogue is changed no more, and its folder may be removed."""
        self.catalogue.stop()
        self.kept.close()

    def _while_it_serves(self) -> AbstractContextManager[None]:
        """Keep another run from taking over; raises SupersededError if one has."""
        return while_it_serves(self.run, self._named, PATIENCE)


def similarities_of(run: Run) -> list[str]:
    """Names of the similarities that rank, in the order of the lab's tables."""
    return [EUCLIDEAN, *run.learned, *([LOCAL] if run.info.get("local") else [])]


class Worker:
    """Loads in the background, so that the process answers meanwhile that it isn't ready.

    Args:
        settings: of the service.

    Raises:
        RunError: there is no such run.
    """

    served: Served
    """What answers."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self._named = settings, Run.open(settings.run)
        self.run = served(self._named)
        """That it starts with."""
        self.failure = ""
        """Why it can't be loaded, in a sentence."""
        self.started = asyncio.Event()
        """It is ready, or has failed."""
        self._trouble: tuple[str, str] = "", ""
        """Name of the run that could not be opened, so that another one still answers, and why in a sentence."""
        self._threads = threads = max(math.ceil(joblib.cpu_count() / settings.workers), 1)
        self._pools = Pools(*(ThreadPoolExecutor(count, name) for name, count in (
            ("pictures", threads), ("search", threads), ("opening", 1), ("background", 1)
        )))  # fmt: skip

    @property
    def is_ready(self) -> bool:
        """Whether it answers searches."""
        return self.started.is_set() and not self.failure

    async def start(self) -> None:
        """Load and warm everything, and then follow what serves."""
        try:
            self._change_over(await asyncio.to_thread(self._opened, self.run))
            WORKERS.set(1)
        except LabError as error:
            self.failure = str(error)
            logging.getLogger(__name__).error("%s", error)
        except Exception:
            self.failure = "The service could not start; its log says why."
            logging.getLogger(__name__).exception("A worker could not start.")
        finally:
            self.started.set()
        if self.is_ready:
            await self._follow()

    def stop(self) -> None:
        """End its threads, when what they do is done."""
        if self.is_ready:
            self.served.let_go()
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)

    async def change(self, edit: Callable[[Served], Awaitable[Made]]) -> Made:
        """Make a change in the catalogue that serves.

        Args:
            edit: makes it in the catalogue of a run; it is called again if another one serves by then.

        Raises:
            BusyError: another run serves that this worker can't open.
        """
        while True:
            of = self.served
            try:
                return await edit(of)
            except SupersededError:
                while self.served is of:
                    name, reason = self._trouble
                    if name == serving_path(self._named).name:
                        raise BusyError(reason) from None
                    await asyncio.sleep(LOOK / 10)

    async def _follow(self) -> None:
        """Open another run as soon as that one is to serve, and let it answer."""
        failed, until = Path(), 0.0
        while True:
            await asyncio.sleep(LOOK)
            path = failed
            try:
                run = await asyncio.to_thread(served, self._named)
                path = run.path
                if path == self.served.run.path:
                    failed, self._trouble = Path(), ("", "")
                elif path != failed or time.monotonic() > until:
                    self._change_over(await asyncio.to_thread(self._opened, run))
            except Exception as error:
                failed, until, was = path, time.monotonic() + AGAIN, self._trouble
                is_known = isinstance(error, LabError)
                why = str(error) if is_known else "The service's log says why."
                removed, name = self.served.removed, self.served.run.name
                self._trouble = path.name, removed or f"Another run is to serve, and can't be opened: {why}"
                if self._trouble != was:
                    more = "" if removed else f" {name} still answers, and its catalogue can't be changed."
                    logging.getLogger(__name__).error("%s%s", self._trouble[1], more, exc_info=not is_known)

    def _change_over(self, opened: Served) -> None:
        """Let a run answer from the next request on; what the one before has begun, it finishes."""
        before: Served | None = getattr(self, "served", None)
        self.served = opened
        if before is not None:
            before.let_go()
            SERVING.labels(before.run.name).set(0)
            logging.getLogger(__name__).warning("%s serves now, instead of %s.", opened.run.name, before.run.name)
        SERVING.labels(opened.run.name).set(1)
        ITEMS.set(len(opened.catalogue.latest.gallery))

    def _opened(self, run: Run) -> Served:
        import faiss
        import torch

        # Requests come side by side and share the cores.
        faiss.omp_set_num_threads(1)
        torch.set_num_threads(1)
        with ExitStack() as kept:
            for folder in dict.fromkeys((run.path, self._named.path)):
                kept.enter_context(being_served(folder))
            opened = Served(run, self._named, self.settings, self._pools, self._threads)
            opened.kept = kept.pop_all()
        return opened


async def _working(request: Request) -> Worker:
    worker: Worker = request.app.state.worker
    await worker.started.wait()
    if reason := worker.failure or worker.served.removed:
        raise HTTPException(503, reason)
    return worker


Working = Annotated[Worker, Depends(_working)]
"""How a handler that changes the catalogue gets the worker: it waits until everything is loaded."""


async def _answering(worker: Working) -> Served:
    return worker.served


Here = Annotated[Served, Depends(_answering)]
"""How a handler gets what answers: one run with one model, whatever serves by the end of the request."""
