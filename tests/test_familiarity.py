"""S fades from the unit's score to a global measure, pair by pair, and every way of scoring says the same."""

import dataclasses
import math

import numpy as np
import pytest
import reference
import torch

from pddm_lab.analysis.explain import explain_by
from pddm_lab.errors import ConfigError
from pddm_lab.model import familiarity
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.familiarity import (
    CORRECTION_WEIGHT,
    PRETRAINED_DIMS,
    PRETRAINED_WEIGHT,
    FamiliarPDDM,
    PretrainedPart,
    joined,
    split_parts,
)
from pddm_lab.model.pddm import PDDM
from pddm_lab.model.similarity import Euclidean, Mahalanobis
from pddm_lab.runs.model import load_model, load_similarities
from pddm_lab.study.methods import LAB
from pddm_lab.training.losses import embedding_hinge
from pddm_lab.training.miner import mine
from pddm_lab.training.objectives import Objective
from pddm_lab.training.trainer import train


def items(count: int, seed: int) -> torch.Tensor:
    x = reference.unit_features(count, 16, seed, torch.float32)
    return joined(x, reference.unit_features(count, PRETRAINED_DIMS, seed + 100, torch.float32))


@pytest.fixture
def similarity() -> FamiliarPDDM:
    torch.manual_seed(0)
    unit = PDDM(16, global_weight=3.0)
    torch.nn.init.normal_(unit.score.weight)
    return FamiliarPDDM(unit, threshold=0.3).eval()


def by_hand(similarity: FamiliarPDDM, a: torch.Tensor, b: torch.Tensor) -> float:
    """The formula of the module's docstring, for one pair."""
    (x_a, p_a), (x_b, p_b) = split_parts(a), split_parts(b)
    centres = similarity.centres[: int(similarity.used)]
    shares = [1 / (1 + math.exp(-50 * (float((centres @ x).max()) - 0.3))) for x in (x_a, x_b)]
    phi, g = sum(shares) / 2, float(similarity.unit.get_parameter("global_weight"))
    d, p = float((x_a - x_b).norm()), float((p_a - p_b).norm())
    correction = CORRECTION_WEIGHT * (float(similarity.unit(x_a, x_b)) + g * d)
    return phi * correction + (1 - phi) * PRETRAINED_WEIGHT * g * (1 - p) - g * d


def test_a_feature_holds_both_parts() -> None:
    both = items(5, 1)
    x, p = split_parts(both)
    torch.testing.assert_close(both.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(x, reference.unit_features(5, 16, 1, torch.float32))
    torch.testing.assert_close(p.norm(dim=1), torch.ones(5))


def test_before_there_are_centres_and_in_training_it_is_the_units_score(similarity: FamiliarPDDM) -> None:
    a, b = items(9, 1), items(9, 2)
    units = similarity.unit(split_parts(a)[0], split_parts(b)[0])
    torch.testing.assert_close(similarity(a, b), units)
    similarity.remember_classes(a, torch.arange(9) // 3)
    assert not torch.allclose(similarity(a, b), units)
    torch.testing.assert_close(similarity.train()(a, b), units)


def test_all_ways_of_scoring_agree_with_the_formula(similarity: FamiliarPDDM, monkeypatch) -> None:
    monkeypatch.setattr(familiarity, "_AT_ONCE", 600)  # several blocks
    train, queries, gallery = items(60, 1), items(7, 2), items(40, 3)
    similarity.remember_classes(train, torch.arange(60) // 6)
    with torch.no_grad():
        expected = torch.tensor([[by_hand(similarity, a, b) for b in gallery] for a in queries])
        matrix = similarity.matrix(queries, gallery)
        torch.testing.assert_close(matrix, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(similarity(queries[:, None], gallery), expected, atol=1e-5, rtol=1e-5)
        for count in (3, 11):  # fewer and more candidates than there are items
            rows = torch.randint(len(gallery), (7, count))
            actual = similarity.candidates(queries, gallery, rows)
            torch.testing.assert_close(actual, expected.gather(1, rows), atol=1e-5, rtol=1e-5)
        own = similarity.matrix(gallery, gallery)
        torch.testing.assert_close(own, own.T, atol=1e-5, rtol=1e-5)
    shares = similarity.familiarity(split_parts(queries)[0])
    assert shares.min() < 0.1 and shares.max() > 0.9, "the comparison sees both ends"


def test_more_classes_than_centres_share_them(similarity: FamiliarPDDM) -> None:
    many = items(familiarity.MOST_CENTRES + 80, 4)
    similarity.remember_classes(many, torch.arange(len(many)))
    assert int(similarity.used) == familiarity.MOST_CENTRES
    assert similarity.familiarity(split_parts(many)[0]).mean() > 0.9


def test_the_pretrained_part_keeps_the_main_directions() -> None:
    random = np.random.default_rng(0)
    inputs = torch.tensor(random.normal(size=(300, 160)) * (np.arange(160) < 20) + 3, dtype=torch.float32)
    part = PretrainedPart(160)
    part.fit(inputs)
    actual = part(inputs)
    centred = torch.nn.functional.normalize(inputs - inputs.mean(0), dim=1)
    torch.testing.assert_close(actual @ actual.T, centred @ centred.T, atol=1e-4, rtol=1e-4)


def test_it_needs_a_global_weight_and_a_frozen_trunk(digits_config) -> None:
    with pytest.raises(ConfigError, match="--unit-detached expects"):
        dataclasses.replace(digits_config, unit_detached=True, embedding_weight=0.0)
    for changes in ({"unit_global": 0.0}, {"freeze_trunk": False}, {"familiarity": 1.0}):
        with pytest.raises(ConfigError, match="--familiarity expects"):
            dataclasses.replace(digits_config, **{"unit_global": 8.0, "familiarity": 0.5, **changes})


def test_a_detached_unit_leaves_the_embedding_to_its_own_hinge(digits_config) -> None:
    """The embedding's gradient is that of lambda E_e alone, on the quadruplets that D mines."""
    torch.manual_seed(0)
    labels = torch.arange(8) // 2
    config = dataclasses.replace(digits_config, unit_detached=True, unit_global=1.0)
    objective = Objective(MetricModel(config, weights="none"), config, 4, [])
    pooled, head = torch.rand(8, objective.model.embedding.trunk.dim), objective.model.embedding.head
    objective(pooled, labels).loss.backward()
    gradient = head.weight.grad
    head.weight.grad = None
    features = objective.model.embedding.project(pooled)
    quads = mine(features.detach(), labels, Euclidean(), config.mining)
    i, j, k, l = quads.i, quads.j, quads.k, quads.l
    d_ij, d_ik, d_jl = ((features[a] - features[b]).norm(dim=1) for a, b in ((i, j), (i, k), (j, l)))
    (config.embedding_weight * embedding_hinge(d_ij, d_ik, d_jl, config.distance_margin).mean()).backward()
    torch.testing.assert_close(gradient, head.weight.grad)


@pytest.mark.slow
def test_a_run_of_it_is_like_any_other(digits_run, digits_config, tmp_path) -> None:
    root = tmp_path / "runs"
    root.mkdir()
    (root / ".features").symlink_to(f"{digits_config.runs_root}/.features")
    config = dataclasses.replace(digits_config, runs_root=str(root), run_name="lab", steps=12, eval_every=4, **LAB)
    run = train(config, progress=False)
    pddm = load_similarities(run)["pddm"]
    assert isinstance(pddm, FamiliarPDDM)
    trained_on = {str(name) for name in run.gallery("known").items["class_name"]}
    assert int(pddm.used) == len(trained_on)
    gallery = run.gallery("unseen")
    features = torch.tensor(np.array(gallery.features))
    assert features.shape[1] == config.dim + PRETRAINED_DIMS
    torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)))
    torch.testing.assert_close(
        load_model(run).similarity("pddm").matrix(features[:4], features), pddm.matrix(features[:4], features)
    )
    metric = load_similarities(run)["mahalanobis"]
    assert isinstance(metric, Mahalanobis)
    actual = explain_by(pddm, metric, features[0].numpy(), features[1].numpy(), features[2:9].numpy())
    assert len(actual.u) == config.dim and 0 <= actual.familiarity <= 1
    assert any("familiar" in sentence for sentence in actual.sentences()) == (actual.familiarity < 1)
