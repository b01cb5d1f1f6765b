"""Queries judged one by one: against slow loops, and against what the evaluation sums up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pddm_lab.analysis import query_errors
from pddm_lab.analysis.pairs import most_similar, similarity_to
from pddm_lab.analysis.query_errors import by_features, judge
from pddm_lab.metrics.retrieval import evaluate
from pddm_lab.model.similarity import Euclidean, Similarity, make_similarity

RANDOM = np.random.default_rng(0)
LABELS = np.sort(RANDOM.integers(0, 9, 96))
FEATURES = (RANDOM.normal(size=(9, 6))[LABELS] + RANDOM.normal(size=(96, 6))).astype(np.float32)
ROLES = {"all": (np.arange(96), np.arange(96)), "parted": (np.arange(0, 96, 3), np.arange(1, 96, 3))}


def slow(query: int, searched: list[int], similarity: Similarity) -> tuple[float, float] | None:
    """R@1 and AP@R of one query, ranked with loops."""
    others = [row for row in searched if row != query]
    wanted = sum(LABELS[row] == LABELS[query] for row in others)
    a, b = (torch.from_numpy(FEATURES[rows]) for rows in ([query] * len(others), others))
    value = dict(zip(others, similarity.pairs(a, b).tolist(), strict=True))
    ranked = sorted(others, key=lambda row: -value[row])
    hits, total = 0, 0.0
    for place, row in enumerate(ranked[:wanted], start=1):
        if LABELS[row] == LABELS[query]:
            hits += 1
            total += hits / place
    return (float(LABELS[ranked[0]] == LABELS[query]), total / wanted) if wanted else None


@pytest.mark.parametrize("roles", list(ROLES))
@pytest.mark.parametrize("name", [None, "pddm", "mahalanobis"])
def test_each_query_is_judged_as_a_loop_judges_it(roles: str, name: str | None) -> None:
    torch.manual_seed(0)
    similarity = make_similarity(name, 6).eval() if name else None
    queries, searched = ROLES[roles]
    score = by_features(FEATURES, similarity) if similarity else None
    found = judge(FEATURES, LABELS, queries, searched, score).set_index("row")
    for query in queries.tolist():
        expected = slow(query, searched.tolist(), similarity or Euclidean())
        assert (expected is None) == (query not in found.index)
        if expected:
            assert found.loc[query, "right"] == expected[0]
            assert found.loc[query, "ap"] == pytest.approx(expected[1])


@pytest.mark.parametrize("roles", list(ROLES))
def test_the_means_are_those_of_the_evaluation(roles: str) -> None:
    queries, searched = ROLES[roles]
    found = judge(FEATURES, LABELS, queries, searched)
    measured = evaluate(
        Euclidean(), FEATURES[queries], FEATURES[searched], LABELS[queries], LABELS[searched], roles == "all"
    ).metrics
    assert found["right"].mean() == pytest.approx(measured["recall@1"])
    assert found["ap"].mean() == pytest.approx(measured["map@r"])


def test_of_a_class_larger_than_the_longest_list_only_so_many_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_errors, "RERANKED", 4)
    monkeypatch.setattr(query_errors, "LONGEST", 5)
    points = np.arange(40, dtype=np.float32)[:, None] * np.ones((1, 2), np.float32)
    assert judge(points, np.zeros(40, int), np.arange(40), np.arange(40))["ap"].tolist() == [1.0] * 40


def test_queries_with_nothing_to_find_are_left_out() -> None:
    assert judge(FEATURES, np.arange(96), np.arange(96), np.arange(96)).empty


@pytest.mark.parametrize("name", ["euclidean", "pddm"])
def test_the_neighbourhood_of_an_anchor_agrees_with_a_loop(name: str) -> None:
    torch.manual_seed(0)
    similarity = make_similarity(name, 6).eval()
    values = similarity_to(FEATURES, 17, similarity)
    anchor = torch.from_numpy(FEATURES[17])
    expected = [float(similarity.pairs(anchor[None], torch.from_numpy(other)[None])) for other in FEATURES]
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    ranked = sorted((row for row in range(96) if row != 17), key=lambda row: -values[row])
    assert most_similar(values, 17, 12).tolist() == ranked[:12]


def test_equally_similar_items_come_by_row_and_no_more_than_there_are() -> None:
    values = np.array([0, 1, 1, 2, 1], np.float32)
    assert most_similar(values, 3, 2).tolist() == [1, 2]
    assert most_similar(values, 0, 9).tolist() == [3, 1, 2, 4]
    assert most_similar(values[:1], 0, 3).tolist() == []
