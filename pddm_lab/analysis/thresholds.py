"""What thresholds do to single pairs: which lie near one, where two disagree, and whether one suits every density.

The last is the paper's claim: a threshold on a global distance that works where items lie densely fails where they lie
sparsely. Here pairs are grouped into thirds by density, and one threshold for all is measured within each third.

A pair is accepted if its similarity is at least the threshold. 95 % intervals come from resampling the *classes*: pairs
share items, and items of a class are alike, so treating pairs as independent would make the intervals too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pddm_lab.analysis.pairs import draw_pairs, score_pairs
from pddm_lab.metrics.density import DENSITIES, density_of, local_radius
from pddm_lab.metrics.intervals import percentile_interval
from pddm_lab.metrics.separation import highest_rejected

if TYPE_CHECKING:
    from torch import Tensor

    from pddm_lab.model.similarity import Similarity

QUADRANTS = ("neither", "x", "y", "both")
"""Which of two similarities accept a pair."""
DRAWS = 200
"""Resamples of the classes for an interval."""
MOST_PAIRS = 100_000
"""Pairs of either kind that a study measures; of more, a sample that is the same for every similarity and method."""


class Share(NamedTuple):
    """A share of pairs and its 95 % interval; NaN without pairs."""

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
    return float(_just_above(highest_rejected(negative, share)))


def around_threshold(pairs: pd.DataFrame, similarity: str, threshold: float, count: int) -> pd.DataFrame:
    """The pairs nearest to a threshold: up to `count` of each kind on each side, least similar first.

    Returns:
        Rows of `pairs` with `accepted`.
    """
    values, positive = pairs[similarity].to_numpy(), pairs["positive"].to_numpy()
    accepted, away = values >= threshold, np.abs(values - threshold)
    chosen = []
    for kind, side in ((True, True), (True, False), (False, True), (False, False)):
        rows = np.flatnonzero((positive == kind) & (accepted == side))
        few = min(count, len(rows))
        chosen.append(rows[np.argpartition(away[rows], few - 1)[:few]] if few else rows)
    rows = np.concatenate(chosen)
    return pairs.iloc[rows].assign(accepted=accepted[rows]).sort_values(similarity, kind="stable")


def quadrant_of(pairs: pd.DataFrame, x: str, y: str, at_x: float, at_y: float) -> Int[np.ndarray, " pairs"]:
    """Which of two similarities accept each pair at their thresholds: an index into `QUADRANTS`."""
    return (pairs[x].to_numpy() >= at_x) + 2 * (pairs[y].to_numpy() >= at_y)


def clearest_first(pairs: pd.DataFrame, x: str, y: str, at_x: float, at_y: float) -> Int[np.ndarray, " pairs"]:
    """The order of pairs by the smaller of their margins to both thresholds, the largest first.

    Margins are measured in standard deviations of each similarity, so that its unit doesn't matter.
    """
    margins = [
        np.abs(values - at) / (values.std() or 1.0)
        for values, at in ((pairs[x].to_numpy(dtype=float), at_x), (pairs[y].to_numpy(dtype=float), at_y))
    ]
    return np.argsort(-np.minimum(*margins), kind="stable")


def who_is_right(pairs: pd.DataFrame, quadrant: Int[np.ndarray, " pairs"]) -> dict[bool, Share]:
    """How often y is right where x and y disagree, among positive (True) and negative (False) pairs.

    Accepting a positive pair is right, and so is rejecting a negative one.

    Args:
        pairs: positive, label_a, label_b.
        quadrant: as `quadrant_of` gives it.
    """
    shares, disagree = {}, (quadrant == QUADRANTS.index("x")) | (quadrant == QUADRANTS.index("y"))
    codes, classes = _codes(pairs)
    for positive in (True, False):
        rows = disagree & (pairs["positive"].to_numpy() == positive)
        right = (quadrant[rows] == QUADRANTS.index("y")) == positive
        kind = _Kind(right, np.zeros(len(right), int), codes[:, rows], positive)
        drawn = [kind.weight(weights, slice(None)) for weights in _class_weights(classes)]
        low, high = percentile_interval(np.array([_ratio(weight @ right, weight.sum()) for weight in drawn]))
        shares[positive] = Share(float(_ratio(right.sum(), len(right))), float(low), float(high), len(right))
    return shares


@dataclass(frozen=True, eq=False)
class ByDensity:
    """One threshold for all pairs, and its rates in each third of them by density."""

    threshold: float
    """The lowest that accepts at most the given share of all negative pairs."""
    tpr: float
    """Of all positive pairs, at the threshold."""
    fpr: float
    """Of all negative pairs, at the threshold."""
    table: pd.DataFrame
    """A row per third: density, positives, negatives; tpr and fpr at the one threshold; own, the threshold that accepts
    the given share of the third's own negative pairs, and own_tpr at it. Rates and thresholds have an interval,
    _low and _high."""
    draws: dict[str, Float[np.ndarray, "draws thirds"]]
    """tpr, fpr, own, own_tpr by resample of the classes: the same resamples for every similarity of the same pairs."""

    def gap(self, rate: str) -> Float[np.ndarray, " draws"]:
        """The dense third's rate minus the sparse third's, by draw."""
        return self.draws[rate][:, 0] - self.draws[rate][:, -1]


def by_density(pairs: pd.DataFrame, similarity: str, share: float = 0.01, draws: int = DRAWS) -> ByDensity:
    """Measure one threshold for all pairs within each third of them by density.

    Args:
        pairs: positive, label_a, label_b, density (an index into `DENSITIES`), and the similarity.
        share: of the negative pairs, what a threshold may accept; below 1.
        draws: resamples of the classes for the intervals, which are NaN without any.
    """
    codes, classes = _codes(pairs)
    weights = np.concatenate([np.ones((1, classes)), _class_weights(classes, draws)])  # as counted, then as drawn
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
    for name, by_draw in rates.items():
        low, high = percentile_interval(by_draw[1:])
        table = table.assign(**{name: by_draw[0], f"{name}_low": low, f"{name}_high": high})
    tpr, fpr = (float(_ratio((kind.values > at[0]).sum(), len(kind.values))) for kind in (positive, negative))
    resampled = {name: by_draw[1:] for name, by_draw in rates.items()}
    return ByDensity(float(_just_above(at[0])), tpr, fpr, table, resampled)


def rates_by_density(
    similarity: Similarity, query: Float[Tensor, "queries dim"], gallery: Float[Tensor, "items dim"],
    query_labels: Int[np.ndarray, " queries"], gallery_labels: Int[np.ndarray, " items"], leave_one_out: bool,
) -> dict[str, float]:  # fmt: skip
    """True and false-positive rates of each third at the threshold of 1 % false positives over all pairs.

    The thirds hold as many positive pairs each.

    Args:
        similarity: larger is more similar.
        gallery: features; not used if `leave_one_out`.
        leave_one_out: query and gallery are the same items.

    Returns:
        tpr_dense, tpr_middle, tpr_sparse, fpr_dense, fpr_middle, fpr_sparse; NaN without such pairs.
    """
    if leave_one_out:
        features, labels, roles = query.numpy(), query_labels, np.repeat("both", len(query))
    else:
        features = np.concatenate([query.numpy(), gallery.numpy()])
        labels = np.concatenate([query_labels, gallery_labels])
        roles = np.repeat(["query", "gallery"], [len(query), len(gallery)])
    pairs = score_pairs(features, draw_pairs(labels, roles, MOST_PAIRS, MOST_PAIRS), {"score": similarity})
    radius, a, b = local_radius(features), pairs["a"].to_numpy(), pairs["b"].to_numpy()
    place = (radius[a] + radius[b]) / 2
    density = density_of(place, among=place[pairs["positive"]])
    pairs = pairs.assign(label_a=labels[a], label_b=labels[b], density=density)
    table = by_density(pairs, "score", draws=0).table
    return {f"{rate}_{row['density']}": row[rate] for rate in ("tpr", "fpr") for row in table.to_dict("records")}


@dataclass(frozen=True, eq=False)
class _Kind:
    """The positive or the negative pairs, most similar first, weighted by how often their classes are drawn.

    A positive pair counts as often as its class is drawn, a negative one as often as the product for its two classes.
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
        """The weight of some pairs, (pairs,)."""
        a, b = self.codes[:, rows]
        return of_class[a] if self.positive else of_class[a] * of_class[b]

    def sums(self, weights: np.ndarray, rows: slice) -> np.ndarray:
        """The weight of some pairs in each third, (draws, thirds)."""
        from scipy.sparse import coo_array

        (a, b), density, classes = self.codes[:, rows], self.density[rows], weights.shape[1]
        sums = np.zeros((len(weights), len(DENSITIES)))
        for third in range(len(DENSITIES)):
            of = density == third
            if self.positive:
                sums[:, third] = weights @ np.bincount(a[of], minlength=classes)
            else:
                pairs = coo_array((np.ones(of.sum()), (a[of], b[of])), shape=(classes, classes)).tocsr()
                sums[:, third] = (weights * (pairs @ weights.T).T).sum(axis=1)
        return sums

    def accepted(self, weights: np.ndarray, above: np.ndarray) -> np.ndarray:
        """The share of each third's weight above one value per draw, (draws, thirds)."""
        if np.isnan(above).all():
            return np.full((len(weights), len(DENSITIES)), np.nan)
        counts = len(self.values) - self.values[::-1].searchsorted(above, "right")  # NaN is above all
        always = int(counts[~np.isnan(above)].min())
        sums = self.sums(weights, slice(always))
        for draw, count in enumerate(counts):
            rows = slice(always, count)
            sums[draw] += np.bincount(self.density[rows], self.weight(weights[draw], rows), len(DENSITIES))
        sums[np.isnan(above)] = np.nan
        return _ratio(sums, self.sums(weights, slice(None)))

    def highest_rejected(self, weights: np.ndarray, share: float) -> np.ndarray:
        """The value that a threshold must exceed to accept at most a share of each draw's weight, (draws,)."""
        highest = np.full(len(weights), np.nan)
        looked_at = int(2 * share * len(self.values)) + 64  # only the top, as long as it holds the share
        for draw, total in enumerate(self.sums(weights, slice(None)).sum(axis=1) if len(self.values) else ()):
            while total:
                above = self.weight(weights[draw], slice(looked_at)).cumsum()
                if above[-1] > share * total * (1 + 1e-9):
                    highest[draw] = self.values[above.searchsorted(share * total * (1 + 1e-9), "right")]
                    break
                looked_at *= 2
        return highest


def _just_above(value: np.ndarray | np.floating) -> np.ndarray:
    return np.nextafter(np.asarray(value, np.float32), np.float32(np.inf))


def _codes(pairs: pd.DataFrame) -> tuple[Int[np.ndarray, "2 pairs"], int]:
    """The classes of both items, numbered without gaps, and how many there are."""
    labels, codes = np.unique(pairs[["label_a", "label_b"]].to_numpy().T, return_inverse=True)
    return codes.reshape(2, -1), len(labels)


def _class_weights(classes: int, draws: int = DRAWS) -> Float[np.ndarray, "draws classes"]:
    """How often each resample holds each class: as many classes are drawn as there are, with replacement."""
    if not classes:
        return np.empty((draws, 0))
    return np.random.default_rng(0).multinomial(classes, np.full(classes, 1 / classes), size=draws).astype(float)


def _ratio(part: np.ndarray | float, whole: np.ndarray | float) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(part / whole, dtype=float)
