"""Colours of a map and its figure: stable, ordered, and the same points."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pddm_lab import figures
from pddm_lab.figures.maps import KINDS

VALUES = np.array([0.2, np.nan, 0.9, 0.5, 0.2])


def test_a_class_has_one_colour_wherever_it_is_drawn() -> None:
    labels = np.array([3, 250, 3, 10])
    look = figures.colour_by_class(labels)
    colours = [look.palette[code] for code in look.codes]
    assert colours == [figures.class_colour(label) for label in labels]
    assert len({figures.class_colour(label) for label in range(24)}) == 24
    assert not look.layers


def test_values_become_colours_from_low_to_high() -> None:
    look = figures.colour_by_value("x", VALUES, figures.RAMPS["density"])
    assert look.codes.tolist() == [1, 0, 255, 1 + round(254 * 3 / 7), 1]
    assert len(look.palette) == 256
    assert (look.palette[1], look.palette[255]) == (figures.RAMPS["density"][0], figures.RAMPS["density"][-1])
    assert look.ends == ("0.20", "0.90")
    assert figures.colour_by_value("x", VALUES, figures.RAMPS["trust"], low=0, high=1).codes[2] == 1 + round(254 * 0.9)
    assert figures.colour_by_value("x", np.full(3, np.nan), figures.RAMPS["trust"]).codes.tolist() == [0, 0, 0]
    assert figures.colour_by_value("x", np.zeros(3), figures.RAMPS["trust"]).codes.tolist() == [1, 1, 1]


@pytest.mark.parametrize(("name", "letter", "sign"), [("euclidean", "D", -1), ("pddm", "S", 1), ("cosine", "cos", 1)])
def test_the_more_similar_to_the_anchor_the_stronger_the_colour(name: str, letter: str, sign: int) -> None:
    values = sign * np.array([0.0, 1.5, 0.25, 1.0])
    look = figures.colour_by_similarity(values, name, anchor=0)
    assert np.argsort(look.codes[1:].astype(int)).tolist() == np.argsort(values[1:]).tolist()
    assert (look.codes[1:].min(), look.codes[1:].max()) == (1, 255)
    ends = sorted([0.25, 1.5], reverse=sign < 0)
    assert look.ends == tuple(f"{letter} {end:.2f}" for end in ends)
    assert look.palette[255][:7] == figures.style_of(name).colour


def test_ranks_are_coloured_alike_for_any_similarity() -> None:
    values = np.random.default_rng(0).normal(size=50)
    one = figures.colour_by_similarity(values, "pddm", 7, ranks=True)
    assert one.codes.tolist() == figures.colour_by_similarity(np.exp(values), "euclidean", 7, ranks=True).codes.tolist()
    nearest = next(row for row in np.argsort(-values) if row != 7)
    assert one.codes[nearest] == 255
    assert one.ends == ("rank 49", "rank 1")


def test_mistakes_are_told_apart_without_their_colour() -> None:
    look = figures.colour_by_mistake(5, np.array([0, 3, 4]), np.array([1.0, 0.0, 1.0]))
    assert look.codes.tolist() == [1, 0, 0, 2, 1]
    assert [(key.title, key.count, key.glyph) for key in look.keys] == [
        (KINDS["wrong"][0], 1, "cross"), (KINDS["right"][0], 2, "dot"), (KINDS["none"][0], 2, "dot"),
    ]  # fmt: skip
    assert look.glyphs == ["dot", "dot", "cross"]


def test_the_figure_draws_every_item_rings_the_nearest_and_marks_the_anchor() -> None:
    random = np.random.default_rng(0)
    places = pd.DataFrame(random.normal(size=(30, 2)), columns=["x", "y"]).assign(id=[f"{n}.png" for n in range(30)])
    look = figures.colour_by_value("radius", random.random(30), figures.RAMPS["density"])
    figure = figures.map_of(places, look, rings={"euclidean": [1, 2], "pddm": [2, 3, 4]}, anchor=0)
    points, euclidean, pddm, anchor = figure.data
    order = np.argsort(look.codes, kind="stable")
    np.testing.assert_allclose(points.x, places["x"].to_numpy()[order], atol=1e-4)
    assert list(points.text) == [f"{row}.png" for row in order]
    assert (len(euclidean.x), len(pddm.x), len(anchor.x)) == (2, 3, 1)
    assert pddm.marker.symbol == "diamond-open"
    mistakes = figures.colour_by_mistake(30, np.arange(10), np.arange(10) % 2)
    assert {trace.name for trace in figures.map_of(places, mistakes).data} >= {"wrong (5)"}
