"""Charts and cards of an audit say what the numbers say, and escape what they are given."""

from __future__ import annotations

import numpy as np
import pytest
from test_calibration import made

from pddm_lab import cards, figures
from pddm_lab.analysis.calibration import calibrate
from pddm_lab.analysis.metric_axioms import Axioms, examine
from pddm_lab.cards import Cell, Head, Tile, TileSet
from pddm_lab.model.similarity import Cosine, Euclidean


@pytest.fixture(scope="module")
def axioms() -> dict[str, Axioms]:
    features = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return {one.name: examine(one, features, -1.0, rows=50) for one in (Cosine(), Euclidean())}


def test_margins_and_slack_have_a_line_per_similarity(axioms: dict[str, Axioms]) -> None:
    for figure in (figures.self_margins(axioms), figures.slack(axioms)):
        assert [trace.name for trace in figure.data] == ["Euclidean", "Cosine"]
        for trace in figure.data:
            assert trace.line.color == figures.style_of(trace.name.lower()).colour
    for trace in figures.slack(axioms).data:
        assert np.nansum(np.array(trace.y, dtype=float)) == pytest.approx(100, abs=0.01)
    margins, found = figures.self_margins(axioms).data[0], axioms["euclidean"]
    nearest = -found.rival_score / found.spread  # D(i,i) is 0
    assert (margins.x[0], margins.x[-1]) == pytest.approx((nearest.min(), nearest.max()), abs=1e-3)
    assert np.interp(50, margins.y, np.array(margins.x, dtype=float)) == pytest.approx(np.median(nearest), abs=1e-3)
    # A metric has no detour that is shorter: nothing left of 0 but what rounding puts there.
    euclidean = figures.slack(axioms).data[0]
    assert np.nansum(np.array(euclidean.y, dtype=float)[np.array(euclidean.x) < -0.1]) == 0


def test_reliability_and_chances_are_those_measured() -> None:
    found = calibrate(made(8000, (2.0, -1.0)).rename(columns={"s": "pddm"}), "pddm")
    assert found is not None
    diagram = figures.reliability_diagram({"pddm": found}, "isotonic")
    assert np.allclose(np.array(diagram.data[0].x, dtype=float), found.maps["isotonic"].predicted, atol=1e-5)
    assert figures.reliability_diagram({"pddm": found}, log=True).layout.xaxis.type == "log"
    curves = figures.probability_by_density(found)
    assert [trace.name for trace in curves.data] == ["all pairs", "dense", "middle", "sparse"]
    crossing = np.interp(50, np.array(curves.data[1].y, dtype=float), np.array(curves.data[1].x, dtype=float))
    assert crossing == pytest.approx(found.even("dense"), abs=0.05)


def test_tables_and_cards_escape_what_they_are_given() -> None:
    bad = "<b>x</b>"
    table = str(cards.audit_table([Head(bad, bad), Head("n")], [[Cell(bad, hint=bad), Cell("1 %", "fails", bad, bad)]]))
    grid = str(cards.tile_sets([TileSet([Tile(bad, bad, bad)] * 2, [bad], True)], {}, chosen=bad))
    for body in (table, grid):
        assert bad not in body and "&lt;b&gt;" in body
    assert 'aria-label="does not hold"' in table
    assert "pl-conflict" in grid and grid.count("pl-chosen") >= 2
