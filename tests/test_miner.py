import dataclasses
import itertools

import pytest
import reference
import torch

from pddm_lab.errors import ConfigError
from pddm_lab.model.similarity import Similarity, make_similarity
from pddm_lab.similarities import SIMILARITIES
from pddm_lab.training import miner
from pddm_lab.training.miner import mine, positive_pairs

LABELS = [3, 1, 3, 2, 1, 2, 3, 9]


def rows(quads):
    return list(zip(quads.i.tolist(), quads.j.tolist(), quads.k.tolist(), quads.l.tolist(), strict=True))


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("seed", range(3))
def test_both_strategies_equal_the_slow_reference(name, seed):
    torch.manual_seed(seed)
    similarity = make_similarity(name, 6).double()
    features = reference.unit_features(len(LABELS), 6, seed)
    scores = reference.score_matrix(similarity, features)
    labels = torch.tensor(LABELS)
    i, j, k, l = rows(mine(features, labels, similarity, "batch"))[0]
    expected = reference.hardest_of_batch(scores, LABELS)
    assert (i, j, k, l) in (expected, (expected[1], expected[0], expected[3], expected[2]))
    assert rows(mine(features, labels, similarity, "anchor")) == reference.hardest_of_anchors(scores, LABELS)


@pytest.mark.parametrize("sizes", [[3, 5, 1, 2], [40, 2, 1], [1, 1, 1, 1]])
def test_a_neighbourhood_of_all_negatives_equals_the_dense_strategy(monkeypatch, sizes):
    monkeypatch.setattr(miner, "_ROWS", 3)
    torch.manual_seed(0)
    similarity = make_similarity("pddm", 6).double()
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels))]
    features = reference.unit_features(len(labels), 6, 1)
    dense = rows(mine(features, labels, similarity, "anchor"))
    monkeypatch.setattr(miner, "DENSE_ITEMS", 0)
    found = mine(features, labels, similarity, "anchor", neighbours=len(labels))
    assert rows(found) == dense and found.scores is None


def test_a_neighbourhood_holds_the_nearest_negatives(monkeypatch):
    monkeypatch.setattr(miner, "DENSE_ITEMS", 0)
    torch.manual_seed(0)
    similarity, count = make_similarity("pddm", 6).double(), 3
    labels, features = torch.arange(20).repeat_interleave(3), reference.unit_features(60, 6, 1)
    features = features * torch.linspace(0.5, 2, 60)[:, None]  # nearest by distance, not by angle
    distances = torch.cdist(features, features).masked_fill(labels[:, None] == labels, torch.inf)
    scores = similarity(features[:, None], features[None])
    quads = mine(features, labels, similarity, "anchor", neighbours=count)
    for end, negative in ((quads.i, quads.k), (quads.j, quads.l)):
        for item, found in zip(end.tolist(), negative.tolist(), strict=True):
            nearest = distances[item].argsort()[:count]
            assert found == nearest[scores[item, nearest].argmax()]


def test_positive_pairs_are_all_of_them_once():
    first, second = positive_pairs(torch.tensor(LABELS))
    found = {frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)}
    expected = {frozenset(p) for p in itertools.combinations(range(len(LABELS)), 2) if LABELS[p[0]] == LABELS[p[1]]}
    assert len(first) == len(expected) and found == expected
    for labels in ([1, 1], [0, 1], []):
        for ends in positive_pairs(torch.tensor(labels, dtype=torch.int32)):
            assert ends.dtype == torch.long and len(ends) == (labels == [1, 1])


@pytest.mark.parametrize("strategy", ["batch", "anchor"])
@pytest.mark.parametrize("dense", [0, 128])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], [5], []])
def test_nothing_to_mine(monkeypatch, strategy, labels, dense):
    monkeypatch.setattr(miner, "DENSE_ITEMS", dense)
    features = reference.unit_features(len(labels), 4)
    for name in ("euclidean", "pddm"):
        similarity = make_similarity(name, 4).double()
        quads = mine(features, torch.tensor(labels, dtype=torch.int32), similarity, strategy)
        assert len(quads) == 0
        assert all(ends.shape == (0,) and ends.dtype == torch.long for ends in (quads.i, quads.j, quads.k, quads.l))


def test_no_gradient_and_no_change_of_mode():
    similarity = make_similarity("pddm", 4, dropout=0.5).train()
    features = reference.unit_features(8, 4, dtype=torch.float32).requires_grad_()
    quads = mine(features, torch.tensor(LABELS), similarity, "batch")
    assert similarity.training and not quads.i.requires_grad
    # Mined without dropout, so twice the same.
    assert rows(quads) == rows(mine(features, torch.tensor(LABELS), similarity, "batch"))


class Counting(Similarity):
    """Counts the pairs that it scores; a network by its name."""

    name = "pddm"

    def __init__(self):
        super().__init__()
        self.scored = {"pairs": 0, "matrix": 0, "candidates": 0}

    def forward(self, a, b):
        self.scored["pairs" if a.ndim == 2 else "candidates"] += a.expand_as(b)[..., 0].numel()
        return -(a - b).norm(dim=-1)

    def _matrix(self, queries, gallery):
        self.scored["matrix"] += len(queries) * len(gallery)
        return -torch.cdist(queries, gallery)


def test_batch_scores_the_positive_pairs_and_two_rows_only():
    similarity = Counting()
    labels = torch.arange(64).repeat_interleave(4)
    mine(reference.unit_features(256, 8), labels, similarity, "batch")
    assert similarity.scored == {"pairs": 64 * 6, "matrix": 2 * 256, "candidates": 0}


@pytest.mark.parametrize(
    ("items", "choices", "negatives"),
    [
        (128, {}, None),
        (128, {"neighbours": 5}, None),
        (129, {}, 32),
        (130, {"neighbours": 5}, 5),
        (130, {"neighbours": 0}, None),
    ],
)
def test_a_network_scores_32_negatives_of_an_anchor_in_a_large_batch(items, choices, negatives):
    similarity = Counting()
    labels = torch.arange(items) // 2
    quads = mine(reference.unit_features(items, 8), labels, similarity, "anchor", **choices)
    assert len(quads) == items // 2 * 2
    if negatives is None:
        assert similarity.scored == {"pairs": 0, "matrix": items * items, "candidates": 0}
        assert quads.scores is not None and quads.scores.shape == (items, items)
    else:
        assert similarity.scored == {"pairs": items // 2, "matrix": 0, "candidates": items * negatives}
        assert quads.scores is None


def test_what_is_no_network_scores_all_pairs():
    similarity = Counting()
    similarity.name = "a distance"
    mine(reference.unit_features(130, 8), torch.arange(130) // 2, similarity, "anchor")
    assert similarity.scored == {"pairs": 0, "matrix": 130 * 130, "candidates": 0}


@pytest.mark.parametrize(("strategy", "dense"), [("batch", 128), ("anchor", 128), ("anchor", 0)])
def test_no_graph_is_kept(monkeypatch, strategy, dense):
    monkeypatch.setattr(miner, "DENSE_ITEMS", dense)
    features = reference.unit_features(len(LABELS), 4).requires_grad_()
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda packed: packed):
        quads = mine(features, torch.tensor(LABELS), make_similarity("pddm", 4).double(), strategy)
    assert len(quads) and not saved
    assert quads.scores is None or not quads.scores.requires_grad


@pytest.mark.parametrize("strategy", ["batch", "anchor"])
def test_positive_pairs_that_are_given_are_taken(monkeypatch, strategy):
    monkeypatch.setattr(miner, "DENSE_ITEMS", 0)
    labels, features = torch.arange(12) // 3, reference.unit_features(12, 4)
    similarity = make_similarity("pddm", 4).double()
    expected = mine(features, labels, similarity, strategy)
    pairs = positive_pairs(labels)
    assert rows(mine(features, labels, similarity, strategy, pairs)) == rows(expected)
    some = mine(features, labels, similarity, strategy, (pairs[0][:1], pairs[1][:1]))
    ends = {frozenset(pair) for pair in zip(some.i.tolist(), some.j.tolist(), strict=True)}
    assert ends == {frozenset(end[0].item() for end in pairs)}


@pytest.mark.parametrize("dense", [0, 128])
def test_of_equal_positives_the_first_is_taken(monkeypatch, dense):
    monkeypatch.setattr(miner, "DENSE_ITEMS", dense)
    features = reference.unit_features(2, 4, 1).repeat_interleave(torch.tensor([2, 5]), 0)
    labels = torch.tensor([1, 0, 0, 0, 0, 0, 0])
    quads = mine(features, labels, make_similarity("pddm", 4).double(), "anchor")
    assert len(quads) == 6 and set(quads.k.tolist()) == {0}
    equal = mine(features, torch.tensor([0, 0, 1, 1, 1, 1, 1]), make_similarity("pddm", 4).double(), "anchor")
    assert equal.j.tolist() == [1, 0, 3, 2, 2, 2, 2]


def test_one_batch_mined_twice_is_the_same_and_cannot_be_changed():
    features, labels = reference.unit_features(8, 4), torch.tensor(LABELS)
    quads = mine(features, labels, make_similarity("euclidean", 4))
    assert rows(quads) == rows(mine(features, labels, make_similarity("euclidean", 4), "batch")), "batch is the default"
    assert len(quads) == 1 and quads.scores is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        quads.i = quads.j  # type: ignore[misc]


def test_anchors_keep_the_scores_of_the_whole_batch():
    similarity, features = make_similarity("pddm", 4).double(), reference.unit_features(8, 4)
    quads = mine(features, torch.tensor(LABELS), similarity, "anchor")
    assert quads.scores is not None and torch.equal(quads.scores, similarity.matrix(features, features))


def test_an_unknown_strategy_is_named():
    with pytest.raises(ConfigError, match=r"'hardest'\. Expected 'batch' or 'anchor'"):
        mine(torch.zeros(2, 2), torch.tensor([0, 1]), make_similarity("cosine", 2), "hardest")
