"""The one OpenVINO core of a process.

OpenVINO's plugin for processors gives the calling thread a stack for signals, and frees it with the core. Where two
cores go in another order than the reverse, the thread is left with a stack that is gone, and the next signal (Ctrl-C,
a child process that ends) is a segmentation fault. So there is one core, which never goes.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino

_LOCK = threading.Lock()


def openvino_core() -> openvino.Core:
    """The core; the first call imports OpenVINO."""
    with _LOCK:
        return _core()


@functools.cache
def _core() -> openvino.Core:
    import openvino

    return openvino.Core()
