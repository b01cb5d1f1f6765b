"""Calibration: the probability that a pair is of one class given its similarity, and whether it is the same everywhere.

Two maps from similarity to probability are fitted on the pairs of half of the classes and evaluated on those of the
other half: Platt's (a logistic curve) and isotonic regression (any rising steps). Pairs across the halves are left out,
so that no class is in both. The share of positive pairs is a choice, not a property of the similarity: pairs are
weighted to it.

The same similarity can mean different probabilities in dense and in sparse regions. So the map is also evaluated on
each third of the pairs by local radius, and a logistic curve is fitted to each third alone; it crosses one half at that
third's even odds. If the similarity meant the same everywhere, the map of all pairs would predict one half there in
every third. A probability makes similarities of any scale comparable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from pddm_lab.analysis.metric_axioms import PropertyCheck
from pddm_lab.metrics.density import DENSITIES

if TYPE_CHECKING:
    import pandas as pd

BINS = 15
"""Bins of a reliability diagram, with equally many pairs each."""
CALIBRATED = 0.02
"""Expected calibration error up to which a similarity counts as calibrated."""
SAME_EVERYWHERE = 0.1
"""Range of predictions at the thirds' even odds up to which a similarity counts as meaning the same everywhere."""
MAPS = {"platt": "logistic (Platt)", "isotonic": "isotonic"}
PROPERTIES: dict[str, tuple[str, str]] = {
    "calibrated": ("Calibrated",
        f"Expected calibration error of the predicted probabilities. Holds up to {100 * CALIBRATED:.0f} %."),
    "everywhere": ("The same everywhere",
        "Probabilities that the map of all pairs predicts at the even odds of the dense, the middle and the sparse "
        f"third. Holds if they are within {100 * SAME_EVERYWHERE:.0f} points of each other."),
}  # fmt: skip
"""What is checked of every similarity: a title, and how it is measured."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """Predicted probabilities against observed shares, on pairs that were not fitted."""

    predicted: Float[np.ndarray, " bins"]
    """Mean predicted probability in each bin; ascending."""
    observed: Float[np.ndarray, " bins"]
    """Share of positive pairs in each bin."""
    pairs: Int[np.ndarray, " bins"]
    """Pairs in each bin."""
    error: float
    """Expected calibration error: the mean of |predicted - observed| over the pairs."""
    brier: float
    """Mean squared difference of predicted probability and outcome."""
    skill: float
    """1 - brier / brier of always predicting the share of positives; 1 is perfect, 0 is no better than that."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """The calibration of one similarity."""

    similarity: str
    share: float
    """Share of positive pairs that the pairs are weighted to."""
    fitted: int
    evaluated: int
    total: int
    """All pairs; those across the halves of the classes are neither fitted nor evaluated."""
    classes: tuple[int, int]
    """Classes whose pairs were fitted, and evaluated."""
    maps: Mapping[str, Reliability]
    """By key of `MAPS`."""
    thirds: Mapping[str, Reliability]
    """Of Platt's map, by density."""
    curves: Mapping[str, tuple[float, float]]
    """Slope and intercept of the logistic curve of all fitted pairs ("all"), and of those of each third."""
    ends: tuple[float, float]
    """Smallest and largest similarity of the evaluated pairs."""

    def even(self, third: str = "all") -> float:
        """The similarity at which a pair is as likely positive as negative; NaN without pairs."""
        slope, intercept = self.curves.get(third, (math.nan, math.nan))
        return -intercept / slope if slope else math.nan

    @property
    def predicted_at_even(self) -> dict[str, float]:
        """What the map of all pairs predicts at each third's even odds: 0.5 is right."""
        return {third: float(probability(self.curves["all"], np.array(self.even(third)))) for third in DENSITIES}

    @property
    def gap(self) -> float:
        """The range of `predicted_at_even`; NaN if a third has no even odds."""
        predicted = list(self.predicted_at_even.values())
        return max(predicted) - min(predicted) if np.isfinite(predicted).all() else math.nan

    def checks(self, by: str = "platt") -> list[PropertyCheck]:
        """Check every property, in the order of `PROPERTIES`.

        Args:
            by: the map, a key of `MAPS`.
        """
        error, known = self.maps[by].error, bool(np.isfinite(self.gap))
        values = ", ".join(
            f"{100 * value:.0f} % in the {third} third" for third, value in self.predicted_at_even.items()
        )
        calibrated = f"Predicted probabilities for pairs of new classes are off by {100 * error:.1f} points on average"
        everywhere = (
            f"For pairs at even odds, the predicted probability of one class is {values}" if known
            else "A third by density has too few pairs of either kind"
        )  # fmt: skip
        same = self.gap <= SAME_EVERYWHERE if known else None
        counts = self.evaluated, self.total
        return [
            PropertyCheck(self.similarity, "calibrated", error <= CALIBRATED, error, *counts, calibrated),
            PropertyCheck(self.similarity, "everywhere", same, self.gap, *counts, everywhere),
        ]


def calibrate(pairs: pd.DataFrame, similarity: str, *, share: float = 0.5, seed: int = 0) -> Calibration | None:
    """Fit and evaluate both maps of a similarity.

    Args:
        pairs: positive, label_a, label_b, density (an index into `DENSITIES`), and the similarity by its name.
        share: of positive pairs, to weight to. With 0.5 each third is weighted separately, so that only the similarity
            matters; any other share is that of all pairs, and thirds keep their own.
        seed: of the halves of the classes.

    Returns:
        None if a half lacks positive or negative pairs.
    """
    scores = pairs[similarity].to_numpy(dtype=np.float64)
    positive, density = pairs["positive"].to_numpy(dtype=bool), pairs["density"].to_numpy()
    labels = [pairs[end].to_numpy() for end in ("label_a", "label_b")]
    half = first_half(np.unique(np.concatenate(labels)), seed)
    in_first = [np.isin(end, half) for end in labels]
    fit, evaluate = in_first[0] & in_first[1], ~in_first[0] & ~in_first[1]
    if any(len(np.unique(positive[part])) < 2 for part in (fit, evaluate)):
        return None
    curve = _logistic(scores[fit], positive[fit], share)
    steps = _isotonic(scores[fit], positive[fit], share)
    predicted = {"platt": probability(curve, scores[evaluate]), "isotonic": steps(scores[evaluate])}
    curves, thirds = {"all": curve}, {}
    for number, name in enumerate(DENSITIES):
        own, held = fit & (density == number), evaluate & (density == number)
        own_share, held_share = (
            share if share == 0.5 else float(weights(positive[of], share)[at[of] & positive[of]].sum()
                                             / max(weights(positive[of], share)[at[of]].sum(), 1e-300))
            for of, at in ((fit, own), (evaluate, held))
        )  # fmt: skip
        if len(np.unique(positive[own])) == 2:
            curves[name] = _logistic(scores[own], positive[own], own_share)
        if len(np.unique(positive[held])) == 2:
            thirds[name] = reliability(probability(curve, scores[held]), positive[held], held_share)
    return Calibration(
        similarity, share, int(fit.sum()), int(evaluate.sum()), len(pairs),
        tuple(len(np.unique(np.concatenate([end[part] for end in labels]))) for part in (fit, evaluate)),  # type: ignore[arg-type]
        {name: reliability(values, positive[evaluate], share) for name, values in predicted.items()},
        thirds, curves,
        (float(scores[evaluate].min()), float(scores[evaluate].max())),
    )  # fmt: skip


def first_half(classes: Int[np.ndarray, " classes"], seed: int) -> Int[np.ndarray, " half"]:
    """The classes whose pairs are fitted: a random half, rounded up."""
    return np.random.default_rng(seed).permutation(classes)[: math.ceil(len(classes) / 2)]


def weights(positive: Bool[np.ndarray, " pairs"], share: float) -> Float[np.ndarray, " pairs"]:
    """Weights of mean 1 with which positive pairs are a share of all."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    heavy, light = share * len(positive) / max(positives, 1), (1 - share) * len(positive) / max(negatives, 1)
    return np.where(positive, heavy, light)


def probability(curve: tuple[float, float], scores: Float[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    """A logistic curve's value at each score."""
    slope, intercept = curve
    return 1 / (1 + np.exp(-np.clip(slope * scores + intercept, -500, 500)))


def reliability(
    predicted: Float[np.ndarray, " pairs"], positive: Bool[np.ndarray, " pairs"], share: float, bins: int = BINS
) -> Reliability:
    """Compare predicted probabilities with outcomes.

    Args:
        predicted: of each pair, 0 to 1.
        share: of positive pairs, to weight to.
        bins: with equally many pairs each, by rank of the prediction; equal predictions share a bin.
    """
    weight = weights(positive, share)
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1)))
    place = np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, max(len(edges) - 2, 0))
    mass = np.bincount(place, weight)
    held = np.flatnonzero(mass)
    means = [np.bincount(place, weight * values)[held] / mass[held] for values in (predicted, positive)]
    error = float((mass[held] * np.abs(means[0] - means[1])).sum() / mass.sum())
    brier = float((weight * (predicted - positive) ** 2).sum() / weight.sum())
    known = share * (1 - share)
    return Reliability(means[0], means[1], np.bincount(place)[held], error, brier, 1 - brier / known if known else 0.0)


def _logistic(scores: np.ndarray, positive: np.ndarray, share: float) -> tuple[float, float]:
    """Slope and intercept of the logistic curve of maximum likelihood."""
    from sklearn.linear_model import LogisticRegression

    centre, scale = float(scores.mean()), float(scores.std()) or 1.0
    fitted = LogisticRegression(C=1e6, max_iter=200).fit(
        ((scores - centre) / scale)[:, None], positive, sample_weight=weights(positive, share)
    )
    slope = float(fitted.coef_[0, 0]) / scale
    return slope, float(fitted.intercept_[0]) - slope * centre


def _isotonic(scores: np.ndarray, positive: np.ndarray, share: float):
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    return fitted.fit(scores, positive.astype(float), sample_weight=weights(positive, share)).predict
