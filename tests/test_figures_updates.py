"""Charts of updates hold the numbers that they are given."""

from __future__ import annotations

import numpy as np
import pytest

from pddm_lab.figures import change


def test_a_matrix_has_a_cell_for_each_session_and_gaps_stay_empty() -> None:
    values = np.array([[0.5, 0.25], [np.nan, 0.75]])
    figure = change.matrices({"a": values, "b": values, "c": values, "d": values}, "R@1")
    assert len(figure.data) == 4 and figure.data[0].z[0] == pytest.approx([50, 25])
    assert [list(row) for row in figure.data[3].text] == [["50", "25"], ["", "75"]]


def test_updates_follow_each_other_and_backfill_has_a_line_an_order() -> None:
    figure = change.while_training({"a": [[0.5, 0.4], [0.6, 0.3, 0.2]]}, 10)
    assert list(figure.data[0].x) == [0, 10, 10, 20, 30] and figure.data[0].y == pytest.approx([50, 40, 60, 30, 20])
    figure = change.backfill({"a": {"random": [0.1, 0.2], "farthest": [0.3, 0.4]}}, [0.0, 1.0])
    assert [(line.name, list(line.x)) for line in figure.data] == [("a, random", [0, 100]), ("a, farthest", [0, 100])]
    assert figure.data[0].line.color == figure.data[1].line.color and figure.data[1].y == pytest.approx([30, 40])
