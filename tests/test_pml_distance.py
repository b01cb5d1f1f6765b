import pytest
import reference
import torch
from pytorch_metric_learning.losses import ContrastiveLoss, TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner

from pddm_lab.model.pml_distance import SimilarityDistance
from pddm_lab.model.similarity import make_similarity
from pddm_lab.training.miner import mine

LABELS = torch.arange(5).repeat_interleave(4)


@pytest.fixture
def distance():
    torch.manual_seed(0)
    return SimilarityDistance(make_similarity("pddm", 16))


def test_a_triplet_loss_of_the_library_on_the_unit_equals_the_score_hinge(distance):
    features = reference.unit_features(20, 16, dtype=torch.float32)
    a, p, n = torch.tensor([0, 5]), torch.tensor([1, 6]), torch.tensor([9, 2])
    loss = TripletMarginLoss(margin=0.5, distance=distance)(features, LABELS, (a, p, n))
    score = distance.similarity
    slack = 0.5 + score(features[a], features[n]) - score(features[a], features[p])
    assert loss.item() == pytest.approx(slack[slack > 0].mean().item(), abs=1e-6)


def test_its_miners_pick_what_ours_picks(distance):
    features = reference.unit_features(20, 16, dtype=torch.float32)
    anchors, positives, negatives = BatchHardMiner(distance=distance)(features, LABELS)
    ours = mine(features, LABELS, distance.similarity, "anchor")
    assert torch.equal(anchors, ours.i) and torch.equal(positives, ours.j) and torch.equal(negatives, ours.k)


def test_the_unit_learns_inside_a_loss_of_the_library(distance):
    features = reference.unit_features(20, 16, dtype=torch.float32)
    ContrastiveLoss(pos_margin=1, neg_margin=0, distance=distance)(features, LABELS).backward()
    assert all(parameter.grad is not None for parameter in distance.similarity.parameters())
