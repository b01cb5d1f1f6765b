"""What thresholds do to single pairs: which lie at one, on which two disagree, and whether one holds everywhere.

The last is the paper's claim: a threshold on a global distance that works where items lie densely fails where they lie
sparsely. Here pairs are parted by density, and one threshold for all is measured within each part.

A pair is accepted where its similarity is at least the threshold. Intervals are of 95 % and come from drawing the
*classes* anew: pairs share items, and items of a class are alike, so that to count pairs as if each stood alone would
promise too much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pddm_lab.metrics.density import DENSITIES, local_radius
from pddm_lab.metrics.intervals import percentile_interval

if TYPE_CHECKING:
    from torch import Tensor

    from pddm_lab.model.similarity import Similarity

QUADRANTS = ("neither", "x", "y", "both")
"""Which of two similarities accept a pair."""
DRAWS = 200
"""Times that the classes are drawn anew for an interval."""
FALSE_POSITIVES = 0.01
"""Share of all negative pairs that the one threshold accepts, at most."""
MOST_PAIRS = 100_000
"""Of either kind; beyond, a sample, the same for every similarity and every method."""


class Share(NamedTuple):
    """A share of pairs and its 95 % interval; NaN where there are none."""

    value: float
    low: float
    high: float
    pairs: int
    """How many were counted."""


def threshold_at_fpr(pairs: pd.DataFrame, similarity: str, share: float) -> float:
    """The lowest threshold that accepts at most a share (below 1) of the negative pairs; NaN without negative pairs."""
    negative = np.sort(pairs[similarity].to_numpy()[~pairs["positive"].to_numpy()])
    if not len(negative):
        return float("nan")
    return float(_just_above(negative[len(negative) - 1 - int(share * len(negative) * (1 + 1e-9))]))


def around_threshold(pairs: pd.DataFrame, similarity: str, threshold: float, count: int) -> pd.DataFrame:
    """The pairs just either side of a threshold: up to so many of each kind on each side, least similar first.

    Returns:
        Rows of `pairs` with `accepted`.
    """
    values, positive = pairs[similarity].to_numpy(), pairs["positive"].to_numpy()
    accepted, away = values >= threshold, np.abs(values - threshold)
    found = []
    for kind, side in ((True, True), (True, False), (False, True), (False, False)):
        rows = np.flatnonzero((positive == kind) & (accepted == side))
        few = min(count, len(rows))
        found.append(rows[np.argpartition(away[rows], few - 1)[:few]] if few else rows)
    rows = np.concatenate(found)
    return pairs.iloc[rows].assign(accepted=accepted[rows]).sort_values(similarity, kind="stable")


def quadrant_of(pairs: pd.DataFrame, x: str, y: str, at_x: float, at_y: float) -> Int[np.ndarray, " pairs"]:
    """Which of two similarities accept each pair at their thresholds, an index into `QUADRANTS`."""
    return (pairs[x].to_numpy() >= at_x) + 2 * (pairs[y].to_numpy() >= at_y)


def clearest_first(pairs: pd.DataFrame, x: str, y: str, at_x: float, at_y: float) -> Int[np.ndarray, " pairs"]:
    """The order of pairs in which those come first that lie far from both thresholds: by the lesser margin.

    Margins are measured in standard deviations of each similarity, so that its unit doesn't tell.
    """
    margins = [
        np.abs(values - at) / (values.std() or 1.0)
        for values, at in ((pairs[x].to_numpy(dtype=float), at_x), (pairs[y].to_numpy(dtype=float), at_y))
    ]
    return np.argsort(-np.minimum(*margins), kind="stable")


def who_is_right(pairs: pd.DataFrame, quadrant: Int[np.ndarray, " pairs"]) -> dict[bool, Share]:
    """Where x and y disagree, how often y is the one that is right: among positive (True) and negative (False) pairs.

    On a positive pair the one that accepts is right, on a negative pair the one that rejects.

    Args:
        pairs: positive, label_a, label_b.
        quadrant: as `quadrant_of` gives it.
    """
    found, disagree = {}, (quadrant == QUADRANTS.index("x")) | (quadrant == QUADRANTS.index("y"))
    codes, classes = _codes(pairs)
    for positive in (True, False):
        rows = disagree & (pairs["positive"].to_numpy() == positive)
        right = (quadrant[rows] == QUADRANTS.index("y")) == positive
        kind = _Kind(right, np.zeros(len(right), int), codes[:, rows], positive)
        drawn = [kind.weight(weights, slice(None)) for weights in _class_weights(classes)]
        low, high = percentile_interval(np.array([_ratio(weight @ right, weight.sum()) for weight in drawn]))
        found[positive] = Share(float(_ratio(right.sum(), len(right))), float(low), float(high), len(right))
    return found


@dataclass(frozen=True, eq=False)
class ByDensity:
    """One threshold for all pairs, and what it does to those whose items lie densely, in the middle, and sparsely."""

    threshold: float
    """The lowest that accepts at most the asked share of all negative pairs."""
    tpr: float
    """Of all positive pairs, at the threshold."""
    fpr: float
    """Of all negative pairs, at the threshold."""
    table: pd.DataFrame
    """A row per third: density, positives, negatives; tpr and fpr at the one threshold; own, the threshold that the
    third would need for the asked share of its negative pairs, and own_tpr at it. Each rate and threshold with its
    interval, _low and _high."""
    draws: dict[str, Float[np.ndarray, "draws thirds"]]
    """tpr, fpr, own, own_tpr by draw of the classes. The draws are those of every similarity of the same pairs."""

    def gap(self, rate: str) -> Float[np.ndarray, " draws"]:
        """The dense third's rate minus the sparse third's, by draw."""
        return self.draws[rate][:, 0] - self.draws[rate][:, -1]


def by_density(pairs: pd.DataFrame, similarity: str, share: float = 0.01) -> ByDensity:
    """Measure one threshold for all pairs within each third of them by density.

    Args:
        pairs: positive, label_a, label_b, density (an index into `DENSITIES`), and the similarity.
        share: of the negative pairs, what a threshold may accept; below 1.
    """
    codes, classes = _codes(pairs)
    weights = np.concatenate([np.ones((1, classes)), _class_weights(classes)])  # first as counted, then as drawn
    values, density, is_positive = (pairs[name].to_numpy() for name in (similarity, "density", "positive"))
    order = np.argsort(-values, kind="stable")
    positive, negative = (
        _Kind(values[rows], density[rows], codes[:, rows], kind)
        for kind, rows in ((True, order[is_positive[order]]), (False, order[~is_positive[order]]))
    )
    at = negative.highest_rejected(weights, share)
    rates = {"tpr": positive.accepted(weights, at), "fpr": negative.accepted(weights, at)}
    own, own_tpr = np.full((2, len(weights), len(DENSITIES)), np.nan)
    for third in range(len(DENSITIES)):
        highest = negative.part(third).highest_rejected(weights, share)
        own[:, third] = _just_above(highest)
        own_tpr[:, third] = positive.part(third).accepted(weights, highest)[:, third]
    rates |= {"own": own, "own_tpr": own_tpr}
    thirds = np.arange(len(DENSITIES))[:, None]
    counts = {"positives": positive, "negatives": negative}
    table = pd.DataFrame(
        {"density": DENSITIES} | {name: (kind.density == thirds).sum(axis=1) for name, kind in counts.items()}
    )
    for name, found in rates.items():
        low, high = percentile_interval(found[1:])
        table = table.assign(**{name: found[0], f"{name}_low": low, f"{name}_high": high})
    tpr, fpr = (float(_ratio((kind.values > at[0]).sum(), len(kind.values))) for kind in (positive, negative))
    draws = {name: found[1:] for name, found in rates.items()}
    return ByDensity(float(_just_above(at[0])), tpr, fpr, table, draws)


@dataclass(frozen=True, eq=False)
class _Kind:
    """The positive or the negative pairs by falling similarity, to be weighed by how often their classes are drawn.

    A class that is drawn twice brings its positive pairs twice, and its negative ones as often as both classes tell.
    """

    values: np.ndarray
    density: np.ndarray
    codes: np.ndarray
    """(2, pairs): the classes of both items."""
    positive: bool

    def part(self, third: int) -> _Kind:
        """The pairs of one third."""
        rows = self.density == third
        return _Kind(self.values[rows], self.density[rows], self.codes[:, rows], self.positive)

    def weight(self, of_class: np.ndarray, rows: slice) -> np.ndarray:
        """Of some pairs, (pairs,)."""
        a, b = self.codes[:, rows]
        return of_class[a] if self.positive else of_class[a] * of_class[b]

    def sums(self, weights: np.ndarray, rows: slice) -> np.ndarray:
        """Of some pairs the weight in each third, (draws, thirds)."""
        from scipy.sparse import coo_array

        (a, b), density, classes = self.codes[:, rows], self.density[rows], weights.shape[1]
        found = np.zeros((len(weights), len(DENSITIES)))
        for third in range(len(DENSITIES)):
            of = density == third
            if self.positive:
                found[:, third] = weights @ np.bincount(a[of], minlength=classes)
            else:
                pairs = coo_array((np.ones(of.sum()), (a[of], b[of])), shape=(classes, classes)).tocsr()
                found[:, third] = (weights * (pairs @ weights.T).T).sum(axis=1)
        return found

    def accepted(self, weights: np.ndarray, above: np.ndarray) -> np.ndarray:
        """The share of each third's weight that lies above a value of each draw, (draws, thirds)."""
        if np.isnan(above).all():
            return np.full((len(weights), len(DENSITIES)), np.nan)
        counts = len(self.values) - self.values[::-1].searchsorted(above, "right")  # NaN is above all
        always = int(counts[~np.isnan(above)].min())
        found = self.sums(weights, slice(always))
        for draw, count in enumerate(counts):
            rows = slice(always, count)
            found[draw] += np.bincount(self.density[rows], self.weight(weights[draw], rows), len(DENSITIES))
        found[np.isnan(above)] = np.nan
        return _ratio(found, self.sums(weights, slice(None)))

    def highest_rejected(self, weights: np.ndarray, share: float) -> np.ndarray:
        """The value that a threshold has to stay above to accept at most a share of a draw's weight, (draws,)."""
        found = np.full(len(weights), np.nan)
        looked_at = int(2 * share * len(self.values)) + 64  # the top alone, as long as it holds the share
        for draw, total in enumerate(self.sums(weights, slice(None)).sum(axis=1) if len(self.values) else ()):
            while total:
                above = self.weight(weights[draw], slice(looked_at)).cumsum()
                if above[-1] > share * total * (1 + 1e-9):
                    found[draw] = self.values[above.searchsorted(share * total * (1 + 1e-9), "right")]
                    break
                looked_at *= 2
        return found


def _just_above(value: np.ndarray) -> np.ndarray:
    return np.nextafter(np.asarray(value, np.float32), np.float32(np.inf))


def _codes(pairs: pd.DataFrame) -> tuple[Int[np.ndarray, "2 pairs"], int]:
    """The classes of both items, numbered without gaps, and how many there are."""
    labels, codes = np.unique(pairs[["label_a", "label_b"]].to_numpy().T, return_inverse=True)
    return codes.reshape(2, -1), len(labels)


def _class_weights(classes: int) -> Float[np.ndarray, "draws classes"]:
    """How often each class is drawn when as many as there are, are drawn with replacement; `DRAWS` times."""
    if not classes:
        return np.empty((DRAWS, 0))
    return np.random.default_rng(0).multinomial(classes, np.full(classes, 1 / classes), size=DRAWS).astype(float)


def _ratio(part: np.ndarray | float, whole: np.ndarray | float) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(part / whole, dtype=float)


def rates_by_density(
    similarity: Similarity,
    query: Float[Tensor, "queries dim"],
    gallery: Float[Tensor, "items dim"],
    query_labels: Int[np.ndarray, " queries"],
    gallery_labels: Int[np.ndarray, " items"],
    leave_one_out: bool,
) -> dict[str, float]:
    """True and false-positive rates of each third at the threshold of 1 % false positives over all pairs.

    Args:
        similarity: larger is more similar.
        query: features.
        gallery: features; those of the query, where one is left out.
        query_labels: class of each query.
        gallery_labels: class of each item.
        leave_one_out: query and gallery are the same items.

    Returns:
        tpr_dense, tpr_middle, tpr_sparse, fpr_dense, fpr_middle, fpr_sparse; NaN where there are no such pairs.
    """
    import torch

    every = query if leave_one_out else torch.cat([query, gallery])
    radius = local_radius(every.numpy())
    of_query, of_gallery = (radius, radius) if leave_one_out else np.split(radius, [len(query)])
    found = {f"{rate}_{third}": math.nan for rate in ("tpr", "fpr") for third in DENSITIES}
    scores, places = [], []
    for a, b in sampled(query_labels, gallery_labels, leave_one_out):
        scores.append(similarity.pairs(query[torch.from_numpy(a)], gallery[torch.from_numpy(b)]).numpy())
        places.append((of_query[a] + of_gallery[b]) / 2)
    if not len(scores[0]) or not len(scores[1]):
        return found
    negative = np.sort(scores[1])
    highest_rejected = negative[len(negative) - 1 - int(FALSE_POSITIVES * len(negative))]
    bounds = np.quantile(places[0], [1 / 3, 2 / 3])
    for rate, values, place in zip(("tpr", "fpr"), scores, places, strict=True):
        thirds = np.searchsorted(bounds, place, side="left")
        for number, third in enumerate(DENSITIES):
            if (thirds == number).any():
                found[f"{rate}_{third}"] = float((values[thirds == number] > highest_rejected).mean())
    return found


def sampled(
    query_labels: Int[np.ndarray, " queries"], gallery_labels: Int[np.ndarray, " items"], leave_one_out: bool
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Positive pairs, and negative ones, as rows of queries and of gallery items; no pair of an item with itself.

    Drawn with replacement, seeded, where there are more than `MOST_PAIRS`.
    """
    rng = np.random.default_rng(0)
    order = np.argsort(gallery_labels, kind="stable")
    ordered = gallery_labels[order]
    first, last = (ordered.searchsorted(query_labels, side) for side in ("left", "right"))
    ends = (last - first).cumsum()
    count = int(ends[-1]) if len(ends) else 0
    # A drawn number is a place in the list of all positive pairs, query by query.
    slots = np.arange(count) if count <= MOST_PAIRS else rng.integers(count, size=2 * MOST_PAIRS)
    a = ends.searchsorted(slots, "right")
    b = order[slots - (ends - (last - first))[a] + first[a]]
    once = a < b if leave_one_out else np.ones(len(a), bool)
    positive = (a[once][:MOST_PAIRS], b[once][:MOST_PAIRS])
    a, b = (rng.integers(size, size=MOST_PAIRS) for size in (len(query_labels), len(gallery_labels)))
    differ = query_labels[a] != gallery_labels[b]
    return positive, (a[differ], b[differ])
