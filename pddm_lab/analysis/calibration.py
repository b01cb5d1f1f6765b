"""What a score says: the chance that a pair is of one class, given its similarity, and whether that holds everywhere.

Two maps from similarity to chance are fitted on the pairs of half of the classes and judged on those of the other half:
Platt's (a logistic curve) and isotonic regression (any rising steps). Pairs across the halves are left out, so that no
class is in both. How common positive pairs are is a choice, not a property of the similarity: pairs are weighted to it.

Where items lie densely and where they lie sparsely the same similarity can mean different chances. So the map is also
judged on each third of the pairs by local radius, and a logistic curve is fitted to each third alone: the similarity at
which it crosses one half is that third's even odds. What the map of all pairs says there would be one half in every
third if the similarity meant the same everywhere. Being a chance it compares similarities of whatever scale.
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
"""Bins of a reliability diagram, each with as many of the pairs scored."""
CALIBRATED = 0.02
"""Expected calibration error up to which a similarity counts as calibrated."""
SAME_EVERYWHERE = 0.1
"""Range of the chances said at the even odds of the thirds up to which a similarity counts as meaning the same."""
MAPS = {"platt": "logistic (Platt)", "isotonic": "isotonic"}
PROPERTIES: dict[str, tuple[str, str]] = {
    "calibrated": (
        "Calibrated",
        f"Expected calibration error: by how much the chance said is off. It holds up to {100 * CALIBRATED:.0f} %.",
    ),
    "everywhere": (
        "The same everywhere",
        "Where pairs of the dense, the middle and the sparse third are even odds, the map of all pairs says these "
        f"chances. It holds where they lie within {100 * SAME_EVERYWHERE:.0f} points of each other.",
    ),
}
"""What is asked of every similarity: a title, and what is measured."""


@dataclass(frozen=True, eq=False)
class Reliability:
    """Chances said against shares found, on pairs that were not fitted."""

    predicted: Float[np.ndarray, " bins"]
    """Mean chance said in each bin; ascending."""
    observed: Float[np.ndarray, " bins"]
    """Share of positive pairs in it."""
    pairs: Int[np.ndarray, " bins"]
    """Pairs in it."""
    error: float
    """Expected calibration error: the mean of |said - found| over the pairs."""
    brier: float
    """Mean squared difference of the chance said and what was so."""
    skill: float
    """1 - brier / that of saying the share of positives always; 0 knows nothing, 1 knows all."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """One similarity's."""

    similarity: str
    share: float
    """Share of positive pairs that the pairs are weighted to."""
    fitted: int
    judged: int
    total: int
    """Pairs given; those across the halves of the classes are neither fitted nor judged."""
    classes: tuple[int, int]
    """Classes whose pairs were fitted, and judged."""
    maps: Mapping[str, Reliability]
    """By name, a key of `MAPS`."""
    thirds: Mapping[str, Reliability]
    """Of Platt's map, by density."""
    curves: Mapping[str, tuple[float, float]]
    """Slope and intercept of a logistic curve for all pairs ("all") and for each third alone; of those fitted."""
    ends: tuple[float, float]
    """Least and largest similarity of the pairs judged."""

    def even(self, third: str = "all") -> float:
        """The similarity at which a pair is as likely positive as negative; NaN where no pairs say so."""
        slope, intercept = self.curves.get(third, (math.nan, math.nan))
        return -intercept / slope if slope else math.nan

    @property
    def predicted_at_even(self) -> dict[str, float]:
        """What the map of all pairs says where a pair of a third is as likely positive as negative: 0.5 is right."""
        return {third: float(chance(self.curves["all"], np.array(self.even(third)))) for third in DENSITIES}

    @property
    def gap(self) -> float:
        """The range of `predicted_at_even`; NaN if a third has no even odds."""
        said = list(self.predicted_at_even.values())
        return max(said) - min(said) if np.isfinite(said).all() else math.nan

    def checks(self, by: str = "platt") -> list[PropertyCheck]:
        """Every question answered, in the order of `PROPERTIES`.

        Args:
            by: the map, a key of `MAPS`.
        """
        error, said = self.maps[by].error, self.predicted_at_even
        told = ", ".join(f"{100 * chance:.0f} % in the {third} third" for third, chance in said.items())
        calibrated, same = error <= CALIBRATED, self.gap <= SAME_EVERYWHERE
        return [
            PropertyCheck(
                self.similarity, "calibrated", calibrated, error, self.judged, self.total,
                f"The chances said for pairs of new classes are off by {100 * error:.1f} points on average",
            ),
            PropertyCheck(
                self.similarity, "everywhere", same if np.isfinite(self.gap) else None, self.gap, self.judged,
                self.total,
                f"Pairs that are even odds are said to be of one class with {told}" if np.isfinite(self.gap)
                else "A third by density has too few pairs of either kind",
            ),
        ]  # fmt: skip


def calibrate(pairs: pd.DataFrame, similarity: str, *, share: float = 0.5, seed: int = 0) -> Calibration | None:
    """Fit and judge both maps of a similarity.

    Args:
        pairs: positive, label_a, label_b, density (an index into `DENSITIES`), and the similarity by its name.
        similarity: the column.
        share: of positive pairs, to weight to. With 0.5 each third is weighted to it by itself, so that only what the
            similarity says counts; any other share is that of all pairs, and thirds keep their own.
        seed: of the halves of the classes.

    Returns:
        None where a half lacks positive or negative pairs.
    """
    scores = pairs[similarity].to_numpy(dtype=np.float64)
    positive, density = pairs["positive"].to_numpy(dtype=bool), pairs["density"].to_numpy()
    labels = [pairs[end].to_numpy() for end in ("label_a", "label_b")]
    half = first_half(np.unique(np.concatenate(labels)), seed)
    in_first = [np.isin(end, half) for end in labels]
    fit, judge = in_first[0] & in_first[1], ~in_first[0] & ~in_first[1]
    if any(len(np.unique(positive[part])) < 2 for part in (fit, judge)):
        return None
    curve = _logistic(scores[fit], positive[fit], share)
    steps = _isotonic(scores[fit], positive[fit], share)
    said = {"platt": chance(curve, scores[judge]), "isotonic": steps(scores[judge])}
    curves, thirds = {"all": curve}, {}
    for number, name in enumerate(DENSITIES):
        own, held = fit & (density == number), judge & (density == number)
        own_share, held_share = (
            share if share == 0.5 else float(weights(positive[of], share)[at[of] & positive[of]].sum()
                                             / max(weights(positive[of], share)[at[of]].sum(), 1e-300))
            for of, at in ((fit, own), (judge, held))
        )  # fmt: skip
        if len(np.unique(positive[own])) == 2:
            curves[name] = _logistic(scores[own], positive[own], own_share)
        if len(np.unique(positive[held])) == 2:
            thirds[name] = reliability(chance(curve, scores[held]), positive[held], held_share)
    return Calibration(
        similarity, share, int(fit.sum()), int(judge.sum()), len(pairs),
        tuple(len(np.unique(np.concatenate([end[part] for end in labels]))) for part in (fit, judge)),  # type: ignore[arg-type]
        {name: reliability(chances, positive[judge], share) for name, chances in said.items()},
        thirds, curves,
        (float(scores[judge].min()), float(scores[judge].max())),
    )  # fmt: skip


def first_half(classes: Int[np.ndarray, " classes"], seed: int) -> Int[np.ndarray, " half"]:
    """The classes whose pairs are fitted: a random half, one more where they are odd in number."""
    return np.random.default_rng(seed).permutation(classes)[: math.ceil(len(classes) / 2)]


def weights(positive: Bool[np.ndarray, " pairs"], share: float) -> Float[np.ndarray, " pairs"]:
    """Weights of mean 1 with which positive pairs are a share of all."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    heavy, light = share * len(positive) / max(positives, 1), (1 - share) * len(positive) / max(negatives, 1)
    return np.where(positive, heavy, light)


def chance(curve: tuple[float, float], scores: Float[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    """A logistic curve's value at each score."""
    slope, intercept = curve
    return 1 / (1 + np.exp(-np.clip(slope * scores + intercept, -500, 500)))


def reliability(
    predicted: Float[np.ndarray, " pairs"], positive: Bool[np.ndarray, " pairs"], share: float, bins: int = BINS
) -> Reliability:
    """Compare chances predicted with what was so.

    Args:
        predicted: of each pair, 0 to 1.
        positive: whether it is of one class.
        share: of positive pairs, to weight to.
        bins: each holds as many pairs, by rank of what was predicted; equal chances are in one bin.
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
    """Slope and intercept of a logistic curve, by the largest likelihood."""
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
