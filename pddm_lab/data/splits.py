"""Class-disjoint splits and held-out queries: pure functions of class names, labels and a seed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np


def halves_by_hash(class_names: Sequence[str], seed: int, share: float = 0.5) -> np.ndarray:
    """Split classes by a seeded hash of their names.

    Args:
        class_names: the classes.
        seed: of the hash.
        share: share of the training classes, rounded up.

    Returns:
        (classes,) bool, True for the training classes.
    """
    digests = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in class_names]
    order = sorted(range(len(class_names)), key=digests.__getitem__)
    trains = np.zeros(len(class_names), dtype=bool)
    trains[order[: math.ceil(round(share * len(order), 6))]] = True
    return trains


def hold_out_queries(
    labels: np.ndarray, items: np.ndarray, share: float, seed: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a share of each class as queries: at least one if two other items remain, else none.

    With groups, whole groups are held out: at random, as many items as the share allows. If each group of a class is
    larger than that, its smallest one is held out, and none if there is no other.

    Args:
        labels: (all items,) class of each item.
        items: item indices to split.
        share: 0 to 0.5; 0 holds out nothing.
        groups: (items,) the number of each item's group, such as its near-duplicates (near_duplicates.py); None: each
            item for itself, as the known queries of data sets are held out.

    Returns:
        (train, query), both sorted item indices.
    """
    held: list[np.ndarray] = []
    group_of = None if groups is None else dict(zip(items.tolist(), groups.tolist(), strict=True))
    for label, members in by_class(labels, items).items():
        count = min(max(1, round(share * len(members))), len(members) - 2)
        if share > 0 and count > 0:
            rng = np.random.default_rng([seed, label])
            if group_of is None:
                held.append(rng.choice(members, count, replace=False))
            else:
                held.append(_whole_groups(members, np.array([group_of[item] for item in members.tolist()]), count, rng))
    query = np.sort(np.concatenate(held)) if held else np.empty(0, dtype=np.int64)
    return np.setdiff1d(items, query), query


def _whole_groups(members: np.ndarray, groups: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """The members of random groups with at most `most` members together, or else of the smallest of several groups."""
    numbers, sizes = np.unique(groups, return_counts=True)
    order, taken, total = rng.permutation(len(numbers)), [], 0
    for group in order:
        if total + sizes[group] <= most:
            taken.append(group)
            total += sizes[group]
    if not taken and len(order) > 1:
        taken = [order[np.argmin(sizes[order])]]
    return members[np.isin(groups, numbers[taken])]


def hold_out_classes(labels: np.ndarray, train: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out whole classes of the training items, to choose the best step.

    At least two classes are held out and at least two remain. If that is impossible, or share is 0, none is held out.

    Returns:
        (fit, validation), both sorted item indices, without a class in common.
    """
    classes = np.unique(labels[train])
    count = max(2, round(share * len(classes))) if share > 0 else 0
    if len(classes) - count < 2:
        count = 0
    taken = np.random.default_rng(seed).permutation(classes)[:count]
    is_taken = np.isin(labels[train], taken)
    return np.sort(train[~is_taken]), np.sort(train[is_taken])


def class_folds(labels: np.ndarray, train: np.ndarray, folds: int, seed: int) -> tuple[np.ndarray, ...]:
    """Split the training classes into folds.

    Args:
        labels: (all items,) class of each item.
        folds: how many; fewer if they would have fewer than two classes each, none with fewer than four classes.
        seed: of the order of the classes.

    Returns:
        The items of each fold, sorted.
    """
    classes = np.unique(labels[train])
    folds = min(folds, len(classes) // 2)
    parts = [np.random.default_rng(seed).permutation(classes)[fold::folds] for fold in range(folds)]
    return tuple(np.sort(train[np.isin(labels[train], part)]) for part in parts) if folds > 1 else ()


def sample_of_classes(labels: np.ndarray, items: np.ndarray, most: int, each: int, seed: int) -> np.ndarray:
    """At most so many of some items: of few classes as many of each, of many classes some whole ones.

    Args:
        labels: (all items,) class of each item.
        items: to choose from; all of them, as they are, if there are no more than `most`.
        most: items together.
        each: items of a class that there are at least, where the class has so many.
        seed: of the sample.

    Returns:
        The chosen items, sorted.
    """
    if len(items) <= most:
        return items
    random, members = np.random.default_rng(seed), list(by_class(labels, items).values())
    each = max(each, most // len(members))
    chosen = [random.permutation(members[number])[:each] for number in random.permutation(len(members))]
    return np.sort(np.concatenate(chosen)[:most])


def without_lone_items(labels: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The items whose class has another item: a single image has no positive pair."""
    classes, counts = np.unique(labels[items], return_counts=True)
    return items[np.isin(labels[items], classes[counts > 1])]


def by_class(labels: np.ndarray, items: np.ndarray) -> dict[int, np.ndarray]:
    """Class -> its item indices, sorted; classes in ascending order."""
    items = np.sort(items)
    order = items[np.argsort(labels[items], kind="stable")]
    classes, starts = np.unique(labels[order], return_index=True)
    return dict(zip(classes.tolist(), np.split(order, starts[1:]), strict=True)) if len(order) else {}
