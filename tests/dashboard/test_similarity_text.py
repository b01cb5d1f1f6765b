"""What is found about pairs, in words that follow from the numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from app_pages.similarity.text import density_in_words, who_is_right_in_words

from pddm_lab.analysis.thresholds import ByDensity, Share


def found(tpr_sparse: float, own_sparse: float, spread: float = 0.0) -> ByDensity:
    """One threshold that finds so many sparse pairs, and so many at a threshold of their own."""
    table = pd.DataFrame({"tpr": [0.9, 0.7, tpr_sparse], "fpr": [0.02, 0.01, 0.0], "own_tpr": [0.9, 0.7, own_sparse]})
    away = np.linspace(-spread, spread, 200)
    draws = {"tpr": np.tile(table["tpr"], (200, 1)), "own_tpr": np.tile(table["own_tpr"], (200, 1))}
    draws["own_tpr"][:, -1] += away
    return ByDensity(0.5, 0.7, 0.01, table, draws)


def test_what_one_threshold_does_by_density_follows_from_the_intervals() -> None:
    said = density_in_words({"euclidean": found(0.4, 0.6, 0.04), "pddm": found(0.5, 0.55, 0.1)})
    assert "Euclidean: the one threshold fails where items lie sparsely" in said[0]
    assert "90.0 % of the positive pairs in the dense third and 40.0 % in the sparse one" in said[0]
    assert "lets 2.00 % and 0.00 % of the negative pairs pass" in said[0]
    assert (
        "would find 60.0 % in the sparse third: a change of 20.0 points (95 % interval 16.2 to 23.8 points)" in said[0]
    )
    assert "PDDM: where items lie sparsely a threshold of its own would do no better, as far as these" in said[1]
    assert "(95 % interval −4.5 to 14.5 points)" in said[1]
    assert "PDDM needs less of a change there than Euclidean" in said[2]
    assert "too loose" in density_in_words({"pddm": found(0.5, 0.3, 0.05)})[0]


def test_which_needs_less_of_a_change_can_go_either_way() -> None:
    close, far = found(0.5, 0.55, 0.01), found(0.4, 0.6, 0.01)
    assert (
        "**Euclidean needs less of a change there than PDDM**, by"
        in density_in_words({"euclidean": close, "pddm": far})[-1]
    )
    unsure = density_in_words({"euclidean": close, "pddm": found(0.5, 0.55, 0.2)})[-1]
    assert "can't be told from these classes: the difference lies between −" in unsure


def test_too_few_pairs_are_said_to_be_too_few() -> None:
    assert density_in_words({"euclidean": found(np.nan, 0.5)}) == [
        "**Euclidean:** too few pairs of either kind to tell."
    ]


def test_who_is_right_leaves_out_what_is_not_there() -> None:
    none, some = Share(np.nan, np.nan, np.nan, 0), Share(0.625, 0.5, 0.75, 8)
    told = who_is_right_in_words({True: some, False: none}, "euclidean", "pddm")
    assert told.endswith("PDDM is right and Euclidean wrong for **62 %** (50 to 75) of the 8 positive ones.")
    assert "agree on every pair" in who_is_right_in_words({True: none, False: none}, "euclidean", "pddm")
