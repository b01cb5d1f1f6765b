"""The Runs page as a person uses it: tick runs, average their seeds, write a note, start a training and stop it."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from walking import query, wait_until_drawn

from pddm_lab.dashboard_server import served_dashboard
from pddm_lab.runs.compare import list_runs
from pddm_lab.runs.run import Run


@pytest.fixture(scope="module")
def root(digits_run, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A runs' root with the run on digits, and one of another seed that scored somewhat lower."""
    folder = tmp_path_factory.mktemp("seeds")
    for name in ("digits", "other"):
        shutil.copytree(digits_run.path, folder / name)
    info = json.loads((folder / "other" / "run.json").read_text())
    info["config"]["seed"], info["name"] = 1, "other"
    for similarities in info["metrics"].values():
        for values in similarities.values():
            values["recall@1"] *= 0.9
    (folder / "other" / "run.json").write_text(json.dumps(info))
    before = os.environ.get("PDDM_LAB_DATA")
    os.environ["PDDM_LAB_DATA"] = str(data_root)
    yield folder
    os.environ.pop("PDDM_LAB_DATA")
    if before:
        os.environ["PDDM_LAB_DATA"] = before


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with served_dashboard(root) as address:
        yield address


def first_value(page, similarity: str) -> str:
    row = page.locator(".pl-table").first.locator("tr").filter(has_text=similarity).first
    return row.locator("td").filter(has_text=re.compile(r"\d")).first.inner_text().replace("\n", " ")


@pytest.mark.slow
def test_a_person_ticks_runs_averages_seeds_and_writes_a_note(page, address: str, root: Path) -> None:
    page.goto(f"{address}/runs?run=digits")
    wait_until_drawn(page)
    names = [run.name for run in list_runs(root)]
    grid = page.get_by_test_id("stDataFrame").first.bounding_box()
    page.mouse.click(grid["x"] + 18, grid["y"] + 36 + 33 * names.index("other") + 16)
    page.wait_for_function("location.search.includes('beside=other')")
    wait_until_drawn(page)
    assert page.locator(".pl-table").first.locator(".pl-run").all_inner_texts() == ["digits", "other"]

    page.get_by_text("mean ± deviation").click()
    page.wait_for_function("location.search.includes('seeds=mean')")
    wait_until_drawn(page)
    values = [100 * Run.open(root / name).info["metrics"]["unseen"]["pddm"]["recall@1"] for name in ("digits", "other")]
    expected = f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
    assert first_value(page, "PDDM") == expected
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    wait_until_drawn(page)
    assert first_value(page, "PDDM") == expected
    assert query(page)["run"] == "digits"

    field = page.get_by_label("other", exact=True)
    field.fill("A tenth less, to see a spread.")
    field.press("Control+Enter")
    page.get_by_text("A tenth less").nth(0).wait_for()
    end = time.monotonic() + 120
    while not Run.open(root / "other").notes and time.monotonic() < end:
        time.sleep(0.1)
    assert Run.open(root / "other").notes == "A tenth less, to see a spread."


@pytest.mark.slow
def test_a_training_is_started_and_stopped_while_its_features_are_computed(page, address: str, root: Path) -> None:
    page.goto(f"{address}/runs")
    wait_until_drawn(page)
    page.get_by_role("button", name="Train a run").click()
    form = page.get_by_role("dialog")
    form.locator(".st-key-new_data").get_by_role("combobox").click()
    page.get_by_role("option", name="igits").click()
    form.get_by_text("More settings").click()
    form.get_by_label("Name").fill("halted")
    form.get_by_label("Name").press("Tab")
    form.get_by_role("button", name="Start training").click()
    page.get_by_text("is starting").wait_for()
    page.get_by_text("Trunk features").wait_for(timeout=600_000)
    page.get_by_role("button", name="Stop", exact=True).click()
    end = time.monotonic() + 300
    run = Run.open(root / "halted")
    while run.status == "running" and time.monotonic() < end:
        time.sleep(0.2)
        run = Run.open(root / "halted")
    assert (run.status, run.reason, run.info["step"]) == ("stopped", "Stopped on request.", 0)
    counts = [len(load_file(file)["hashes"]) for file in (root / ".features").glob("*.safetensors")]
    assert max(counts, default=0) < run.info["dataset"]["items"], "it did not wait for the rest of them"
    page.goto(f"{address}/runs?run=halted")
    page.get_by_text("Stopped on request.").wait_for()
    page.get_by_role("button", name="Resume").wait_for()
