"""What a person reads and does on a page."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs, urlparse

from axe_playwright_python.sync_playwright import Axe

from pddm_lab import dashboard_server

PATIENCE = 240_000
"""Milliseconds that a page may take for anything on a machine that is busy with other work."""
ASKED = """(() => {
  // Whether the server has answered what this page asked for last: a script began after that, and ended.
  window.asked = { answered: false }
  let begun = false
  function hear(event) {
    const bytes = new Uint8Array(event.data)
    let at = 0
    function number() {
      let value = 0, scale = 1, byte
      do { byte = bytes[at++]; value += (byte & 127) * scale; scale *= 128 } while (byte & 128)
      return value
    }
    while (at < bytes.length) {  // the fields of a ForwardMsg: numbers, and parts with their lengths
      const tag = number(), field = Math.floor(tag / 8), value = number()
      if (tag % 8 === 2) at += value
      if (field === 4) begun = true  // new_session
      if (field === 6 && value !== 2 && begun) asked.answered = true  // script_finished, not early for another
    }
  }
  const send = WebSocket.prototype.send, heard = new WeakSet()
  WebSocket.prototype.send = function (data) {
    if (data[0] === 90) {  // a BackMsg with rerun_script
      asked.answered = begun = false
      if (!heard.has(this)) this.addEventListener("message", hear)
      heard.add(this)
    }
    return send.call(this, data)
  }
})()"""
"""Runs in every page of the dashboard before its own scripts do."""


def wait_until_drawn(page) -> None:
    """Wait until the server has done what the page asked for, and the page is drawn."""
    page.wait_for_function("!window.asked || asked.answered")
    dashboard_server.wait_until_drawn(page)


def query(page) -> dict[str, str]:
    """The choices in the page's URL."""
    return {name: values[0] for name, values in parse_qs(urlparse(page.url).query).items()}


def go(page, name: str) -> None:
    """Follow the navigation to a page."""
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=name).click()
    page.get_by_role("heading", name=name, exact=True).wait_for()
    wait_until_drawn(page)
    assert page.get_by_test_id("stException").count() == 0


def violations(page, rules: Sequence[str] = ()) -> list[tuple[str, str]]:
    """What axe finds on a page, by some of its rules or by all: (rule, element)."""
    options: dict = {"resultTypes": ["violations"]}  # of what passes, one element each is enough
    if rules:
        options["runOnly"] = {"type": "rule", "values": list(rules)}
    results = Axe().run(page, options=options).response["violations"]
    return [(one["id"], node["html"][:200]) for one in results for node in one["nodes"]]


def metric(page, label: str, number: int = 0) -> str:
    """A number the page shows large."""
    return (
        page.get_by_test_id("stMetric").filter(has_text=label).nth(number).get_by_test_id("stMetricValue").inner_text()
    )
