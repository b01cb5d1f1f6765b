"""What a person does in the dashboard, in a real browser, on a real run: look through it, follow a link."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlparse

from walking import go, metric, query, wait_until_drawn

from pddm_lab.figures import METRICS


def test_a_person_looks_through_the_pages_and_follows_a_link(page, address: str, digits_run) -> None:
    measured = digits_run.info["metrics"]["unseen"]["pddm"]
    page.goto(f"{address}/runs?run=digits")
    wait_until_drawn(page)
    row = page.locator(".pl-table").first.locator("tr").filter(has_text="PDDM")
    folded = [f"recall@{k}" for k in (2, 4, 8, 16, 32)]
    expected = [METRICS[name].format(measured[name]) for name in METRICS if name in measured and name not in folded]
    *shown, _ = row.first.locator("td").all_inner_texts()  # the last one is the difference to D
    assert [text for text in shown if text != "–"] == expected
    assert page.get_by_test_id("stPlotlyChart").locator(".trace, .scatterlayer").count() > 0

    go(page, "Similarity")
    before = metric(page, "TPR")
    slider = page.get_by_role("slider").first
    slider.focus()
    slider.press("End")
    page.wait_for_function(
        "before => document.querySelector('[data-testid=stMetricValue]').innerText != before", arg=before
    )
    wait_until_drawn(page)
    after, link = metric(page, "TPR"), page.url
    assert after == "100.0 %"
    assert float(query(page)["left_euclidean"]) == float(slider.get_attribute("max"))
    page.goto("about:blank")
    page.goto(link)
    wait_until_drawn(page)
    assert metric(page, "TPR") == after


def test_the_server_listens_on_this_machine_only_and_reports_to_nobody(address: str) -> None:
    import psutil

    port = urlparse(address).port
    assert {
        one.laddr.ip for one in psutil.net_connections("tcp") if one.laddr.port == port and one.status == "LISTEN"
    } == {"127.0.0.1"}


def test_the_config_beside_the_script_takes_effect(digits_run, tmp_path: Path) -> None:
    import subprocess
    import sys

    from pddm_lab.files import shipped

    code = (
        "import json, sys\nfrom streamlit import config\nfrom streamlit.web import bootstrap\n"
        "config._main_script_path = sys.argv[1]\nbootstrap.load_config_options({})\n"
        "names = ('server.address', 'browser.gatherUsageStats', 'client.toolbarMode')\n"
        "print(json.dumps({name: config.get_option(name) for name in names}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(shipped("dashboard/app.py"))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(result.stdout.splitlines()[-1]) == {
        "server.address": "127.0.0.1", "browser.gatherUsageStats": False, "client.toolbarMode": "minimal",
    }  # fmt: skip
