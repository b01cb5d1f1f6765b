"""Batches of P classes x K images. Each is a pure function of (seed, step), so resuming needs no sampler state."""

from __future__ import annotations

import numpy as np

from pddm_lab.data.splits import by_class, without_lone_items
from pddm_lab.errors import DataError


class ClassBatches:
    """Random batches of constant size with several items per class and no item twice.

    A class with fewer than K images contributes all of them, and further classes fill the batch. If there are too few
    classes, each contributes more images. Classes with one image are left out. A batch has P * K items, or all items.

    Attributes:
        batch_size: items in every batch.
    """

    def __init__(
        self, labels: np.ndarray, items: np.ndarray, classes_per_batch: int, images_per_class: int, seed: int,
        often: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Args:
            labels: (all items,) class of each item.
            items: item indices to draw from.
            classes_per_batch: P, if each class has K images.
            images_per_class: K.
            seed: seed of all batches.
            often: classes of which a quarter of every batch consists, if there are so many; None: all come alike.

        Raises:
            DataError: fewer than two classes with two images, so that there is no quadruplet.
        """
        members = by_class(labels, without_lone_items(labels, items))
        self._members = list(members.values())
        self._often = np.flatnonzero(np.isin(list(members), [] if often is None else often))
        self._first = max(classes_per_batch // 4, 1)
        self._counts = np.array([len(members) for members in self._members], dtype=np.int64)
        if len(self._members) < 2:
            raise DataError(
                f"Training needs at least two classes with two images each; there are {len(self._members)}. "
                "Add images, or choose another data set."
            )
        self._seed = seed
        self.batch_size = min(classes_per_batch * images_per_class, int(self._counts.sum()))
        self._per_class = images_per_class
        while np.minimum(self._counts, self._per_class).sum() < self.batch_size:
            self._per_class += 1

    def batch(self, step: int) -> np.ndarray:
        """Item indices of one batch.

        Args:
            step: 0, 1, 2, ...

        Returns:
            (batch_size,) int64, the items of a class next to each other.
        """
        rng = np.random.default_rng([self._seed, step])
        order = rng.permutation(len(self._members))
        if len(self._often):
            first = rng.permutation(self._often)[: self._first]
            order = np.concatenate([first, order[~np.isin(order, first)]])
        given = np.minimum(self._counts[order], self._per_class)
        before = np.cumsum(given) - given
        given = np.minimum(given, np.maximum(self.batch_size - before, 0))
        drawn = [rng.choice(self._members[c], n, replace=False) for c, n in zip(order, given, strict=True) if n]
        return np.concatenate(drawn)
