"""The commands `dashboard`, `screenshots` and `lesson`: pages to look at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pddm_lab.commands.terminal import AnyRun, DataRoot, Port, RunName, RunsRoot, progress_bar
from pddm_lab.config import Count, typed_path
from pddm_lab.errors import ConfigError


def dashboard(run: AnyRun = "", port: Port = 8501, runs_root: RunsRoot = "", data_root: DataRoot = "") -> None:
    """Serve the dashboard.

    Args:
        run: Name of the run to open; empty: the newest.
        port: Port of the web page.
    """
    from pddm_lab.runs.compare import find_run

    serve(find_run(run, runs_root).name if run else "", port, runs_root, data_root)


def serve(run: str, port: int, runs_root: str, data_root: str) -> None:
    """Serve the dashboard until it is ended, with a run open; the newest where no run is named."""
    from pddm_lab.dashboard_server import dashboard_command

    environment = dict(os.environ)
    for variable, root in (("PDDM_LAB_RUNS", runs_root), ("PDDM_LAB_DATA", data_root)):
        if root:
            environment[variable] = str(typed_path(root).resolve())
    print(f"\nOpen http://localhost:{port}/{'?run=' * bool(run)}{run}", flush=True)
    with subprocess.Popen(dashboard_command(port), env=environment) as server:
        try:
            sys.exit(server.wait())
        except KeyboardInterrupt:  # the server receives Ctrl-C too, and ends
            server.wait()


def screenshots(
    run: RunName, out: str = ".", only: str = "", full: bool = False, width: Count = 1280, runs_root: RunsRoot = ""
) -> None:
    """Take screenshots of the dashboard's pages with a run open, in light and dark. Needs Chromium.

    Args:
        out: Folder for the PNG files.
        only: One page, such as search, in the light theme; empty: every page in both themes.
        full: Capture each page at its full length instead of one window of it.
        width: Width of the window in pixels.
    """
    from pddm_lab.dashboard_server import PAGES, THEMES, take_screenshots
    from pddm_lab.runs.compare import find_run

    if only and only not in PAGES:
        raise ConfigError(f"--only expects one of {', '.join(PAGES)}, got {only!r}.")
    pages, themes = ([only], THEMES[:1]) if only else (PAGES, THEMES)
    for path in take_screenshots(find_run(run, runs_root), Path(out), pages, themes, width=width, full=full):
        print(path)


def lesson(out: str = ".") -> None:
    """Write the lesson on local and global similarities as one page, lesson.html, which opens without Python.

    Three exercises to predict and reveal, neighbourhoods, and six trainings on a plane step by step. It takes about a
    minute and needs no run. The page works from a file and asks nothing of any server.

    Args:
        out: Folder for lesson.html; created if missing.
    """
    from pddm_lab.lesson.file import write_lesson

    with progress_bar() as report:
        page = write_lesson(typed_path(out), report)
    print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")
