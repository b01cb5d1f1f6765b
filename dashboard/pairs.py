"""Pairs of a gallery: how many there are, what a threshold does to them, and the scale to drag it on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pddm_lab.gallery import Gallery
from pddm_lab.separation import Distribution


@dataclass(frozen=True)
class Pairs:
    """The pairs of one protocol by every similarity."""

    distributions: Mapping[str, Distribution]
    queries: int
    searched: int
    positives: int
    """Positive pairs there are, also where only a sample was scored."""
    negatives: int

    @staticmethod
    def of(gallery: Gallery) -> Pairs:
        """Count a gallery's pairs: query and searched item, or each unordered pair once where these are the same."""
        roles, labels = gallery.items["role"], gallery.items["label"].to_numpy()
        queries, searched = labels[roles != "gallery"], labels[roles != "query"]
        classes = int(labels.max()) + 1 if len(labels) else 0
        of_query, of_searched = (np.bincount(part, minlength=classes).astype(np.int64) for part in (queries, searched))
        if (roles == "both").all():
            positives = int((of_query * (of_query - 1)).sum()) // 2
            total = len(labels) * (len(labels) - 1) // 2
        else:
            positives, total = int((of_query * of_searched).sum()), len(queries) * len(searched)
        return Pairs(gallery.distributions, len(queries), len(searched), positives, total - positives)

    def rates(self, similarity: str, threshold: float) -> tuple[float, float, float]:
        """(true-positive rate, false-positive rate, precision) of accepting pairs of at least a threshold.

        The precision is that of all pairs, scaled up where a sample was scored; NaN where no pair passes.
        """
        tpr, fpr = self.distributions[similarity].rates_at(threshold)
        accepted = tpr * self.positives + fpr * self.negatives
        return tpr, fpr, tpr * self.positives / accepted if accepted else float("nan")

    @property
    def size(self) -> str:
        """Queries and searched items in words."""
        if self.queries == self.searched:
            return f"{self.queries:,} items, each searched among the others"
        return f"{self.queries:,} queries in {self.searched:,} items"

    @property
    def counted(self) -> str:
        """Pairs in words, and how many of them were scored."""
        scored = next(iter(self.distributions.values())).pairs_scored
        total = self.positives + self.negatives
        sampled = "" if scored >= total else f", of which {scored:,} were scored"
        return f"{self.positives:,} positive and {self.negatives:,} negative pairs{sampled}"


@dataclass(frozen=True)
class Scale:
    """The ends and the step of a slider, all of them round numbers."""

    low: float
    high: float
    decimals: int

    @staticmethod
    def over(values: np.ndarray) -> Scale:
        """A scale that holds all values, in some 200 to 2000 steps."""
        low, high = float(values.min()), float(values.max())
        decimals = max(0, math.ceil(-math.log10((high - low) / 200)))
        unit = 10.0**-decimals
        ends = (round(math.floor(low / unit) * unit, decimals), round(math.ceil(high / unit) * unit, decimals))
        return Scale(*ends, decimals)

    @property
    def step(self) -> float:
        """The least move."""
        return round(10.0**-self.decimals, self.decimals)

    def nearest(self, value: float) -> float:
        """The value's place on the scale."""
        return min(max(round(value, self.decimals), self.low), self.high)
