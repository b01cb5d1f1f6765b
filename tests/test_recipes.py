"""The panel for choosing defaults, on the digits' pixels."""

import dataclasses
from typing import Any

import pandas as pd
import pytest
from pixel_study import pixels

from pddm_lab.errors import ConfigError
from pddm_lab.study import recipes
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
    outcome = recipes.run_recipes(study, ["digits"], chosen, **options)
    assert not outcome.failures and outcome.computed == 8
    assert recipes.run_recipes(study, ["digits"], chosen, **options).present == 8, "finished cells are kept"
    table = recipes.write_recipes(study, tmp_path / "recipes.csv")
    pd.testing.assert_frame_equal(table, pd.read_csv(tmp_path / "recipes.csv"))
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
        recipes.run_recipes(study, ["digits"], ["arcfaec"], base={})


def test_a_weak_material_has_features_of_random_weights() -> None:
    config = recipes._config("grocery-weak", {"views": 4})
    assert (config.dataset, config.weights, config.image_size, config.views) == ("grocery", "none", 64, 1)
