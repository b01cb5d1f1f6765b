"""Which of a run and its updates serves. The first run's folder says so, in serving.json:

    updates   names of the updates that were better, in order; the last of those that are still there serves
    tried     pictures of a watched folder that the last update, which wasn't better, has seen (watch.py)

An update writes its name here before its folder gets that name. If it is killed in between, the name stands for
nothing, the one before serves, and the next update takes the number again.

A service looks here and follows (service/worker.py). What it changes in the catalogue meanwhile is carried over before
another run serves (carry.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import Field

from pddm_lab.errors import BusyError, RunError
from pddm_lab.files import Content, Count, Text, read_json, write_file, writing
from pddm_lab.gallery.files import changing
from pddm_lab.runs.run import Run
from pddm_lab.update.carry import carry, catalogue_of, read_served

FILE, LOCK, HANDOVER = "serving.json", ".update.lock", ".handover.lock"
PATIENCE = 600.0
"""Seconds that an update waits for changes of the catalogue to end."""


class SupersededError(Exception):
    """Another run serves, so that a change of this one's catalogue would be lost."""


class ServingContent(Content):
    """serving.json."""

    format: Literal[1] = 1
    updates: list[Text] = Field(default_factory=list)
    tried: Count = 0


def first_of(run: Run) -> Run:
    """The run that a run's updates began with; the run itself if it is no update, or that one is gone."""
    name = (run.info.get("updated") or {}).get("first")
    path = run.path.parent / str(name)
    return Run.open(path) if name and (path / "run.json").is_file() else run


def read_serving(first: Run) -> ServingContent:
    """What the first run's folder says; updates whose folders are gone are left out.

    Raises:
        RunError: its file is damaged or was not written by this lab.
    """
    file = first.path / FILE
    if not file.is_file():
        return ServingContent()
    content = ServingContent(**read_json(file, ServingContent, "", f"Delete it: then {first.name} itself serves."))
    there = [name for name in content.updates if (first.path.parent / name / "run.json").is_file()]
    return content.model_copy(update={"updates": there})


def write_serving(first: Run, content: ServingContent) -> None:
    """Replace serving.json; raises RunError if it can't be written."""
    write_file(first.path / FILE, json.dumps(content.model_dump(), indent=1, ensure_ascii=False))


def serving_path(first: Run) -> Path:
    """Folder of the run that serves, of a first run and its updates."""
    updates = read_serving(first).updates
    return first.path.parent / updates[-1] if updates else first.path


def serving(run: Run) -> Run:
    """The run that serves, of a run and its updates."""
    return Run.open(serving_path(first_of(run)))


def served(named: Run) -> Run:
    """The run that a name stands for: an update itself, and of a run that was updated the one that serves."""
    return named if named.info.get("updated") else serving(named)


def roll_back(run: Run) -> tuple[Run, Run, list[str]]:
    """Let the model serve again that served before the last update.

    Items that came with the update leave with it. What else changed in its catalogue while it served is carried over.

    Returns:
        The run that served, the one that serves now, and why pictures could not be embedded by it, a sentence each.

    Raises:
        RunError: no update serves, or another one is under way.
    """
    first = first_of(run)
    with one_update(first):
        content = read_serving(first)
        if not content.updates:
            raise RunError(f"No update of {first.name} serves: there is nothing to go back from.")
        was, before = serving(first), content.model_copy(update={"updates": content.updates[:-1]})
        now = Run.open(first.path.parent / before.updates[-1]) if before.updates else first
        left: list[str] = []
        if (items := read_served(was)) is not None:
            items, left = carry(was, items, now)
        with handover(first, was):
            if items is not None:
                left += carry(was, items, now)[1]
            write_serving(first, before)
        return was, now, left


@contextmanager
def handover(first: Run, run: Run) -> Iterator[None]:
    """Keep the catalogue of the run that serves as it is, while another one takes over.

    Raises:
        BusyError: it is being changed for too long.
    """
    with changes_of_service(first, PATIENCE), changing(catalogue_of(run).path, PATIENCE):
        yield


@contextmanager
def changes_of_service(first: Run, wait: float) -> Iterator[None]:
    """Keep which run serves as it is, while its catalogue is changed.

    Args:
        first: the first run.
        wait: seconds.

    Raises:
        BusyError: another process holds it for longer.
    """
    file = first.path / HANDOVER
    with writing(file):
        lock = FileLock(file, timeout=wait)
        try:
            lock.acquire()
        except Timeout:
            raise BusyError(f"The catalogue of {first.name} is being changed: try again in a second.") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def while_it_serves(run: Run, named: Run, wait: float = PATIENCE) -> Iterator[None]:
    """Keep another run from taking over while a catalogue is changed.

    Args:
        run: whose catalogue is changed.
        named: the run that it serves for; an update that is named itself is changed whatever serves.
        wait: seconds.

    Raises:
        SupersededError: another run has taken over already.
        BusyError: another process changes the catalogue for longer.
    """
    if named.info.get("updated"):
        yield
        return
    with changes_of_service(named, wait):
        if serving_path(named).name != run.path.name:
            raise SupersededError
        yield


@contextmanager
def one_update(first: Run) -> Iterator[None]:
    """Keep other processes from updating the same run; the system releases it when the process ends, however it ends.

    Raises:
        BusyError: another process is updating it.
    """
    lock = FileLock(first.path / LOCK, timeout=0)
    with writing(first.path / LOCK):
        try:
            lock.acquire()
        except Timeout:
            raise BusyError(f"An update of {first.name} is under way: try again when it has finished.") from None
    try:
        yield
    finally:
        lock.release()


def next_path(first: Run) -> tuple[int, Path]:
    """Number and folder of the next update."""
    number = 1
    while (path := first.path.parent / f"{first.name}-update-{number}").exists():
        number += 1
    return number, path
