"""A served dashboard and a browser that may ask only it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import urlparse

import pytest

from pddm_lab.dashboard_server import browser_args, find_browser, served_dashboard


@pytest.fixture(scope="session")
def address(digits_run) -> Iterator[str]:
    """The dashboard, served on the root that holds the run on digits."""
    with served_dashboard(digits_run.path.parent) as found:
        yield found


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """A Chromium that nobody sees."""
    path = find_browser()
    reason = "needs Chromium or Chrome on the PATH" if path is None else ""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        reason = "needs playwright: pip install -e '.[dev]'"
    if reason and os.environ.get("PDDM_LAB_REQUIRE_BROWSER"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=browser_args())
        yield launched
        launched.close()


@pytest.fixture
def page(browser, address: str) -> Iterator:
    """A laptop's window that may ask this server only."""
    opened = browser.new_page(viewport={"width": 1280, "height": 800})
    outside: list[str] = []
    near = urlparse(address).netloc

    def guard(route) -> None:
        if urlparse(route.request.url).netloc == near:
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    opened.route(re.compile("^(https?|wss?)://"), guard)
    opened.set_default_timeout(30_000)
    yield opened
    opened.close()
    assert outside == []
