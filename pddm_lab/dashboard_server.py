"""The dashboard's pages, the dashboard as a separate process, and screenshots taken with a headless browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psutil

from pddm_lab.errors import RunError
from pddm_lab.files import shipped
from pddm_lab.runs.run import Run

if TYPE_CHECKING:
    from playwright.sync_api import BrowserType, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_ARGS = ("--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                "--disable-component-update", "--disable-sync")  # fmt: skip
"""Options of a browser without a window that downloads nothing by itself."""
THEMES = ("light", "dark")
_START_SECONDS = 300.0
_PAGE_SECONDS = 300.0
_END_SECONDS = 60.0
_QUIET = """new Promise((resolve) => {
  let still = 0, looks = 0
  const observer = new MutationObserver(() => (still = 0))
  observer.observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true })
  const timer = setInterval(() => {
    if (++still < 8 && ++looks < 200) return
    clearInterval(timer)
    observer.disconnect()
    resolve()
  }, 50)
})"""
"""Charts are drawn after the script has ended: until nothing has changed at 8 looks, 0.4 s, of at most 200. On a busy
machine a browser draws later, and looks less often."""
_LOADED = """(() => {
  const below = (root) => [...root.querySelectorAll("*")].flatMap((one) => [one, ...below(one.shadowRoot ?? empty)])
  const empty = new DocumentFragment(), isShown = (one) => one.getClientRects().length > 0
  const has = (one) => one.tagName === "IMG" ? one.complete
    : one.dataset.testid !== "stPlotlyChart" || one.querySelector(".main-svg") !== null
  return below(document).every((one) => !isShown(one) || has(one))
})()"""
"""Whether every chart and picture that is shown is there."""


@dataclass(frozen=True)
class PageSpec:
    """A page of the dashboard as the navigation shows it."""

    title: str
    icon: str
    """Name of a Material symbol."""
    help: str


PAGES: dict[str, PageSpec] = {
    "overview": PageSpec("Overview", "lightbulb", "The answer of a run in a sentence, and queries that show it."),
    "runs": PageSpec("Runs", "monitoring", "Every run's status, metrics and curves. Start and stop training here."),
    "similarity": PageSpec("Similarity", "bar_chart", "How well a threshold separates positive from negative pairs."),
    "quadruplets": PageSpec("Quadruplets", "view_module", "The hard quadruplets mined in training, as pictures."),
    "search": PageSpec("Search", "image_search", "Pick or upload an image and compare results side by side."),
    "catalogue": PageSpec("Catalogue", "inventory_2", "Add, remove and rename what the run can find; undo any change."),
    "robustness": PageSpec(
        "Robustness", "blur_on", "Corrupt a query, and see what is found and what each similarity loses."
    ),
    "map": PageSpec("Map", "scatter_plot", "The gallery in two dimensions: classes, errors, neighbourhoods."),
    "local_global": PageSpec("Local vs global", "school", "PDDM trains on points of a plane, in seconds."),
    "drift": PageSpec("Drift", "query_stats", "Whether new queries still look like those that the run can answer."),
    "audit": PageSpec("Audit", "fact_check", "Metric axioms, calibration, duplicates, licences, slices, corrections."),
}
"""All pages in the order of the navigation; each name is its folder in dashboard/app_pages and its path in the URL."""


def page_url(address: str, page: str, run: str) -> str:
    """The URL of a page (a name from `PAGES`) with a run open; the first page has no path of its own."""
    return f"{address}/{'' if page == next(iter(PAGES)) else page}?run={quote(run)}"


def dashboard_command(port: int) -> list[str]:
    """The command that serves the dashboard, with the streamlit of this interpreter; port 0: one that is free."""
    return [
        sys.executable, "-m", "streamlit", "run", str(shipped("dashboard/serve.py")), "--server.port", str(port),
        "--server.headless", "true", "--browser.gatherUsageStats", "false",
    ]  # fmt: skip


@contextmanager
def chromium() -> Iterator[BrowserType]:
    """Playwright's Chromium, to be launched with `browser_options()`.

    Raises:
        RunError: playwright or the browser is missing.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise RunError("Playwright is missing: pip install -e '.[dev]'.") from None
    browser_options()
    with sync_playwright() as playwright:
        yield playwright.chromium


def browser_options() -> dict[str, Any]:
    """How playwright launches the Chromium or Chrome of this machine, and not a download of its own.

    Raises:
        RunError: there is none.
    """
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise RunError(f"A browser is missing. Put one of {', '.join(BROWSERS)} on the PATH: apt-get install chromium.")
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    no_sandbox = ["--no-sandbox"] if as_root else []  # Chromium refuses to start a sandbox as root
    return {"executable_path": path, "args": [*BROWSER_ARGS, *no_sandbox]}


@contextmanager
def served_dashboard(runs: Path) -> Iterator[str]:
    """Serve the dashboard on a free port of this machine while the block runs.

    Args:
        runs: folder that holds the runs.

    Yields:
        The server's address, without a slash at the end.

    Raises:
        RunError: the server ended, or did not respond within five minutes; with the end of its log.
    """
    environment = os.environ | {"PDDM_LAB_RUNS": str(runs.resolve())}
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(
            [*dashboard_command(0), "--server.address", "127.0.0.1"], env=environment, stdout=log, stderr=log
        )
        try:
            end = time.monotonic() + _START_SECONDS
            while not (address := _address_of(server.pid)):
                if server.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    raise RunError(
                        f"The dashboard did not start. Its log ends: {log.read()[-2000:].strip() or '(empty)'}"
                    )
                time.sleep(0.1)
            yield address
        finally:
            server.terminate()
            try:
                server.wait(_END_SECONDS)  # it lets what works in the background finish its step
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _address_of(pid: int) -> str:
    """Where a server answers, on the port that it took itself; empty as long as it doesn't."""
    try:
        listening = [one for one in psutil.Process(pid).net_connections("tcp") if one.status == psutil.CONN_LISTEN]
        for one in listening:
            address = f"http://127.0.0.1:{one.laddr.port}"
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=10) as response:
                if response.status == 200:
                    return address
    except (psutil.Error, OSError):
        pass
    return ""


def take_screenshots(
    run: Run, folder: Path, pages: Iterable[str] = tuple(PAGES), themes: Sequence[str] = THEMES, width: int = 1280,
    height: int = 800, full: bool = False,
) -> list[Path]:  # fmt: skip
    """Take screenshots of the dashboard's pages with a run open.

    Args:
        run: the run to show.
        folder: for <page>.png and, in the dark theme, <page>-dark.png; created if missing.
        pages: names from `PAGES`.
        themes: light, dark, or both.
        width, height: of the window, in pixels.
        full: take the whole page, however long, instead of the window's height.

    Raises:
        RunError: playwright or the browser is missing, or a page shows an error or isn't drawn within five minutes.
    """
    taken = []
    with chromium() as engine, served_dashboard(run.path.parent) as address:
        from playwright.sync_api import TimeoutError

        folder.mkdir(parents=True, exist_ok=True)
        browser = engine.launch(**browser_options())
        for theme in themes:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)  # type: ignore[arg-type]
            for name in pages:
                page.goto(page_url(address, name, run.name))
                try:
                    wait_until_drawn(page)
                except TimeoutError as error:
                    raise RunError(f"The page {name} was not drawn within {_PAGE_SECONDS:.0f} s.") from error
                if page.get_by_test_id("stException").count():
                    message = page.get_by_test_id("stException").inner_text()
                    raise RunError(f"The page {name} shows an error: {message}")
                if full:
                    _make_tall(page, height)
                taken.append(folder / (f"{name}.png" if theme == "light" else f"{name}-{theme}.png"))
                page.screenshot(path=taken[-1])
                page.set_viewport_size({"width": width, "height": height})
        browser.close()
    return taken


def _make_tall(page: Page, height: int) -> None:
    """Make the window as tall as the page; elements that come into view may then be drawn and add to its height."""
    assert page.viewport_size
    for _ in range(3):
        wanted = int(page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight"))
        if wanted <= page.viewport_size["height"]:
            return
        page.set_viewport_size({"width": page.viewport_size["width"], "height": max(wanted, height)})
        wait_until_drawn(page)


def wait_until_drawn(page: Page) -> None:
    """Wait until a page of the dashboard is drawn: its script has ended, and its charts are there."""
    from playwright.sync_api import Error

    end, ended = time.monotonic() + _PAGE_SECONDS, "[data-test-script-state='notRunning']"
    while True:
        page.wait_for_selector(ended, timeout=_PAGE_SECONDS * 1000)
        page.wait_for_selector(".st-key-plane_stop", state="detached", timeout=_PAGE_SECONDS * 1000)  # training
        page.wait_for_selector("[data-testid='stSkeleton']", state="detached", timeout=_PAGE_SECONDS * 1000)
        with suppress(Error):  # the page is left meanwhile
            page.evaluate(_QUIET)
            page.wait_for_function(_LOADED, polling=50, timeout=max(end - time.monotonic(), 1) * 1000)
        if page.locator(ended).count() or time.monotonic() > end:  # a click a moment ago may have started it again
            return
