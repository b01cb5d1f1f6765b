"""What a person does on the Audit page: read what breaks, look at pictures, move the slider, follow a link, search."""

from __future__ import annotations

import re

import numpy as np
import pytest
from walking import go, query, wait_until_drawn


@pytest.mark.slow
def test_a_person_audits_a_run(page, address: str, digits_run) -> None:
    page.goto(f"{address}/runs?run=digits")
    wait_until_drawn(page)
    go(page, "Audit")
    table = page.locator(".pl-audit").first
    table.wait_for()
    rows = table.locator("tbody tr")
    assert [rows.nth(at).locator("th").inner_text() for at in range(4)] == [
        "Euclidean",
        "Cosine",
        "Mahalanobis",
        "PDDM",
    ]
    gallery = digits_run.gallery("unseen")
    assert page.get_by_text(re.compile(f"200 of {len(gallery):,} items against all others")).count() == 1

    page.get_by_role("radio", name="Chains").click()
    page.locator(".pl-set").first.wait_for()
    wait_until_drawn(page)
    assert query(page)["look"] == "chains"
    pictures = page.locator(".pl-set img")
    assert all(pictures.evaluate_all("all => all.map(one => one.naturalWidth > 0 && one.alt != '')"))
    shot = page.locator(".pl-shot").nth(1)
    picked = shot.get_attribute("data-pick")
    shot.focus()
    shot.press("Enter")
    page.get_by_role("link", name="Search with it").wait_for()
    assert query(page)["item"] == picked
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    page.locator(".pl-chosen").first.wait_for()
    page.get_by_role("link", name="Search with it").click()
    page.get_by_role("heading", name="Search", exact=True).wait_for()
    wait_until_drawn(page)
    assert query(page)["item"] == picked

    page.goto(f"{address}/audit?run=digits&view=duplicates&alike=0.9")
    wait_until_drawn(page)
    page.locator(".pl-audit").first.wait_for()
    shown = page.get_by_text(re.compile(r"have a duplicate|None of the"))
    before = shown.first.inner_text()
    slider = page.get_by_role("slider").first
    slider.focus()
    slider.press("End")
    page.wait_for_function("old => !document.body.innerText.includes(old)", arg=before)
    wait_until_drawn(page)
    assert float(query(page)["alike"]) == 1

    page.get_by_role("radio", name="Calibration").click()
    wait_until_drawn(page)
    assert page.get_by_test_id("stPlotlyChart").count() == 2
    errors = page.locator(".pl-audit tbody tr td:nth-child(2)").all_inner_texts()
    assert len(errors) == 4 and all(np.isfinite(float(text.split()[-1])) for text in errors)
