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


@pytest.mark.parametrize("strategy", ["batch", "anchor"])
@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 3], []])
def test_nothing_to_mine(strategy, labels):
    features = reference.unit_features(len(labels), 4)
    quads = mine(features, torch.tensor(labels, dtype=torch.long), make_similarity("euclidean", 4), strategy)
    assert len(quads) == 0 and quads.l.dtype == torch.long


def test_no_gradient_and_no_change_of_mode():
    similarity = make_similarity("pddm", 4, dropout=0.5).train()
    features = reference.unit_features(8, 4, dtype=torch.float32).requires_grad_()
    quads = mine(features, torch.tensor(LABELS), similarity, "batch")
    assert similarity.training and not quads.i.requires_grad
    # Mined without dropout, so twice the same.
    assert rows(quads) == rows(mine(features, torch.tensor(LABELS), similarity, "batch"))


def test_batch_scores_the_positive_pairs_and_two_rows_only():
    class Counting(Similarity):
        scored = 0

        def forward(self, a, b):
            self.scored += len(a)
            return -(a - b).norm(dim=-1)

        def _matrix(self, queries, gallery):
            self.scored += len(queries) * len(gallery)
            return -torch.cdist(queries, gallery)

    similarity = Counting()
    labels = torch.arange(64).repeat_interleave(4)
    mine(reference.unit_features(256, 8), labels, similarity, "batch")
    assert similarity.scored == 64 * 6 + 2 * 256


def test_an_unknown_strategy_is_named():
    with pytest.raises(ConfigError, match="'hardest'"):
        mine(torch.zeros(2, 2), torch.tensor([0, 1]), make_similarity("cosine", 2), "hardest")
