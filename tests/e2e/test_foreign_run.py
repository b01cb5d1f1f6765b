"""A run made elsewhere, in a real browser: nothing is fetched from outside, and no text of the run becomes a link."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from foreign_run import HOST, NAME, foreign_run
from walking import go, violations, wait_until_drawn

from pddm_lab.dashboard_server import PAGES, THEMES, page_url, served_dashboard

UPLOADER = ("presentation-role-conflict", "stFileUploaderDropzone")
"""Of Streamlit's own file uploader: its drop zone has a label and no role."""
ELSEWHERE = """[...document.querySelectorAll("a, img, iframe, link, script")].map((one) => one.href ?? one.src)
    .filter((address) => address && !address.startsWith(location.origin) && !/^(data|blob):/.test(address))"""

IN_THEME = """theme => getComputedStyle(document.querySelector("[data-testid=stApp]")).colorScheme === theme
    && !document.getAnimations().some((one) => one instanceof CSSTransition)"""
"""Whether a page has the colours of a theme, and not some on the way to them."""


def test_no_page_asks_another_server_and_axe_finds_nothing(laptop, digits_run, tmp_path: Path) -> None:
    foreign_run(digits_run.path, tmp_path)
    with served_dashboard(tmp_path) as served:
        requests: list[str] = []
        barriers: list[tuple[str, ...]] = []
        page = laptop.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_url(served, next(iter(PAGES)), NAME))
        for name, spec in PAGES.items():
            if name == "audit":  # its first view takes longer than all pages
                page.goto(f"{page_url(served, name, NAME)}&view=licences")
                wait_until_drawn(page)
            else:
                go(page, spec.title)
            assert page.get_by_text("Attribution", exact=True).count(), "the run is open"
            assert page.evaluate(ELSEWHERE) == [], name
            assert page.get_by_test_id("stException").count() == 0
            assert page.title().startswith(PAGES[name].title) and NAME in page.title()
            for theme in THEMES:
                page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
                page.wait_for_function(IN_THEME, arg=theme)
                rules = () if theme == THEMES[0] else ("color-contrast",)  # a theme changes nothing but colours
                left = [one for one in violations(page, rules) if not (one[0] == UPLOADER[0] and UPLOADER[1] in one[1])]
                barriers += [(name, theme, *one) for one in left]
        page.close()
    assert barriers == []
    assert [url for url in requests if not url.startswith((served, "data:", "blob:"))] == []


def test_the_policy_lets_a_page_fetch_from_this_server_only(page, address: str) -> None:
    with urllib.request.urlopen(address) as response:
        policy = response.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.goto(f"{address}/search?run=digits")
    wait_until_drawn(page)
    assert not [text for text in messages if "Content Security Policy" in text], (
        "the dashboard itself needs nothing that the policy refuses"
    )
    with page.expect_console_message(lambda message: HOST in message.text):
        page.evaluate(f"document.body.append(Object.assign(new Image(), {{ src: 'http://{HOST}/a.png' }}))")
