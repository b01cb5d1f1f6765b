"""Makes lesson.html: all that is trained is trained here, and the page holds weights, points and answers.

The page computes S from the weights of the chosen step (lesson.js), so that every point can be an anchor. It asks
nothing of any server.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pddm_lab.figures import class_colour, style_of
from pddm_lab.figures.lesson import LETTERS
from pddm_lab.files import write_file, writing
from pddm_lab.teaching import exercises
from pddm_lab.teaching.exercises import Answer, Exercise, Search
from pddm_lab.teaching.plane import Measured, Snapshot, measure_distance, score, train_plane
from pddm_lab.teaching.point_sets import LAYOUTS, PointSet, first_anchor, make_point_set
from pddm_lab.teaching.regions import make_regions, nearest, train_on

if TYPE_CHECKING:
    from pddm_lab.progress import Progress

NAME = "lesson.html"
_LAYERS = ("difference", "position", "joint", "score")  # in the order in which lesson.js reads them


def write_lesson(
    folder: Path, report: Progress, scenes: Sequence[str] = tuple(LAYOUTS), steps: int = exercises.STRIPES.steps,
    region_steps: int = exercises.REGIONS_STEPS,
) -> Path:  # fmt: skip
    """Train everything that the lesson shows, and write it as one page.

    Args:
        folder: for lesson.html; created if missing.
        report: called with the steps that are done, all steps, and the part of the lesson.
        scenes: point sets to train on; the one of the exercises is always among them.
        steps: of each of these trainings.
        region_steps: of both units of the third exercise and the second act.

    Returns:
        The file.

    Raises:
        RunError: it can't be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(lesson_content(report, scenes, steps, region_steps), separators=(",", ":"))
    parts = {name: (files("pddm_lab.lesson") / name).read_text(encoding="utf-8")
             for name in ("lesson.html", "lesson.css", "lesson.js")}  # fmt: skip
    page = parts["lesson.html"]
    for mark, part in (
        ("/*style*/", parts["lesson.css"]), ("/*script*/", parts["lesson.js"]),
        ("/*content*/", content.replace("<", "\\u003c")),  # no text may end the script
    ):  # fmt: skip
        page = page.replace(mark, part)
    write_file(folder / NAME, page)
    return folder / NAME


def lesson_content(report: Progress, scenes: Sequence[str], steps: int, region_steps: int) -> dict[str, Any]:
    """All that lesson.js shows, as plain values."""
    names = tuple(dict.fromkeys((exercises.STRIPES.scene, *scenes)))
    total, trained = steps * len(names) + 2 * region_steps, {}
    for place, name in enumerate(names):
        point_set, snapshots = make_point_set(name, exercises.STRIPES.seed), []
        for snapshot in train_plane(point_set, replace(exercises.STRIPES, scene=name, steps=steps)):
            snapshots.append(snapshot)
            report(steps * place + snapshot.step, total, LAYOUTS[name].title)
        trained[name] = (point_set, snapshots)
    regions = make_regions(exercises.REGIONS_SEED)
    learned = train_on(
        regions[0], region_steps, exercises.REGIONS_SEED,
        lambda step: report(steps * len(names) + step, total, exercises.PARTS["neighbourhoods"]),
    )  # fmt: skip
    scores = [exercises.scores_by_letter(region, *learned) for region in regions]
    points, labels = exercises.on_one_plane(regions)
    searches = exercises.searches_in_regions(scores, labels)
    stripes, unit = trained[exercises.STRIPES.scene][0], trained[exercises.STRIPES.scene][1][-1].unit
    pair = exercises.pair_to_judge(stripes)
    right = [{name: exercises.right_among(of[name], region) for name in of}
             for of, region in zip(scores, regions, strict=True)]  # fmt: skip
    count = exercises.others_of_a_class(regions[0])
    means = [{name: float(of.mean()) for name, of in each.items()} for each in right]
    return {
        "parts": exercises.PARTS,
        "colours": {letter: style_of(name).colour for letter, name in LETTERS.items()},
        "classes": [class_colour(label) for label in range(int(max(labels.max(), stripes.labels.max())) + 1)],
        "exercises": {
            "pair": _exercise(exercises.pair_exercise(stripes), exercises.pair_answer(stripes, unit)),
            "stripes": _exercise(exercises.stripes_exercise(stripes), exercises.stripes_answer(stripes, unit)),
            "regions": _exercise(exercises.regions_exercise(), exercises.regions_answer(*searches)),
        },
        "pair": {
            **pair._asdict(), "level": float(score(unit, stripes.points[pair.query], stripes.points[pair.b])),
            "radius": float(np.linalg.norm(stripes.points[pair.query] - stripes.points[pair.b])),
        },
        "mistakes": {
            "stripes": {name: _mistakes(of) for name, of in exercises.searches_in(stripes, unit).items()},
            "regions": {name: _mistakes(searches[0][name]) + _mistakes(searches[1][name]) for name in searches[0]},
        },
        "searched": {"stripes": len(stripes.held_out("known")), "regions": len(points)},
        "regions": {
            "points": points.round(3).tolist(), "labels": labels.tolist(), "count": count,
            "starts": [0, len(regions[0].labels)], "middles": [exercises.middle(region) for region in regions],
            "text": exercises.neighbourhoods(means, count),
            "nearest": [
                {name: [nearest(of[name], row, count).tolist() for row in range(len(region.labels))] for name in of}
                for of, region in zip(scores, regions, strict=True)
            ],
        },
        "scenes": {name: _scene(*trained[name]) for name in trained},
    }  # fmt: skip


def _exercise(exercise: Exercise, answer: Answer) -> dict[str, Any]:
    return {"question": exercise.question, "choices": exercise.choices, "answer": vars(answer)}


def _mistakes(search: Search) -> list[list[int]]:
    """Points and the most similar ones of another class."""
    return np.stack([search.rows, search.nearest], axis=1)[~search.right].tolist()


def _scene(point_set: PointSet, snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    layout, distance = LAYOUTS[point_set.name], measure_distance(point_set)
    return {
        "title": layout.title, "summary": layout.summary, "points": point_set.points.round(4).tolist(),
        "labels": point_set.labels.tolist(), "anchor": first_anchor(point_set),
        "kinds": np.where(point_set.trains, 0, np.where(point_set.unseen, 2, 1)).tolist(),
        "radius": -distance["known"].threshold, "distance": {name: _shares(of) for name, of in distance.items()},
        "steps": [
            {
                "step": one.step, "threshold": one.known.threshold, "known": _shares(one.known),
                "unseen": _shares(one.unseen), "weights": _weights(one),
            }
            for one in snapshots
        ],
    }  # fmt: skip


def _shares(measured: Measured) -> list[float]:
    """R@1 and TPR at 1 % FPR, in %."""
    return [round(100 * measured.metrics[name], 1) for name in ("recall@1", "tpr@1%fpr")]


def _weights(snapshot: Snapshot) -> str:
    """All weights and biases of the unit as float32 in base64, layer by layer."""
    parts = dict(snapshot.unit.named_parameters())
    values = [parts[f"{layer}.{kind}"].detach().numpy().ravel() for layer in _LAYERS for kind in ("weight", "bias")]
    return base64.b64encode(np.concatenate(values).astype("<f4").tobytes()).decode()
