"""Draw the map of a changed gallery anew, in a process of low priority that nobody waits for.

The change itself has put new items between their neighbours (map_upkeep.py), so there is a map meanwhile. One process
draws at a time, and one at most waits for it; that one reads the gallery when it begins, and so covers all changes
until then. Items that come while a map is drawn are put between their neighbours on the new map. A process that is
killed leaves the map that was there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pddm_lab.errors import RunError
from pddm_lab.gallery.umap_layout import write_map

_ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_children: list[subprocess.Popen[bytes]] = []


def start_redrawing(path: Path) -> bool:
    """Start a process that draws the map of a gallery anew; it outlives this one.

    Args:
        path: the gallery's folder.

    Returns:
        Whether it could be started; if not, the gallery keeps the map that it has.
    """
    _children[:] = [child for child in _children if child.poll() is None]
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "pddm_lab.gallery.redraw", str(path.resolve())], env=os.environ | _ONE_CORE,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    except OSError:
        return False
    _children.append(child)
    return True


def is_being_redrawn(path: Path) -> bool:
    """Whether a process draws a map of the gallery now."""
    lock = _lock(path, "map")
    if not os.path.exists(lock.lock_file):
        return False
    try:
        with lock.acquire(blocking=False):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that can't be written: no process draws there
        return False


def redraw(path: Path) -> bool:
    """Wait for the process that draws now, then draw the map; False if another one waits already."""
    waiting, drawing = _lock(path, "map-next"), _lock(path, "map")
    try:
        waiting.acquire(blocking=False)
    except Timeout:
        return False
    try:
        drawing.acquire()
    finally:
        waiting.release()
    try:
        write_map(path)
    finally:
        drawing.release()
    return True


def _lock(path: Path, name: str) -> FileLock:
    return FileLock(path.with_name(f".{path.name}.{name}.lock"))


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(10)
    with suppress(RunError, OSError):  # the gallery was removed or can't be written: there is no one to report it to
        redraw(Path(sys.argv[1]))
