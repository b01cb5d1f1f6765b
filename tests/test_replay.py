"""The replay buffer against a slow herding, batches that favour new classes, and features that are kept near others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pddm_lab.data.sampler import ClassBatches
from pddm_lab.training.objectives import Near
from pddm_lab.update.replay import herd, replay_items


def test_herding_equals_a_slow_search() -> None:
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(9, 4)))
    unit = F.normalize(features, dim=1).numpy()
    chosen: list[int] = []
    for _ in range(5):
        away = {
            row: np.linalg.norm(np.mean(unit[[*chosen, row]], axis=0) - unit.mean(axis=0))
            for row in range(len(unit)) if row not in chosen
        }  # fmt: skip
        chosen.append(min(away, key=away.__getitem__))
    assert herd(features, 5).tolist() == chosen
    assert sorted(herd(features, 50).tolist()) == list(range(9)), "all, if there are fewer"


@pytest.mark.parametrize(("size", "each"), [(30, [3, 9, 9, 9]), (1000, [3, 9, 20, 30]), (8, [2, 2, 2, 2]), (5, [2, 2])])
def test_the_buffer_has_the_same_number_of_each_class_within_its_size(size: int, each: list[int]) -> None:
    labels = np.repeat([0, 1, 2, 3], [3, 9, 20, 30])
    features = torch.from_numpy(np.random.default_rng(1).normal(size=(62, 5)))
    kept = replay_items(features, labels, np.arange(62), size)
    counts = np.bincount(labels[kept])
    assert counts[counts > 0].tolist() == each and len(np.unique(kept)) == len(kept) <= max(size, 8)
    assert not len(replay_items(features, labels, np.arange(0), size))


def test_new_classes_come_in_every_batch() -> None:
    labels = np.repeat(np.arange(40), 4)
    batches = ClassBatches(labels, np.arange(160), 8, 4, 0, np.array([38, 39]))
    assert all({38, 39} <= set(labels[batches.batch(step)]) for step in range(20))
    assert {len(np.unique(batches.batch(step))) for step in range(20)} == {32}
    plain, same = (ClassBatches(labels, np.arange(160), 8, 4, 0, often) for often in (None, np.array([], int)))
    assert np.array_equal(plain.batch(3), same.batch(3))


def test_only_old_classes_are_kept_near() -> None:
    random = torch.Generator().manual_seed(0)
    features, pooled = (torch.randn(6, 3, generator=random, dtype=torch.float64) for _ in range(2))
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    near = Near(lambda values: 2 * values, 1.0, torch.tensor([True, False, True]))
    slow = [sum((features[row] - 2 * pooled[row]) ** 2) for row in range(6) if labels[row] != 1]
    assert near.apart(features, pooled, labels).item() == pytest.approx(float(sum(slow) / 4))
    nothing = near._replace(classes=torch.zeros(3, dtype=torch.bool)).apart(features, pooled, labels)
    assert nothing.item() == 0
