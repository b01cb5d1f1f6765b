"""How well similarities separate positive from negative pairs: exact metrics and histograms.

Works on arrays only, so that a page can show a distribution without torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

BINS = 2000
"""Bins of a distribution: a threshold can be set to 1/2000 of its range."""


class Roc(NamedTuple):
    """A ROC curve: accepting pairs of at least a threshold, from none to all."""

    fpr: np.ndarray
    tpr: np.ndarray
    thresholds: np.ndarray


@dataclass(frozen=True, eq=False)
class Distribution:
    """Similarities of positive and negative pairs as two histograms over shared edges."""

    edges: np.ndarray
    """(bins + 1,) float64, ascending; a bin includes its left edge, the last one both."""
    positive: np.ndarray
    """(bins,) int64: positive pairs scored."""
    negative: np.ndarray
    """(bins,) int64: negative pairs scored."""
    pairs_scored: int
    """Pairs in the histograms."""
    pairs_total: int
    """All pairs: more than `pairs_scored` if the histograms are of a sample."""

    def roc(self) -> Roc:
        """One point per edge, accurate to a bin's width."""
        return Roc(_share_from(self.negative), _share_from(self.positive), self.edges[::-1])

    def auc(self) -> float:
        """Area under `roc`; pairs in the same bin count half. NaN if either kind has no pairs."""
        if not self.positive.any() or not self.negative.any():
            return math.nan
        return float(np.trapezoid(self.roc().tpr, self.roc().fpr))

    def rates_at(self, threshold: float) -> tuple[float, float]:
        """(true-positive rate, false-positive rate) if pairs from a threshold on are accepted; linear inside a bin."""
        roc = self.roc()
        at = [float(np.interp(threshold, self.edges, rate[::-1])) for rate in (roc.tpr, roc.fpr)]
        return at[0], at[1]

    def threshold_at_fpr(self, share: float) -> float:
        """The lowest edge at which at most this share of the negative pairs is accepted."""
        return float(self.edges[::-1][_share_from(self.negative) <= share][-1])


def separation(
    positive: Float[np.ndarray, " positives"], negative: Float[np.ndarray, " negatives"]
) -> dict[str, float]:
    """How well two sets of scores are separated, exact for these scores; NaN if either is empty.

    auc: probability that a positive pair scores higher than a negative one; a tie counts half. eer: where the
    false-positive rate equals the false-negative rate, linear between the two thresholds around it. dprime: distance
    of the means, divided by the root mean square of the standard deviations. tpr@1%fpr: largest true-positive rate of
    a threshold that accepts at most 1 % of the negatives.

    Args:
        positive: similarities of positive pairs, ascending.
        negative: similarities of negative pairs, ascending.
    """
    if not len(positive) or not len(negative):
        return dict.fromkeys(("auc", "eer", "dprime", "tpr@1%fpr"), math.nan)
    below = negative.searchsorted(positive, "left").sum(dtype=np.int64)
    not_above = negative.searchsorted(positive, "right").sum(dtype=np.int64)
    (positive_mean, positive_variance), (negative_mean, negative_variance) = _moments(positive), _moments(negative)
    apart, spread = positive_mean - negative_mean, math.sqrt((positive_variance + negative_variance) / 2)
    return {
        "auc": float(below + not_above) / 2 / len(positive) / len(negative),
        "eer": _equal_error_rate(positive, negative),
        "dprime": apart / spread if spread else math.copysign(math.inf, apart) if apart else 0.0,
        "tpr@1%fpr": 1 - float(positive.searchsorted(highest_rejected(negative, 0.01), "right")) / len(positive),
    }


def highest_rejected(negative: Float[np.ndarray, " negatives"], share: float) -> np.floating:
    """The similarity that a threshold must exceed to accept at most a share (below 1) of the negative pairs.

    Args:
        negative: similarities of negative pairs, ascending; at least one.
    """
    return negative[len(negative) - 1 - int(share * len(negative) * (1 + 1e-9))]


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and variance in float64, in parts, since converting all values would need four times the memory."""
    mean = float(values.mean(dtype=np.float64))
    parts = (values[start : start + 1_000_000].astype(np.float64) for start in range(0, len(values), 1_000_000))
    return mean, sum(float(((part - mean) ** 2).sum()) for part in parts) / len(values)


def _equal_error_rate(positive: np.ndarray, negative: np.ndarray) -> float:
    def errors(threshold: np.floating, side: Literal["left", "right"]) -> tuple[float, float]:
        """(false-positive, false-negative rate): "left" accepts the threshold itself, "right" only values above."""
        accepted = 1 - negative.searchsorted(threshold, side) / len(negative)
        return float(accepted), float(positive.searchsorted(threshold, side) / len(positive))

    # By bisection: the highest score at which the false-positive rate is not below the false-negative rate.
    highest = []
    for values in (positive, negative):
        low, high = 0, len(values)
        while low < high:
            middle = (low + high) // 2
            fpr, fnr = errors(values[middle], "left")
            low, high = (middle + 1, high) if fpr >= fnr else (low, middle)
        highest += [values[low - 1]] if low else []
    fpr, fnr = errors(max(highest), "left")
    next_fpr, next_fnr = errors(max(highest), "right")  # the next point of the curve, after the crossing
    share = (fpr - fnr) / ((fpr - fnr) + (next_fnr - next_fpr))
    return fpr + share * (next_fpr - fpr)


def histogram(
    positive: Float[np.ndarray, " positives"], negative: Float[np.ndarray, " negatives"], pairs_total: int
) -> Distribution:
    """The distribution of two ascending arrays of similarities, with edges from the smallest to the largest."""
    ends = [float(end) for values in (positive, negative) if len(values) for end in (values[0], values[-1])]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    if high - low < 1e-6 * max(abs(low), abs(high), 1e-3):  # one value: a bin needs a width
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    counts = []
    for values in (positive, negative):
        places = values.searchsorted(edges.astype(values.dtype))
        places[0], places[-1] = 0, len(values)
        counts.append(np.diff(places).astype(np.int64))
    return Distribution(edges, counts[0], counts[1], len(positive) + len(negative), pairs_total)


def _share_from(counts: np.ndarray) -> np.ndarray:
    """Share of values at or above each edge, from the highest edge to the lowest; 0 if there are no values."""
    above = np.concatenate([[0], np.cumsum(counts[::-1])])
    return above / max(above[-1], 1)
