"""How much of what is right a shortlist holds, against a slow loop over exact distances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_gallery import make, make_features, make_items, slow_search

from pddm_lab.analysis.shortlist import ceiling


@pytest.mark.parametrize(("queries", "longest"), [(0, 1000), (0, 7), (9, 1000), (9, 7)])
def test_ceiling_equals_a_slow_loop(tmp_path: Path, queries: int, longest: int) -> None:
    items = make_items(40, queries)
    items.loc[[3, 20], ["label", "class_name"]] = [7, "alone"]  # right only for each other
    items.loc[5, ["label", "class_name"]] = [8, "alone"]  # nothing is right
    gallery = make(tmp_path, 40, queries, items=items)
    searched = list(gallery.rows("gallery"))
    found, reached = [], []
    for query in gallery.rows("query"):
        others = [row for row in searched if row != query]
        right = [row for row in others if items["label"][row] == items["label"][query]]
        if not right:
            continue
        order = [row for row, _ in slow_search(gallery.features, others, gallery.features[query].astype("f8"), 40)]
        sizes = range(1, min(longest, len(searched)) + 1)
        found.append([len(set(order[:size]) & set(right)) / len(right) for size in sizes])
        reached.append([bool(set(order[:size]) & set(right)) for size in sizes])
    result = ceiling(gallery, longest)
    np.testing.assert_allclose(result.recall, np.mean(found, axis=0))
    np.testing.assert_allclose(result.reached, np.mean(reached, axis=0))
    assert (result.queries, result.total) == (len(found), len(found))
    assert result.at(5) == (result.recall[4], result.reached[4])
    assert result.at(10_000) == (result.recall[-1], result.reached[-1])


def test_near_duplicates_do_not_stand_in_for_the_query(tmp_path: Path) -> None:
    gallery = make(tmp_path, 10, features=np.ones((10, 4), np.float32))
    result = ceiling(gallery)
    assert result.recall[8] == pytest.approx(1), "all others, whichever the index names first"


def test_of_many_queries_a_seeded_sample_is_measured(tmp_path: Path) -> None:
    gallery = make(tmp_path, 40, features=make_features(40))
    few = ceiling(gallery, most_queries=12, seed=3)
    assert (few.queries, few.total) == (12, 40)
    np.testing.assert_array_equal(few.recall, ceiling(gallery, most_queries=12, seed=3).recall)
    assert np.abs(few.recall - ceiling(gallery).recall).max() < 0.5


def test_without_a_right_item_there_is_nothing_to_measure(tmp_path: Path) -> None:
    result = ceiling(make(tmp_path, 4, items=make_items(4)))
    assert (result.queries, result.total, len(result.recall)) == (0, 0, 0)
    assert np.isnan(result.at(3)).all()
