"""The dashboard as a process of its own, and pictures of its pages taken with a browser that nobody sees."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pddm_lab.errors import RunError
from pddm_lab.files import shipped
from pddm_lab.runs.run import Run

if TYPE_CHECKING:
    from playwright.sync_api import Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_ARGS = ("--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                "--disable-component-update", "--disable-sync")  # fmt: skip
"""How a browser is started that nobody sees, and that fetches nothing by itself."""
PAGES = ("runs", "similarity", "quadruplets", "search", "map", "local_global", "audit")
THEMES = ("light", "dark")
_START_SECONDS = 60.0
_PAGE_SECONDS = 60.0
_DRAW_SECONDS = 1.0  # a chart draws itself after the script has ended


def dashboard_command(port: int) -> list[str]:
    """The command that serves the dashboard, with this interpreter's streamlit."""
    return [
        sys.executable, "-m", "streamlit", "run", str(shipped("dashboard/serve.py")), "--server.port", str(port),
        "--server.headless", "true", "--browser.gatherUsageStats", "false",
    ]  # fmt: skip


def find_browser() -> str | None:
    """Path of a Chromium or Chrome of this machine; None where it has none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def served_dashboard(runs: Path) -> Iterator[str]:
    """Serve the dashboard on a free port of this machine while the block runs.

    Args:
        runs: folder that holds the runs.

    Yields:
        Its address, without a slash at the end.

    Raises:
        RunError: the server ended, or did not answer within a minute; with what it said last.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"PDDM_LAB_RUNS": str(runs.resolve())}
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(
            [*dashboard_command(port), "--server.address", "127.0.0.1"], env=environment, stdout=log, stderr=log
        )
        try:
            end = time.monotonic() + _START_SECONDS
            while not _is_healthy(port):
                if server.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise RunError(f"The dashboard did not start. It said: {log.read()[-2000:].strip() or 'nothing'}")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(10)


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


def take_screenshots(
    run: Run, folder: Path, pages: Sequence[str] = PAGES, themes: Sequence[str] = THEMES, width: int = 1280,
    height: int = 800, full: bool = False,
) -> list[Path]:  # fmt: skip
    """Pictures of the dashboard's pages with a run open.

    Args:
        run: the run to show.
        folder: where <page>.png and, in the dark theme, <page>-dark.png go; made where it is missing.
        pages: which.
        themes: light, dark, or both.
        width: of the window, in pixels.
        height: of the window, in pixels.
        full: the whole page, however long, rather than what a window of that height shows.

    Raises:
        RunError: no browser, no playwright, or a page that shows an error or isn't drawn within a minute.
    """
    browser_path = find_browser()
    try:
        from playwright.sync_api import TimeoutError, sync_playwright
    except ImportError:
        raise RunError("Screenshots need playwright: pip install -e '.[dev]'.") from None
    if not browser_path:
        raise RunError(f"Screenshots need one of {', '.join(BROWSERS)} on the PATH: apt-get install chromium.")
    folder.mkdir(parents=True, exist_ok=True)
    taken = []
    with served_dashboard(run.path.parent) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=browser_args())
        for theme in themes:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)  # type: ignore[arg-type]
            for name in pages:
                page.goto(f"{address}/{name.removeprefix(PAGES[0])}?run={run.name}")  # the first page is at /
                try:
                    settle(page)
                except TimeoutError as error:
                    raise RunError(f"The page {name} was not drawn within {_PAGE_SECONDS:.0f} s.") from error
                if page.get_by_test_id("stException").count():
                    said = page.get_by_test_id("stException").inner_text()
                    raise RunError(f"The page {name} shows an error: {said}")
                if full:
                    _make_tall(page, height)
                taken.append(folder / (f"{name}.png" if theme == "light" else f"{name}-{theme}.png"))
                page.screenshot(path=taken[-1])
                page.set_viewport_size({"width": width, "height": height})
        browser.close()
    return taken


def _make_tall(page: Page, height: int) -> None:
    """Make the window as tall as what the page scrolls; what then comes into view may draw itself, and add to it."""
    assert page.viewport_size
    for _ in range(3):
        wanted = int(page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight"))
        if wanted <= page.viewport_size["height"]:
            return
        page.set_viewport_size({"width": page.viewport_size["width"], "height": max(wanted, height)})
        settle(page)


def browser_args() -> list[str]:
    """`BROWSER_ARGS`, and what root needs: Chromium has no sandbox for it and refuses to start with one."""
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return [*BROWSER_ARGS, *(["--no-sandbox"] if as_root else [])]


def settle(page: Page) -> None:
    """Wait until a page of the dashboard is drawn: its script has run, and charts had a moment."""
    page.wait_for_selector("[data-test-script-state='notRunning']", timeout=_PAGE_SECONDS * 1000)
    page.wait_for_selector(".st-key-plane_stop", state="detached", timeout=_PAGE_SECONDS * 1000)  # a unit that trains
    page.wait_for_selector("[data-testid='stSkeleton']", state="detached", timeout=_PAGE_SECONDS * 1000)
    page.wait_for_timeout(_DRAW_SECONDS * 1000)
