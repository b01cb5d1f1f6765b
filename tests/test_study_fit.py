"""Methods of a study: each learns, with as many configurations as any other, on folds that share no class."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from pixel_study import pixels

from pddm_lab.data.splits import class_folds
from pddm_lab.errors import ConfigError
from pddm_lab.study.fit import fit
from pddm_lab.study.material import Material
from pddm_lab.study.methods import ABLATIONS, CONFIGURATIONS, FACTORS, METHODS


@pytest.fixture(scope="module")
def material(data_root: Path) -> Material:
    return pixels(data_root)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.trains])
def test_a_method_lowers_its_loss(material: Material, name: str) -> None:
    method = METHODS[name]
    fitted = fit(
        material, method, method.configurations()[-1] | {"lr": 5e-3}, material.dataset.train, 60, eval_every=20
    )
    losses = [row["loss"] for row in fitted.curve]
    assert [row["step"] for row in fitted.curve] == [20, 40, 60]
    assert losses[-1] < losses[0]
    features = fitted.embed(material.dataset.train[:5])
    assert torch.allclose(features.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_a_variant_of_the_ablation_trains(material: Material, name: str) -> None:
    variant = ABLATIONS[name]
    assert variant.factor in FACTORS
    (settings,) = variant.method.configurations()
    fitted = fit(material, variant.method, settings, material.dataset.train, 2, 0, material.folds[0])
    assert set(fitted.curve[-1]) == {"step", "seconds", "loss", "euclidean", "mahalanobis", "pddm"}
    assert np.isfinite(fitted.curve[-1]["loss"])


@pytest.mark.parametrize("name", ["pretrained", "pca"])
def test_an_untrained_method_measures_features_as_they_are(material: Material, name: str) -> None:
    method = METHODS[name]
    settings = method.configurations()[-1]
    fitted = fit(material, method, settings, material.fit_items(0), 100, 0, material.folds[0])
    (row,) = fitted.curve
    assert row["step"] == 0 and 0 < row["euclidean"]["map@r"] <= 1


def test_the_same_seed_gives_the_same_training(material: Material) -> None:
    method = METHODS["pddm"]
    settings = method.configurations()[0] | {"unit_dropout": 0.2}
    one, again, other = (
        fit(material, method, settings, material.dataset.train, 3, seed).embed(material.dataset.train)
        for seed in (1, 1, 2)
    )  # fmt: skip
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_every_method_searches_as_many_configurations() -> None:
    for method in METHODS.values():
        found = method.configurations()
        assert len(found) == CONFIGURATIONS, method.name
        assert len({repr(one) for one in found}) == CONFIGURATIONS, method.name
        assert len(method.configurations(2)) == 2


def test_bad_settings_are_told(material: Material) -> None:
    train = material.dataset.train
    with pytest.raises(ConfigError, match="pool_power can't differ"):
        fit(material, METHODS["pddm"], {"pool_power": 1.0}, train, 1)
    with pytest.raises(ConfigError, match=r"options of quadruplet .*marign"):
        fit(material, METHODS["pddm"], {"marign": 1.0}, train, 1)
    with pytest.raises(ConfigError, match=r"options of contrastive .*marign"):
        fit(material, METHODS["contrastive"], {"marign": 1.0}, train, 1)
    with pytest.raises(ConfigError, match="frozen"):
        Material.load(dataclasses.replace(material.config, freeze_trunk=False))


def test_folds_share_no_class_and_hold_every_training_class() -> None:
    labels = np.repeat(np.arange(11), 4)
    train = np.flatnonzero(labels < 9)
    folds = class_folds(labels, train, 3, seed=1)
    classes = [set(labels[fold].tolist()) for fold in folds]
    assert [len(one) for one in classes] == [3, 3, 3]
    assert set.union(*classes) == set(range(9))
    assert sorted(np.concatenate(folds).tolist()) == train.tolist()
    assert len(class_folds(labels, np.flatnonzero(labels < 5), 3, 0)) == 2, "a fold of one class confuses nothing"
    assert class_folds(labels, np.flatnonzero(labels < 3), 3, 0) == (), "too few to hold some out"


def test_a_fold_is_not_trained_on(material: Material) -> None:
    labels = material.dataset.labels
    for fold, held_out in enumerate(material.folds):
        fitted_on = material.fit_items(fold)
        assert not set(labels[fitted_on]) & set(labels[held_out])
        assert set(fitted_on) | set(held_out) == set(material.dataset.train)
