"""What an engineer does on the Catalogue page: drop a photo, find it, take it back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from walking import wait_until_drawn

from pddm_lab.runs.run import CATALOGUE, Run


@pytest.fixture
def copy(digits_run) -> Iterator[Run]:
    """A copy of the run on digits, to be changed."""
    path = digits_run.path.parent / "shop"
    shutil.copytree(digits_run.path, path)
    yield Run.open(path)
    while path.exists():  # a map may still be drawn in it
        shutil.rmtree(path, ignore_errors=True)


def test_a_person_drops_a_photo_finds_it_and_takes_it_back(page, address: str, copy: Run, tmp_path: Path) -> None:
    before = copy.gallery(CATALOGUE).items["id"].tolist()
    photo = tmp_path / "mug.png"
    Image.linear_gradient("L").convert("RGB").save(photo)
    page.goto(f"{address}/catalogue?run=shop")
    wait_until_drawn(page)
    page.locator("input[type=file]").set_input_files(photo)
    page.get_by_text("mug.png").wait_for()
    wait_until_drawn(page)
    field = page.get_by_test_id("stForm").get_by_role("combobox")
    field.click()
    field.fill("mugs")
    field.press("Enter")
    page.get_by_role("button", name="Add to the catalogue").click()
    page.get_by_text("Added 1 picture to mugs, a new class.").wait_for()
    wait_until_drawn(page)
    assert page.locator('.pl-tile[data-pick="mugs/mug.png"]').count() == 1

    page.get_by_role("link", name="Search with the new picture").click()
    page.get_by_role("heading", name="Search", exact=True).wait_for()
    wait_until_drawn(page)
    assert "mugs" in page.get_by_test_id("stMain").inner_text()

    page.go_back()
    page.get_by_role("heading", name="Catalogue", exact=True).wait_for()
    wait_until_drawn(page)
    page.get_by_role("button", name="Undo the last").click()
    page.get_by_text("Undone: added 1 item.").wait_for()
    wait_until_drawn(page)
    assert copy.gallery(CATALOGUE).items["id"].tolist() == before
