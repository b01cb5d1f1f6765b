"""Slow results: computed once for all sessions of a server, with progress, and stopped by any click.

What a page can do without until it is there runs in a thread of its own instead (`Background`).
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import streamlit as st
from shared.cache import GALLERIES, LOCAL, MODEL, cached

from pddm_lab.errors import LabError
from pddm_lab.runs.run import Run

Report = Callable[[float, str], None]
"""Called with the share that is done, and a text."""
Result = TypeVar("Result")


class Work:
    """One result, and the progress of the session that computes it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ready = False
        self.result: Any = None
        self.parts: dict[str, Any] = {}
        """Finished parts, by similarity: kept when the work is stopped, so that the next session continues there."""
        self.share, self.text = 0.0, ""


@cached(*GALLERIES, MODEL, LOCAL, max_entries=64)
def work_of(name: str, run: Run, *settings: Any) -> Work:
    """The work of a name on a run, for certain settings; all sessions share it until a file of the run changes.

    A setting may be a run, too; then its files count as well.
    """
    return Work()


def once(work: Work, title: str, compute: Callable[[Report], Result]) -> Result:
    """The result of `compute`, computed once for all sessions. Ends the page where the user has stopped it.

    It runs in the page's own thread, so that Stop, any other click and leaving the page end it at its next report. A
    session that needs what another is computing shows that one's progress, and computes it itself if the other stops.
    """
    if work.ready:
        return work.result
    place = st.empty()
    with place.container(border=True):
        if st.session_state.get("stopped_work") is work:
            kept = "What was finished is kept." if work.parts else "Nothing was kept."
            st.markdown(f"**Stopped:** {title}. {kept}")
            st.button(
                "Start again", icon=":material/play_arrow:", on_click=st.session_state.pop, args=("stopped_work",)
            )
            st.stop()
        bar = st.progress(0.0, title)
        st.button("Stop", icon=":material/stop_circle:", key=f"stop_{title}_{id(work)}", on_click=_stop, args=(work,))
    updated = 0.0

    def report(share: float, text: str) -> None:
        nonlocal updated
        work.share, work.text = min(share, 1.0), text
        if time.monotonic() - updated > 0.1:
            updated = time.monotonic()
            bar.progress(work.share, f"{title}: {text}")

    while not work.lock.acquire(timeout=0.25):
        bar.progress(work.share, f"{title}: {work.text}")
    try:
        if not work.ready:
            work.result = compute(report)
            work.ready = True
    except LabError:
        place.empty()
        raise
    finally:
        work.lock.release()
    place.empty()
    return work.result


def _stop(work: Work) -> None:
    st.session_state["stopped_work"] = work


class Background(ABC):
    """Work in a thread of its own, which pages watch."""

    def __init__(self) -> None:
        self.failed = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name="work", daemon=True)
        self._thread.start()
        _WORK.add(self)

    def _guarded(self) -> None:
        import torch

        torch.set_num_threads(1)  # sessions share the cores
        try:
            self._work()
        except Exception as error:  # an error in a thread would otherwise go unseen
            self.failed = f"{type(error).__name__}: {error}"

    @abstractmethod
    def _work(self) -> None:
        """Do it; `_stop` may be set meanwhile."""

    @property
    @abstractmethod
    def share(self) -> float:
        """How much of it is done, 0 to 1."""

    @property
    def running(self) -> bool:
        """Whether it is still at work."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop after the current step; what is done so far is kept."""
        self._stop.set()

    def wait(self, seconds: float) -> None:
        """Wait until it is done, at most this many seconds."""
        self._thread.join(seconds)


_WORK: weakref.WeakSet[Background] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Stop all threads first: a process must not end while a thread is inside torch."""
    for work in list(_WORK):
        work.stop()
        work.wait(10)
