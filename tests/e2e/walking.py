"""What a person reads and does on a page."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs, urlparse

from axe_playwright_python.sync_playwright import Axe

from pddm_lab.dashboard_server import wait_until_drawn


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
