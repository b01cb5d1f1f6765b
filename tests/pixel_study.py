"""A small study: handwritten digits whose features are their pixels, so that no network is run; and a task's work.

Imports are light: processes of a study read this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pddm_lab.errors import DataError

if TYPE_CHECKING:
    from pddm_lab.study.material import Material

BASE = {"resize": 32, "image_size": 32, "views": 2, "classes_per_batch": 4}
"""Choices that make a study on digits small."""


def pixels(data_root: Path) -> Material:
    """Digits by their 64 pixels; the second view is the mirror image."""
    import numpy as np
    import torch
    from sklearn.datasets import load_digits

    from pddm_lab.config import TrainConfig
    from pddm_lab.data.dataset import read_dataset
    from pddm_lab.data.splits import class_folds
    from pddm_lab.model.embedding import signed_power
    from pddm_lab.study.material import Material

    config = TrainConfig.from_parameters({"preset": "joint", **BASE, "dataset": "digits", "data_root": str(data_root)})
    dataset = read_dataset("digits", data_root)
    images = load_digits().images / 16
    number = np.array([int(Path(item).stem) for item in dataset.ids])
    pictures = torch.from_numpy(images[number]).float()
    pooled, mirrored = pictures.flatten(1), pictures.flip(2).flatten(1)
    inputs, train = signed_power(pooled, config.pool_power), torch.from_numpy(dataset.train)
    views = torch.stack([inputs[train], signed_power(mirrored, config.pool_power)[train]])
    return Material(config, dataset, pooled, inputs, views, class_folds(dataset.labels, dataset.train, 2, 0))


def work(needed: list[dict[str, Any]], value: float = 0.0, fails: bool = False) -> dict[str, Any]:
    """A task's work: the sum of what it needs, and a value."""
    if fails:
        raise DataError("nothing to train on.")
    total = value + sum(cell["metrics"]["unseen"]["euclidean"]["map@r"] for cell in needed)
    metrics = {"unseen": {"euclidean": {"map@r": total}}}
    return {"part": "methods", "dataset": "d", "method": "m", "seed": 0, "settings": {}, "metrics": metrics}
