"""Batches are pure functions of (seed, step), of constant length, without repeats, grouped by class."""

from __future__ import annotations

import numpy as np
import pytest

from pddm_lab.data.sampler import ClassBatches
from pddm_lab.errors import DataError


def _labels(*counts: int) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


def test_a_batch_is_a_pure_function_of_seed_and_step() -> None:
    labels = _labels(*[6] * 20)
    items = np.arange(len(labels))
    batches = ClassBatches(labels, items, 4, 3, seed=7)
    later = batches.batch(1000)
    for step in (3, 0, 12):
        batches.batch(step)
    assert np.array_equal(later, ClassBatches(labels, items, 4, 3, seed=7).batch(1000))
    assert not np.array_equal(later, batches.batch(1001))
    assert not np.array_equal(later, ClassBatches(labels, items, 4, 3, seed=8).batch(1000))


@pytest.mark.parametrize(
    "counts", [[10] * 8, [2] * 30, [3, 9, 2, 30, 5, 4, 2, 2, 7], [100] * 3, [4, 4], [2, 50], [1, 1, 5, 5]]
)
def test_batches_have_constant_length_without_repeats_grouped_by_class(counts: list[int]) -> None:
    labels = _labels(*counts)
    items = np.random.default_rng(0).permutation(len(labels))
    batches = ClassBatches(labels, items, 5, 4, seed=0)
    for step in range(25):
        batch = batches.batch(step)
        assert batch.dtype == np.int64
        assert len(batch) == batches.batch_size == min(20, sum(count for count in counts if count > 1))
        assert len(set(batch.tolist())) == len(batch)
        runs = 1 + int((np.diff(labels[batch]) != 0).sum())
        assert runs == len(np.unique(labels[batch])) >= 2, "the items of a class stand together"


def test_full_classes_give_exactly_p_by_k() -> None:
    labels = _labels(*[10] * 30)
    batch = ClassBatches(labels, np.arange(300), 16, 4, seed=0).batch(0)
    assert np.unique(labels[batch], return_counts=True)[1].tolist() == [4] * 16


def test_small_classes_give_all_and_further_classes_fill_the_batch() -> None:
    labels = _labels(*[2] * 40)
    batch = ClassBatches(labels, np.arange(80), 8, 4, seed=0).batch(5)
    assert np.unique(labels[batch], return_counts=True)[1].tolist() == [2] * 16


def test_few_classes_give_more_images_each() -> None:
    labels = _labels(100, 100, 100)
    counts = np.unique(labels[ClassBatches(labels, np.arange(300), 16, 4, seed=0).batch(0)], return_counts=True)[1]
    assert sorted(counts.tolist()) == [20, 22, 22]


def test_every_item_comes_up_and_only_the_given_ones() -> None:
    labels = _labels(*[5] * 6)
    items = np.arange(30)[labels < 4]
    batches = ClassBatches(labels, items, 2, 2, seed=0)
    assert set(np.concatenate([batches.batch(step) for step in range(100)])) == set(items)


def test_classes_with_one_image_take_no_part() -> None:
    labels = _labels(1, 1, 1, 3, 3)
    assert set(labels[ClassBatches(labels, np.arange(9), 4, 2, seed=0).batch(0)]) == {3, 4}


@pytest.mark.parametrize("counts", [[5], [5, 1, 1], [1, 1], []])
def test_fewer_than_two_classes_is_one_clear_error(counts: list[int]) -> None:
    labels = _labels(*counts)
    with pytest.raises(DataError, match="at least two classes with two images each"):
        ClassBatches(labels, np.arange(len(labels)), 4, 2, seed=0)
