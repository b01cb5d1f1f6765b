"""The benchmark's sessions use every control of every page, and its pages time themselves in a browser."""

from __future__ import annotations

import time

import pytest

from pddm_lab.bench import dashboard, pages
from pddm_lab.dashboard_server import PAGES


@pytest.mark.slow
def test_sessions_use_every_page_without_an_error(address: str, digits_run) -> None:
    visits = dashboard._attend(address, digits_run, sessions=2, reruns=2, mixed=True)
    assert [(one["page"], one["what"], one["error"]) for one in visits if one["error"]] == []
    assert {one["page"] for one in visits} == set(PAGES)
    assert sum(one["what"] != "open" for one in visits) == 2 * 2 * len(PAGES)
    assert all(0 < one["seconds"] < 120 and one["bytes"] > 0 for one in visits)


@pytest.mark.slow
def test_sessions_stay_for_the_minutes_of_their_plan(address: str, digits_run) -> None:
    start = time.monotonic()
    visits = dashboard._attend(address, digits_run, pages=["runs"], reruns=1, minutes=0.1)
    assert [one["error"] for one in visits if one["error"]] == []
    assert len(visits) > 2 and time.monotonic() - start > 6  # one round is two visits


def test_a_page_that_is_not_there_is_an_error(address: str, digits_run) -> None:
    visits = dashboard._attend(address, digits_run, pages=["runs", "nowhere"], reruns=1)
    assert any("no page nowhere" in one["error"] for one in visits)


@pytest.mark.slow
def test_a_page_times_itself(browser, address: str, digits_run) -> None:
    loads = pages.Loads("similarity")
    pages.load(browser.browser_type, f"{address}/similarity?run={digits_run.name}", loads, repeats=1)
    assert 0 < loads.written[0] <= loads.drawn[0] < 60
    assert 0 < loads.cold_written <= loads.cold_drawn < 60
    assert loads.errors == []
    seconds, errors = pages.reruns(browser.browser_type, f"{address}/runs?run={digits_run.name}", 3)
    assert 2 <= len(seconds) <= 3, "a control may start no rerun"
    assert all(0 < one < 60 for one in seconds) and errors == []
