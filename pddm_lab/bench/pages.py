"""Pages of the dashboard in a browser: when numbers are shown, when all is drawn, how long a rerun takes.

The page takes all times itself: of a page from the start of its navigation, of a rerun from the event that causes it
until the script has ended, nothing stale is left, every chart and picture is drawn and a frame was painted. The times
include what playwright costs: with its debugger attached, a page with charts takes about 1.4 times the processor time.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pddm_lab.dashboard_server import browser_options
from pddm_lab.errors import RunError

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, BrowserType, Page

_LIMIT = 60_000  # ms

_LAB = """
window.lab ??= {
  all(selector, root = document) {
    const parts = [...root.querySelectorAll(selector)]
    for (const one of root.querySelectorAll("*")) if (one.shadowRoot) parts.push(...lab.all(selector, one.shadowRoot))
    return parts
  },
  main: () => document.querySelector("[data-testid=stMain]"),
  resting: () => document.querySelector("[data-test-script-state=notRunning]") !== null,
  error: () => lab.main()?.querySelector("[data-testid=stException]")?.innerText ?? "",
  written: () => lab.resting() && lab.main()?.querySelector("h1") !== null
    && !lab.main().querySelector("[data-stale=true]"),
  drawn: () => lab.written() && !lab.main().querySelector("[data-testid=stSkeleton], [data-testid=stSpinner]")
    && [...lab.main().querySelectorAll("[data-testid=stPlotlyChart]")].every(one => one.querySelector(".main-svg"))
    && lab.all("img", lab.main()).every(one => one.complete),
  until: (test, limit) => new Promise(done => {
    const start = performance.now()
    const look = setInterval(() => {
      const late = performance.now() - start > limit
      if (test() || late) { clearInterval(look); done(!late) }
    }, 5)
  }),
  painted: () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))),
  async ready(limit) {
    await lab.until(lab.written, limit)
    const written = performance.now()
    if (!await lab.until(lab.drawn, limit)) return null
    return [written, performance.now(), lab.error()]
  },
  async rerun(cause, limit, patience = 1500, test = lab.drawn) {
    let began = false
    const watch = new MutationObserver(() => { began ||= !lab.resting() })
    watch.observe(document.querySelector("[data-test-script-state]"), { attributes: true })
    const start = performance.now()
    cause()
    const ran = await lab.until(() => began, patience)
    watch.disconnect()
    if (!ran) return null
    if (!await lab.until(test, limit)) return [limit, lab.error()]
    await lab.painted()
    return [performance.now() - start, lab.error()]
  },
  buttons: () => lab.all("[data-testid=stButtonGroup] button", lab.main()).filter(
    one => !one.disabled && one.getAttribute("aria-checked") === "false"),
  sliders: () => lab.all("[role=slider], input[type=range]", lab.main()).filter(one => !one.disabled),
};
"""


@dataclass
class Loads:
    """How long a page took to load, in seconds from the start of the navigation."""

    page: str
    cold_written: float = math.nan
    """Numbers shown, with an empty browser cache."""
    cold_drawn: float = math.nan
    """All drawn, with an empty browser cache."""
    written: list[float] = field(default_factory=list)
    """Numbers shown, one value per load with a filled browser cache."""
    drawn: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def load(chromium: BrowserType, address: str, loads: Loads, repeats: int = 5) -> None:
    """Open a page in a new browser, then `repeats` times with that browser's cache filled.

    Args:
        chromium: as `pddm_lab.dashboard_server.chromium` yields it.
        address: of the page, with its run.
        loads: receives the times.
        repeats: loads with a filled cache.

    Raises:
        RunError: the page isn't drawn within a minute; earlier measurements are kept.
    """
    with _new_browser(chromium) as browser:
        for number in range(repeats + 1):
            with browser.new_page() as tab:
                written, drawn = _open(tab, address, loads.errors)
            if number:
                loads.written.append(written)
                loads.drawn.append(drawn)
            else:
                loads.cold_written, loads.cold_drawn = written, drawn


def reruns(chromium: BrowserType, address: str, count: int = 12) -> tuple[list[float], list[str]]:
    """Use a page's buttons and sliders in turn, and time the rerun after each.

    Returns:
        Seconds, and the errors that the page showed. Fewer than `count` where a control starts no rerun.
    """
    seconds: list[float] = []
    errors: list[str] = []
    with _new_browser(chromium) as browser:
        tab = browser.new_page()
        _open(tab, address, errors)
        for number in range(count):
            buttons, sliders = tab.evaluate("[lab.buttons().length, lab.sliders().length]")
            if not buttons + sliders:
                break
            if sliders and (number % 2 or not buttons):
                tab.evaluate(f"lab.sliders()[{number * 5 % sliders}].focus()")
                tab.evaluate(f"window.ended = lab.rerun(() => 0, {_LIMIT}), 0")
                tab.keyboard.press("ArrowRight" if number % 4 else "ArrowLeft")
                result = tab.evaluate("window.ended")
            else:
                result = tab.evaluate(f"lab.rerun(() => lab.buttons()[{number * 7 % buttons}].click(), {_LIMIT})")
            if result:
                seconds.append(result[0] / 1000)
                errors += [result[1]] if result[1] else []
    return seconds, errors


def uploads(chromium: BrowserType, address: str, pictures: Sequence[Path]) -> tuple[list[float], list[str]]:
    """Search with uploaded pictures, one after the other, and time each until its results are drawn.

    Args:
        chromium: as `pddm_lab.dashboard_server.chromium` yields it.
        address: of the page that waits for a picture.
        pictures: image files.

    Returns:
        Seconds, and the errors that the page showed.

    Raises:
        RunError: a picture has no result within a minute.
    """
    seconds: list[float] = []
    errors: list[str] = []
    shown = "() => lab.drawn() && lab.all('.pl-tile', lab.main()).length > 0"
    with _new_browser(chromium) as browser:
        tab = browser.new_page()
        for picture in pictures:
            _open(tab, address, errors)
            tab.evaluate(f"lab.until(() => lab.all('input[type=file]', lab.main()).length, {_LIMIT})")
            tab.evaluate(f"window.ended = lab.rerun(() => 0, {_LIMIT}, {_LIMIT}, {shown}), 0")
            tab.get_by_test_id("stMain").locator("input[type=file]").first.set_input_files(picture)
            result = tab.evaluate("window.ended")
            if not result or result[0] >= _LIMIT:
                raise RunError(f"The page {address} showed no result for {picture.name}.")
            seconds.append(result[0] / 1000)
            errors += [result[1]] if result[1] else []
    return seconds, errors


@contextmanager
def _new_browser(chromium: BrowserType) -> Iterator[BrowserContext]:
    """A browser with a new profile, so that its caches are empty.

    Raises:
        RunError: the browser failed, or a script threw in it.
    """
    from playwright.sync_api import Error

    # A browser that is closing may still write to its profile for a moment.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        size: Any = {"width": 1280, "height": 800}
        with chromium.launch_persistent_context(profile, viewport=size, **browser_options()) as browser:
            browser.add_init_script(_LAB)
            try:
                yield browser
            except Error as error:
                raise RunError(f"The browser failed: {error.message}") from error


def _open(tab: Page, address: str, errors: list[str]) -> tuple[float, float]:
    """Open a page: seconds until its numbers are shown, and until all is drawn."""
    tab.goto(address, wait_until="commit")
    times = tab.evaluate(f"lab.ready({_LIMIT})")
    if times is None:
        raise RunError(f"{address} was not drawn within {_LIMIT // 1000} s.")
    written, drawn, error = times
    if error:
        errors.append(error)
    return written / 1000, drawn / 1000
