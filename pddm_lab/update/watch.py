"""Watch a folder and update a run by itself: after so many new pictures, or at intervals if there are any.

What is new follows from the folder and from the catalogue of the run that serves, so that the watch can be killed and
started again at any moment. An update that wasn't better isn't tried again with the same pictures; one that failed is
tried again when the watch is started anew.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from pddm_lab.errors import ConfigError, LabError
from pddm_lab.progress import progress_bars
from pddm_lab.runs.run import Run
from pddm_lab.update.arrivals import from_folder, listed_in
from pddm_lab.update.continued import Choices
from pddm_lab.update.run_update import Updated, update_run
from pddm_lab.update.serving import first_of, read_serving, serving
from pddm_lab.wording import counted

PAUSE = 10.0
"""Seconds between two looks at the folder."""
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds_of(text: str) -> float:
    """A duration such as 90s, 30m, 1h or 2d in seconds; empty: 0.

    Raises:
        ConfigError: it is none.
    """
    if not text:
        return 0.0
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if not match or not int(match[1]):
        raise ConfigError(f"--every expects a duration such as 90s, 30m, 1h or 2d, got {text!r}.")
    return int(match[1]) * _UNITS[match[2]]


def is_due(new: int, tried: int, waited: float, every: float, after: int) -> bool:
    """Whether it is time for an update.

    Args:
        new: pictures that the catalogue doesn't have.
        tried: of these, those that an update has seen which wasn't better, or failed.
        waited: seconds since the last update, or since the watch began.
        every: seconds between updates; 0: time doesn't count.
        after: new pictures that make an update due; 0: their number doesn't count.
    """
    untried = new - tried
    return untried > 0 and bool((after and untried >= after) or (every and waited >= every))


def watch(
    run: Run, folder: Path, choices: Choices, *, every: float = 0.0, after: int = 0,
    log: Callable[[str], None] = print, done: Callable[[Updated], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:  # fmt: skip
    """Update a run until the process is stopped; logs a line for each update.

    Args:
        run: or one of its updates.
        folder: FOLDER/<class>/<image>, to which pictures are added.
        choices: of each training.
        every, after: see `is_due`.
        log: takes a line.
        done: called after each update.
        sleep: waits so many seconds.

    Raises:
        ConfigError: neither `every` nor `after` is set.
        DataError: the folder does not exist.
    """
    if not (every or after):
        raise ConfigError("--watch expects --every, such as --every 1h, or --after, such as --after 500.")
    first, begun = first_of(run), time.monotonic()
    tried = read_serving(first).tried
    while True:
        catalogue = serving(first)
        known = set(catalogue.gallery(catalogue.galleries()[0]).items["id"])
        new = sum(item not in known for item in listed_in(folder))
        tried = min(tried, new)  # some of those tried were added otherwise, or deleted
        if is_due(new, tried, time.monotonic() - begun, every, after):
            line, tried = _one(first, folder, choices, new, done)
            log(f"{datetime.now().astimezone().isoformat(timespec='seconds')}: {line}")
            begun = time.monotonic()
        sleep(PAUSE)


def _one(
    first: Run, folder: Path, choices: Choices, new: int, done: Callable[[Updated], None] | None
) -> tuple[str, int]:
    """Update once; returns what to log, and how many of the new pictures need no further try."""
    try:
        updated = update_run(first, lambda report: from_folder(folder, report), choices, progress_bars(False), new)
    except LabError as error:
        return f"no update: {error}", new
    if done:
        done(updated)
    facts, verdict = updated.run.info["updated"], updated.verdict
    before, after = (f"{100 * verdict.overall(when):.1f} %" for when in ("before", "after"))
    name = updated.run.name if verdict.better else updated.source.name
    how = "serves now" if verdict.better else "still serves"
    items = counted(facts["new_items"], "new item")
    return f"{name} {how}; {updated.run.name} has {items}, R@1 {before} before and {after} now.", new * (
        not verdict.better
    )
