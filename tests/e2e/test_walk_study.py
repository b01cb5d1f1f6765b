"""The Runs page's study as a person uses it: open it, choose, tick methods, download a table, see it grow."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from walking import query, wait_until_drawn

from pddm_lab.dashboard_server import served_dashboard


@pytest.fixture(scope="module")
def root(small_study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs' root with a study that lacks the second seed of one method."""
    folder = tmp_path_factory.mktemp("walked")
    shutil.copytree(small_study.path, folder / "studies" / "small")
    (folder / "studies" / "small" / "cells" / "methods-digits-multi_similarity-1.json").unlink()
    return folder


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with served_dashboard(root) as address:
        yield address


@pytest.mark.slow
def test_a_person_opens_an_unfinished_study(page, address: str, root: Path, small_study) -> None:
    page.goto(f"{address}/runs")
    wait_until_drawn(page)
    page.get_by_test_id("stButtonGroup").get_by_text("Study", exact=True).click()
    page.wait_for_function("location.search.includes('view=study')")
    wait_until_drawn(page)
    page.get_by_text("16 of 17 cells").wait_for()
    page.get_by_text("Known classes").click()
    page.wait_for_function("location.search.includes('protocol=known')")
    wait_until_drawn(page)
    page.get_by_role("heading", name="Methods side by side: MAP@R on digits, known classes").wait_for()
    chart = page.locator(".st-key-study_methods")
    assert "best baseline" in chart.inner_text()
    assert {"Euclidean", "Mahalanobis", "PDDM"} <= set(chart.inner_text().split("\n"))

    page.locator(".st-key-study_ticked").get_by_role("combobox").click()
    page.keyboard.press("Backspace")  # the last one that is ticked
    page.wait_for_function("location.search.includes('methods=')")
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    wait_until_drawn(page)
    assert query(page) | {"methods": ""} == {"view": "study", "protocol": "known", "methods": ""}

    page.get_by_role("button", name="Export").first.click()
    with page.expect_download() as caught:
        page.get_by_role("button", name="JSON").click()
    with zipfile.ZipFile(caught.value.path()) as archive:
        rows, manifest = (json.loads(archive.read(name)) for name in ("methods.json", "manifest.json"))
    assert {row["name"] for row in rows} >= {"PDDM+Quadruplet", "Pretrained features"}
    assert manifest["study"]["name"] == "small" and manifest["settings"]["protocol"] == "known"
    page.keyboard.press("Escape")

    name = "methods-digits-multi_similarity-1.json"
    shutil.copy(small_study.path / "cells" / name, root / "studies" / "small" / "cells" / name)
    page.get_by_text("16 of 17 cells").wait_for(state="detached")  # by itself
    assert page.get_by_test_id("stException").count() == 0
