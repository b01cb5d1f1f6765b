"""Whether the process that trains a run is still alive."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Any

import psutil

HEARTBEAT_LIMIT = 600.0
"""Seconds without a heartbeat after which a run of another machine, whose processes are not visible, counts as dead."""
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
