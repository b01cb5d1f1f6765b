"""The Drift page with a result, without one, and with a damaged one."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
from drift_example import example
from PIL import Image
from reading import markdown, numbers, rows_of, texts

from pddm_lab import cards, figures
from pddm_lab.change.drift_schema import read_drift, write_drift
from pddm_lab.runs.run import Run


def test_without_a_result_it_names_the_command(open_page, with_digits: Path) -> None:
    shown = texts(open_page("drift", run="digits"))
    assert "No queries compared yet" in shown and "`pddm-lab drift digits --queries FOLDER`" in shown.replace("``", "`")


def test_a_folder_or_a_log_is_compared_on_the_page(open_page, with_digits: Path, tmp_path: Path) -> None:
    app = open_page("drift", run="digits")

    def compare(path: Path) -> None:
        app.text_input[0].input(str(path))
        next(one for one in app.button if one.label == "Compare").click().run()

    compare(tmp_path / "none")
    assert "does not exist" in app.error[0].value and "No queries compared yet" in texts(app)
    rng = np.random.default_rng(0)
    lines = [
        {"distance": float(far), "margin": 0.1, "probability": 0.9, "in_range": True, "class_name": "3"}
        for far in rng.uniform(3, 4, 300)
    ]
    (tmp_path / "scores.log").write_text("\n".join(map(json.dumps, lines)))
    compare(tmp_path / "scores.log")
    assert not app.exception and not app.error
    content = read_drift(Run.open(with_digits / "digits"))
    assert content is not None and content.kind == "log" and content.queries == 300
    assert "Drift" in app.warning[0].value and "`pddm-lab drift digits --log FILE`" in texts(app).replace("``", "`")
    (tmp_path / "scores.log").write_text("\n".join(map(json.dumps, [*lines, *lines[:50]])))
    compare(tmp_path / "scores.log")
    content = read_drift(Run.open(with_digits / "digits"))
    assert content is not None and content.queries == 350, "the log has grown since it was compared"


def test_a_result_is_shown_with_its_numbers(open_page, with_digits: Path) -> None:
    content = example()
    write_drift(Run.open(with_digits / "digits"), content)
    app = open_page("drift", run="digits")
    shown = texts(app)
    assert "Drift since query 40: distance rose from 0.50 to 0.90" in shown and "New products: add pictures" in shown
    signals, classes = (rows_of(one.proto.body) for one in app.get("html") if "pl-audit" in one.proto.body)
    assert signals[0] == ["Distance", "0.50", "0.90", "✕ 150 %", "query 40"]
    assert signals[1] == ["Features", "–", "–", "✓ 20 %", "–"]
    assert classes == [["a", "10.0", "40.0", "+30.0"]]
    assert any("x.png" in one.proto.body for one in app.get("html") if "pl-far" in one.proto.body)
    assert len(app.get("plotly_chart")) == 2


def test_a_result_without_drift_says_so(open_page, with_digits: Path) -> None:
    write_drift(Run.open(with_digits / "digits"), example(ratios=(0.4, 0.4)))
    app = open_page("drift", run="digits")
    assert "the 40 queries are like the run's own" in app.success[0].value
    assert not any("Drift" in one.value for one in app.warning)


def test_texts_of_a_result_are_shown_as_they_are_written(open_page, with_digits: Path) -> None:
    bait = "![x](http://example.com/a.png)"
    write_drift(Run.open(with_digits / "digits"), example().model_copy(update={"source": bait}))
    app = open_page("drift", run="digits")
    assert bait not in markdown(app) and "example" in texts(app)


def test_a_damaged_result_is_named_with_the_command(open_page, with_digits: Path) -> None:
    (with_digits / "digits" / "drift.json").write_text('{"format": 1}')
    shown = texts(open_page("drift", run="digits"))
    assert "The drift can't be read" in shown and "pddm-lab drift digits" in shown


def test_charts_hold_the_values() -> None:
    over = figures.drift_over_stream([20, 40], {"Distance": [-0.1, 1.5]})
    assert [one.name for one in over.data] == ["threshold", "Distance"]
    assert numbers(over.data[0].y).tolist() == [100, 100] and numbers(over.data[1].y).tolist() == [10.0, 150.0]
    assert over.layout.yaxis.range[1] > np.log10(150)
    both = figures.then_and_now([0, 1, 3], [0.25, 0.75], [1.0, 0.0])
    assert numbers(both.data[0].x).tolist() == [0.5, 2.0]
    assert numbers(both.data[0].y).tolist() == [25.0, 75.0] and numbers(both.data[1].y).tolist() == [100.0, 0.0]


def test_pictures_of_queries_are_escaped() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "JPEG")
    body = cards.far_queries([("<b>", '"x"', 0.5, buffer.getvalue()), ("y", "", 0.25, b"")]).body
    assert "<b>&lt;b&gt;" not in body and "&lt;b&gt;" in body and "&quot;x&quot;" in body
    assert base64.b64encode(buffer.getvalue()).decode() in body and "no picture" in body and "0.25" in body
