"""A training that goes wrong says so in a sentence, which the run keeps."""

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pddm_lab.config import PRESETS, TrainConfig
from pddm_lab.training import health
from pddm_lab.training.trainer import train


def features(mean: float) -> torch.Tensor:
    torch.manual_seed(0)
    return F.normalize(torch.randn(200, 16) + mean, dim=1)


def test_a_collapse_is_named() -> None:
    assert not list(health.collapse(TrainConfig(), features(0), features(0)))
    (warning,) = health.collapse(TrainConfig(), features(20), features(20))
    assert warning.startswith("The embedding collapsed") and "Distances say little" in warning and "--lr" in warning
    (warning,) = health.collapse(TrainConfig(), features(20), features(0))
    assert "uses only what held-out classes allow" in warning


def test_features_of_length_zero_are_equal_too() -> None:
    assert list(health.collapse(TrainConfig(), torch.zeros(10, 4), torch.zeros(10, 4)))


def test_a_run_that_collapsed_says_so(digits_config) -> None:
    """A trunk of random weights gives every picture nearly the same features."""
    config = dataclasses.replace(digits_config, run_name="collapsed", weights="none", steps=4, eval_every=2)
    run = train(config, progress=False)
    assert run.status == "finished"
    assert any(warning.startswith("The embedding collapsed") for warning in run.info["warnings"])


def test_an_unused_correction_is_named() -> None:
    quick, lab = (dataclasses.replace(PRESETS[name]) for name in ("quick", "lab"))
    for preset in (quick, lab):
        assert next(health.correction(preset, 0.0, {})).startswith("S ranks like D")
    assert "adds a similarity on local structure" in next(health.correction(quick, 0.0, {}))
    assert not [*health.correction(quick, 0.5, {}), *health.correction(PRESETS["joint"], 0.0, {})]


@pytest.mark.parametrize(
    ("of_d", "local", "advice"),
    [
        ((0.4, 0.2), (0.4, 0.3), "Rank by local structure instead."),
        ((0.456, 0.195), (0.344, 0.167),
         "On unseen classes local structure isn't better than D in both: R@1 34.4 % against 45.6 %, MAP@R 16.7 % "
         "against 19.5 %."),
        ((0.4, 0.2), (0.3, 0.3), "isn't better than D in both"),
        ((0.4, 0.2), (0.4, 0.2), "isn't better than D in both"),
        ((0.4, 0.2), (None, None), "none of it is used."),
    ],
)  # fmt: skip
def test_local_structure_is_advised_where_it_is_ahead(
    of_d: tuple[float, float], local: tuple[float | None, float | None], advice: str
) -> None:
    """On unseen classes where these are measured, whatever it is on known ones."""
    metrics = ("recall@1", "map@r")
    known = {"euclidean": dict.fromkeys(metrics, 0.5), "local": dict.fromkeys(metrics, 0.9)}
    unseen: dict[str, dict[str, float | None]] = {
        "euclidean": dict(zip(metrics, of_d, strict=True)), "local": dict(zip(metrics, local, strict=True)),
    }  # fmt: skip
    of_run: dict[str, Any] = {"unseen": unseen} if None in local else {"unseen": unseen, "known": known}
    (warning,) = health.correction(PRESETS["lab"], 0.0, of_run)
    assert warning.endswith(advice) or advice in warning.partition("used. ")[2]


@pytest.mark.slow
def test_a_fine_tuning_that_does_harm_keeps_the_pretrained_features(digits_config) -> None:
    config = dataclasses.replace(
        digits_config, run_name="harmed", freeze_trunk=False, start="principal", lr=10.0, steps=2, eval_every=2,
        val_class_share=0.4, workers=0, selection_tolerance=0.0,
    )  # fmt: skip
    run = train(config, progress=False)
    assert run.status == "finished" and run.info["best_step"] == 0
    assert any("never ranked held-out classes better" in warning for warning in run.info["warnings"])
    of_run, of_trunk = run.info["metrics"]["unseen"]["euclidean"], run.info["pretrained"]["unseen"]
    assert of_run["map@r"] > of_trunk["map@r"] - 0.1


def test_a_training_that_never_gains_is_named(digits_config) -> None:
    (warning,) = health.selection(digits_config, 0.5, {0: 0.5, 10: 0.4, 20: 0.3}, 0, 20)
    assert "40.0 % at best, 50.0 % before" in warning
    assert not list(health.selection(digits_config, 0.5, {0: 0.5, 10: 0.6, 20: 0.4}, 10, 20))


def test_a_training_that_ends_too_early_is_named(digits_config) -> None:
    config = dataclasses.replace(digits_config, interpolate=False)
    (warning,) = health.selection(config, 0.5, {0: 0.5, 10: 0.6, 20: 0.7}, 20, 20)
    assert "more --steps" in warning
    assert not list(health.selection(config, 0.5, {0: 0.5, 10: 0.7, 20: 0.6}, 10, 20))


def test_too_few_classes_are_named(digits_config) -> None:
    (warning,) = health.selection(digits_config, 0.0, {}, 0, 0)
    assert "four or more" in warning
    (warning,) = health.selection(digits_config, 0.5, {0: 0.5, 10: 0.6, 20: 0.5}, 10, 3)
    assert warning.startswith("Only 3 classes are held out")
    imported = dataclasses.replace(digits_config, trunk="imported", weights="none")
    (warning,) = health.selection(imported, 0.5, {0: 0.5, 10: 0.6, 20: 0.5}, 10, 3)
    assert warning.endswith("uncertain. Add classes."), "an import has no option for it"
