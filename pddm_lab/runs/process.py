"""The process that trains a run: which it is, whether it is still alive, and how only one becomes it.

And those that serve a run: any number, each of which keeps the run's folder from being removed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from pddm_lab.errors import RunError
from pddm_lab.files import TEMPORARY, holding, machine_mark

LAUNCH = "PDDM_LAB_LAUNCH"
"""Environment variable: the launch that a process belongs to, by which the launching process knows its own run."""
LOCK = ".lock"
"""File in a run's folder that is locked while a process decides whether to train it."""
_SERVED = ".served-{}.lock"
"""Files in a run's folder, one locked by each process that serves it."""
_LOCK_LIMIT = 60.0
"""Seconds to wait for the lock, which is held for milliseconds."""
HEARTBEAT_LIMIT = 600.0
"""Seconds without a heartbeat after which a run of another machine, whose processes are not visible, counts as dead."""
FOREIGN_LIMIT = 24 * 3600.0
"""Seconds for which nothing was written to a temporary file of another machine until it counts as left behind."""
START_TOLERANCE = 30.0
"""Seconds; start times depend on the clock, which may be set meanwhile."""


def is_running(pid: int, started: float, tolerance: float = START_TOLERANCE) -> bool:
    """Whether a process of this machine still runs.

    Args:
        pid: of the process.
        started: its start, in seconds since the epoch, since a later process may have the same pid.
        tolerance: between start times, in seconds.
    """
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < tolerance
        return same and process.status() != psutil.STATUS_ZOMBIE  # as a killed child is at first
    except (psutil.Error, ValueError):
        return False


def is_alive(info: Mapping[str, Any]) -> bool:
    """Whether the process in run.json still runs; on another machine, whether its heartbeat is recent."""
    if info.get("host") != socket.gethostname():
        return time.time() - float(info.get("heartbeat") or 0.0) < HEARTBEAT_LIMIT
    return is_running(int(info.get("pid") or 0), float(info.get("process_started") or 0.0))


def this_process() -> dict[str, Any]:
    """This process as the owner of a run, as fields of run.json."""
    me = psutil.Process()
    launch = os.environ.get(LAUNCH, "")
    return {"pid": me.pid, "process_started": me.create_time(), "host": socket.gethostname(), "launch": launch}


def is_this_process(info: Mapping[str, Any]) -> bool:
    """Whether the process in run.json is this one."""
    return (info.get("host"), info.get("pid")) == (socket.gethostname(), os.getpid())


def end_with(parent: int) -> None:
    """Leave Ctrl-C to the process that started this one, and end when that is gone.

    Args:
        parent: its pid.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder; the system releases it when the process ends, however it ends.

    Raises:
        RunError: another process holds it for long, or the folder can't be written.
    """
    with holding(folder / LOCK, _LOCK_LIMIT):
        yield


@contextmanager
def being_served(folder: Path) -> Iterator[None]:
    """Keep a run's folder from being removed while this process serves it, as `is_served` sees in other processes.

    The system releases it when the process ends, however it ends. A folder that can't be written isn't kept.
    """
    from filelock import FileLock, Timeout

    held: FileLock | None = None
    if not folder.is_dir():  # to lock a file would make one
        yield
        return
    with suppress(RunError, OSError, NotImplementedError), locked(folder):
        for number in count():  # each process locks a file of its own
            lock = FileLock(folder / _SERVED.format(number), timeout=0, thread_local=False)
            with suppress(Timeout):
                lock.acquire()
                held = lock
                break
    try:
        yield
    finally:
        if held is not None:
            held.release()


def is_served(folder: Path) -> bool:
    """Whether a process serves the run in a folder."""
    from filelock import FileLock, Timeout

    for file in folder.glob(_SERVED.format("*")):
        try:
            with FileLock(file, timeout=0):
                pass
        except Timeout:
            return True
        except OSError:  # another user's: removing the folder says what is wrong
            continue
    return False


def sweep_leftovers(path: Path) -> None:
    """Delete what killed processes left: temporary files in a run's folder and in the caches beside it, and folders."""
    sweep_folders(path.parent)
    for folder in (path, *path.parent.glob(".*/")):
        for file in folder.rglob(".*.tmp"):
            writer = TEMPORARY.fullmatch(file.name)
            with suppress(OSError):
                if writer and not _is_being_written(file, int(writer[1]), writer[2]):
                    file.unlink()


def sweep_folders(root: Path) -> None:
    """Delete the temporary folders of killed processes: runs that were being removed or unpacked."""
    for folder in root.glob(".*.tmp/"):
        writer = TEMPORARY.fullmatch(folder.name)
        if writer and not _is_being_written(folder, int(writer[1]), writer[2]):
            shutil.rmtree(folder, ignore_errors=True)


def _is_being_written(temporary: Path, pid: int, machine: str | None) -> bool:
    """Whether the process that a temporary file or folder is named after still runs, and not a later one of its number.

    Of another machine, or another container, whose processes are not visible: whether anything in it is recent.
    """
    if machine not in (None, machine_mark()):
        times = [0.0]
        for path in (temporary, *temporary.rglob("*")):
            with suppress(FileNotFoundError):  # renamed at this moment
                times.append(path.stat().st_mtime)
        return time.time() - max(times) < FOREIGN_LIMIT
    try:
        return psutil.Process(pid).create_time() < temporary.stat().st_mtime + 1
    except psutil.Error:
        return False
