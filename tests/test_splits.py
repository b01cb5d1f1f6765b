"""Splits are class-disjoint, seeded, and leave every class that trains at least two items."""

from __future__ import annotations

import numpy as np
import pytest

from pddm_lab.data.splits import (
    by_class,
    halves_by_hash,
    hold_out_classes,
    hold_out_queries,
    sample_of_classes,
    without_lone_items,
)

LABELS = np.repeat(np.arange(8), [1, 2, 3, 5, 10, 20, 4, 6])
ITEMS = np.arange(len(LABELS))


def test_halves_are_halves_and_depend_on_the_seed_alone() -> None:
    names = [f"class {number}" for number in range(101)]
    halves = halves_by_hash(names, 0)
    assert halves.sum() == 51
    assert np.array_equal(halves, halves_by_hash(names, 0))
    assert not np.array_equal(halves, halves_by_hash(names, 1))
    assert np.array_equal(halves[::-1], halves_by_hash(names[::-1], 0)), "a class keeps its side wherever it stands"


def test_halves_are_the_same_on_every_machine() -> None:
    assert halves_by_hash(["ant", "bee", "cat", "dog"], 0).tolist() == [False, True, False, True]
    assert halves_by_hash([], 0).shape == (0,)


def test_held_out_queries_leave_two_items_in_every_class() -> None:
    train, query = hold_out_queries(LABELS, ITEMS, 0.2, seed=0)
    assert np.array_equal(np.sort(np.concatenate([train, query])), ITEMS)
    assert np.bincount(LABELS[query], minlength=8).tolist() == [0, 0, 1, 1, 2, 4, 1, 1]
    assert (np.bincount(LABELS[train])[1:] >= 2).all()


def test_held_out_queries_of_a_class_do_not_depend_on_other_classes() -> None:
    _, everything = hold_out_queries(LABELS, ITEMS, 0.3, seed=4)
    _, alone = hold_out_queries(LABELS, ITEMS[LABELS == 5], 0.3, seed=4)
    assert np.array_equal(everything[LABELS[everything] == 5], alone)
    assert not np.array_equal(everything, hold_out_queries(LABELS, ITEMS, 0.3, seed=5)[1])


def test_no_share_holds_out_nothing() -> None:
    train, query = hold_out_queries(LABELS, ITEMS, 0.0, seed=0)
    assert np.array_equal(train, ITEMS)
    assert query.shape == (0,)
    assert query.dtype == np.int64


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.5])
def test_validation_classes_are_disjoint_from_the_fitted_ones(share: float) -> None:
    fit, validation = hold_out_classes(LABELS, ITEMS[3:], share, seed=1)
    assert np.array_equal(np.sort(np.concatenate([fit, validation])), ITEMS[3:])
    assert not set(LABELS[fit]) & set(LABELS[validation])
    assert len(set(LABELS[validation])) == {0.0: 0, 0.05: 2, 0.2: 2, 0.5: 3}[share]


def test_validation_is_empty_where_two_classes_would_not_stay() -> None:
    few = ITEMS[LABELS < 3]
    fit, validation = hold_out_classes(LABELS, few, 0.2, seed=0)
    assert np.array_equal(fit, few)
    assert len(validation) == 0


def test_lone_items_and_grouping() -> None:
    items = np.array([7, 0, 2, 1])
    assert without_lone_items(LABELS, items).tolist() == [2, 1]
    assert {c: m.tolist() for c, m in by_class(LABELS, items).items()} == {0: [0], 1: [1, 2], 3: [7]}
    assert by_class(LABELS, items[:0]) == {}


def test_a_sample_of_few_classes_has_as_many_of_each() -> None:
    labels, items = np.repeat(np.arange(5), [300, 40, 40, 40, 3]), np.arange(423)
    chosen = sample_of_classes(labels, items, 100, 10, 0)
    assert np.bincount(labels[chosen]).tolist() == [20, 20, 20, 20, 3] and np.array_equal(chosen, np.unique(chosen))
    assert np.array_equal(chosen, sample_of_classes(labels, items, 100, 10, 0))
    assert not np.array_equal(chosen, sample_of_classes(labels, items, 100, 10, 1))
    assert sample_of_classes(labels, items[::-1], 423, 10, 0).tolist() == items[::-1].tolist(), "no more: as they are"


def test_a_sample_of_many_classes_has_whole_ones() -> None:
    labels = np.repeat(np.arange(400), 6)
    chosen = sample_of_classes(labels, np.arange(len(labels)), 120, 50, 0)
    counts = np.bincount(labels[chosen])
    assert len(chosen) == 120 and set(counts) == {0, 6} and labels[chosen].max() > 200
