"""SVG -> PNG on all cores.

The renderer holds the interpreter, so threads gain nothing. A worker runs this file as a script. Unlike forking or
importing the main program again, that works from a notebook, a server's thread and a test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pddm_lab.progress import Progress

_CHUNK = 200


def render_svgs(jobs: Sequence[tuple[Path, str]], side: int, progress: Progress | None = None) -> None:
    """Render each SVG on white and write it as a PNG of side x side pixels; folders are made as needed.

    Args:
        jobs: (path of the PNG, text of the SVG).
        side: pixels.
        progress: called from the caller's thread as pictures are done.

    Raises:
        DataError: a picture cannot be rendered or written.
    """
    chunks = [jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for count in pool.map(lambda chunk: _run_worker(chunk, side), chunks):
            done += count
            if progress:
                progress(done, len(jobs), "rendering pictures")


def _run_worker(jobs: Sequence[tuple[Path, str]], side: int) -> int:
    from pddm_lab.errors import DataError

    text = json.dumps({"side": side, "jobs": [(str(path), svg) for path, svg in jobs]})
    done = subprocess.run(
        [sys.executable, "-P", __file__], input=text, capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        raise DataError(f"Cannot render pictures with resvg-py ({why}). Check the free disk space, then try again.")
    return len(jobs)


def _work() -> None:
    import resvg_py

    order = json.load(sys.stdin)
    for name, svg in order["jobs"]:
        # system fonts would make the pictures differ between machines; the pictograms hold no text
        png = resvg_py.svg_to_bytes(
            svg_string=svg, background="white", width=order["side"], height=order["side"], skip_system_fonts=True
        )
        os.makedirs(os.path.dirname(name), exist_ok=True)
        Path(name).write_bytes(bytes(png))


if __name__ == "__main__":
    _work()
