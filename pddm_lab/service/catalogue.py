"""The gallery that a worker serves: as its files are at each request, whichever process changed them.

Requests look at the manifest's file. When it is another one, the first request opens the gallery anew, with a changed
copy of the index, and those that came meanwhile wait for it: after a change, every worker's next answer knows of it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from pddm_lab.analysis.decision import near_count
from pddm_lab.analysis.saved_queries import effect_of
from pddm_lab.errors import BusyError, RunError
from pddm_lab.gallery import redraw
from pddm_lab.gallery.files import read_manifest
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.local.unit import LocalStructure
from pddm_lab.runs.run import Run
from pddm_lab.service.observed import ITEMS

QUIET = 60.0
"""Seconds without a change after which the map is drawn anew: new items lie between their neighbours meanwhile."""
PATIENCE = 10.0
"""Seconds that a change waits for another process that is changing the same gallery."""
_PAUSE = 0.05


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The gallery as one request sees it."""

    gallery: Gallery
    stamp: tuple[int, ...]
    """Of the manifest's file."""

    @cached_property
    def ids(self) -> list[str]:
        """Of all items, in their order."""
        return self.gallery.items["id"].tolist()

    @cached_property
    def classes(self) -> list[str]:
        """The class of each item."""
        return self.gallery.items["class_name"].tolist()

    @cached_property
    def labels(self) -> Int[np.ndarray, " items"]:
        """The label of each item."""
        return self.gallery.items["label"].to_numpy()

    @cached_property
    def shortlist(self) -> int:
        """How many of the nearest a search looks at."""
        return near_count(self.labels[self.gallery.rows("gallery")])

    @property
    def change(self) -> int:
        """Number of the gallery's last change."""
        return int(self.gallery.manifest.get("change", 0))

    def warm(self) -> Snapshot:
        """Do what the first request would wait for: build the index, list the items."""
        self.gallery.search(np.array(self.gallery.features[:1]), 1)
        self.gallery.index_of(self.ids[0])
        _ = self.classes, self.shortlist
        return self


class Catalogue:
    """A run's gallery, served and changed.

    Args:
        run: that it is of.
        protocol: its name; empty: the catalogue, or the first there is.
        structure: the run's similarity on local structure, whose neighbourhoods changes keep up.
        pool: where it is opened anew.
        background: where stale neighbourhoods are listed, and saved queries searched.
        allowed: entered for each change; raises where the catalogue must not be changed.

    Raises:
        RunError: there is no such gallery, or it is damaged.
    """

    def __init__(
        self, run: Run, protocol: str, structure: LocalStructure | None, pool: Executor, background: Executor,
        allowed: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:  # fmt: skip
        self.run, self._structure, self._pool, self._background = run, structure, pool, background
        self._allowed, self._models = allowed, run.models()
        self._name = protocol or next(iter(run.galleries()), "catalogue")
        self._file = run.path / "gallery" / self._name / "manifest.json"
        self._opening, self._changing = threading.Lock(), threading.Lock()
        self._drawing: threading.Timer | None = None
        self._unmeasured: tuple[Gallery, Gallery] | None = None
        stamp = self._stamp()
        self._snapshot = Snapshot(run.gallery(self._name), stamp).warm()

    @property
    def latest(self) -> Snapshot:
        """The gallery as it was when it was last looked at."""
        return self._snapshot

    async def now(self) -> Snapshot:
        """The gallery as it is.

        Raises:
            RunError: its files were removed or damaged.
        """
        if self._snapshot.stamp == self._stamp():
            return self._snapshot
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._current)

    def change(self, work: Callable[[Gallery], Gallery]) -> Snapshot:
        """Change the gallery, one change of this worker at a time; called in a thread.

        Args:
            work: gets the gallery as it is, and returns it changed.

        Raises:
            BusyError: another process has been changing it for too long.
            RunError: what `work` raises.
            SupersededError: what `allowed` raises.
        """
        with self._changing:
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    with self._allowed():
                        before = self._current().gallery
                        changed = work(before)
                    break
                except BusyError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(_PAUSE)
            snapshot = self._current(changed)
            first, _ = self._unmeasured or (before, None)
            self._unmeasured = first, snapshot.gallery
            self._redraw_later(snapshot.gallery)
        self._background.submit(self._measure)
        return snapshot

    def _current(self, changed: Gallery | None = None) -> Snapshot:
        """The gallery as it is; `changed` is used where it is that already."""
        with self._opening:
            stamp = self._stamp()
            if self._snapshot.stamp != stamp:
                if changed is None or read_manifest(changed.path) != changed.manifest:
                    changed = self._snapshot.gallery.reopened()
                made_by = changed.manifest.get("model")
                if made_by and self._models[0] and made_by not in self._models:
                    raise RunError(f"{changed.path} has vectors of another model now: start the service again.")
                self._snapshot = Snapshot(changed, stamp).warm()
                ITEMS.set(len(self._snapshot.gallery))
            return self._snapshot

    def _redraw_later(self, gallery: Gallery) -> None:
        """Draw the gallery's map anew, if it has one, when its changes have come to rest."""
        self.stop()
        if gallery.manifest["map"]:
            self._drawing = threading.Timer(QUIET, redraw.start_redrawing, [gallery.path])
            self._drawing.daemon = True
            self._drawing.start()

    def stop(self) -> None:
        """Draw no map any more."""
        if self._drawing is not None:
            self._drawing.cancel()

    def _stamp(self) -> tuple[int, ...]:
        try:
            stat = self._file.stat()
        except OSError:
            return ()  # opening it says what is wrong
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _measure(self) -> None:
        """What changes did to the saved queries: those that came meanwhile count together, as the last of them."""
        with self._changing:
            pair, self._unmeasured = self._unmeasured, None
        if pair is None:
            return
        try:
            effect_of(*pair, self._structure)
        except RunError as error:  # such as another process's change at this moment
            logging.getLogger(__name__).info("What a change did to the saved queries is not kept: %s", error)
