"""Single pairs of a gallery: a sample that is the same for every run on the same items, and their similarities.

A gallery's histograms know how many pairs lie where; these know which. So they can be shown as pictures, drawn by two
similarities at once, and parted by how densely their items lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from pddm_lab.gallery.gallery import Gallery
    from pddm_lab.metrics.separation import Distribution
    from pddm_lab.model.similarity import Similarity

_AT_ONCE = 1 << 14  # features copied at a time: 8 MB of 128 dimensions
SCORED_AT_A_TIME = 1 << 14
"""Pairs whose features are gathered at a time: bounds the memory."""


def sample_pairs(gallery: Gallery, count: int, seed: int = 0) -> pd.DataFrame:
    """Pairs of a query and an item it searches, at random: half of them positive, half negative where there are enough.

    An unordered pair comes once, an item never with itself. The sample follows from the item ids, labels and roles
    alone: two runs on the same items get the same pairs, in whatever order their galleries hold them.

    Args:
        gallery: whose items to pair.
        count: pairs; where there are too few of one kind, the other fills up, and all come where there are no more.
        seed: of the sample.

    Returns:
        a (row of the query), b (row of the searched item), positive; positive pairs first, each kind in random order.
    """
    items = gallery.items
    by_id = np.argsort(items["id"].to_numpy().astype(str), kind="stable")
    slots = _Slots.of(items["label"].to_numpy()[by_id], items["role"].to_numpy().astype(str)[by_id])
    rng = np.random.default_rng(seed)
    positive, negative = (slots.draw(count, kind, rng) for kind in (True, False))
    positives = min(max(count // 2, count - len(negative)), len(positive))
    both = np.concatenate([positive[:positives], negative[: count - positives]])
    rows = by_id[both]
    return pd.DataFrame({"a": rows[:, 0], "b": rows[:, 1], "positive": np.arange(len(rows)) < positives})


def score_pairs(
    features: Float[np.ndarray, "items dim"], pairs: pd.DataFrame, similarities: Mapping[str, Similarity]
) -> pd.DataFrame:
    """The pairs with a float32 column per similarity: larger = more similar.

    Args:
        features: a gallery's, (items, dim) float32.
        pairs: a, b, rows of the features.
        similarities: by name, on the CPU.
    """
    import torch

    a, b = pairs["a"].to_numpy(), pairs["b"].to_numpy()
    scores = {name: np.empty(len(pairs), np.float32) for name in similarities}
    for start in range(0, len(pairs), SCORED_AT_A_TIME):
        part = slice(start, start + SCORED_AT_A_TIME)
        left, right = (torch.from_numpy(np.ascontiguousarray(features[ends[part]])) for ends in (a, b))
        for name, similarity in similarities.items():
            scores[name][part] = similarity.pairs(left, right).numpy()
    return pairs.assign(**scores)


def pairs_by_density(
    gallery: Gallery, similarities: Mapping[str, Similarity], count: int, seed: int = 0
) -> pd.DataFrame:
    """`sample_pairs` with the columns of `score_pairs`, and what `verdicts.by_density` asks for.

    Returns:
        Further columns: label_a, label_b, and density, the third of the mean local radius of both items as an index
        into `DENSITIES`.
    """
    from pddm_lab.metrics.density import density_of, local_radius

    pairs = score_pairs(gallery.features, sample_pairs(gallery, count, seed), similarities)
    radii = local_radius(gallery.features)
    labels = gallery.items["label"].to_numpy()
    a, b = pairs["a"].to_numpy(), pairs["b"].to_numpy()
    return pairs.assign(label_a=labels[a], label_b=labels[b], density=density_of((radii[a] + radii[b]) / 2))


class _Slots:
    """Every pair of a query and a searched item has a number, so that a sample of numbers is a sample of pairs.

    Positive pairs and negative pairs are numbered apart, query by query; the searched items lie sorted by label, so
    that those of one class, and all the others, are ranges.
    """

    def __init__(self, labels: np.ndarray, queries: np.ndarray, searched: np.ndarray, both: np.ndarray) -> None:
        self.both, self.queries = both, queries
        self.searched = searched[np.argsort(labels[searched], kind="stable")]
        kept = labels[self.searched]
        self.first = kept.searchsorted(labels[queries], "left")
        self.alike = kept.searchsorted(labels[queries], "right") - self.first
        place = np.full(len(labels), len(labels))
        place[self.searched] = np.arange(len(self.searched))
        self.itself = place[queries] - self.first  # beyond its class where the query isn't searched itself

    @classmethod
    def of(cls, labels: np.ndarray, roles: np.ndarray) -> _Slots:
        return cls(labels, np.flatnonzero(roles != "gallery"), np.flatnonzero(roles != "query"), roles == "both")

    def draw(self, count: int, positive: bool, rng: np.random.Generator) -> Int[np.ndarray, "pairs 2"]:
        """Up to so many distinct pairs of one kind, (pairs, 2), in random order; all where there are no more."""
        per_query = self.alike - (self.itself < self.alike) if positive else len(self.searched) - self.alike
        ends = per_query.cumsum()
        total = int(ends[-1]) if len(ends) else 0
        # Of two items that are both queries and searched the pair has two numbers, and one of them is dropped.
        enough = 4 * count + 64
        slots = np.arange(total) if total <= 2 * enough else np.unique(rng.integers(total, size=enough))
        slots = rng.permutation(slots)
        query = ends.searchsorted(slots, "right")
        at = slots - (ends - per_query)[query]
        if positive:
            at += self.first[query] + (at >= self.itself[query])
        else:
            at += np.where(at >= self.first[query], self.alike[query], 0)
        a, b = self.queries[query], self.searched[at]
        once = ~(self.both[a] & self.both[b]) | (a < b)
        return np.column_stack([a[once], b[once]])[:count]


def similarity_to(
    features: Float[np.ndarray, "items dim"], anchor: int, similarity: Similarity
) -> Float[np.ndarray, " items"]:
    """The similarity of every item to the anchor, larger = more similar; the anchor's own included.

    Args:
        features: of all items; may be memory-mapped.
        anchor: its row.
        similarity: on the CPU.
    """
    import torch

    centre = torch.from_numpy(np.array(features[anchor], dtype=np.float32))
    values = np.empty(len(features), np.float32)
    for at in range(0, len(features), _AT_ONCE):
        part = torch.from_numpy(np.array(features[at : at + _AT_ONCE], dtype=np.float32))
        values[at : at + _AT_ONCE] = similarity.pairs(centre.expand_as(part), part).numpy()
    return values


def most_similar(values: Float[np.ndarray, " items"], anchor: int, count: int) -> Int[np.ndarray, " nearest"]:
    """Rows of the items most similar to the anchor, best first, itself left out; equal ones by row.

    Args:
        values: of every item, as `similarity_to` gives them.
        anchor: its row.
        count: how many; fewer come where there are fewer.
    """
    others = np.where(np.arange(len(values)) == anchor, -np.inf, values)
    count = max(min(count, len(values) - 1), 0)
    if not count:
        return np.empty(0, np.int64)
    bound = np.partition(others, -count)[-count]
    able = np.flatnonzero(others >= bound)
    return able[np.argsort(-others[able], kind="stable")][:count]


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
