"""The model that a run saves: a run's choices reach its unit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pddm_lab.config import PRESETS, TrainConfig
from pddm_lab.model.embedding import learned_similarities
from pddm_lab.model.pddm import PDDM
from pddm_lab.model.similarity import Mahalanobis, PDDMSimilarity


def unit_of(**choices: Any) -> PDDM:
    similarity = learned_similarities(TrainConfig.from_parameters({"dim": 8, **choices}))["pddm"]
    assert isinstance(similarity, PDDMSimilarity)
    return similarity.unit


def test_every_choice_of_the_unit_reaches_it() -> None:
    unit = unit_of()
    assert (unit.difference.in_features, unit.difference.out_features) == (8, PRESETS["quick"].unit_hidden)
    assert unit_of(unit_hidden=0).difference.out_features == 8
    assert (unit.dropout.p, unit.normalize_input, unit.global_weight) == (0, False, torch.tensor([1.0]))
    assert unit_of(unit_global=0.0).global_weight is None
    assert all(parameter.requires_grad for parameter in unit.parameters())
    assert unit_of(unit_hidden=5).difference.out_features == 5
    assert unit_of(unit_dropout=0.3).dropout.p == pytest.approx(0.3)
    assert unit_of(unit_normalize=True, unit_global=0.0).normalize_input
    assert unit_of(unit_global=2.0).global_weight == torch.tensor([2.0])
    position = unit_of(unit_position=False).position
    assert not any(parameter.requires_grad or parameter.any() for parameter in position.parameters())


def test_the_mahalanobis_distance_has_the_embedding_s_dimensions() -> None:
    learned = learned_similarities(TrainConfig.from_parameters({"dim": 8, "unit_hidden": 5}))
    assert isinstance(learned["mahalanobis"], Mahalanobis)
    assert learned["mahalanobis"].map.weight.shape == (8, 8)
