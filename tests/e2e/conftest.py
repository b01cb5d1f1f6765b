"""A served dashboard and a browser that may ask only it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlparse

import pytest
from walking import ASKED, PATIENCE

from pddm_lab.dashboard_server import browser_options, chromium, served_dashboard
from pddm_lab.errors import RunError


@pytest.fixture(scope="session")
def address(digits_run) -> Iterator[str]:
    """The dashboard, served on the root that holds the run on digits."""
    with served_dashboard(digits_run.path.parent) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A headless Chromium, closed before other files start processes, which would keep its pipes open."""
    with ExitStack() as stack:
        try:
            engine = stack.enter_context(chromium())
        except RunError as error:
            (pytest.fail if os.environ.get("PDDM_LAB_REQUIRE_BROWSER") else pytest.skip)(str(error))
        from playwright.sync_api import expect

        expect.set_options(timeout=PATIENCE)
        launched = engine.launch(**browser_options(), timeout=PATIENCE)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def laptop(browser) -> Iterator:
    """A laptop's browser: its windows share what they have loaded."""
    opened = browser.new_context(viewport={"width": 1280, "height": 800})
    opened.set_default_timeout(PATIENCE)
    opened.add_init_script(ASKED)
    yield opened
    opened.close()


@pytest.fixture
def page(laptop, address: str) -> Iterator:
    """A laptop's window that may ask this server only."""
    opened = laptop.new_page()
    outside: list[str] = []
    near = urlparse(address).netloc

    def guard(route) -> None:
        if urlparse(route.request.url).netloc == near:
            route.continue_()
        else:
            outside.append(route.request.url)
            route.abort()

    opened.route(re.compile("^(https?|wss?)://"), guard)
    yield opened
    opened.close()
    assert outside == []
