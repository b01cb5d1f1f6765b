"""Pairs are drawn evenly, once each, within their roles; the same for two runs; and scored as one by one."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pddm_lab.analysis.pairs import Pairs, pairs_by_density, sample_pairs, score_pairs
from pddm_lab.metrics.density import density_of, local_radius
from pddm_lab.model.similarity import make_similarity
from pddm_lab.similarities import SIMILARITIES

RNG = np.random.default_rng(0)


def gallery_of(labels, roles) -> Any:
    """As much of a gallery as a sample of its pairs looks at."""
    ids = [f"item {number:03}" for number in range(len(labels))]
    return SimpleNamespace(items=pd.DataFrame({"id": ids, "label": labels, "role": roles}))


def all_pairs(gallery) -> dict[tuple[int, int], bool]:
    """Every pair there is, by a slow loop: unordered, and whether it is positive."""
    items, found = gallery.items, {}
    for a, b in product(range(len(items)), repeat=2):
        if a != b and items["role"][a] != "gallery" and items["role"][b] != "query":
            found[min(a, b), max(a, b)] = bool(items["label"][a] == items["label"][b])
    return found


def unordered(pairs: pd.DataFrame) -> list[tuple[int, int]]:
    return [(min(a, b), max(a, b)) for a, b in zip(pairs["a"], pairs["b"], strict=True)]


GALLERIES = {
    "each among the others": gallery_of(RNG.integers(0, 5, 40), ["both"] * 40),
    "queries and searched apart": gallery_of(RNG.integers(0, 5, 40), ["query"] * 15 + ["gallery"] * 25),
    "all roles": gallery_of(RNG.integers(0, 5, 40), RNG.choice(["query", "gallery", "both"], 40)),
    "a class each": gallery_of(np.arange(12), ["both"] * 12),
    "one class": gallery_of([3] * 12, ["both"] * 12),
    "one item": gallery_of([0], ["both"]),
    "nothing": gallery_of(np.empty(0, int), np.empty(0, str)),
}


@pytest.mark.parametrize("gallery", GALLERIES.values(), ids=GALLERIES.keys())
def test_all_pairs_come_once_where_they_are_few(gallery) -> None:
    expected, pairs = all_pairs(gallery), sample_pairs(gallery, 10_000)
    found = unordered(pairs)
    assert len(set(found)) == len(found)
    assert dict(zip(found, pairs["positive"], strict=True)) == expected
    role = gallery.items["role"].to_numpy()
    assert (role[pairs["a"]] != "gallery").all() and (role[pairs["b"]] != "query").all()


@pytest.mark.parametrize("gallery", GALLERIES.values(), ids=GALLERIES.keys())
def test_a_sample_is_half_positive_and_filled_up_where_one_kind_runs_out(gallery) -> None:
    expected = all_pairs(gallery)
    positives, negatives = sum(expected.values()), len(expected) - sum(expected.values())
    for count in (1, 20, 200):
        pairs = sample_pairs(gallery, count, seed=count)
        assert len(pairs) == len(set(unordered(pairs))) == min(count, len(expected))
        assert all(
            expected[pair] == positive for pair, positive in zip(unordered(pairs), pairs["positive"], strict=True)
        )
        if positives >= count // 2 and negatives >= count - count // 2:
            assert pairs["positive"].sum() == count // 2


def test_every_pair_is_as_likely() -> None:
    """Also where pairs are drawn by number rather than all listed: 3 of some 3 000 times 1 000 draws."""
    gallery = gallery_of(np.arange(80) % 8, ["both"] * 60 + ["query"] * 10 + ["gallery"] * 10)
    expected = all_pairs(gallery)
    counts = dict.fromkeys(expected, 0)
    draws, count = 1000, 60
    for seed in range(draws):
        for pair in unordered(sample_pairs(gallery, count, seed)):
            counts[pair] += 1
    for positive in (True, False):
        drawn = np.array([counts[pair] for pair, kind in expected.items() if kind == positive])
        mean = draws * (count / 2) / len(drawn)
        assert drawn.sum() == draws * count / 2
        assert ((drawn - mean) ** 2 / mean).sum() / len(drawn) == pytest.approx(1, abs=0.2)


def test_two_runs_on_the_same_items_get_the_same_pairs() -> None:
    gallery = GALLERIES["all roles"]
    shuffled: Any = SimpleNamespace(items=gallery.items.sample(frac=1, random_state=1).reset_index(drop=True))
    pairs = [
        [[one.items["id"][row] for row in sample[end]] for end in "ab"] + [list(sample["positive"])]
        for one, sample in ((one, sample_pairs(one, 50, seed=3)) for one in (gallery, shuffled))
    ]
    assert pairs[0] == pairs[1]
    assert not sample_pairs(gallery, 50, seed=4).equals(sample_pairs(gallery, 50, seed=3))


def test_scores_are_those_of_one_pair_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pddm_lab.analysis.pairs.SCORED_AT_A_TIME", 7)
    torch.manual_seed(0)
    names = ("euclidean", "cosine", "mahalanobis", "pddm")
    similarities = {name: make_similarity(name, 6).eval() for name in names}
    features = RNG.normal(size=(40, 6)).astype(np.float32)
    pairs = sample_pairs(GALLERIES["all roles"], 30)
    scored = score_pairs(features, pairs, similarities)
    assert list(scored) == ["a", "b", "positive", *names]
    for row in scored.itertuples():
        a, b = features[row.a].astype(float), features[row.b].astype(float)
        assert row.euclidean == pytest.approx(-np.sqrt(((a - b) ** 2).sum()), abs=1e-5)
        assert row.cosine == pytest.approx(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b), abs=1e-5)
        with torch.no_grad():
            expected = similarities["pddm"].double()(torch.tensor(a), torch.tensor(b)).item()
        assert row.pddm == pytest.approx(expected, abs=1e-5)
        similarities["pddm"].float()
    assert all(scored[name].dtype == np.float32 for name in names)
    assert score_pairs(features, pairs[:0], similarities)["pddm"].dtype == np.float32


def test_pairs_by_density_know_their_classes_and_how_densely_they_lie() -> None:
    gallery = gallery_of([0, 0, 0, 1, 1, 2, 2, 2], ["both"] * 8)
    gallery.features = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    found = pairs_by_density(gallery, {"euclidean": make_similarity("euclidean", 4)}, 20)
    labels, radius = gallery.items["label"], local_radius(gallery.features)
    assert (found["label_a"].to_numpy() == labels[found["a"]].to_numpy()).all()
    assert ((found["label_a"] == found["label_b"]) == found["positive"]).all()
    means = np.array([(radius[a] + radius[b]) / 2 for a, b in zip(found["a"], found["b"], strict=True)])
    assert (found["density"] == density_of(means)).all()
    for row in found.to_dict("records"):
        away = np.linalg.norm(gallery.features[row["a"]] - gallery.features[row["b"]])
        assert row["euclidean"] == pytest.approx(-away, rel=1e-5)


def test_a_similarity_that_came_to_the_lab_later_is_left_out_and_named(digits_run, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    gallery = digits_run.gallery("unseen")
    measured = Pairs.of(gallery)
    assert list(measured.distributions) == list(SIMILARITIES) and not measured.not_measured
    monkeypatch.setitem(SIMILARITIES, "later", SIMILARITIES["cosine"])
    older = Pairs.of(gallery)
    assert list(older.distributions) == list(measured.distributions)
    assert older.not_measured == ("later",) and older.counted == measured.counted
