"""What a person does on the Quadruplets page: why a card is there, confused classes, suspects to download."""

from __future__ import annotations

import io
import json
import re
import zipfile
from urllib.parse import parse_qs, urlparse

import pandas as pd
from walking import query, wait_until_drawn

from pddm_lab.analysis import hardness
from pddm_lab.runs.quadruplets import Mined


def test_a_person_asks_why_follows_a_picture_and_finds_confused_classes(page, address: str, digits_run) -> None:
    mined = Mined.of(digits_run.mined())
    page.goto(f"{address}/quadruplets?run=digits")
    wait_until_drawn(page)
    assert page.locator(".pl-quad").count() == 12
    assert all(
        page.locator(".pl-quad img").evaluate_all("all => all.map(one => one.naturalWidth > 0 && one.alt != '')")
    )
    hardest = mined.ordered(mined.pick("refit"), "violation")
    worst = mined.frame(hardest[:1]).iloc[0]
    card = page.locator(".pl-quad").first
    assert f"by {max(worst['slack_ik'], worst['slack_jl']):.2f}" in card.inner_text()
    card.locator("summary").press("Enter")
    assert f"the least similar of {mined.positives(hardest[:1])[0]:.0f} positives" in card.locator("dl").inner_text()

    page.get_by_test_id("stPagination").get_by_text("2", exact=True).click()
    page.wait_for_url(re.compile("page=2"))
    wait_until_drawn(page)
    steps = [int(text.removeprefix("step ")) for text in page.locator(".pl-quad figcaption").all_inner_texts()]
    assert steps == mined.step[hardest[12:24]].tolist()
    picture = page.locator(".pl-quad [data-pick]").nth(1)
    item = picture.get_attribute("data-pick")
    picture.press("Enter")
    page.wait_for_function("item => decodeURIComponent(location.search).includes(item)", arg=item)
    wait_until_drawn(page)
    assert "page" not in query(page)
    link, many = page.url, len(mined.pick("refit", item=item))
    page.goto("about:blank")
    page.goto(link)
    wait_until_drawn(page)
    assert page.get_by_text(f"{many:,} of {len(hardest):,} quadruplets").count() == 1
    page.get_by_role("button", name=f"Only with {item}").click()
    page.wait_for_function("() => !location.search.includes('item')")

    page.get_by_role("radio", name="Confused classes").click()
    page.locator(".pl-mixed").first.wait_for()
    wait_until_drawn(page)
    pairs = hardness.mutual(hardness.confusions(mined, mined.pick("refit")))
    first = pairs.iloc[0]
    text = page.locator(".pl-mixed").first.inner_text()
    assert f"{first['count']:,} times" in text
    assert f"{first['violated']:,} violated" in text
    page.locator(".pl-mixed").first.click()
    page.wait_for_url(re.compile("pair="))
    wait_until_drawn(page)
    assert parse_qs(urlparse(page.url).query)["pair"] == [first["a"], first["b"]]
    both = [first["a"], first["b"]]
    chosen = mined.ordered(mined.pick("refit", own=both, others=both), "violation")
    steps = [int(text.removeprefix("step ")) for text in page.locator(".pl-quad figcaption").all_inner_texts()]
    assert steps == mined.step[chosen[:6]].tolist()


def test_a_person_downloads_the_suspects(page, address: str, digits_run) -> None:
    mined = Mined.of(digits_run.mined())
    table = hardness.suspects(mined, mined.pick("refit"))
    page.goto(f"{address}/quadruplets?run=digits&view=suspects")
    wait_until_drawn(page)
    shown = page.locator(".pl-suspect")
    assert shown.evaluate_all("all => all.map(one => one.dataset.pick)") == table["id"][:12].tolist()
    shown.first.click()
    page.wait_for_url(re.compile("item="))
    wait_until_drawn(page)
    assert page.locator(".pl-quad").count() == min(6, len(mined.pick("refit", item=table["id"][0])))
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="CSV").click()
    with zipfile.ZipFile(waiting.value.path()) as archive:
        downloaded = pd.read_csv(io.BytesIO(archive.read("suspects.csv")), dtype={"class_name": str, "named": str})
        manifest = json.loads(archive.read("manifest.json"))
    pd.testing.assert_frame_equal(downloaded, table, check_dtype=False, rtol=1e-6)
    assert manifest["settings"]["phase"] == "refit"
    assert manifest["settings"]["least_met"] == hardness.LEAST_MET
    assert manifest["rows"] == len(table)
