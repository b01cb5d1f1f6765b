"""Choices are checked when a configuration is made, and a message names the flag."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys

import pytest

from pddm_lab.config import LOSSES, PRESETS, TrainConfig
from pddm_lab.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_valid(name: str) -> None:
    preset = PRESETS[name]
    assert preset.preset == name
    again = TrainConfig(**preset.to_dict())
    assert again == preset and hash(again) == hash(preset) and pickle.loads(pickle.dumps(preset)) == preset


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"steps": 0}, "--steps expects 1 or more, got 0."),
        ({"steps": True}, "--steps expects int, got True (bool)."),
        ({"steps": 10**400}, "--steps expects 1 or more, got a number of more than 16 digits."),
        ({"lr": math.nan}, "--lr expects a finite number, got nan."),
        ({"lr": math.inf}, "--lr expects a finite number, got inf."),
        ({"lr": 10**400}, "--lr expects a finite number, got a number of more than 16 digits."),
        ({"lr": -1}, "--lr expects 0 or more, got -1."),
        ({"lr": "fast"}, "--lr expects float, got 'fast' (str)."),
        ({"val_class_share": 0.7}, "--val-class-share expects 0 or more, at most 0.5, got 0.7."),
        ({"pool_power": 0.0}, "--pool-power expects more than 0, at most 1, got 0.0."),
        ({"familiarity": 1.0}, "--familiarity expects 0 or more, but less than 1, got 1.0."),
        ({"workers": -2}, "--workers expects -1 or more, got -2."),
        ({"optimizer": "adam"}, "--optimizer expects one of 'adamw', 'sgd', got 'adam'."),
        ({"augmentation": "colour"}, "--augmentation expects one of 'crops', 'light', 'blur-noise', 'geometry', "),
        ({"loss": "hinge"}, "--loss expects one of 'quadruplet', 'triplet', 'contrastive', "),
        ({"resize": 64}, "--resize expects --image-size (160) or more, got 64."),
    ],
)  # fmt: skip
def test_a_bad_choice_names_its_flag(choice: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        TrainConfig(**choice)
    assert str(error.value).startswith(message)


def test_a_whole_number_given_for_a_float_becomes_one() -> None:
    assert isinstance(TrainConfig(lr=1).lr, float)


def test_every_loss_is_a_choice() -> None:
    for name in LOSSES:
        assert TrainConfig(loss=name).loss == name


def test_commands_that_train_nothing_load_no_pydantic() -> None:
    code = "import pddm_lab.cli, sys; sys.exit('pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
