"""Reports of benchmarks, and the run that they measure on."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from pddm_lab.bench import dashboard, load, synthetic
from pddm_lab.bench.report import Measure, machine
from pddm_lab.commands.bench import show
from pddm_lab.runs.run import Run


def test_a_measure_is_judged_by_its_target() -> None:
    assert Measure("a", 0.5, "s", 0.5).verdict == "met"
    assert Measure("a", 0.51, "s", 0.5).verdict == "missed"
    assert Measure("a", math.nan, "s", 0.5).verdict == "missed"
    assert Measure("a", 9.0, "s").verdict == ""
    assert Measure("reruns", 0.12345, "s", 1.0, "9 reruns").row() == ("reruns", "0.123 s", "<= 1 s", "met", "9 reruns")


def test_measurements_are_shown_with_the_machine_and_written_as_json(tmp_path: Path, capsys) -> None:
    facts = machine()
    assert facts["cores"] >= 1 and facts["torch"]
    file = tmp_path / "measures.json"
    show("dashboard", [Measure("memory", 1200.0, "MB", 1500.0), Measure("rerun", math.nan, "s", 1.0)], facts, str(file))
    output = capsys.readouterr().out
    assert "1,200 MB" in output and "Missed: rerun." in output and f"torch {facts['torch']}" in output
    kept = json.loads(file.read_text())
    assert [one["verdict"] for one in kept["measures"]] == ["met", "missed"]
    assert kept["measures"][1]["value"] is None and kept["machine"]["cores"] == facts["cores"]


@pytest.mark.parametrize("protocol", ["unseen", "known"])
def test_a_gallery_is_drawn_in_the_real_format(digits_run, tmp_path: Path, protocol: str) -> None:
    shutil.copytree(digits_run.path, tmp_path / "bench", ignore=shutil.ignore_patterns("gallery"))
    run, pictures = Run.open(tmp_path / "bench"), tmp_path / "pictures"
    synthetic.draw_pictures(pictures)
    synthetic._write_gallery(run, pictures, protocol, 120)
    gallery = run.gallery(protocol)
    assert len(gallery) == 120
    np.testing.assert_allclose(np.linalg.norm(gallery.features, axis=1), 1, rtol=1e-5)
    assert set(gallery.items["role"]) == ({"both"} if protocol == "unseen" else {"query", "gallery"})
    assert (pictures / gallery.items["id"].iloc[7]).is_file()
    assert gallery.thumb(7)[:2] == b"\xff\xd8"
    spread = gallery.distributions["pddm"]
    assert 0 < spread.pairs_scored <= spread.pairs_total
    nearest, _ = gallery.search(np.array(gallery.features[:40]), 2)
    labels = gallery.items["label"].to_numpy()
    right = (labels[nearest[:, -1]] == labels[:40]).mean()
    assert right > 0.5, "items of a class lie together"


def test_openings_and_failed_reruns_are_left_out_of_the_times(capsys) -> None:
    visits = [
        {"page": "runs", "what": "open", "seconds": 9.0, "error": ""},
        {"page": "runs", "what": "Metric", "seconds": 0.2, "error": ""},
        {"page": "map", "what": "Scale", "seconds": 0.1, "error": "KeyError: x"},
    ]
    assert dashboard._by_page(visits) == {"runs": [0.2]}
    log: list[str] = []
    assert dashboard._errors(visits, log.append) == 1
    assert log == ["error: map, Scale: KeyError: x"]
    assert math.isnan(dashboard._percentile([], 95))
    assert dashboard._percentile([1.0, 2.0, 3.0], 50) == 2.0


@pytest.mark.parametrize(("growth", "verdict"), [(0.0, "met"), (20.0, "missed")])
def test_growth_is_measured_after_the_warm_up(growth: float, verdict: str) -> None:
    minutes = np.linspace(0, 10, 301)
    samples = [
        load.Sample(minute, 300 + 100 * min(minute, 3) + growth * minute + (-1) ** number, 2.0)
        for number, minute in enumerate(minutes)
    ]
    visits = [
        {"page": "audit", "what": "open", "seconds": 4.0, "error": ""},
        {"page": "runs", "what": "Metric", "seconds": 0.2, "error": ""},
        {"page": "map", "what": "Scale", "seconds": 120.0, "error": "not finished after 120 s"},
        {"page": "map", "what": "Scale", "seconds": 0.1, "error": "KeyError: x"},
    ]
    log: list[str] = []
    of = {measure.what: measure for measure in load.report(visits, samples, log.append)}
    assert of["growth of memory"].verdict == verdict
    assert of["growth of memory"].value == pytest.approx(growth, abs=0.1)
    assert of["memory at the end"].value == pytest.approx(600 + 9.65 * growth, abs=2)
    assert of["requests"].value == 4 and of["requests that timed out"].value == 1
    assert of["requests with another error"].value == 1 and len(log) == 2
    assert (of["the slowest request"].value, of["the slowest request"].over) == (4.0, "audit: open")


def test_peak_memory_of_tensors_is_counted() -> None:
    import torch

    from pddm_lab.bench.timing import tensor_memory

    def work() -> None:
        for _ in range(3):  # each is freed before the next is created
            large = torch.zeros(2**20)
            small = large[: 2**18].clone()
            del large, small

    assert tensor_memory(work) == 4 + 1
