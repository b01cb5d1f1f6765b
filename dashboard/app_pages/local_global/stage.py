"""The lesson's stage: an exercise or the second act, its picture on the left, its text on the right."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from app_pages.local_global import data
from shared import shell
from shared.chart import chart
from shared.plain_text import plain
from shared.work import Background

from pddm_lab import figures
from pddm_lab.teaching import exercises, regions
from pddm_lab.teaching.exercises import PARTS, Answer, Exercise, Search
from pddm_lab.teaching.point_sets import mesh

WATCH, PLAY = 0.4, 0.7  # seconds between two looks at a training, and between steps while playing


def show(act: str) -> None:
    """Show one part of the lesson; the trainings of all parts begin with the first."""
    st.html("<style>.st-key-stage_frame { aspect-ratio: 1.7; }</style>")  # the picture keeps its shape at any width
    stripes, in_region = data.training(exercises.STRIPES), data.regions_training()
    parts: dict[str, Callable[[], None]] = {
        "pair": partial(_pair, stripes), "stripes": partial(_stripes, stripes), "regions": partial(_regions, in_region),
        "neighbourhoods": partial(_neighbourhoods, in_region),
    }  # fmt: skip
    parts[act]()


def _pair(training: data.PlaneTraining) -> None:
    """The first exercise."""
    scene = training.scene
    pair = exercises.pair_to_judge(scene)

    def answered() -> tuple[Answer, go.Figure]:
        from pddm_lab.teaching.plane import score

        unit, query = training.snapshots[-1].unit, scene.points[pair.query]
        level = float(score(unit, query, scene.points[pair.b]))
        figure = figures.plane_pair(scene, pair, score(unit, query, mesh()[2]), level)
        return exercises.pair_answer(scene, unit), figure

    _exercise("pair", exercises.pair_exercise(scene), figures.plane_pair(scene, pair), training, answered)


def _stripes(training: data.PlaneTraining) -> None:
    """The second exercise."""
    scene = training.scene

    def answered() -> tuple[Answer, go.Figure]:
        unit = training.snapshots[-1].unit
        searches = exercises.searches_in(scene, unit)
        figure = figures.plane_searches(scene.points, scene.labels, searches)
        return exercises.stripes_answer(scene, unit), figure

    before = figures.plane_searches(scene.points, scene.labels)
    _exercise("stripes", exercises.stripes_exercise(scene), before, training, answered)


def _regions(training: data.RegionsTraining) -> None:
    """The third exercise."""
    points, labels = exercises.on_one_plane(training.regions)

    def answered() -> tuple[Answer, go.Figure]:
        trained, new = exercises.searches_in_regions(training.scores, labels)
        both = {
            name: Search(*map(np.concatenate, zip(trained[name], new[name], strict=True))) for name in trained
        }  # fmt: skip
        return exercises.regions_answer(trained, new), figures.plane_searches(points, labels, both)

    before = figures.plane_searches(points, labels)
    _exercise("regions", exercises.regions_exercise(), before, training, answered)


def _exercise(
    name: str, exercise: Exercise, before: go.Figure, training: Background,
    answered: Callable[[], tuple[Answer, go.Figure]],
) -> None:  # fmt: skip
    """Show a question; once something is predicted and the training is done, the answer.

    Args:
        name: of the part, in `PARTS`.
        before: the picture without the answer.
        answered: gives the answer and its picture.
    """
    guess = st.query_params.get(f"predict_{name}", "")
    left, right = st.columns([5, 3], gap="medium")
    with right:
        st.header(PARTS[name], anchor=False)
        st.markdown(exercise.question)
        if guess not in exercise.choices:
            guess = ""
            for key, words in exercise.choices.items():
                choose = partial(shell.put_in_url, **{f"predict_{name}": key})
                st.button(words, key=f"predict_{name}_{key}", width="stretch", on_click=choose)
        elif not _done(training):
            guess = ""
    answer, figure = answered() if guess else (None, before)
    with left, st.container(key="stage_frame"):
        alt = answer.result if answer else f"The points of the exercise {PARTS[name]}"
        chart(figure, f"stage_{name}", alt, height="stretch")
    if answer:
        with right:
            _answer(name, exercise, guess, answer)


def _answer(name: str, exercise: Exercise, guess: str, answer: Answer) -> None:
    """What was predicted, what happened and why, and the way on."""
    right = guess == answer.choice
    icon, verdict = (":material/check_circle:", "Right") if right else (":material/cancel:", "Not what happened")
    st.markdown(f"{icon} **{verdict}.** You predicted: {exercise.choices[guess]}.")
    with st.container(horizontal=True, gap="small"):
        for label, value in answer.values.items():
            st.metric(label, value, width="content")
    st.markdown(f"**{plain(answer.result)}** {plain(answer.reason)}")
    following = list(PARTS)[list(PARTS).index(name) + 1]
    with st.container(horizontal=True):
        go_on = partial(shell.put_in_url, act=following)
        st.button(f"Next: {PARTS[following]}", key="next_act", on_click=go_on)
        again = partial(shell.put_in_url, **{f"predict_{name}": ""})
        st.button("Predict again", key="predict_again", on_click=again)


def _done(training: Background) -> bool:
    """Whether a training is done; if not, show its progress, and draw the page again when it is."""
    if training.failed:
        st.error(plain(f"The training failed: {training.failed}"), icon=":material/error:")
        return False
    if training.running:
        st.fragment(_progress, run_every=WATCH)(training)
    return not training.running


def _progress(training: Background) -> None:
    if not training.running:
        st.rerun()
    st.progress(training.share, text="It is learning")


def _neighbourhoods(training: data.RegionsTraining) -> None:
    """The second act: the most similar points of one point by D, S and L."""
    st.header(PARTS["neighbourhoods"], anchor=False)
    if not _done(training):
        return
    count = exercises.others_of_a_class(training.regions[1])
    right = [
        {name: exercises.right_among(of, region) for name, of in scores.items()}
        for scores, region in zip(training.scores, training.regions, strict=True)
    ]
    means = [{name: float(of.mean()) for name, of in each.items()} for each in right]
    result, reason = exercises.neighbourhoods(means, count)
    st.markdown(f"**{plain(result)}**")
    with st.container(horizontal=True, vertical_alignment="center"):
        titles = {"new": "The new region", "learned": "Where S and L learned"}
        where = shell.choice(st.segmented_control, "Region", titles, "where", label_visibility="collapsed")
        at = 1 if where == "new" else 0
        region = training.regions[at]
        row = shell.linked_number("point", 0, len(region.labels) - 1, exercises.middle(region))
        for label, shortcut, move in (("Back", "B", -1), ("Next", "N", 1)):
            go_to = partial(shell.put_in_url, point=str((row + move) % len(region.labels)))
            st.button(label, shortcut=shortcut, key=f"point_{label.lower()}", on_click=go_to)
    nearest = {
        f"{name}: {right[at][name][row]} of {count} right": regions.nearest(of, row, count)
        for name, of in training.scores[at].items()
    }
    alt = f"The {count} most similar points of one point: {', '.join(nearest)}"
    figure = figures.plane_nearest(region, row, nearest, height=300)
    chart(figure, "neighbourhoods", alt, on_select=_pick, selection_mode="points")
    st.markdown(f"{plain(reason)} Click a point, or press N, to search with another one.")
    go_on = partial(shell.put_in_url, act="plane")
    st.button(f"Next: {PARTS['plane']}", key="next_act", on_click=go_on)


def _pick() -> None:
    """Search with the clicked point."""
    points = st.session_state["neighbourhoods"]["selection"]["points"]
    if points and "customdata" in points[0]:
        shell.put_in_url(point=str(int(np.ravel(points[0]["customdata"])[0])))
