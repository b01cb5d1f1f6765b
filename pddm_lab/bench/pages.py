"""Pages of the dashboard as a browser meets them: when numbers are there, when all is drawn, how long a rerun takes.

All times are taken by the page itself: of a page from the start of its navigation, of a rerun from the event that
causes it until the script has ended, nothing stale is left, every chart and picture is drawn and a frame was painted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pddm_lab.bench.browser import Tab, browser
from pddm_lab.errors import RunError

REPEATS = 5
RERUNS = 12
_LIMIT = 60_000  # ms

_LAB = """
window.lab ??= {
  all(selector, root = document) {
    const found = [...root.querySelectorAll(selector)]
    for (const one of root.querySelectorAll("*")) if (one.shadowRoot) found.push(...lab.all(selector, one.shadowRoot))
    return found
  },
  main: () => document.querySelector("[data-testid=stMain]"),
  resting: () => document.querySelector("[data-test-script-state=notRunning]") !== null,
  said: () => lab.main()?.querySelector("[data-testid=stException]")?.innerText ?? "",
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
    return [written, performance.now(), lab.said()]
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
    if (!await lab.until(test, limit)) return [limit, lab.said()]
    await lab.painted()
    return [performance.now() - start, lab.said()]
  },
  buttons: () => lab.all("[data-testid=stButtonGroup] button", lab.main()).filter(
    one => !one.disabled && one.getAttribute("aria-checked") === "false"),
  sliders: () => lab.all("[role=slider], input[type=range]", lab.main()).filter(one => !one.disabled),
};
"""


@dataclass
class Loads:
    """How long a page took to be there, in seconds from the start of the navigation."""

    page: str
    cold_written: float = math.nan
    """Numbers shown, with an empty browser cache."""
    cold_drawn: float = math.nan
    """All drawn, with an empty browser cache."""
    written: list[float] = field(default_factory=list)
    """Numbers shown, one value per load with a filled browser cache."""
    drawn: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def load(address: str, found: Loads, repeats: int = REPEATS) -> None:
    """Open a page in a new browser, and again `repeats` times with that browser's cache filled.

    Args:
        address: of the page, with its run.
        found: takes the times.
        repeats: loads with a filled cache.

    Raises:
        RunError: the page isn't drawn within a minute; what was measured before is kept.
    """
    with browser() as chromium:
        for number in range(repeats + 1):
            with chromium.tab() as tab:
                written, drawn = _open(tab, address, found.errors)
            if number:
                found.written.append(written)
                found.drawn.append(drawn)
            else:
                found.cold_written, found.cold_drawn = written, drawn


def _open(tab: Tab, address: str, errors: list[str]) -> tuple[float, float]:
    tab.go(address)
    times = tab.ask(f"{_LAB} lab.ready({_LIMIT})")
    if times is None:
        raise RunError(f"{address} was not drawn within {_LIMIT // 1000} s.")
    written, drawn, said = times
    if said:
        errors.append(said)
    return written / 1000, drawn / 1000


def reruns(address: str, count: int = RERUNS) -> tuple[list[float], list[str]]:
    """Use a page's buttons and sliders, in turn, and time each rerun that follows.

    Returns:
        Seconds, and what errors the page showed. Fewer than `count` where a control starts no rerun.
    """
    seconds: list[float] = []
    errors: list[str] = []
    with browser() as chromium, chromium.tab() as tab:
        _open(tab, address, errors)
        for number in range(count):
            buttons, sliders = tab.ask(f"{_LAB} [lab.buttons().length, lab.sliders().length]")
            if not buttons + sliders:
                break
            if sliders and (number % 2 or not buttons):
                tab.ask(f"{_LAB} lab.sliders()[{number * 5 % sliders}].focus()")
                tab.ask(f"{_LAB} window.ended = lab.rerun(() => 0, {_LIMIT}), 0")
                tab.press("ArrowRight" if number % 4 else "ArrowLeft")
                result = tab.ask("window.ended")
            else:
                result = tab.ask(f"{_LAB} lab.rerun(() => lab.buttons()[{number * 7 % buttons}].click(), {_LIMIT})")
            if result:
                seconds.append(result[0] / 1000)
                errors += [result[1]] if result[1] else []
    return seconds, errors


def uploads(address: str, pictures: Sequence[Path]) -> tuple[list[float], list[str]]:
    """Search with pictures of one's own, one after the other, and time each until its results are drawn.

    Args:
        address: of the page that waits for a picture.
        pictures: image files.
    """
    seconds: list[float] = []
    errors: list[str] = []
    with browser() as chromium, chromium.tab() as tab:
        for picture in pictures:
            _open(tab, address, errors)
            tab.ask(f"{_LAB} lab.until(() => lab.all('input[type=file]', lab.main()).length, {_LIMIT})")
            shown = "() => lab.drawn() && lab.all('.pl-tile', lab.main()).length > 0"
            tab.ask(f"{_LAB} window.ended = lab.rerun(() => 0, {_LIMIT}, {_LIMIT}, {shown}), 0")
            tab.choose_file("lab.all('input[type=file]', lab.main())[0]", picture)
            result = tab.ask("window.ended")
            if not result or result[0] >= _LIMIT:
                raise RunError(f"The page {address} showed no result for {picture.name}.")
            seconds.append(result[0] / 1000)
            errors += [result[1]] if result[1] else []
    return seconds, errors
