"""What a person reads and does on a page."""

from __future__ import annotations

from urllib.parse import parse_qs, urlparse

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


def metric(page, label: str, number: int = 0) -> str:
    """A number the page shows large."""
    return (
        page.get_by_test_id("stMetric").filter(has_text=label).nth(number).get_by_test_id("stMetricValue").inner_text()
    )
