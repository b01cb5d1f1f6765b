"""Drift of a run: what is measured of queries, the command, its file, and logs of scores."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from digit_pictures import write_digits
from drift_example import example
from PIL import Image, ImageOps

from pddm_lab import cli
from pddm_lab.change import drift, drift_text
from pddm_lab.change.drift_schema import read_drift
from pddm_lab.change.signals import Gauge
from pddm_lab.errors import RunError
from pddm_lab.runs.run import Run


@pytest.fixture
def run(local_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of a small run to keep results with, and few streams without drift."""
    monkeypatch.setattr(drift, "STREAMS", 20)
    monkeypatch.setenv("PDDM_LAB_RUNS", str(tmp_path))
    return Run.open(shutil.copytree(local_run.path, tmp_path / "local"))


def negatives(folder: Path) -> Path:
    """Digits in black on white, which the run has never seen, all in one folder."""
    for number, file in enumerate(sorted(write_digits(folder / "source", 8).rglob("*.png"))):
        with Image.open(file) as image:
            (folder / "flat").mkdir(exist_ok=True)
            ImageOps.invert(image).save(folder / "flat" / f"{number:03d}.png")
    return folder / "flat"


def test_signals_are_those_of_a_slow_loop(run: Run) -> None:
    gauge, gallery, known = Gauge.of(run), run.gallery("catalogue"), run.gallery("known")
    trained = set(known.items["id"][known.items["role"] == "gallery"])
    ids, labels = gallery.items["id"].to_numpy(), gallery.items["label"].to_numpy()
    places = gauge.sample()
    assert sorted(ids[places]) == sorted(set(ids) - trained)
    own = gauge.own(places)
    for row, place in enumerate(places[:6]):
        d = {at: float(np.linalg.norm(gallery.features[place] - gallery.features[at])) for at in range(len(ids))}
        del d[place]
        order = sorted(d, key=d.__getitem__)
        assert own.classes is not None and own.classes[row] == labels[order[0]]
        assert own.signals["distance"][row] == pytest.approx(d[order[0]], abs=1e-3)
        assert own.signals["radius"][row] == pytest.approx(np.mean([d[at] for at in order[:10]]), abs=1e-3)
        other = next(d[at] for at in order if labels[at] != labels[order[0]])
        assert own.signals["margin"][row] == pytest.approx(other - d[order[0]], abs=2e-3)
        centres = []
        for label in {labels[at] for at in range(len(ids)) if ids[at] in trained}:
            members = [at for at in range(len(ids)) if ids[at] in trained and labels[at] == label]
            centre = np.mean([gallery.features[at] for at in members], axis=0)
            centres.append(centre / np.linalg.norm(centre))
        expected = max(float(gallery.features[place] @ centre) for centre in centres)
        assert own.signals["familiarity"][row] == pytest.approx(expected, abs=1e-3)
    assert own.in_range is not None and gauge.decision is not None
    np.testing.assert_array_equal(own.in_range, own.signals["probability"] > gauge.decision.least)
    apart = gauge.read(gallery.features[places])
    assert (apart.signals["distance"] < 1e-2).all(), "as queries from outside they are near themselves"


def test_other_pictures_are_drift_and_the_command_says_so(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_drift(run) is None
    cli.main(["drift", "local", "--queries", str(negatives(tmp_path)), "--window", "40"])
    out = capsys.readouterr().out
    kept = read_drift(run)
    assert kept is not None and kept.queries == 80 and kept.window == 40 and kept.is_ordered
    assert drift_text.since(kept) == kept.ends[0] == 12
    assert out.startswith("Drift since query 12: ") and "`pddm-lab gallery add local FOLDER`" in out.splitlines()[0]
    assert drift_text.sentence(kept) in out and kept.signals["distance"].then is not None
    assert {name for name in kept.signals} >= {"distance", "score", "margin", "radius", "familiarity", "features"}
    distances = [far.distance for far in kept.farthest]
    assert len(distances) == drift.FARTHEST and distances == sorted(distances, reverse=True)
    for of in kept.signals.values():
        assert sum(of.share_now) == pytest.approx(sum(of.share_then)) == pytest.approx(1.0 if of.edges else 0.0)


def test_pictures_in_folders_have_no_order(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_digits(tmp_path / "digits", 4)
    (folder / "broken.png").write_bytes(b"no picture")
    cli.main(["drift", "local", "--queries", str(folder), "--window", "40", "--json"])
    printed = json.loads(capsys.readouterr().out)
    kept = read_drift(run)
    assert kept is not None and not kept.is_ordered and kept.queries == printed["queries"] == 40 and kept.skipped == 1
    assert printed["signals"] == json.loads(kept.model_dump_json())["signals"]
    assert "thumb" not in printed["farthest"][0]
    # All of them are in the catalogue.
    assert "in the catalogue already" in drift_text.advice(kept, run)


def log_of(file: Path, own, farther: float, count: int = 60) -> Path:
    """A log of the run's own queries, farther than they are."""
    lines = [
        json.dumps({
            "time": at, "distance": own.signals["distance"][at] + farther, "margin": own.signals["margin"][at],
            "probability": own.signals["probability"][at], "in_range": bool(own.in_range[at]),
        })
        for at in range(count)
    ]  # fmt: skip
    other = json.dumps({"request": "8e1f", "path": "/v1/items", "status": 200})
    banner, warning = "Serving local at http://127.0.0.1:8000/v1, described in /openapi.json.", "[warn] slow"
    file.write_text("\n".join([banner, other, warning, "", *lines]) + "\n")
    return file


def test_a_log_of_scores_is_compared_by_its_scores(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gauge = Gauge.of(run)
    own = gauge.own(gauge.sample())
    cli.main(["drift", "local", "--log", str(log_of(tmp_path / "own.jsonl", own, 0.0)), "--window", "40"])
    assert capsys.readouterr().out.startswith("No drift: the 60 queries are like the run's own")
    cli.main(["drift", "local", "--log", str(log_of(tmp_path / "far.jsonl", own, 1.0)), "--window", "40"])
    assert capsys.readouterr().out.startswith("Drift since query 12: ")
    kept = read_drift(run)
    assert kept is not None and kept.kind == "log" and not kept.farthest
    assert set(kept.signals) == {"distance", "margin", "probability", "features"}
    assert kept.signals["margin"].ratios[0] < 1 < kept.signals["distance"].ratios[0]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"distance": 1', "Line 1 of .*: the line: .*Expected an object with distance, margin"),
        ('a warning\n\n {"distance": 1', "Line 3 of .*: the line: .*Expected an object with distance, margin"),
        ("Serving local at http://127.0.0.1:8000/v1.", "has no lines with scores: expected a log of scores"),
        ('{"distance": -1, "margin": 0, "probability": 0.5, "in_range": true}', "Line 1 of .*: distance: "),
        ('{"distance": 1, "margin": 0, "probability": 0.5}', "Line 1 of .*: in_range: field required"),
        ("", "has no lines"),
    ],
)
def test_a_wrong_log_is_named_with_its_line(
    run: Run, tmp_path: Path, line: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_text(line)
    with pytest.raises(SystemExit):
        cli.main(["drift", "local", "--log", str(tmp_path / "log")])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(complaint, error)
    assert read_drift(run) is None


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "Expected --queries FOLDER or --log FILE, got none"),
        (["--queries", "a", "--log", "b"], "got both"),
        (["--queries", "missing"], "missing does not exist"),
        (["--log", "few", "--window", "40"], "expected 12 or more for --window 40, got 10"),
    ],
)
def test_what_cannot_be_compared_is_an_error(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], complaint: str, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    gauge = Gauge.of(run)
    log_of(tmp_path / "few", gauge.own(gauge.sample()), 0.0, 10)
    with pytest.raises(SystemExit):
        cli.main(["drift", "local", *arguments])
    assert complaint in capsys.readouterr().err


def test_classes_that_gain_and_lose_are_named(run: Run) -> None:
    gauge = Gauge.of(run)
    own = gauge.own(gauge.sample())
    assert own.classes is not None
    often = own.take(np.resize(np.flatnonzero(own.classes == own.classes[0]), 60))
    rows = drift._changed_classes(gauge, own, often)
    assert rows[0]["name"] == gauge.class_names[int(own.classes[0])] and rows[0]["now"] == 1.0
    assert all(row["now"] == 0 for row in rows[1:])
    assert not drift._changed_classes(gauge, own, own)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.update(ends=[]),
        lambda content: content["signals"]["distance"].update(ratios=[1.0]),
        lambda content: content["signals"]["distance"].update(edges=[0.0, 1.0]),
        lambda content: content["signals"].update(wrong={"ratios": []}),
        lambda content: content.pop("window"),
        lambda content: content["farthest"][0].update(thumb='"><script>'),
    ],
)
def test_a_damaged_result_is_named(run: Run, damage) -> None:
    content = json.loads(example().model_dump_json())
    (run.path / "drift.json").write_text(json.dumps(content))
    assert read_drift(run) == example()
    damage(content)
    (run.path / "drift.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"drift\.json .*Measure it again: `pddm-lab drift local --queries FOLDER`"):
        read_drift(run)


def test_the_sentences_follow_the_result(run: Run) -> None:
    drifts, over, none = example(), example(ratios=(1.5, 0.4)), example(ratios=(0.4, 0.4))
    assert drift_text.sentence(drifts) == (
        "Drift since query 40: distance rose from 0.50 to 0.90; 50 % are not in the range, 10 % of own ones."
    )
    assert drift_text.sentence(over).startswith("No drift any more: query 20 raised an alarm")
    assert drift_text.sentence(none).startswith("No drift: the 40 queries")
    assert "New products: add pictures" in drift_text.advice(drifts, run)
    assert drift_text.advice(over, run) == drift_text.advice(none, run) == "There is nothing to do."
    assert "As many queries as usual" in drift_text.advice(example(outside=0.1), run)
    assert "already" in drift_text.advice(example(now=0.1), run)
    assert drift_text.classes_in_words(drifts) == ["Gain: a 10.0 -> 40.0 %."]
