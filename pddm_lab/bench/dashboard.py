"""How fast the dashboard is: pages in a browser, reruns, searches by upload, many sessions at once, and its memory."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from pddm_lab.bench import pages
from pddm_lab.bench.report import Log, Measure
from pddm_lab.bench.synthetic import make_run, write_galleries
from pddm_lab.dashboard_server import PAGES, chromium, page_url, served_dashboard
from pddm_lab.errors import RunError
from pddm_lab.files import shipped
from pddm_lab.runs.run import Run

if TYPE_CHECKING:
    from playwright.sync_api import BrowserType

FIRST, READY, RERUN, RERUN_95, UPLOAD, CROWD, MEMORY = 1.0, 2.0, 0.3, 1.0, 0.5, 2.0, 1500.0
"""Targets: seconds, and MB."""
THINK = 1.0
"""Mean pause of a person between two reruns, in seconds."""
_RERUNS = 20
_UPLOADS = 6


def measure(folder: Path, items: int, sessions: int, memory_items: int, log: Log) -> list[Measure]:
    """Make a run with `items` items if the folder has none, serve it, and measure.

    Args:
        folder: for the run and its pictures; those of an earlier benchmark are used again.
        items: in the gallery.
        sessions: simultaneous sessions.
        memory_items: in the gallery that memory is measured with; 0: leave that out.
    """
    run = _run(folder, items, log)
    with contextlib.ExitStack() as stack:
        engine = None
        try:
            engine = stack.enter_context(chromium())
        except RunError as error:
            log(f"Pages, reruns as seen and uploads are left out. {error}")
        with served_dashboard(run.path.parent) as address:
            log("every page once, to warm up the server")
            _attend(address, run, reruns=6)
            measures = _reruns(address, run, log)
            if engine:
                measures += _in_a_browser(engine, address, run, folder, log)
            measures += _crowd(address, run, sessions, log)
        if memory_items:
            measures += _memory(engine, run, folder, memory_items, log)
            write_galleries(run, folder, items, log)
    return measures


def _run(folder: Path, items: int, log: Log) -> Run:
    """The folder's run, with galleries of the requested size."""
    path = folder / "runs" / "bench"
    run = Run.open(path) if (path / "run.json").is_file() else make_run(folder, log)
    protocols = run.protocols()
    if "unseen" not in protocols or len(run.gallery("unseen")) != items:
        write_galleries(run, folder, items, log)
    return run


def _reruns(address: str, run: Run, log: Log) -> list[Measure]:
    """How long a single user waits for the server, page by page."""
    log(f"{_RERUNS} reruns of each page")
    server = _server()
    before = server.cpu_times()
    visits = _attend(address, run, reruns=_RERUNS, seed=1)
    after = server.cpu_times()
    busy = (after.user + after.system - before.user - before.system) / len(visits)
    by_page = _by_page(visits)
    every = [seconds for page in by_page.values() for seconds in page]
    what = f"{len(every)} reruns of {len(by_page)} pages"
    return [
        *(
            Measure(f"rerun of {page}, server", *_median(seconds), RERUN, f"median of {len(seconds)} reruns")
            for page, seconds in by_page.items()
        ),
        Measure("reruns, server, median", *_median(every), RERUN, what),
        Measure("reruns, server, 95th percentile", _percentile(every, 95), "s", RERUN_95, what),
        Measure("processor time of a rerun, server", busy, "s", None, "mean, independent of other load"),
        Measure("errors in reruns", _errors(visits, log), "", 0, what),
    ]


def _in_a_browser(engine: BrowserType, address: str, run: Run, folder: Path, log: Log) -> list[Measure]:
    """How long a single user waits in a browser. A page that isn't drawn counts as an error, and is NaN."""
    measures: list[Measure] = []
    visible: list[float] = []
    errors: list[str] = []
    for page in PAGES:
        url = page_url(address, page, run.name)
        log(f"{page} in a browser")
        loads, seconds = pages.Loads(page), list[float]()
        try:
            pages.load(engine, url, loads)
            seconds, shown = pages.reruns(engine, url)
            errors += shown
        except RunError as error:
            errors.append(str(error))
        errors += loads.errors
        visible += seconds
        over = f"median of {len(loads.drawn)} loads, browser cache filled"
        measures += [
            Measure(f"{page}: numbers shown", *_median(loads.written), FIRST, over),
            Measure(f"{page}: all drawn", *_median(loads.drawn), READY, over),
            Measure(f"{page}: all drawn, empty browser cache", loads.cold_drawn, "s", None, "1 load"),
            *(
                [Measure(f"rerun of {page}, as seen", *_median(seconds), RERUN, f"median of {len(seconds)} reruns")]
                if seconds
                else []  # a page without controls to change
            ),
        ]
    log(f"a search by upload, {_UPLOADS + 1} times")
    seconds, shown = _uploads(engine, address, run, folder, _UPLOADS + 1)
    errors += shown
    for message in sorted(set(errors)):
        log(f"a page showed: {message.splitlines()[0][:200]}")
    over = f"{len(visible)} reruns of {len(PAGES)} pages"
    return [
        *measures,
        Measure("reruns as seen, median", *_median(visible), RERUN, over),
        Measure("reruns as seen, 95th percentile", _percentile(visible, 95), "s", RERUN_95, over),
        Measure("search by upload, trunk loaded", *_median(seconds[1:]), UPLOAD, f"median of {len(seconds[1:])}"),
        Measure("search by upload, the first", seconds[0] if seconds else math.nan, "s", None, "loads the trunk"),
        Measure("errors that pages showed", len(errors), "", 0),
    ]


def _uploads(engine: BrowserType, address: str, run: Run, folder: Path, count: int) -> tuple[list[float], list[str]]:
    """Seconds and errors of searches with uploaded pictures."""
    pictures = sorted((folder / "pictures").glob("class */*.jpg"))[::7][:count]
    try:
        return pages.uploads(engine, page_url(address, "search", run.name) + "&query=upload", pictures)
    except RunError as error:
        return [], [str(error)]


def _crowd(address: str, run: Run, sessions: int, log: Log) -> list[Measure]:
    """Many sessions at once: at a person's pace, and as fast as the server allows."""
    measures = []
    for think, what in ((THINK, f"{THINK:g} s between reruns"), (0.0, "back to back")):
        log(f"{sessions} sessions at once, {what}")
        visits = _attend(address, run, sessions=sessions, reruns=4, think=think, mixed=True, seed=2)
        seconds = [visit["seconds"] for visit in visits if not visit["error"]]
        over = f"{len(seconds)} reruns, {what}"
        measures += [
            Measure(f"{sessions} sessions, median rerun", *_median(seconds), CROWD, over),
            Measure(f"{sessions} sessions, 95th percentile", _percentile(seconds, 95), "s", None, over),
            Measure(f"{sessions} sessions, errors", _errors(visits, log), "", 0, over),
        ]
    return measures


def _memory(engine: BrowserType | None, run: Run, folder: Path, items: int, log: Log) -> list[Measure]:
    """The server's memory after every page was used with a large gallery open."""
    write_galleries(run, folder, items, log)
    with served_dashboard(run.path.parent) as address:
        log(f"every page with {items:,} items")
        visits = _attend(address, run, reruns=6)
        if engine:
            _uploads(engine, address, run, folder, 2)
        server = _server()
        resident, peak = server.memory_info().rss / 1e6, _peak(server)
    seconds = [visit["seconds"] for visit in visits if visit["what"] != "open" and not visit["error"]]
    what = f"{items:,} items, every page used"
    return [
        Measure("memory of the server, resident", resident, "MB", MEMORY, what),
        Measure("memory of the server, peak", peak, "MB", MEMORY, what),
        Measure(f"reruns with {items:,} items, median", *_median(seconds)),
        Measure(f"errors with {items:,} items", _errors(visits, log), "", 0),
    ]


def _attend(address: str, run: Run, **plan: Any) -> list[dict[str, Any]]:
    """Open sessions from a separate process, following a plan (`Plan` in dashboard/load_test.py); a dict per rerun."""
    argument = json.dumps({"address": address, "run": run.name, "pages": list(PAGES)} | plan)
    command = [sys.executable, str(shipped("dashboard/load_test.py")), argument]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RunError(f"The sessions ended with exit code {result.returncode}: {result.stderr.strip()[-1000:]}")
    return [json.loads(line) for line in result.stdout.splitlines()]


def _by_page(visits: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    seconds = defaultdict(list)
    for visit in visits:
        if visit["what"] != "open" and not visit["error"]:
            seconds[visit["page"]].append(visit["seconds"])
    return dict(seconds)


def _errors(visits: Sequence[dict[str, Any]], log: Log) -> int:
    """How many reruns showed an error; each kind is logged once."""
    errors = [f"{visit['page']}, {visit['what']}: {visit['error']}" for visit in visits if visit["error"]]
    for kind in sorted({error.splitlines()[0][:200] for error in errors}):
        log(f"error: {kind}")
    return len(errors)


def _median(seconds: Sequence[float]) -> tuple[float, str]:
    return statistics.median(seconds or [math.nan]), "s"


def _percentile(seconds: Sequence[float], share: float) -> float:
    return float(np.percentile(seconds, share)) if seconds else math.nan


def _server() -> psutil.Process:
    """The dashboard's process, a child of this one."""
    (server,) = (child for child in psutil.Process().children() if "streamlit" in child.cmdline())
    return server


def _peak(process: psutil.Process) -> float:
    """The peak resident memory of a process in MB; its present memory where the system doesn't record the peak."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1000
    return process.memory_info().rss / 1e6
