"""How far a training goes: what is chosen from the precisions of each share."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from pddm_lab.config import TrainConfig
from pddm_lab.data.splits import class_folds
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.similarity import Euclidean
from pddm_lab.model.trunks import Trunk
from pddm_lab.training import shares
from pddm_lab.training.loop import view_inputs
from pddm_lab.training.shares import (
    FEWEST_CLASSES,
    UNCHOSEN,
    choose,
    choose_head_share,
    choose_sure_gain,
    precisions,
    used_head,
)


def test_the_largest_share_that_is_as_good_as_the_best() -> None:
    classes = 12
    labels = torch.arange(2 * classes) // 2
    generator = torch.Generator().manual_seed(0)
    base = torch.rand(2 * classes, generator=generator)
    noise = 0.01 * torch.randn(2 * classes, generator=generator)
    share, means = choose((0.0, 0.5, 1.0), torch.stack([base, base + noise - noise.mean(), base - 0.2]), labels)
    assert share == 0.5, "0.5 is as good as 0 on average, 1 is worse"
    assert means[1.0] == pytest.approx(float(base.mean()) - 0.2, abs=1e-5)


def test_a_large_error_doesnt_excuse_a_large_lack() -> None:
    labels = torch.arange(10)
    values = torch.stack([torch.full((10,), 0.5), torch.tensor([1.0, 0.0] * 4 + [0.0, 0.9])])
    assert choose((0.0, 1.0), values, labels)[0] == 0.0, "1 lacks a point, with an error of 15"


def test_few_classes_choose_the_best() -> None:
    labels = torch.arange(FEWEST_CLASSES - 1)
    values = torch.stack([torch.full((len(labels),), 0.5), torch.tensor([0.9, 0.08, *[0.5] * (len(labels) - 2)])])
    assert choose((0.0, 1.0), values, labels)[0] == 0.0


def test_a_correction_is_used_as_far_as_it_surely_gains() -> None:
    labels = torch.arange(12)
    base, noise = torch.full((12,), 0.5), torch.tensor([0.2, -0.19] * 6)
    assert choose_sure_gain((0.0, 0.5, 1.0), torch.stack([base, base + noise, base - 0.1]), labels)[0] == 0.0
    assert choose_sure_gain((0.0, 0.5, 1.0), torch.stack([base, base + 0.1, base + 0.05]), labels)[0] == 0.5
    twice = base + noise.new_tensor([0.2, -0.1] * 6)  # 0.05 on average, with an error of 0.045
    assert choose_sure_gain((0.0, 1.0), torch.stack([base, twice]), labels)[0] == 0.0, "one standard error is chance"
    assert choose_sure_gain((0.0, 0.5), torch.full((2, 2), math.nan), torch.tensor([0, 1]))[0] == 0.0


def test_classes_count_alike() -> None:
    labels = torch.tensor([0] * 90 + [1] * 10)
    values = torch.stack([torch.zeros(100), torch.tensor([0.1] * 90 + [-0.4] * 10)])
    assert choose((0.0, 1.0), values, labels)[0] == 0.0


def test_features_that_diverged_have_no_precision() -> None:
    features = torch.eye(4)
    assert precisions(Euclidean(), features, torch.tensor([0, 0, 1, 1])).mean() > 0
    features[0, 0] = math.nan
    assert precisions(Euclidean(), features, torch.tensor([0, 0, 1, 1])).sum() == 0


def test_every_training_class_is_held_out_once() -> None:
    labels = np.arange(40) % 10
    train = np.flatnonzero(labels < 7)
    folds = class_folds(labels, train, 3, 0)
    assert np.array_equal(np.sort(np.concatenate(folds)), train)
    assert not set(labels[folds[0]]) & set(labels[folds[1]])
    assert class_folds(labels, np.flatnonzero(labels < 3), 3, 0) == (), "one class alone confuses nothing"


@pytest.fixture(scope="module")
def trained() -> tuple[TrainConfig, np.ndarray, np.ndarray, torch.Tensor]:
    """Classes that differ in some directions of features, and vary in all."""
    config = TrainConfig(steps=20, classes_per_batch=4, images_per_class=2, dim=8, views=1, pool_power=1.0, lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    labels = np.repeat(np.arange(12), 6)
    centres = torch.randn(12, 12, generator=generator) * torch.tensor([2.0] * 4 + [0.0] * 8)
    pooled = centres[torch.from_numpy(labels)] + torch.randn(len(labels), 12, generator=generator)
    return config, labels, np.arange(len(labels)), pooled


def _model(config: TrainConfig, pooled: torch.Tensor) -> MetricModel:
    torch.manual_seed(0)
    model = MetricModel(config, trunk=Trunk(torch.nn.Identity(), 12, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    model.embedding.fit_start(pooled, True)
    return model


def test_held_out_classes_choose_the_heads_share(trained) -> None:
    config, labels, train, pooled = trained
    inputs, seen = view_inputs(pooled[None], train, 0), []
    share, values = choose_head_share(
        lambda: _model(config, pooled), config, labels, train, pooled, inputs,
        progress=lambda done, total, _what: seen.append((done, total)),
    )  # fmt: skip
    assert share in values and list(values) == sorted(values)
    assert values[share] >= max(values.values()) - 0.005
    assert seen[-1] == (60, 60)


def test_a_large_class_doesnt_fill_the_sample(trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """One class alone would be found with any share, and the largest one chosen."""
    config, _, _, _ = trained
    generator = torch.Generator().manual_seed(1)
    labels = np.repeat(np.arange(6), 30)
    pooled = torch.randn(6, 12, generator=generator)[torch.from_numpy(labels)]
    pooled = pooled + 2 * torch.randn(len(labels), 12, generator=generator)
    train, inputs = np.arange(len(labels)), view_inputs(pooled[None], np.arange(len(labels)), 0)
    config = dataclasses.replace(config, steps=2)
    monkeypatch.setattr(shares, "MOST_HELD", 20)
    monkeypatch.setattr(shares, "OF_CLASS", 5)
    _, values = choose_head_share(lambda: _model(config, pooled), config, labels, train, pooled, inputs)
    assert 0 < max(values.values()) < 0.95


def test_a_training_that_does_harm_keeps_the_start(trained) -> None:
    config, labels, train, pooled = trained
    wrong = np.random.default_rng(0).permutation(labels)  # nothing to learn but noise
    config = dataclasses.replace(config, lr=1.0, steps=40)
    inputs = view_inputs(pooled[None], train, 0)

    def measured_by_true_classes(share: float) -> float:
        return values[share]

    share, values = choose_head_share(lambda: _model(config, pooled), config, wrong, train, pooled, inputs)
    assert measured_by_true_classes(share) >= values[0.0] - 0.005


def test_too_few_classes_choose_nothing(trained) -> None:
    config, labels, _, pooled = trained
    train = np.flatnonzero(labels < 3)
    inputs = view_inputs(pooled[torch.from_numpy(train)][None], train, 0)
    assert choose_head_share(lambda: _model(config, pooled), config, labels, train, pooled, inputs) == (UNCHOSEN, {})


def test_a_run_that_doesnt_interpolate_uses_all_of_its_head(trained) -> None:
    config, labels, train, pooled = trained
    plain = dataclasses.replace(config, interpolate=False)
    head = used_head(plain, 0.2, pooled, labels, train)
    assert head is not None and head.share == 1.0 and head.scatter is not None
    assert used_head(dataclasses.replace(plain, whiten=False), 0.2, pooled, labels, train) is None
    assert used_head(dataclasses.replace(config, freeze_trunk=False), 0.2, pooled, labels, train) is None
