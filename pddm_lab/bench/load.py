"""Whether the dashboard stands a class of people: sessions for minutes, with the memory of the server over time."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pddm_lab.bench.dashboard import THINK, _attend, _errors, _run, _server
from pddm_lab.bench.report import Log, Measure
from pddm_lab.dashboard_server import served_dashboard
from pddm_lab.runs.run import Run

WARM_UP = 0.3
"""Share of the time in which memory may grow: caches fill, and libraries are imported."""
GROWTH = 5.0
"""Target: MB a minute by which memory may grow after the warm-up."""
TIMED_OUT = "not finished"
"""How the error of a rerun without an answer begins (`dashboard/load_test.py`)."""
_EVERY = 2.0  # seconds between samples


@dataclass(frozen=True)
class Sample:
    """The server's resident memory and the machine's load at one moment."""

    minute: float
    megabytes: float
    load: float
    """Processes that run or wait for a core, mean of one minute; of everybody on the machine."""


def measure(folder: Path, run: str, items: int, sessions: int, minutes: float, log: Log) -> list[Measure]:
    """Serve a run, let sessions use all its pages, and watch the server's memory.

    Args:
        folder: for the benchmark's own run, as `pddm_lab.bench.dashboard.measure` makes it.
        run: path of a run to use instead; empty: the benchmark's own.
        items: in the gallery of the benchmark's own run.
        sessions: simultaneous sessions.
        minutes: how long the sessions stay.
    """
    opened = Run.open(run) if run else _run(folder, items, log)
    samples: list[Sample] = []
    with served_dashboard(opened.path.parent) as address:
        log(f"{sessions} sessions for {minutes:g} minutes")
        ended = threading.Event()
        watcher = threading.Thread(target=_watch, args=(samples, ended, log), daemon=True)
        watcher.start()
        try:
            visits = _attend(
                address, opened, sessions=sessions, reruns=4, think=THINK, mixed=True, seed=3, minutes=minutes
            )
        finally:
            ended.set()
            watcher.join()
    return report(visits, samples, log)


def _watch(samples: list[Sample], ended: threading.Event, log: Log) -> None:
    server, start, logged = _server(), time.monotonic(), -1
    while True:
        minute = (time.monotonic() - start) / 60
        samples.append(Sample(minute, server.memory_info().rss / 1e6, os.getloadavg()[0]))
        if int(minute) > logged:
            logged = int(minute)
            log(f"minute {logged}: {samples[-1].megabytes:,.0f} MB, load of the machine {samples[-1].load:.1f}")
        if ended.wait(_EVERY):
            return


def report(visits: Sequence[dict[str, Any]], samples: Sequence[Sample], log: Log) -> list[Measure]:
    """Measurements of all reruns, and of the memory after the warm-up.

    Args:
        visits: a dict per rerun, as `dashboard/load_test.py` prints it.
        samples: in the order in which they were taken.
    """
    warm = [one for one in samples if one.minute >= WARM_UP * samples[-1].minute]
    tenth = max(len(warm) // 10, 1)
    first, last = (statistics.median(one.megabytes for one in part) for part in (warm[:tenth], warm[-tenth:]))
    minutes, megabytes = ([getattr(one, name) for one in warm] for name in ("minute", "megabytes"))
    slope = float(np.polyfit(minutes, megabytes, 1)[0]) if len(warm) > 1 else 0.0
    answered = [visit for visit in visits if not visit["error"]]
    seconds = [visit["seconds"] for visit in answered]
    slowest = max(answered, key=lambda visit: visit["seconds"])
    late = sum(visit["error"].startswith(TIMED_OUT) for visit in visits)
    after = f"minutes {warm[0].minute:.1f} to {warm[-1].minute:.1f}"
    load = [one.load for one in samples]
    return [
        Measure("requests", len(visits), ""),
        Measure("requests that timed out", late, "", 0),
        Measure("requests with another error", _errors(visits, log) - late, "", 0),
        Measure("a request, median", statistics.median(seconds), "s"),
        Measure("a request, 95th percentile", float(np.percentile(seconds, 95)), "s"),
        Measure("the slowest request", slowest["seconds"], "s", None, f"{slowest['page']}: {slowest['what']}"),
        *(
            Measure(f"{page}, slowest request", max(of), "s", None, f"{len(of)}, median {statistics.median(of):.2g} s")
            for page, of in _by_page(answered).items()
        ),
        Measure("memory after the warm-up", first, "MB", None, after),
        Measure("memory at the end", last, "MB", None, after),
        Measure("growth of memory", slope, "MB a minute", GROWTH, after),
        Measure("load of the machine", statistics.median(load), "", None, f"median; at most {max(load):.1f}"),
    ]  # fmt: skip


def _by_page(visits: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {}
    for visit in visits:
        seconds.setdefault(visit["page"], []).append(visit["seconds"])
    return seconds
