"""What a person does with pairs in a real browser: drag a threshold, look at its pairs, find where two disagree."""

from __future__ import annotations

import io
import json
import re
import zipfile
from urllib.parse import parse_qs, urlparse

import numpy as np
import pandas as pd
import pytest
from walking import metric, query, wait_until_drawn


def picked(page) -> list[str]:
    return parse_qs(urlparse(page.url).query).get("pair", [])


@pytest.mark.slow
def test_a_person_finds_pairs_on_which_two_similarities_disagree(page, address: str, digits_run) -> None:
    gallery = digits_run.gallery("known")
    features = dict(zip(gallery.items["id"], gallery.features.astype(float), strict=True))
    labels = dict(zip(gallery.items["id"], gallery.items["label"], strict=True))

    def distance(pair) -> float:
        return float(np.linalg.norm(features[pair[0]] - features[pair[1]]))

    # A threshold, dragged by key: its rates move, and the pairs either side of it are those that the files have there.
    page.goto(f"{address}/similarity?run=digits&protocol=known")
    wait_until_drawn(page)
    before = metric(page, "TPR")
    slider = page.get_by_role("slider").first
    slider.focus()
    for _ in range(8):
        slider.press("ArrowLeft")
    page.wait_for_function(
        "before => document.querySelector('[data-testid=stMetricValue]').innerText != before", arg=before
    )
    wait_until_drawn(page)
    threshold = float(query(page)["left_euclidean"])
    assert threshold == float(slider.input_value())
    strips = page.locator(".pl-strip")
    for place, positive in ((0, True), (1, False)):
        pairs = [json.loads(pick) for pick in strips.nth(place).locator(".pl-pair").evaluate_all(
            "all => all.map(one => one.dataset.pick)")]  # fmt: skip
        assert len(pairs) == 10
        assert all((labels[a] == labels[b]) == positive for a, b in pairs)
        assert [distance(pair) <= threshold for pair in pairs] == [False] * 5 + [True] * 5
    images = page.locator(".pl-strip img")
    assert all(images.evaluate_all("all => all.map(one => one.naturalWidth > 0 && one.alt != '')"))

    # One against the other: the quadrants, as the plot's thresholds have it.
    page.get_by_role("radio", name="One against another").click()
    page.locator(".pl-quadrants").wait_for()
    wait_until_drawn(page)
    assert float(query(page)["left_euclidean"]) == threshold, "the threshold holds in every view"
    page.get_by_role("radio", name="Only Euclidean accepts").click()
    page.wait_for_function("location.search.includes('quadrant=x')")
    wait_until_drawn(page)
    count = int(page.locator(".pl-quadrant").nth(3).locator("b").nth(0).inner_text().replace(",", ""))
    count += int(page.locator(".pl-quadrant").nth(3).locator("b").nth(1).inner_text().replace(",", ""))
    assert page.get_by_text(f"{count:,} of ").count() == 1
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
        page.get_by_role("button", name="CSV").click()
    archive = zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes()))
    taken = pd.read_csv(archive.open("pairs-of-quadrant.csv"))
    manifest = json.loads(archive.read("manifest.json"))
    assert len(taken) == manifest["rows"] == count and manifest["runs"][0]["name"] == "digits"
    assert (taken["euclidean_distance"] <= threshold).all() and (
        taken["pddm"] < manifest["settings"]["threshold_y"]
    ).all()
    page.keyboard.press("Escape")

    # A card is picked by key, shown large and marked in the plot; a link to it opens the same.
    card = page.locator(".pl-pairs .pl-pair").first
    pair = json.loads(card.get_attribute("data-pick"))
    assert set(pair) == set(taken.loc[0, ["item_a", "item_b"]])
    card.press("Enter")
    page.wait_for_function("location.search.includes('pair=')")
    wait_until_drawn(page)
    assert picked(page) == pair
    shown = page.locator(".pl-facts").filter(has_text="Mahalanobis").inner_text()
    assert f"{distance(pair):.3f} · accepted" in shown
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    wait_until_drawn(page)
    assert page.locator(".pl-facts").filter(has_text="Mahalanobis").inner_text() == shown
    assert page.locator(".legendtext", has_text="picked pair").count() == 1

    # A point of the plot is clicked; from its pair, on to a search with one of its items.
    page.locator(".js-plotly-plot path.point").nth(700).click(force=True)
    page.wait_for_function("old => !location.search.includes(encodeURIComponent(old))", arg=f"{pair[0]}&pair={pair[1]}")
    page.wait_for_function("old => location.href != old", arg=link)
    wait_until_drawn(page)
    other = picked(page)
    assert len(other) == 2 and set(other) != set(pair)
    page.get_by_test_id("stMain").get_by_test_id("stPageLink-NavLink").first.click()
    page.get_by_role("heading", name="Search", exact=True).wait_for()
    wait_until_drawn(page)
    assert query(page)["item"] == other[0] and query(page)["protocol"] == "known"


def test_a_person_reads_what_density_does_to_a_threshold(page, address: str, digits_run) -> None:
    page.goto(f"{address}/similarity?run=digits&view=density")
    wait_until_drawn(page)
    for title in ("The numbers", "Distributions and ROC by density"):
        page.get_by_text(title, exact=True).click()
        wait_until_drawn(page)
    page.get_by_role("radio", name="ROC").wait_for()
    text = page.get_by_test_id("stMain").inner_text()
    assert text.count("Euclidean: ") == text.count("PDDM: ") == 2
    table = page.locator(".pl-thirds").first
    rows = [cells for row in table.locator("tbody tr").all() if len(cells := row.locator("td").all_inner_texts())]
    sparse = re.match(r"([\d.]+)", rows[2][0])
    assert sparse and f"and {sparse[1]} % in the sparse third" in text
    page.get_by_role("radio", name="ROC").click()
    page.wait_for_function("location.search.includes('curves=roc')")
    wait_until_drawn(page)
    assert page.locator(".legendtext", has_text="dense").count() == 4
