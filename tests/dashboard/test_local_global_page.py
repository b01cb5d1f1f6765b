"""The page Local vs global against a training with the same choices."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from app_pages.local_global import data, stage
from reading import rows_of, texts

from pddm_lab.figures import METRICS
from pddm_lab.teaching import exercises, regions
from pddm_lab.teaching.plane import score, score_at
from pddm_lab.teaching.point_sets import PlaneConfig, first_anchor, mesh, path, vector

STEPS = {"act": "plane", "train_steps": "60"}


@pytest.fixture(scope="module")
def training() -> data.PlaneTraining:
    """What the page trains with these settings, done."""
    done = data.training(PlaneConfig(steps=60))
    done.wait(600)
    assert not done.running
    assert not done.failed
    return done


def shown(app) -> dict[str, float]:
    return {metric.label[0]: float(metric.value.replace("−", "-")) for metric in app.metric}


def facts(app) -> dict[str, list[int]]:
    """The counts of what S and D accept."""
    (body,) = (one.proto.body for one in app.get("html") if "of its class" in one.proto.body)
    return {name: [int(number) for number in re.findall(r"\d+", text)]
            for name, text in re.findall(r"<dt>(\w)</dt><dd>(.*?)</dd>", body)}  # fmt: skip


def drawn_anchor(app) -> list[float]:
    """Where the plane shows its anchor."""
    (plane,) = (one for one in app.get("plotly_chart") if one.key == "plane")
    (anchor,) = (trace for trace in json.loads(plane.proto.spec)["data"] if trace.get("name") == "anchor")
    return [anchor["x"][0], anchor["y"][0]]


def test_it_opens_ready_without_any_run(open_page, training) -> None:
    app = open_page("local_global", **STEPS)
    snapshot, scene = training.snapshots[-1], training.scene
    scores = score_at(snapshot.unit, path(scene), vector(0.42, 90))
    assert shown(app) == {"S": pytest.approx(scores[0], abs=0.006), "D": 0.42}
    answers = ["accepted" if scores[0] > snapshot.known.threshold else "rejected", "rejected"]
    assert [metric.delta for metric in app.metric] == answers
    anchor = first_anchor(scene)
    rows = [row for row in scene.held_out("known") if row != anchor]
    own = [row for row in rows if scene.labels[row] == scene.labels[anchor]]
    near = score(snapshot.unit, scene.points[anchor], scene.points[rows]) > snapshot.known.threshold
    passed = {row for row, one in zip(rows, near, strict=True) if one}
    expected = [len(passed & set(own)), len(own), len(passed - set(own)), len(rows) - len(own)]
    assert facts(app)["S"] == expected
    assert "u = |a − b| = (0.00, 0.42)" in texts(app)


def test_the_tables_hold_what_was_measured(open_page, training) -> None:
    app = open_page("local_global", theory="true", **STEPS)
    tables = [rows_of(one.proto.body) for one in app.get("html") if "<tbody>" in one.proto.body]
    for table, protocol in zip(tables, ("known", "unseen"), strict=True):
        both = {"Euclidean": training.distance[protocol], "PDDM": getattr(training.snapshots[-1], protocol)}
        for name, *cells in table:
            metrics = both[name].metrics
            assert cells == [METRICS[one].format(metrics[one]) for one in ("recall@1", "auc", "tpr@1%fpr")]
    share = training.distance["known"].tpr_by_region["sparse"]
    assert f"sparse **{100 * share:.0f}\u00a0%**" in texts(app)


def test_moving_the_mean_changes_s_and_not_d(open_page, training) -> None:
    app = open_page("local_global", **STEPS)
    before = shown(app)
    app.slider(key="mean").set_value(100).run()
    scores = score_at(training.snapshots[-1].unit, path(training.scene), vector(0.42, 90))
    assert shown(app) == {"S": pytest.approx(scores[-1], abs=0.006), "D": before["D"]}
    assert before["S"] != shown(app)["S"]


def test_a_unit_that_sees_u_alone_gives_the_same_score_everywhere(open_page) -> None:
    data.training(PlaneConfig(steps=60, position=False)).wait(600)
    app = open_page("local_global", sees="difference", theory="true", **STEPS)
    before = shown(app)
    app.slider(key="mean").set_value(100).run()
    assert shown(app) == before
    assert "sees u = |a − b| alone" in texts(app)


def test_a_link_opens_the_step_the_anchor_and_the_pair(open_page, training) -> None:
    anchor = int(training.scene.held_out("unseen")[3])
    chosen = {"step": "0", "anchor_density": str(anchor), "length_density": "0.8", "angle_density": "30", "mean": "50"}
    app = open_page("local_global", **STEPS, **chosen)
    unit, middle = training.snapshots[0].unit, path(training.scene)[50]
    assert shown(app) == {"S": pytest.approx(score_at(unit, middle, vector(0.8, 30)), abs=0.006), "D": 0.8}
    counts = facts(app)["D"]
    assert (counts[1], counts[3]) == (11, len(training.scene.held_out("unseen")) - 12)
    app.button(key="next").click().run()
    after = training.scene.held_out("unseen")[4]
    assert app.query_params["anchor_density"] == str(after)
    assert drawn_anchor(app) == pytest.approx(training.scene.points[after], abs=1e-4)


def test_the_difference_is_shown_at_every_mean(open_page, training) -> None:
    app = open_page("local_global", **STEPS, show="pair")
    snapshot = training.snapshots[-1]
    share = 100 * (score_at(snapshot.unit, mesh()[2], vector(0.42, 90)) > snapshot.known.threshold).mean()
    (body,) = (one.proto.body for one in app.get("html") if "this difference" in one.proto.body)
    assert f"on {share:.0f} % of the plane" in body
    assert "accepts it nowhere" in body
    app.slider(key="length_density").set_value(0.1).run()
    assert "accepts it everywhere" in "".join(one.proto.body for one in app.get("html"))


@pytest.mark.parametrize("wrong", ["-1", "99999", "![x](http://example.com/a.png)"])
def test_an_invalid_anchor_in_a_link_opens_the_first(open_page, training, wrong: str) -> None:
    app = open_page("local_global", anchor_density=wrong, **STEPS)
    assert drawn_anchor(app) == pytest.approx(training.scene.points[first_anchor(training.scene)], abs=1e-4)


def test_a_training_shows_its_progress_and_can_be_stopped(open_page) -> None:
    app = open_page("local_global", act="plane", train_steps="5000", seed="41")
    app.button(key="plane_stop").click().run()
    stopped = data.training(PlaneConfig(steps=5000, seed=41))
    stopped.wait(600)
    assert not stopped.running
    last = stopped.snapshots[-1].step
    assert last < 5000
    app.run()
    assert app.get_by_key("step").label == f"Training step (stopped at {last:,} of 5,000)"
    app.button(key="again").click().run()
    again = data.training(PlaneConfig(steps=5000, seed=41))
    assert again is not stopped
    again.stop()
    again.wait(600)


def test_it_plays_through_the_training(open_page, training, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "PLAY", 3600.0)
    app = open_page("local_global", **STEPS)
    app.button(key="play").click().run()
    assert app.query_params["step"] == "0"
    assert app.button(key="play").label == "Pause"
    monkeypatch.setattr(stage, "PLAY", 1e-9)
    app.run()
    assert app.query_params["step"] == str(training.snapshots[1].step)
    app.button(key="play").click().run()
    assert app.button(key="play").label == "Play"
    assert app.query_params["step"] == str(training.snapshots[1].step)


def test_a_task_sets_up_its_view(open_page) -> None:
    app = open_page("local_global", mean="30", step="0", **STEPS)
    app.button(key="task_2").click().run()
    assert app.get_by_key("scene").value == "diagonals"
    assert app.get_by_key("show").value == "pair"
    assert app.slider(key="mean").value == 0
    assert "The same stripes" in texts(app)


def test_the_text_names_code_that_is_there() -> None:
    from inspect import getsource

    from app_pages.local_global.text import UNIT

    from pddm_lab.model import pddm
    from pddm_lab.training import losses, miner

    sources = "".join(map(getsource, (pddm, miner, losses)))
    unit = pddm.PDDM(2)
    for _, code, words in UNIT:
        assert code.partition("(")[0].split(".")[-1] in sources
        assert all(hasattr(unit, name) for name in re.findall(r"`unit\.(\w+)`", words))
    assert all(code in sources for code in ("u = (a - b).abs()", "v = (a + b) / 2", "self.score(joint)"))


def test_the_anchor_view_holds_finite_scores_and_the_radius_that_was_measured(training) -> None:
    view = data.anchor_view(training, -1, first_anchor(training.scene))
    assert view.radius == -training.distance["known"].threshold > 0
    assert np.isfinite(view.around).all()


@pytest.fixture
def in_regions(monkeypatch: pytest.MonkeyPatch) -> data.RegionsTraining:
    """The regions' training, done, with scores that took no training: all are those of D."""
    done = data.RegionsTraining.__new__(data.RegionsTraining)
    done.regions, done.failed = regions.make_regions(0), ""
    done.scores = tuple(dict.fromkeys("DSL", -torch.cdist(one.points, one.points)) for one in done.regions)
    monkeypatch.setattr(data.RegionsTraining, "running", False)
    monkeypatch.setattr(data, "regions_training", lambda: done)
    return done


@pytest.mark.parametrize(("act", "guess"), [("pair", "a"), ("stripes", "D")])
def test_an_exercise_is_predicted_and_then_answered(open_page, in_regions, monkeypatch, act: str, guess: str) -> None:
    monkeypatch.setattr(exercises, "STRIPES", PlaneConfig("fine", steps=80))
    stripes = data.training(exercises.STRIPES)
    app = open_page("local_global", act=act)
    exercise = {"pair": exercises.pair_exercise, "stripes": exercises.stripes_exercise}[act](stripes.scene)
    assert exercise.question in texts(app)
    assert not app.metric, "no answer before a prediction"
    stripes.wait(600)
    app.button(key=f"predict_{act}_{guess}").click().run()
    unit = stripes.snapshots[-1].unit
    answer = {"pair": exercises.pair_answer, "stripes": exercises.stripes_answer}[act](stripes.scene, unit)
    assert {metric.label: metric.value for metric in app.metric} == answer.values
    assert ("Right.**" in texts(app)) == (guess == answer.choice)
    assert answer.result in texts(app) and answer.reason in texts(app)
    app.button(key="next_act").click().run()
    assert app.query_params["act"] == list(exercises.PARTS)[list(exercises.PARTS).index(act) + 1]
    assert exercise.question not in texts(app)


def test_the_new_region_and_the_second_act_show_what_was_measured(open_page, in_regions) -> None:
    app = open_page("local_global", act="regions", predict_regions="same")
    assert "Right.**" in texts(app), "S is D here"
    app.button(key="next_act").click().run()
    right = [exercises.right_among(of["D"], one) for of, one in zip(in_regions.scores, in_regions.regions, strict=True)]
    assert f"{right[1].mean():.1f} are of the right class by L" in texts(app)
    (chart,) = (one for one in app.get("plotly_chart") if one.key == "neighbourhoods")
    names = [note["text"] for note in json.loads(chart.proto.spec)["layout"]["annotations"]]
    middle = exercises.middle(in_regions.regions[1])
    assert names[0] == f"D: {right[1][middle]} of 23 right"
    app.button(key="point_next").click().run()
    assert app.query_params["point"] == str(middle + 1)
