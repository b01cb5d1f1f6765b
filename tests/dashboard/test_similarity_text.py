"""Results about pairs, in words that follow from the numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from app_pages.similarity.text import density_in_words, density_verdict, who_is_right_in_words

from pddm_lab.analysis.thresholds import ByDensity, Share


def result(tpr_sparse: float, own_sparse: float, spread: float = 0.0) -> ByDensity:
    """A shared threshold that accepts so many sparse pairs, and so many at a separate threshold."""
    table = pd.DataFrame({"tpr": [0.9, 0.7, tpr_sparse], "fpr": [0.02, 0.01, 0.0], "own_tpr": [0.9, 0.7, own_sparse]})
    away = np.linspace(-spread, spread, 200)
    draws = {"tpr": np.tile(table["tpr"], (200, 1)), "own_tpr": np.tile(table["own_tpr"], (200, 1))}
    draws["own_tpr"][:, -1] += away
    return ByDensity(0.5, 0.7, 0.01, table, draws)


def test_the_effect_of_density_on_a_shared_threshold_follows_from_the_intervals() -> None:
    texts = density_in_words({"euclidean": result(0.4, 0.6, 0.04), "pddm": result(0.5, 0.55, 0.1)})
    assert "Euclidean: the shared threshold is too strict where items lie sparsely" in texts[0]
    assert "90.0 % of the positive pairs in the dense third and 40.0 % in the sparse third" in texts[0]
    assert "and 2.00 % and 0.00 % of the negative pairs." in texts[0]
    assert "would accept 60.0 % of the positive pairs in the sparse third: a change of 20.0 points" in texts[0]
    assert "(95 % interval 16.2 to 23.8 points)" in texts[0]
    assert "PDDM: these classes do not show that sparse items need a separate threshold." in texts[1]
    assert "(95 % interval −4.5 to 14.5 points)" in texts[1]
    assert "PDDM needs a smaller change there than Euclidean" in texts[2]
    assert "too loose" in density_in_words({"pddm": result(0.5, 0.3, 0.05)})[0]


def test_the_verdict_by_density_is_one_sentence() -> None:
    text = density_verdict({"euclidean": result(0.4, 0.6, 0.04), "pddm": result(0.5, 0.55, 0.1)})
    assert text == (
        "Do sparse items need a threshold of their own? **Euclidean needs a looser one**: it then accepts 20.0 points "
        "more of their positive pairs; of PDDM these classes do not show it."
    )
    few = density_verdict({"mahalanobis": result(np.nan, 0.5), "pddm": result(0.5, 0.3, 0.05)})
    assert "own? Of Mahalanobis there are too few pairs to tell; **PDDM needs a stricter one**: it then accepts" in few
    assert "20.0 points less" in few


def test_which_needs_the_smaller_change_can_go_either_way() -> None:
    close, far = result(0.5, 0.55, 0.01), result(0.4, 0.6, 0.01)
    texts = density_in_words({"euclidean": close, "pddm": far})
    assert "**Euclidean needs a smaller change there than PDDM**, by" in texts[-1]
    unsure = density_in_words({"euclidean": close, "pddm": result(0.5, 0.55, 0.2)})[-1]
    assert "don't show which of the two needs the smaller change there: the difference lies between −" in unsure


def test_too_few_pairs_are_reported() -> None:
    assert density_in_words({"euclidean": result(np.nan, 0.5)}) == [
        "**Euclidean:** there are too few pairs of one kind to compare."
    ]


def test_who_is_right_leaves_out_kinds_without_pairs() -> None:
    none, some = Share(np.nan, np.nan, np.nan, 0), Share(0.625, 0.5, 0.75, 8)
    text = who_is_right_in_words({True: some, False: none}, "euclidean", "pddm")
    assert text.endswith("PDDM is right and Euclidean wrong for **62 %** (50 to 75) of the 8 positive pairs.")
    assert "agree on every pair" in who_is_right_in_words({True: none, False: none}, "euclidean", "pddm")
