"""Fixtures that several files share: digits as data, and one real run that was trained on them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pddm_lab.config import TrainConfig

DIGITS = {"dataset": "digits", "image_size": 32, "resize": 32, "steps": 30, "eval_every": 10, "classes_per_batch": 4}
"""Choices that train on digits in a few seconds."""


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for data sets that the session may write to."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def digits_runs_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs' root that holds `digits_run`."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def digits_config(data_root: Path, digits_runs_root: Path) -> TrainConfig:
    """A training on digits of a few seconds."""
    roots = {"data_root": str(data_root), "runs_root": str(digits_runs_root)}
    return TrainConfig.from_parameters({**DIGITS, **roots, "run_name": "digits"})


@pytest.fixture(scope="session")
def digits_run(digits_config: TrainConfig):
    """A finished run with both galleries and their maps."""
    from pddm_lab.trainer import train

    return train(digits_config, progress=False)


@pytest.fixture(scope="session")
def grocery_root() -> Path:
    """The folder that holds the Grocery Store data set, where $PDDM_LAB_DATA names one."""
    root = Path(os.environ.get("PDDM_LAB_DATA", "data"))
    if not (root / "GroceryStoreDataset").is_dir():
        pytest.skip("needs the Grocery Store data set: set PDDM_LAB_DATA to the folder that holds GroceryStoreDataset")
    return root
