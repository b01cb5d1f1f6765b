"""What a teacher does on the plane: watch a unit train, click an anchor, move the mean, hand on the link."""

from __future__ import annotations

import re

import numpy as np
import pytest
from walking import metric, query, wait_until_drawn

from pddm_lab.teaching.plane import accepted, score, score_at, train_plane
from pddm_lab.teaching.point_sets import PlaneConfig, make_point_set, mesh, path, vector

CONTOUR = """() => {
  const [terrain] = document.querySelector('.st-key-plane .js-plotly-plot')._fullData
  return Array.from(terrain.z).flatMap(row => Array.from(row)).slice(0, 500)
}"""
PLACE = """([x, y]) => {
  const plot = document.querySelector('.st-key-plane .js-plotly-plot'), box = plot.getBoundingClientRect()
  const { xaxis, yaxis } = plot._fullLayout
  return [box.left + xaxis._offset + xaxis.l2p(x), box.top + yaxis._offset + yaxis.l2p(y)]
}"""


def accepted_counts(page) -> dict[str, list[int]]:
    """What S and D accept around the anchor: own, of how many, others, of how many."""
    rows = page.locator(".pl-facts").filter(has_text="of its class").locator("dt, dd").all_inner_texts()
    return {name: [int(number) for number in re.findall(r"\d+", text)]
            for name, text in zip(rows[::2], rows[1::2], strict=True)}  # fmt: skip


def test_a_person_clicks_an_anchor_moves_the_mean_and_hands_on_the_link(page, address: str) -> None:
    scene = make_point_set("density", seed=1)
    last = list(train_plane(scene, PlaneConfig(seed=1, steps=120)))[-1]
    page.goto(f"{address}/local_global?run=digits&act=plane&seed=1&train_steps=120")
    page.get_by_role("button", name="Train again").wait_for()  # the server loads torch first
    wait_until_drawn(page)

    # A point of a dense class, drawn apart from its neighbours.
    rows = np.flatnonzero(~scene.trains & (scene.region_of(np.arange(len(scene.points))) == "dense"))
    away = np.linalg.norm(scene.points[rows][:, None] - scene.points[None], axis=-1)
    anchor = int(rows[np.sort(away, axis=1)[:, 1].argmax()])
    before = page.evaluate(CONTOUR)
    assert len(before) == 500
    page.mouse.click(*page.evaluate(PLACE, scene.points[anchor].tolist()))
    page.wait_for_function(f"before => JSON.stringify(({CONTOUR})()) != JSON.stringify(before)", arg=before)
    assert query(page)["anchor_density"] == str(anchor)
    wait_until_drawn(page)
    drawn = page.evaluate(CONTOUR)
    s = score(last.unit, scene.points[anchor], mesh()[2])
    assert drawn == pytest.approx(s.ravel()[:500].tolist(), abs=1e-3)
    to_points = score(last.unit, scene.points[anchor], scene.points)
    counts = accepted(scene, anchor, to_points, last.known.threshold)
    assert accepted_counts(page)["S"] == [counts.own, counts.own_total, counts.others, counts.others_total]

    assert metric(page, "D of the pair") == "0.42"
    start = metric(page, "S of the pair")
    slider = page.get_by_role("slider", name="Move the mean")
    slider.focus()
    slider.press("End")
    _await_another(page, start, "mean=100")
    scores = score_at(last.unit, path(scene), vector(0.42, 90))
    assert _number(start) == pytest.approx(scores[0], abs=0.006)
    assert _number(metric(page, "S of the pair")) == pytest.approx(scores[-1], abs=0.006)
    assert metric(page, "D of the pair") == "0.42"

    at_end = metric(page, "S of the pair")
    page.get_by_role("slider", name="Training step").press("Home")
    _await_another(page, at_end, "step=0")
    link, view = page.url, (metric(page, "S of the pair"), accepted_counts(page), page.evaluate(CONTOUR))
    page.goto("about:blank")
    page.goto(link)
    page.get_by_role("button", name="Train again").wait_for()
    wait_until_drawn(page)
    assert (metric(page, "S of the pair"), accepted_counts(page), page.evaluate(CONTOUR)) == view
    assert query(page)["anchor_density"] == str(anchor)

    page.keyboard.press("n")
    known = scene.held_out("unseen" if scene.unseen[anchor] else "known")
    following = known[(np.searchsorted(known, anchor) + 1) % len(known)]
    page.wait_for_function("row => location.search.includes('anchor_density=' + row)", arg=str(following))


def _number(text: str) -> float:
    return float(text.replace("−", "-"))


def _await_another(page, value: str, choice: str) -> None:
    """Wait until S is another and the URL holds the choice that made it so."""
    read = "document.querySelector('[data-testid=stMetricValue]').innerText"
    chosen = "new RegExp('[?&]' + choice + '(&|$)').test(location.search)"
    page.wait_for_function(f"([value, choice]) => {read} != value && {chosen}", arg=[value, choice])
    wait_until_drawn(page)
