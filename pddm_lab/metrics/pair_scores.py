"""Items and queries to be measured, and the scores of their positive and negative pairs, or of a sample of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.metrics.separation import Distribution, histogram, separation

Array: TypeAlias = Tensor | np.ndarray
Places: TypeAlias = tuple[Tensor, Tensor]
"""Rows of a chunk and columns, (pairs,) each."""
PlacesScorer: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Scores of pairs in a chunk: rows and columns, (pairs,) each -> (pairs,)."""


@dataclass(frozen=True)
class Items:
    """Queries and gallery as tensors on one device."""

    query: Tensor
    gallery: Tensor
    query_labels: Tensor
    gallery_labels: Tensor
    leave_one_out: bool
    """The queries are the first items of the gallery, in this order: all of them, or a sample."""
    relevant: Tensor
    """(queries,) int64: R, the number of gallery items of each query's class without the query itself."""

    @classmethod
    def of(cls, query: Array, gallery: Array, query_labels: Array, gallery_labels: Array, loo: bool) -> Items:
        query = as_tensor(query)
        gallery = query if loo and len(gallery) == len(query) else as_tensor(gallery).to(query.device)
        classes, labels = torch.cat([as_tensor(query_labels), as_tensor(gallery_labels)]).unique(return_inverse=True)
        of_query, of_gallery = (part.to(query.device, torch.int32) for part in labels.split([len(query), len(gallery)]))
        counts = torch.bincount(of_gallery, minlength=len(classes))
        return cls(query, gallery, of_query, of_gallery, loo, counts[of_query.long()] - int(loo))

    def pair_counts(self) -> tuple[int, int]:
        """Number of positive and of negative pairs."""
        positives = int(self.relevant.sum())
        every = len(self.query) * (len(self.gallery) - int(self.leave_one_out))
        if self.leave_one_out:  # a pair of two queries counts once
            of_class = torch.bincount(self.query_labels).long()
            twice = len(self.query) * (len(self.query) - 1) // 2
            positives_twice = int((of_class * (of_class - 1)).sum()) // 2
            return positives - positives_twice, every - positives - (twice - positives_twice)
        return positives, every - positives


def as_tensor(values: Array) -> Tensor:
    return values if isinstance(values, Tensor) else torch.tensor(values)  # a copy: torch needs writable arrays


class PairScores:
    """Scores of all positive and negative pairs, or of a sample, and how well they are separated."""

    def __init__(self, items: Items, seed: int, positive_budget: int, negative_budget: int) -> None:
        self.items = items
        positives, negatives = items.pair_counts()
        self._total = positives + negatives
        self._positive, self._negative = _Sample(positives, positive_budget), _Sample(negatives, negative_budget)
        self._sorted_labels, self._by_label = items.gallery_labels.sort(stable=True)
        self._random = torch.Generator(items.query.device).manual_seed(seed)

    def add(self, rows: slice, score: PlacesScorer) -> None:
        positive, negative = self.places(rows)
        self.add_scores(score(*positive), score(*negative))

    def places(self, rows: slice) -> tuple[Places, Places]:
        """Places of positive and of negative pairs in a chunk; a sample is drawn anew at each call."""
        return self._positive_places(rows), self._negative_places(rows)

    def add_scores(self, positive: Float[Tensor, " positives"], negative: Float[Tensor, " negatives"]) -> None:
        """Add the scores at `places`."""
        self._positive.add(positive)
        self._negative.add(negative)

    def _positive_places(self, rows: slice) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        labels = self.items.query_labels[rows]
        first, last = (torch.searchsorted(self._sorted_labels, labels, side=side) for side in ("left", "right"))
        row = torch.arange(len(labels), device=labels.device).repeat_interleave(last - first)
        begins = (last - first).cumsum(0) - (last - first)
        column = self._by_label[torch.arange(len(row), device=row.device) - begins[row] + first[row]]
        keep = torch.ones_like(row, dtype=torch.bool)
        if self._positive.share < 1:
            keep = torch.rand(len(row), generator=self._random, device=row.device) < self._positive.share
        if self.items.leave_one_out:  # pairs above the diagonal: each unordered pair once
            keep &= column > row + rows.start
        return row[keep], column[keep]

    def _negative_places(self, rows: slice) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        labels, columns = self.items.query_labels[rows], len(self.items.gallery)
        if self._negative.share < 1:  # sampling with replacement takes time by the sample, not by all pairs
            count = round(len(labels) * columns * self._negative.share)
            at = torch.randint(len(labels) * columns, (count,), generator=self._random, device=labels.device)
            row, column = at // columns, at % columns
            keep = labels[row] != self.items.gallery_labels[column]
            if self.items.leave_one_out:
                keep &= column > row + rows.start
            return row[keep], column[keep]
        different = labels[:, None] != self.items.gallery_labels
        if self.items.leave_one_out:
            different = different.triu(1 + rows.start)
        row, column = different.nonzero(as_tuple=True)
        return row, column

    def metrics(self) -> dict[str, float]:
        return separation(self._positive.values(), self._negative.values())

    def distribution(self) -> Distribution:
        positive, negative = self._positive.values(), self._negative.values()
        return histogram(positive, negative, self._total)


class _Sample:
    """Values up to a budget; the caller adds only `share` of all values."""

    def __init__(self, total: int, budget: int) -> None:
        self.share = min(budget / total, 1.0) if total else 1.0
        self._buffer = np.empty(min(total, budget), dtype=np.float32)
        self._count = 0
        self._sorted = False

    def add(self, chosen: Float[Tensor, " pairs"]) -> None:
        room = self._buffer[self._count : self._count + len(chosen)]
        room[:] = chosen[: len(room)].cpu().numpy()
        self._count += len(room)

    def values(self) -> np.ndarray:
        """Ascending."""
        values = self._buffer[: self._count]
        if not self._sorted:
            values.sort()
            self._sorted = True
        return values
