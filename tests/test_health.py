"""A training that goes wrong says so in a sentence, and a run made to collapse says it on every surface."""

import dataclasses

import torch
import torch.nn.functional as F

from pddm_lab.training import health


def features(mean: float) -> torch.Tensor:
    torch.manual_seed(0)
    return F.normalize(torch.randn(200, 16) + mean, dim=1)


def test_a_collapse_is_named() -> None:
    assert not list(health.collapse(features(0), features(0)))
    (warning,) = health.collapse(features(20), features(20))
    assert warning.startswith("The embedding collapsed") and "Distances say little" in warning and "--lr" in warning
    (warning,) = health.collapse(features(20), features(0))
    assert "uses only what held-out classes allow" in warning


def test_a_training_that_never_gains_is_named(digits_config) -> None:
    (warning,) = health.selection(digits_config, 0.5, {0: 0.5, 10: 0.4, 20: 0.3}, 0, 20)
    assert "40.0 % at best, 50.0 % before" in warning
    assert not list(health.selection(digits_config, 0.5, {0: 0.5, 10: 0.4, 20: 0.6}, 20, 20))


def test_a_training_that_ends_too_early_is_named(digits_config) -> None:
    config = dataclasses.replace(digits_config, interpolate=False)
    (warning,) = health.selection(config, 0.5, {0: 0.5, 10: 0.6, 20: 0.7}, 20, 20)
    assert "more --steps" in warning
    assert not list(health.selection(config, 0.5, {0: 0.5, 10: 0.7, 20: 0.6}, 10, 20))


def test_too_few_classes_are_named(digits_config) -> None:
    (warning,) = health.selection(digits_config, 0.0, {}, 0, 0)
    assert "four or more" in warning
    (warning,) = health.selection(digits_config, 0.5, {0: 0.5, 10: 0.6}, 10, 3)
    assert warning.startswith("Only 3 classes are held out")
