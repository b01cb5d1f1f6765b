"""What a person does in the dashboard, in a real browser, on a real run: look through it, follow a link, search."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlparse

from walking import go, metric, query

from pddm_lab.figures import METRICS
from pddm_lab.serving import settle


def test_a_person_looks_through_the_pages_and_follows_a_link(page, address: str, digits_run) -> None:
    measured = digits_run.info["metrics"]["unseen"]["pddm"]
    page.goto(f"{address}/?run=digits")
    settle(page)
    row = page.locator(".pl-table").first.locator("tr").filter(has_text="PDDM")
    expected = [METRICS[name].format(measured[name]) for name in METRICS if name in measured]
    assert [text for text in row.locator("td").all_inner_texts() if text != "–"] == expected
    assert page.get_by_test_id("stPlotlyChart").locator(".trace, .scatterlayer").count() > 0

    go(page, "Similarity")
    before = metric(page, "TPR")
    slider = page.get_by_role("slider").first
    slider.focus()
    slider.press("End")
    page.wait_for_function(
        "before => document.querySelector('[data-testid=stMetricValue]').innerText != before", arg=before
    )
    settle(page)
    after, link = metric(page, "TPR"), page.url
    assert after == "100.0 %"
    assert float(query(page)["left_euclidean"]) == float(slider.get_attribute("max"))
    page.goto("about:blank")
    page.goto(link)
    settle(page)
    assert metric(page, "TPR") == after

    go(page, "Quadruplets")
    assert page.locator(".pl-quad").count() == 12
    assert all(
        page.locator(".pl-quad img").evaluate_all("all => all.map(one => one.naturalWidth > 0 && one.alt != '')")
    )
    first = page.locator(".pl-quad").first.inner_text()
    page.get_by_test_id("stPagination").get_by_text("2", exact=True).click()
    page.wait_for_function("first => document.querySelector('.pl-quad').innerText != first", arg=first)
    assert query(page)["page"] == "2"


def test_a_person_searches_by_picking_by_key_and_by_upload(page, address: str, digits_run, tmp_path: Path) -> None:
    gallery = digits_run.gallery("known")
    queries = gallery.items.loc[gallery.rows("query"), "id"].tolist()
    page.goto(f"{address}/search?run=digits&protocol=known&item={queries[0]}")
    settle(page)
    results = page.locator(".pl-tile:has(.pl-rank)")
    assert results.count() == 24
    assert queries[0] not in results.evaluate_all("all => all.map(one => one.dataset.pick)")

    page.keyboard.press("n")
    page.wait_for_function("item => decodeURIComponent(location.search).includes(item)", arg=queries[1])
    settle(page)
    other = page.locator(".pl-small .pl-tile").nth(2)
    picked = other.get_attribute("data-pick")
    other.press("Enter")
    page.wait_for_function("item => decodeURIComponent(location.search).includes(item)", arg=picked)
    settle(page)
    assert page.get_by_text(picked, exact=True).count() == 1

    page.get_by_role("radio", name="Upload an image").click()
    wanted = str(gallery.items.loc[gallery.rows("gallery")[7], "id"])
    page.locator("input[type=file]").set_input_files(Path(digits_run.info["dataset"]["root"]) / wanted)
    page.get_by_text("Its class is unknown").wait_for()
    settle(page)
    nearest = page.locator(".pl-tile:has(.pl-rank)").first
    assert nearest.get_attribute("data-pick") == wanted
    assert re.search(r"D 0\.0\d", nearest.inner_text())

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    page.locator("input[type=file]").set_input_files(broken)
    page.get_by_test_id("stAlert").wait_for()
    assert "is not a readable picture" in page.get_by_test_id("stAlert").inner_text()


def test_the_server_listens_on_this_machine_only_and_reports_to_nobody(address: str) -> None:
    import psutil

    port = urlparse(address).port
    assert {
        one.laddr.ip for one in psutil.net_connections("tcp") if one.laddr.port == port and one.status == "LISTEN"
    } == {"127.0.0.1"}


def test_the_config_beside_the_script_takes_effect(digits_run, tmp_path: Path) -> None:
    import subprocess
    import sys

    from pddm_lab.notebook import shipped

    code = (
        "import json, sys\nfrom streamlit import config\nfrom streamlit.web import bootstrap\n"
        "config._main_script_path = sys.argv[1]\nbootstrap.load_config_options({})\n"
        "names = ('server.address', 'browser.gatherUsageStats', 'client.toolbarMode')\n"
        "print(json.dumps({name: config.get_option(name) for name in names}))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(shipped("dashboard/app.py"))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(said.stdout.splitlines()[-1]) == {
        "server.address": "127.0.0.1", "browser.gatherUsageStats": False, "client.toolbarMode": "minimal",
    }  # fmt: skip
