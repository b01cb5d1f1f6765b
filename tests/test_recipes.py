"""The panel for choosing defaults, on the digits' pixels."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pixel_study import pixels

from pddm_lab.errors import ConfigError, LabError
from pddm_lab.panel import recipes
from pddm_lab.panel.tables import write_panel
from pddm_lab.study import material
from pddm_lab.study.cells import Study


@pytest.fixture
def study(data_root, tmp_path, monkeypatch) -> Study:
    material = pixels(data_root)
    monkeypatch.setattr(recipes, "material_of", lambda config, folds: dataclasses.replace(material, config=config))
    monkeypatch.setattr(recipes.Material, "load", lambda config, folds, bar: material)
    return Study.create("panel", str(tmp_path))


def test_a_panel_measures_recipes_on_folds_of_the_training_classes(study, tmp_path) -> None:
    chosen = ("quick", "untrained", "joint", "arcface")
    options: dict[str, Any] = {"base": {"classes_per_batch": 3, "dim": 8}, "folds": 2, "steps": 4, "progress": False}
    outcome = recipes.run_panel(study, "recipes", ["digits"], chosen, **options)
    assert not outcome.failures and outcome.computed == 8
    again = recipes.run_panel(study, "recipes", ["digits"], chosen, **options)
    assert again.present == 8, "finished cells are kept"
    table = pd.read_csv(next(write_panel(study, "recipes", tmp_path)))
    of_d = table[table.similarity == "euclidean"].set_index("recipe")
    assert set(of_d.index) == set(chosen) and set(table[table.similarity == "pddm"].recipe) == {"quick", "joint"}
    cell = study.cell("recipes-digits-quick-0-0")
    assert 0 <= cell["settings"]["head_share"] <= 1 and set(cell["metrics"]) == {"unseen", "known"}
    value = cell["metrics"]["known"]["euclidean"]["map@r"]
    other = study.cell("recipes-digits-quick-1-0")["metrics"]["known"]["euclidean"]["map@r"]
    assert of_d.loc["quick", "digits known map@r"] == pytest.approx(50 * (value + other), abs=0.01)
    assert of_d["mean rank"].between(1, 4).all() and of_d["mean rank"].mean() == 2.5


def test_an_unknown_recipe_is_named(study) -> None:
    with pytest.raises(ConfigError, match="arcface"):
        recipes.run_panel(study, "recipes", ["digits"], ["arcfaec"], base={})


def test_a_weak_material_has_features_of_random_weights() -> None:
    config = recipes.config_of("grocery-weak", {"views": 4})
    assert (config.dataset, config.weights, config.image_size, config.views) == ("grocery", "none", 64, 1)


def test_a_sweep_counts_collapsed_embeddings(study, tmp_path) -> None:
    options: dict[str, Any] = {"base": {"dim": 8}, "folds": 2, "seeds": 3, "steps": 2, "progress": False}
    assert not recipes.run_panel(study, "sweep", ["digits"], ["lr-high"], **options).failures
    cells = list(study.cells("sweep"))
    assert [(cell["seed"], cell["settings"]["fold"]) for cell in cells] == [(0, 0), (2, 0), (1, 1)]
    row = pd.read_csv(next(write_panel(study, "sweep", tmp_path))).iloc[0]
    assert row.trainings == 3 and row["longest mean feature"] == pytest.approx(
        max(cell["settings"]["mean_length"] for cell in cells), abs=0.01
    )
    lost = [cell["metrics"]["unseen"]["euclidean"]["recall@1"] - cell["metrics"]["unseen"]["pretrained"]["recall@1"]
            for cell in cells]  # fmt: skip
    assert row.collapsed == sum(one < -0.02 for one in lost) and row["worst difference of R@1"] == pytest.approx(
        100 * min(lost), abs=0.01
    )


def test_few_classes_have_fewer_folds_than_asked_for(data_root) -> None:
    material = pixels(data_root)
    first, again = (recipes.split_of(material, fold)[0] for fold in (0, len(material.folds)))
    assert np.array_equal(first, again)


def test_finalists_are_measured_on_the_test_classes(study, data_root, tmp_path) -> None:
    options: dict[str, Any] = {"base": {"classes_per_batch": 3, "dim": 8}, "seeds": 2, "steps": 3, "progress": False}
    assert not recipes.run_panel(study, "finalists", ["digits"], **options).failures
    material = pixels(data_root)
    items, protocols = recipes.split_of(material, None)
    assert np.array_equal(items, material.dataset.train) and protocols == material.protocols
    values = [cell["metrics"]["unseen"]["pddm"]["map@r"] for cell in study.cells("finalists")]
    table = pd.read_csv(next(write_panel(study, "finalists", tmp_path)))
    row = table.query("similarity == 'pddm' and protocol == 'unseen' and metric == 'map@r'").iloc[0]
    assert row.seeds == 2 and row.value == pytest.approx(50 * sum(values), abs=0.01)
    assert row.difference == pytest.approx(row.value - row.pretrained, abs=0.02)


def test_random_weights_are_the_same_in_every_process(data_root, tmp_path, monkeypatch) -> None:
    weights = []

    def look(engine, *_args, **_options):
        weights.append(next(engine.trunk.parameters()).detach().clone())
        raise LabError("enough seen")

    monkeypatch.setattr(material, "trunk_features", look)
    config = recipes.config_of("digits-weak", {"data_root": str(data_root), "runs_root": str(tmp_path)})
    for seed in (1, 2):
        torch.manual_seed(seed)
        with pytest.raises(LabError, match="enough"):
            material.Material.load(config)
    assert torch.equal(*weights)
