"""Maps drawn in the background: one at a time, one waits at most, no change is missed, and a kill loses nothing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from filelock import FileLock
from test_changes import new_items
from test_gallery import make

from pddm_lab.gallery import redraw as module
from pddm_lab.gallery import umap_layout
from pddm_lab.gallery.changes import add
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.redraw import is_being_redrawn, redraw, start_redrawing
from pddm_lab.gallery.umap_layout import write_map

PATIENCE = 300
"""Seconds: a busy machine takes far more than the few that it should be."""


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    made = make(tmp_path, 20)
    return made


class Slow:
    """A map whose drawing waits until it may end."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Semaphore(0), threading.Semaphore(0)
        self.drawn: list[int] = []

    def __call__(self, features: np.ndarray, *_: np.ndarray) -> np.ndarray:
        self.begun.release()
        assert self.may_end.acquire(timeout=PATIENCE)
        self.drawn.append(len(features))
        return features[:, :2]


def test_one_draws_one_waits_and_no_change_is_missed(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, outcomes = Slow(), []
    monkeypatch.setattr(umap_layout, "_umap", slow)
    waits, lock_of = threading.Semaphore(0), module._lock

    def noted(path: Path, name: str) -> FileLock:
        lock = lock_of(path, name)
        if name == "map-next":
            acquire = lock.acquire

            def acquired(*arguments: Any, **options: Any) -> Any:
                held = acquire(*arguments, **options)
                waits.release()
                return held

            monkeypatch.setattr(lock, "acquire", acquired)
        return lock

    monkeypatch.setattr(module, "_lock", noted)
    assert not is_being_redrawn(gallery.path)

    def start() -> threading.Thread:
        thread = threading.Thread(target=lambda: outcomes.append(redraw(gallery.path)))
        thread.start()
        return thread

    first = start()
    assert waits.acquire(timeout=PATIENCE)
    assert slow.begun.acquire(timeout=PATIENCE) and is_being_redrawn(gallery.path)
    gallery = add(gallery, new_items(2))
    second = start()
    assert waits.acquire(timeout=PATIENCE)
    gallery = add(gallery, new_items(3, first=2))
    third = start()  # the second has not begun: it will draw what this one would
    third.join()
    assert outcomes == [False]
    slow.may_end.release()
    first.join()
    assert gallery.reopened().manifest["map"]["placed"] == 5, "the map of the first state, with what came since"
    assert slow.begun.acquire(timeout=PATIENCE)
    slow.may_end.release()
    second.join()
    assert outcomes == [False, True, True] and slow.drawn == [20, 25]
    after = Gallery.open(gallery.path, verify=True)
    assert after.map is not None and len(after.map) == 25 and not after.manifest["map"].get("placed")
    assert not is_being_redrawn(gallery.path)


def test_a_process_draws_and_may_be_killed(gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process runs another layout than UMAP, which would take a minute to import; it waits until it may end."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "sitecustomize.py").write_text(
        "import os, time\n"
        "def slow(features, *_):\n"
        "    while not os.path.exists(os.environ['MAY_END']): time.sleep(0.02)\n"
        "    return features[:, :2]\n"
        "import pddm_lab.gallery.umap_layout as layout\n"
        "layout._umap = slow\n"
    )
    may_end = tmp_path / "may end"
    path = [str(code), str(Path(module.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    monkeypatch.setenv("MAY_END", str(may_end))
    monkeypatch.setattr(umap_layout, "_umap", lambda features, *_: features[:, :2])
    write_map(gallery.path)
    gallery = add(gallery.reopened(), new_items(2))
    before = gallery.map
    assert before is not None
    children = []
    try:
        for ends in (False, True):
            assert start_redrawing(gallery.path)
            children.append(module._children[-1])
            process = psutil.Process(children[-1].pid)
            _wait_for(lambda: is_being_redrawn(gallery.path))
            lower = min(psutil.Process().nice() + 10, 19)  # 19 is the lowest
            assert process.nice() == lower or not sys.platform.startswith("linux")
            assert os.getsid(process.pid) == process.pid, "it outlives the terminal"
            if not ends:
                process.send_signal(signal.SIGKILL)
                _wait_for(lambda: not is_being_redrawn(gallery.path))
                after = Gallery.open(gallery.path, verify=True)
                assert after.map is not None and after.map.equals(before)
        may_end.touch()
        _wait_for(lambda: not gallery.reopened().manifest["map"].get("placed"))
        after = Gallery.open(gallery.path, verify=True)
        assert after.map is not None and after.map["overlap"].notna().all()
    finally:
        for child in children:
            child.kill()
            child.wait()


def _wait_for(condition) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_cannot_be_started_is_no_error(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert not start_redrawing(gallery.path)
