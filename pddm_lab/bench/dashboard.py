"""How fast the dashboard is: pages in a browser, reruns, a search by upload, many sessions at once, and its memory."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pddm_lab.bench import pages
from pddm_lab.bench.report import Measure
from pddm_lab.bench.synthetic import make_run, write_galleries
from pddm_lab.dashboard_server import PAGES, find_browser, page_url, served_dashboard
from pddm_lab.errors import RunError
from pddm_lab.files import shipped
from pddm_lab.runs.run import Run

READY, RERUN, RERUN_95, UPLOAD, CROWD, MEMORY = 2.0, 0.5, 1.0, 0.5, 2.0, 1500.0
"""Targets: seconds, and MB."""
THINK = 1.0
"""Mean pause of a person between two reruns, in seconds, where a crowd takes its time."""
_RERUNS = 20
_UPLOADS = 6

Say = Callable[[str], None]


def measure(folder: Path, items: int, sessions: int, memory_items: int, say: Say) -> list[Measure]:
    """Make a run with `items` items where the folder has none, serve it, and measure.

    Args:
        folder: for the run and its pictures; one that was measured before is used again.
        items: of the gallery.
        sessions: at once.
        memory_items: of the gallery that memory is measured with; 0: leave that out.
        say: called with what is being done.
    """
    run = _run(folder, items, say)
    found: list[Measure] = []
    with served_dashboard(run.path.parent) as address:
        say("every page once, so that the server is warm")
        _attend(address, run, reruns=6)
        found += _reruns(address, run, say)
        if find_browser():
            found += _in_a_browser(address, run, folder, say)
        else:
            say("no Chromium on the PATH: pages, reruns as seen and uploads are left out")
        found += _crowd(address, run, sessions, say)
    if memory_items:
        found += _memory(run, folder, memory_items, say)
        write_galleries(run, folder, items, say)
    return found


def _run(folder: Path, items: int, say: Say) -> Run:
    """The folder's run, with galleries of the size that is asked for."""
    path = folder / "runs" / "bench"
    run = Run.open(path) if (path / "run.json").is_file() else make_run(folder, say)
    protocols = run.protocols()
    if "unseen" not in protocols or len(run.gallery("unseen")) != items:
        write_galleries(run, folder, items, say)
    return run


def _reruns(address: str, run: Run, say: Say) -> list[Measure]:
    """What a single person waits for the server, page by page."""
    say(f"{_RERUNS} reruns of each page")
    server = _server()
    before = server.cpu_times()
    found = _attend(address, run, reruns=_RERUNS, seed=1)
    after = server.cpu_times()
    busy = (after.user + after.system - before.user - before.system) / len(found)
    by_page = _by_page(found)
    every = [seconds for page in by_page.values() for seconds in page]
    what = f"{len(every)} reruns of {len(by_page)} pages"
    return [
        *(
            Measure(f"rerun of {page}, server", *_median(seconds), RERUN, f"median of {len(seconds)} reruns")
            for page, seconds in by_page.items()
        ),
        Measure("reruns, server, median", *_median(every), RERUN, what),
        Measure("reruns, server, 95th percentile", _percentile(every, 95), "s", RERUN_95, what),
        Measure("processor time of a rerun, server", busy, "s", None, "mean, whatever else the machine does"),
        Measure("errors in reruns", _errors(found, say), "", 0, what),
    ]


def _in_a_browser(address: str, run: Run, folder: Path, say: Say) -> list[Measure]:
    """What a single person sees. A page that isn't drawn at all is said, and measured as NaN."""
    measures: list[Measure] = []
    visible: list[float] = []
    errors: list[str] = []
    for page in PAGES:
        url = page_url(address, page, run.name)
        say(f"{page} in a browser")
        loads, seconds = pages.Loads(page), list[float]()
        try:
            pages.load(url, loads)
            seconds, said = pages.reruns(url)
            errors += said
        except RunError as error:
            errors.append(str(error))
        errors += loads.errors
        visible += seconds
        over = f"median of {len(loads.drawn)} loads, browser cache filled"
        measures += [
            Measure(f"{page}: numbers shown", *_median(loads.written), READY, over),
            Measure(f"{page}: all drawn", *_median(loads.drawn), READY, over),
            Measure(f"{page}: all drawn, empty browser cache", loads.cold_drawn, "s", None, "1 load"),
            Measure(f"rerun of {page}, as seen", *_median(seconds), RERUN, f"median of {len(seconds)} reruns"),
        ]
    say(f"a search by upload, {_UPLOADS + 1} times")
    seconds, said = _uploads(address, run, folder, _UPLOADS + 1)
    errors += said
    for one in sorted(set(errors)):
        say(f"a page showed: {one.splitlines()[0][:200]}")
    over = f"{len(visible)} reruns of {len(PAGES)} pages"
    return [
        *measures,
        Measure("reruns as seen, median", *_median(visible), RERUN, over),
        Measure("reruns as seen, 95th percentile", _percentile(visible, 95), "s", RERUN_95, over),
        Measure("search by upload, trunk loaded", *_median(seconds[1:]), UPLOAD, f"median of {len(seconds[1:])}"),
        Measure("search by upload, the first", seconds[0] if seconds else math.nan, "s", None, "loads the trunk"),
        Measure("errors that pages showed", len(errors), "", 0),
    ]


def _uploads(address: str, run: Run, folder: Path, count: int) -> tuple[list[float], list[str]]:
    """Seconds and errors of searches with pictures of one's own."""
    pictures = sorted((folder / "pictures").glob("class */*.jpg"))[::7][:count]
    try:
        return pages.uploads(page_url(address, "search", run.name) + "&query=upload", pictures)
    except RunError as error:
        return [], [str(error)]


def _crowd(address: str, run: Run, sessions: int, say: Say) -> list[Measure]:
    """Many sessions at once: at a person's pace, and as fast as the server lets them."""
    measures = []
    for think, what in ((THINK, f"{THINK:g} s of thought"), (0.0, "back to back")):
        say(f"{sessions} sessions at once, {what}")
        found = _attend(address, run, sessions=sessions, reruns=4, think=think, mixed=True, seed=2)
        seconds = [one["seconds"] for one in found if not one["error"]]
        over = f"{len(seconds)} reruns, {what}"
        measures += [
            Measure(f"{sessions} sessions, median rerun", *_median(seconds), CROWD, over),
            Measure(f"{sessions} sessions, 95th percentile", _percentile(seconds, 95), "s", None, over),
            Measure(f"{sessions} sessions, errors", _errors(found, say), "", 0, over),
        ]
    return measures


def _memory(run: Run, folder: Path, items: int, say: Say) -> list[Measure]:
    """The server's memory after every page was used with a large gallery open."""
    write_galleries(run, folder, items, say)
    with served_dashboard(run.path.parent) as address:
        say(f"every page with {items:,} items")
        found = _attend(address, run, reruns=6)
        if find_browser():
            _uploads(address, run, folder, 2)
        server = _server()
        resident, peak = server.memory_info().rss / 1e6, _peak(server)
    seconds = [one["seconds"] for one in found if one["what"] != "open" and not one["error"]]
    what = f"{items:,} items, every page used"
    return [
        Measure("memory of the server, resident", resident, "MB", MEMORY, what),
        Measure("memory of the server, at its peak", peak, "MB", MEMORY, what),
        Measure(f"reruns with {items:,} items, median", *_median(seconds)),
        Measure(f"errors with {items:,} items", _errors(found, say), "", 0),
    ]


def _attend(address: str, run: Run, **plan: Any) -> list[dict[str, Any]]:
    """What sessions of a process of its own met, a dict per rerun."""
    told = json.dumps({"address": address, "run": run.name, "pages": list(PAGES)} | plan)
    command = [sys.executable, str(shipped("dashboard/load_test.py")), told]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"The sessions ended with exit code {done.returncode}: {done.stderr.strip()[-1000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _by_page(found: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    seconds = defaultdict(list)
    for one in found:
        if one["what"] != "open" and not one["error"]:
            seconds[one["page"]].append(one["seconds"])
    return dict(seconds)


def _errors(found: Sequence[dict[str, Any]], say: Say) -> int:
    """How many reruns showed an error; each kind is said once."""
    errors = [f"{one['page']}, {one['what']}: {one['error']}" for one in found if one["error"]]
    for kind in sorted({error.splitlines()[0][:200] for error in errors}):
        say(f"error: {kind}")
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
    """The most memory a process had resident, in MB; what it has now where the system doesn't keep that."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1000
    return process.memory_info().rss / 1e6
