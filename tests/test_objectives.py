import math

import pytest
import reference
import torch

from pddm_lab.config import LOSSES, TrainConfig
from pddm_lab.errors import ConfigError
from pddm_lab.model.embedding import MetricModel
from pddm_lab.runs.quadruplets import VALUES
from pddm_lab.similarities import LEARNED, SIMILARITIES
from pddm_lab.training.objectives import RIVALS, Objective

LABELS = torch.arange(6).repeat_interleave(3)


@pytest.fixture
def pooled():
    return torch.randn(18, 512, generator=torch.Generator().manual_seed(0))


def learner(**choices):
    torch.manual_seed(0)
    config = TrainConfig.from_parameters(
        {"preset": "joint", "trunk": "resnet18", "weights": "none", "dim": 8, **choices}
    )
    return Objective(MetricModel(config), config, 8)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("mining", ["batch", "anchor"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_the_loss_equals_the_slow_reference(pooled, similarity, mining, squared):
    step_of = learner(similarity=similarity, mining=mining, squared_distance=squared).double()
    step = step_of(pooled.double(), LABELS)
    features = step_of.model.embedding.project(pooled.double()).detach()
    scores = reference.score_matrix(step_of.model.similarity(similarity), features)
    labels = LABELS.tolist()
    mined = reference.hardest_of_anchors(scores, labels)
    if mining == "batch":
        mined = [reference.hardest_of_batch(scores, labels)]
    distances = torch.cdist(features, features) ** (2 if squared else 1)
    values = [
        (scores[i][j], scores[i][k], scores[j][l], *(float(distances[p]) for p in ((i, j), (i, k), (j, l))))
        for i, j, k, l in mined
    ]
    assert step.terms["loss"].item() == pytest.approx(reference.joint_objective(values, 0.5, 1.0, 0.5), abs=1e-9)
    assert step.quadruplets.shape == (4, len(mined))


def test_the_logged_values_belong_to_the_quadruplets(pooled):
    step_of = learner()
    step = step_of(pooled, LABELS)
    features = step_of.model.embedding.project(pooled).detach()
    values = dict(zip(VALUES, step.values, strict=True))
    i, j, k, l = step.quadruplets
    torch.testing.assert_close(values["d_jl"], (features[j] - features[l]).norm(dim=1))
    torch.testing.assert_close(values["slack_ik"], 0.5 + values["s_ik"] - values["s_ij"])
    assert (LABELS[i] == LABELS[j]).all() and (LABELS[i] != LABELS[k]).all()


@pytest.mark.parametrize("mining", ["batch", "anchor"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_what_euclidean_mining_would_take_is_kept_with_its_values(pooled, similarity, mining):
    step_of = learner(similarity=similarity, mining=mining, unit_dropout=0.5).double()
    step = step_of(pooled.double(), LABELS)
    features = step_of.model.embedding.project(pooled.double()).detach()
    labels, distances = LABELS.tolist(), torch.cdist(features, features).tolist()
    nearness = [[-value for value in row] for row in distances]
    batch = mining == "batch"
    expected = (
        [reference.hardest_of_batch(nearness, labels)] if batch else reference.hardest_of_anchors(nearness, labels)
    )
    assert step.euclidean.T.tolist() == [list(quadruplet) for quadruplet in expected]
    if not batch:
        assert torch.equal(step.euclidean[0], step.quadruplets[0])
    scores = reference.score_matrix(step_of.model.similarity(similarity).eval(), features)
    for (i, j, k, l), values in zip(expected, step.euclidean_values.T.tolist(), strict=True):
        pairs = ((i, j), (i, k), (j, l))
        assert values == pytest.approx(
            [float(table[a][b]) for table in (scores, distances) for a, b in pairs], abs=1e-6
        )
    if similarity == "euclidean":
        assert torch.equal(step.euclidean, step.quadruplets)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_companions_learn_without_moving_the_embedding(pooled, similarity):
    step_of = learner(similarity=similarity, embedding_weight=0.0)
    step = step_of(pooled, LABELS)
    step.loss.backward()
    with_companions = step_of.model.embedding.head.weight.grad.clone()
    for name in LEARNED:
        assert all(p.grad is not None for p in step_of.model.similarity(name).parameters())
    again = learner(similarity=similarity, embedding_weight=0.0)
    main = again(pooled, LABELS)
    sum((main.loss, *(-main.terms[f"{name}_loss"] for name in LEARNED if name != similarity))).backward()
    torch.testing.assert_close(with_companions, again.model.embedding.head.weight.grad)


def test_triplets_leave_l_out(pooled):
    step = learner(loss="triplet")(pooled, LABELS)
    values = dict(zip(VALUES, step.values, strict=True))
    e_m = (0.5 + values["s_ik"] - values["s_ij"]).clamp(min=0).mean()
    e_e = (1.0 + values["d_ij"] - values["d_ik"]).clamp(min=0).mean()
    torch.testing.assert_close(step.terms["loss"], e_m + 0.5 * e_e)


def test_another_similarity_can_mine(pooled):
    mined = learner(mining_similarity="euclidean")(pooled, LABELS).quadruplets
    as_euclidean = learner(similarity="euclidean")(pooled, LABELS).quadruplets
    assert torch.equal(mined, as_euclidean)


def test_a_batch_of_one_class_gives_a_differentiable_zero(pooled):
    step = learner()(pooled, torch.zeros(18, dtype=torch.long))
    step.loss.backward()
    assert step.loss == 0 and step.quadruplets.shape == (4, 0)


def test_features_have_unit_length_and_images_go_through_the_trunk():
    step_of = learner(freeze_trunk=False)
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(step_of.model.embedding(images).norm(dim=1), torch.ones(6))
    step_of(images, LABELS[:6]).loss.backward()
    assert dict(step_of.model.named_parameters())["embedding.trunk.network.conv1.weight"].grad.abs().sum() > 0


def test_every_rival_is_registered_once():
    assert set(RIVALS) == {name for name, loss in LOSSES.items() if loss.is_rival}


@pytest.mark.parametrize("loss", RIVALS)
def test_a_rivals_loss_moves_the_embedding_and_similarities_learn_beside_it(pooled, loss):
    step_of = learner(loss=loss)
    step = step_of(pooled, LABELS)
    step.loss.backward()
    head = step_of.model.embedding.head.weight
    for name in LEARNED:
        assert all(p.grad is not None for p in step_of.model.similarity(name).parameters())
    again = learner(loss=loss)
    alone = again.rival(again.model.embedding.project_head(pooled), LABELS)
    alone.backward()
    assert step.terms["loss"].item() == pytest.approx(alone.item())
    assert set(step.terms) == {"loss", "mahalanobis_loss", "pddm_loss"} and step.quadruplets.shape == (4, 18)
    torch.testing.assert_close(head.grad, again.model.embedding.head.weight.grad)
    assert head.grad.abs().sum() > 0


@pytest.mark.parametrize("loss", RIVALS)
def test_a_rival_without_similarities_mines_nothing(pooled, loss):
    torch.manual_seed(0)
    config = TrainConfig(trunk="resnet18", weights="none", dim=8, loss=loss)
    alone = Objective(MetricModel(config), config, 6, learning=())
    step = alone(pooled, LABELS)
    assert step.quadruplets.shape == step.euclidean.shape == (4, 0) and set(step.terms) == {"loss"}
    moved = {id(p) for group in alone.groups() for p in group["params"]}
    assert not moved & {id(p) for p in alone.model.learned.parameters()}
    assert {id(p) for p in alone.rival.parameters()} <= moved  # type: ignore[union-attr]


@pytest.mark.parametrize("loss", ["proxy-nca", "proxy-anchor", "arcface", "classifier", "margin"])
def test_weights_of_a_loss_learn_at_their_own_rate_and_do_not_decay(loss):
    step_of = learner(loss=loss, lr=1e-3)
    own = step_of.groups()[-1]
    assert own["base_lr"] == pytest.approx(1e-3 * LOSSES[loss].options["loss_lr_scale"]) and own["weight_decay"] == 0
    assert [id(p) for p in own["params"]] == [id(p) for p in step_of.rival.parameters()] != []


def test_options_of_a_loss_replace_its_defaults():
    arcface = learner(loss="arcface", loss_options="scale=16, loss_lr_scale=2").rival
    assert arcface.loss.scale == 16 and arcface.lr_scale == 2
    assert arcface.loss.margin == pytest.approx(math.radians(28.6))


@pytest.mark.parametrize(
    ("options", "message"),
    [("scael=1", "scael"), ("scale=nan", "finite number"), ("scale", "finite number"), ("scale=x", "finite number")],
)
def test_a_bad_option_of_a_loss_names_the_flag(options, message):
    with pytest.raises(ConfigError, match=f"--loss-options.*{message}"):
        TrainConfig(loss="arcface", loss_options=options)


@pytest.mark.parametrize("loss", ["quadruplet", "triplet", "proxy-anchor"])
def test_under_mixed_precision_all_behind_the_trunk_keeps_32_bits(pooled, loss):
    exact, mixed = learner(loss=loss), learner(loss=loss)
    expected = exact(pooled, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        step = mixed(pooled, LABELS)
        features = mixed.model.embedding.project(pooled)
    assert features.dtype == torch.bfloat16  # what a projection without the guard would give
    assert step.loss.dtype == torch.float32
    torch.testing.assert_close(step.loss, expected.loss, rtol=0, atol=0)
    torch.testing.assert_close(step.values, expected.values, rtol=0, atol=0)
    for trained in (expected, step):
        trained.loss.backward()
    for name, parameter in mixed.named_parameters():
        other = exact.get_parameter(name)
        assert (parameter.grad is None) == (other.grad is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-6, atol=1e-7)
