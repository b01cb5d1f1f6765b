"""Pairs of a gallery's items: how many there are, a sample of them with their similarities, and one item's pairs.

A gallery's histograms know how many pairs have which similarity; a sample knows which pairs. These can be shown as
pictures, plotted by two similarities at once, and grouped by how densely their items lie. The sample is the same for
every run on the same items. All pairs of one item, the anchor, show what surrounds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pddm_lab.errors import RunError
from pddm_lab.gallery.files import repair
from pddm_lab.metrics.density import density_of, local_radius
from pddm_lab.similarities import SHOWN, SIMILARITIES
from pddm_lab.wording import counted

if TYPE_CHECKING:
    from pddm_lab.gallery.gallery import Gallery
    from pddm_lab.metrics.separation import Distribution
    from pddm_lab.model.similarity import Similarity

SCORED_AT_A_TIME = 1 << 14
"""Pairs whose features are gathered at a time: 8 MB of 128 dimensions."""


@dataclass(frozen=True)
class Pairs:
    """How many pairs a protocol has, and how the similarities distribute them."""

    distributions: Mapping[str, Distribution]
    """Of every similarity that the gallery was measured by."""
    queries: int
    searched: int
    positives: int
    """All positive pairs, also if only a sample was scored."""
    negatives: int

    @staticmethod
    def of(gallery: Gallery) -> Pairs:
        """Count a gallery's pairs: query and searched item, or each unordered pair once if all items are both.

        Raises:
            RunError: its distributions are damaged, or of no similarity of this lab.
        """
        stored = gallery.distributions
        distributions = {name: stored[name] for name in SHOWN if name in stored}
        if not distributions:
            lacking = f"{gallery.path / 'distributions.parquet'} lacks {', '.join(SIMILARITIES)}"
            raise RunError(f"{lacking}. {repair(gallery.path)}.")
        roles, labels = gallery.items["role"], gallery.items["label"].to_numpy()
        queries, searched = labels[roles != "gallery"], labels[roles != "query"]
        classes = int(labels.max()) + 1 if len(labels) else 0
        of_query, of_searched = (np.bincount(part, minlength=classes).astype(np.int64) for part in (queries, searched))
        if (roles == "both").all():
            positives = int((of_query * (of_query - 1)).sum()) // 2
            total = len(labels) * (len(labels) - 1) // 2
        else:
            positives, total = int((of_query * of_searched).sum()), len(queries) * len(searched)
        return Pairs(distributions, len(queries), len(searched), positives, total - positives)

    @property
    def not_measured(self) -> tuple[str, ...]:
        """Similarities that the lab did not have when it measured this gallery."""
        return tuple(name for name in SIMILARITIES if name not in self.distributions)

    def rates(self, similarity: str, threshold: float) -> tuple[float, float, float]:
        """(true-positive rate, false-positive rate, precision) of accepting pairs of at least a threshold.

        The precision is that of all pairs, scaled up if a sample was scored; NaN if no pair is accepted.
        """
        tpr, fpr = self.distributions[similarity].rates_at(threshold)
        accepted = tpr * self.positives + fpr * self.negatives
        return tpr, fpr, tpr * self.positives / accepted if accepted else float("nan")

    @property
    def size(self) -> str:
        """Queries and searched items in words."""
        if self.queries == self.searched:
            return f"{counted(self.queries, 'item')}, each searched among the others"
        return f"{counted(self.queries, 'query', 'queries')} in {counted(self.searched, 'item')}"

    @property
    def counted(self) -> str:
        """Pairs in words, and how many of them were scored."""
        scored = next(iter(self.distributions.values())).pairs_scored
        total = self.positives + self.negatives
        sampled = "" if scored >= total else f", of which {scored:,} were scored"
        return f"{self.positives:,} positive and {self.negatives:,} negative pairs{sampled}"


def sample_pairs(gallery: Gallery, count: int, seed: int = 0) -> pd.DataFrame:
    """Random pairs of a query and an item it searches: half positive and half negative, if there are enough.

    No pair is drawn twice, also not in the other order, and no item with itself. The sample depends only on the items'
    ids, labels and roles: two runs on the same items get the same pairs, in whatever order their galleries hold them.

    Args:
        count: pairs; if there are too few of one kind, the other fills up; all pairs if there are no more.

    Returns:
        As `draw_pairs`.
    """
    by_id = np.argsort(gallery.items["id"].to_numpy().astype(str), kind="stable")
    labels, roles = (gallery.items[name].to_numpy()[by_id] for name in ("label", "role"))
    pairs = draw_pairs(labels, roles, count, count, seed)
    positive, negative = pairs[pairs["positive"]], pairs[~pairs["positive"]]
    positives = min(max(count // 2, count - len(negative)), len(positive))
    pairs = pd.concat([positive[:positives], negative[: count - positives]], ignore_index=True)
    return pairs.assign(a=by_id[pairs["a"]], b=by_id[pairs["b"]])


def draw_pairs(
    labels: Int[np.ndarray, " items"], roles: np.ndarray, positives: int, negatives: int, seed: int = 0
) -> pd.DataFrame:
    """Up to so many distinct pairs of each kind; all if there are no more.

    Args:
        roles: query, gallery or both, of each item.

    Returns:
        a (row of the query), b (row of the searched item), positive; positive pairs first, each kind in random order.
    """
    slots, rng = _Slots(labels, roles.astype(str)), np.random.default_rng(seed)
    kinds = [slots.draw(count, kind, rng) for kind, count in ((True, positives), (False, negatives))]
    rows = np.concatenate(kinds)
    return pd.DataFrame({"a": rows[:, 0], "b": rows[:, 1], "positive": np.arange(len(rows)) < len(kinds[0])})


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
    """`sample_pairs` with the columns of `score_pairs`, and those that `thresholds.by_density` needs.

    Returns:
        Further columns: label_a, label_b, and density, the third of the mean local radius of both items as an index
        into `DENSITIES`.
    """
    pairs = score_pairs(gallery.features, sample_pairs(gallery, count, seed), similarities)
    radii = local_radius(gallery.features)
    labels = gallery.items["label"].to_numpy()
    a, b = pairs["a"].to_numpy(), pairs["b"].to_numpy()
    return pairs.assign(label_a=labels[a], label_b=labels[b], density=density_of((radii[a] + radii[b]) / 2))


def similarity_to(
    features: Float[np.ndarray, "items dim"], anchor: int, similarity: Similarity
) -> Float[np.ndarray, " items"]:
    """The similarity of every item to the anchor, the anchor included; larger = more similar.

    Args:
        features: of all items; may be memory-mapped.
        anchor: its row.
        similarity: on the CPU.
    """
    import torch

    centre = torch.from_numpy(np.array(features[anchor], dtype=np.float32))
    values = np.empty(len(features), np.float32)
    for at in range(0, len(features), SCORED_AT_A_TIME):
        part = torch.from_numpy(np.array(features[at : at + SCORED_AT_A_TIME], dtype=np.float32))
        values[at : at + SCORED_AT_A_TIME] = similarity.pairs(centre.expand_as(part), part).numpy()
    return values


def most_similar(values: Float[np.ndarray, " items"], anchor: int, count: int) -> Int[np.ndarray, " nearest"]:
    """Rows of the items most similar to the anchor, best first, without the anchor; ties by row.

    Args:
        values: of every item, as `similarity_to` gives them.
    """
    others = np.where(np.arange(len(values)) == anchor, -np.inf, values)
    count = max(min(count, len(values) - 1), 0)
    if not count:
        return np.empty(0, np.int64)
    bound = np.partition(others, -count)[-count]
    able = np.flatnonzero(others >= bound)
    return able[np.argsort(-others[able], kind="stable")][:count]


class _Slots:
    """Numbers every pair of a query and a searched item, so that a sample of numbers is a sample of pairs.

    Positive and negative pairs are numbered separately, query by query. The searched items are sorted by label, so that
    those of one class, and all the others, are ranges.
    """

    def __init__(self, labels: np.ndarray, roles: np.ndarray) -> None:
        self.both, self.queries = roles == "both", np.flatnonzero(roles != "gallery")
        searched = np.flatnonzero(roles != "query")
        self.searched = searched[np.argsort(labels[searched], kind="stable")]
        kept = labels[self.searched]
        self.first = kept.searchsorted(labels[self.queries], "left")
        self.alike = kept.searchsorted(labels[self.queries], "right") - self.first
        place = np.full(len(labels), len(labels))
        place[self.searched] = np.arange(len(self.searched))
        self.itself = place[self.queries] - self.first  # beyond its class where the query isn't searched itself

    def draw(self, count: int, positive: bool, rng: np.random.Generator) -> Int[np.ndarray, "pairs 2"]:
        """Up to `count` distinct pairs of one kind, (pairs, 2), in random order; all pairs if there are no more."""
        per_query = self.alike - (self.itself < self.alike) if positive else len(self.searched) - self.alike
        ends = per_query.cumsum()
        total = int(ends[-1]) if len(ends) else 0
        # A pair of items that are both queries and searched has two numbers; one of them is dropped.
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
