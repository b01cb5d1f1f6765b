"""The lesson in a file: a student opens it without Python or network, and does all of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from walking import PATIENCE, violations

from pddm_lab import cli
from pddm_lab.lesson import file
from pddm_lab.local.episodes import folds
from pddm_lab.teaching import exercises, regions
from pddm_lab.teaching.plane import score, train_plane
from pddm_lab.teaching.point_sets import PlaneConfig, make_point_set

STEPS = 60
SCORE = "([step, a, b]) => score(unitOf(content.scenes.fine.steps.at(step).weights), a, b)"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file as the command writes it, with one short training, and regions ranked by units that learned little."""
    folder = tmp_path_factory.mktemp("out") / "for my class"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "write_lesson", partial(file.write_lesson, scenes=(), steps=STEPS, region_steps=2))
        patch.setattr(regions, "folds", lambda labels, seed: folds(labels, seed)[:1])
        cli.main(["lesson", "--out", str(folder)])
    assert [path.name for path in folder.iterdir()] == ["lesson.html"], "no temporary file stays"
    return folder / "lesson.html"


@pytest.fixture
def student(browser, made: Path) -> Iterator:
    """A dark browser window in which every request of the network is refused and kept."""
    page = browser.new_page(viewport={"width": 1280, "height": 720}, color_scheme="dark")
    page.set_default_timeout(PATIENCE)
    requests: list[str] = []
    errors: list[str] = []

    def refuse(route) -> None:
        requests.append(route.request.url)
        route.abort()

    page.route(re.compile("^(https?|wss?)://"), refuse)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(made.as_uri())
    yield page
    page.close()
    assert not requests and not errors


def test_a_student_predicts_and_sees_every_answer(student, made: Path) -> None:
    content = json.loads(made.read_text(encoding="utf-8").partition('id="content">')[2].partition("</script>")[0])
    assert made.stat().st_size < 6e6
    for name, prediction in (("pair", "b"), ("stripes", "S"), ("regions", "same")):
        answer = content["exercises"][name]["answer"]
        student.get_by_text(content["exercises"][name]["question"]).wait_for()
        assert student.get_by_text(answer["result"]).count() == 0, "no answer before a prediction"
        student.locator(f"[data-choice={prediction}]").focus()
        student.keyboard.press("Enter")
        student.get_by_text(answer["result"]).wait_for()
        verdict = student.locator(".verdict").inner_text()
        assert verdict.startswith("✓ Right." if prediction == answer["choice"] else "✗ Not what happened.")
        values = student.locator(".values").locator("dt, dd").all_inner_texts()
        assert dict(zip(values[::2], values[1::2], strict=True)) == answer["values"]
        button = student.locator("#next").bounding_box()
        assert button["y"] + button["height"] < 720, "the whole answer is seen without scrolling"
        assert violations(student) == []
        student.keyboard.press("Enter")  # the button to go on has the focus
    student.locator("#forth").click()
    titles = student.locator("h3").all_inner_texts()
    regions, row = content["regions"], content["regions"]["middles"][1] + 1
    labels = regions["labels"][regions["starts"][1] :]
    right = {
        name: sum(labels[other] == labels[row] for other in regions["nearest"][1][name][row]) for name in "DSL"
    }  # fmt: skip
    assert titles == [f"{name}: {count} of 23 right" for name, count in right.items()]
    assert violations(student) == []


def test_the_page_computes_s_as_the_lab_does(student) -> None:
    points = make_point_set("fine")
    snapshots = list(train_plane(points, PlaneConfig("fine", steps=STEPS)))
    rows = np.random.default_rng(0).integers(0, len(points.points), (20, 2))
    for step in (0, -1):
        expected = score(snapshots[step].unit, *points.points[rows].swapaxes(0, 1))
        shown = [student.evaluate(SCORE, [step, *points.points[pair].tolist()]) for pair in rows]
        assert shown == pytest.approx(expected.tolist(), abs=1e-4)

    student.get_by_role("button", name=exercises.PARTS["plane"]).click()
    student.get_by_label("Training step").press("Home")
    student.get_by_text("Training step 0").wait_for()
    table = student.locator("tbody td").all_inner_texts()
    first = snapshots[0]
    assert table[:4] == [
        f"{100 * of.metrics[name]:.1f}" for of in (first.known, first.unseen) for name in ("recall@1", "tpr@1%fpr")
    ]
    assert violations(student) == []
