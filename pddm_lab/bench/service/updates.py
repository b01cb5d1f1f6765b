"""A run is updated while it is served, and the update is taken back: does any search fail, and how soon is it followed?

The run is copied, with the cached features beside it, so that it stays as it is. Searches by picture come at a fixed
rate throughout, each timed from when it was due. While the model trains an item is added over HTTP, which must still be
in the catalogue when the update serves, and when the model before it serves again.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np

from pddm_lab.bench.report import Log, Measure
from pddm_lab.bench.service.load import form
from pddm_lab.bench.service.measure import post, service
from pddm_lab.errors import RunError
from pddm_lab.runs.run import Run
from pddm_lab.update.serving import FILE, serving_path

SLOWEST = 150
"""Target: ms of the 99th percentile of a search."""
QUIET = 20.0
"""Seconds of searches before the update, and after each change-over."""
_AT_ONCE, _PHOTOS = 16, 40
_PATIENCE = 120.0  # seconds until another run must answer
_NEW_CLASS = "added-meanwhile"


@dataclass(frozen=True)
class Answer:
    """What came back from a search."""

    due: float
    """When it was to be sent, in seconds since the epoch, as all times here."""
    ms: float
    """From then until it was answered."""
    run: str
    """Whose model answered; empty of a failure."""
    error: str = ""


@dataclass(frozen=True)
class Change:
    """An update or its way back: what a command did."""

    name: str
    before: str
    """The run that served."""
    after: str
    """The run that serves by it."""
    began: float
    changed: float
    """When the run's folder said that the other one serves."""
    seconds: float
    """Of the command."""
    processor: float
    """Seconds of processor time of the command."""


def measure(
    run: Run, new: Path, folder: Path, rate: float, workers: int, cores: int, log: Log, quiet: float = QUIET
) -> list[Measure]:
    """Update a copy of a run, and take it back, under searches.

    Args:
        run: finished, with its pictures on this machine.
        new: folder of new pictures, FOLDER/<class>/<image>.
        folder: for the copy and the service's log.
        rate: searches a second.
        workers: processes of the service.
        cores: that the service uses; 0: all.
        log: takes what is about to be done.
        quiet: see `QUIET`.

    Raises:
        RunError: the update isn't better, so that nothing changes over, or a command failed.
    """
    copy, gallery = _copied(run, folder), run.gallery(run.galleries()[0])
    ids = gallery.items["id"].sample(min(_PHOTOS, len(gallery)), random_state=0)
    photos = [(Path(run.info["dataset"]["root"]) / item).read_bytes() for item in ids]
    changes: list[Change] = []
    lost = 0
    log("the service starts")
    with service(copy, folder, workers, cores) as (_, port, ready), _searches(port, photos, rate) as answers:
        time.sleep(quiet)
        for name, options in (("update", ["--add", str(new), "--no-map"]), ("way back", ["--rollback"])):
            log(f"the {name}")
            with _command(copy, name, options, folder, log) as changed:
                if not changes:
                    body = form("pictures", "a.jpg", photos[0], {"class_name": _NEW_CLASS})
                    (added,) = post(port, "/v1/items", body)["ids"]
            changes += changed
            _wait_for(answers, changes[-1])
            lost += not _has(port, added)
            time.sleep(quiet)
    return [
        Measure("from the start until ready", ready, "s", over=f"{len(gallery):,} items, {workers} workers"),
        *report(answers, changes),
        Measure("items added meanwhile that are lost", lost, "", 0, "after the update, and after the way back"),
    ]


def report(answers: Sequence[Answer], changes: Sequence[Change]) -> list[Measure]:
    """What the answers say of each change: when it was followed, and how long searches took meanwhile."""
    good = [one for one in answers if not one.error]
    measures = [Measure("searches that failed", len(answers) - len(good), "", 0, f"of {len(answers):,}")]
    spans = [("before", 0.0, changes[0].began)]
    ends = [*(change.began for change in changes[1:]), math.inf]
    for change, end in zip(changes, ends, strict=True):
        of = [one for one in good if change.began <= one.due < end]
        first = min(one.due for one in of if one.run == change.after)
        last = max((one.due for one in of if one.run == change.before), default=change.changed)
        measures += [
            Measure(f"the {change.name}", change.seconds, "s", over=f"{change.processor:.1f} s of processor time"),
            Measure(f"until {change.after} answers", first - change.changed, "s"),
            Measure(f"until {change.before} answers no more", max(last - change.changed, 0.0), "s"),
        ]
        spans.append((f"during the {change.name}", change.began, max(first, last)))
    for name, start, end in spans:
        ms = [one.ms for one in good if start <= one.due < end]
        half, slow = np.percentile(ms, [50, 99]) if ms else (np.nan, np.nan)
        measures += [
            Measure(f"search, median, {name}", half, "ms", over=f"of {len(ms):,}"),
            Measure(f"search, 99th percentile, {name}", slow, "ms", SLOWEST),
        ]
    return measures


def _copied(run: Run, folder: Path) -> Run:
    """A copy of a run, with the cached features of the trunk."""
    runs = folder / "runs"
    shutil.copytree(run.path, runs / run.path.name)
    if (cache := run.path.parent / ".features").is_dir():
        shutil.copytree(cache, runs / ".features")
    return Run.open(runs / run.path.name)


@contextmanager
def _command(first: Run, name: str, options: Sequence[str], folder: Path, log: Log) -> Iterator[list[Change]]:
    """`pddm-lab update` in a process of its own, while something else is done; the change is there at the end."""
    before, began, changes = serving_path(first).name, time.time(), list[Change]()
    output, bars = (folder / f"{name}.{kind}" for kind in ("log", "errors"))
    with open(output, "wb") as out, open(bars, "wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "pddm_lab.cli", "update", str(first.path), *options], stdout=out, stderr=errors
        )
    yield changes
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds, after = time.time() - began, serving_path(first).name
    if process.returncode:
        raise RunError(f"The {name} of {first.name} failed: {bars.read_text(errors='replace').strip()[-1000:]}")
    log(output.read_text().strip())
    if after == before:
        raise RunError(f"{before} still serves, so that nothing can be measured: choose other pictures.")
    changed = (first.path / FILE).stat().st_mtime
    changes.append(Change(name, before, after, began, changed, seconds, used.ru_utime + used.ru_stime))


@contextmanager
def _searches(port: int, photos: Sequence[bytes], rate: float) -> Iterator[list[Answer]]:
    """Searches by picture at a rate, whatever comes back, from threads of this process."""
    bodies = [form("picture", "a.jpg", photo) for photo in photos]
    answers, ended, start = list[Answer](), threading.Event(), time.time()

    def search(number: int, due: float) -> None:
        run = error = ""
        try:
            run = str(post(port, "/v1/search?k=5", bodies[number % len(bodies)])["run"])
        except HTTPError as failed:
            error = f"{failed.code} {failed.read()[:200].decode(errors='replace')}"
        except (OSError, ValueError) as failed:
            error = f"{type(failed).__name__}: {failed}"
        answers.append(Answer(due, 1000 * (time.time() - due), run, error))

    def send() -> None:
        for number in itertools.count():
            due = start + number / rate
            if ended.wait(max(due - time.time(), 0)):
                return
            pool.submit(search, number, due)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield answers
        finally:
            ended.set()
            sender.join()


def _wait_for(answers: Sequence[Answer], change: Change) -> None:
    """Return when the other run has answered.

    Raises:
        RunError: it doesn't.
    """
    end = time.time() + _PATIENCE
    while not any(one.run == change.after and one.due >= change.began for one in list(answers)):
        if time.time() > end:
            raise RunError(f"{change.after} serves, but the service hasn't followed for {_PATIENCE:.0f} s.")
        time.sleep(0.1)


def _has(port: int, item: str) -> bool:
    """Whether the catalogue that answers has an item."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/v1/item?id={quote(item)}", timeout=60) as answer:
            return answer.status == 200
    except HTTPError:
        return False
