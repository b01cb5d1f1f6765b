"""Why a pair has its similarity: what each dimension of the features contributes to D, to D_M and to S.

Paper -> code:  u, v -> u, v   D -> distance   S(u, v) -> score   S(0, v) -> score_of_equals   d -> a dimension

The squared distances are sums over dimensions: D^2 = sum u_d^2, D_M^2 = sum (a - b)_d (M (a - b))_d. S is not, so it
is decomposed by integrated gradients (Sundararajan, Taly, Yan, ICML 2017) along the straight path from an identical
pair in the same place, u = 0, to the pair, with v fixed: the contributions sum to S(u, v) - S(0, v). The effect of the
place shows when the pair moves: the same u at other places of the gallery.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.model.familiarity import FamiliarPDDM, split_parts
from pddm_lab.model.pddm import PDDM
from pddm_lab.model.similarity import Mahalanobis, PDDMSimilarity

_FIRST_STEPS, _MOST_STEPS = 256, 4096
_TOLERANCE = 5e-4
"""Largest error of the contributions' sum, as a share of the larger of |S(u, v)| and |S(0, v)|; decides the steps."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """The decomposition of one pair. Arrays have a float64 value per dimension, unless stated otherwise."""

    u: Float[np.ndarray, " dim"]
    """|a - b|."""
    v: Float[np.ndarray, " dim"]
    """(a + b) / 2."""
    distance: float
    """D, Euclidean."""
    distance_shares: Float[np.ndarray, " dim"]
    """Shares of D^2; they sum to 1, or are all 0 for an identical pair."""
    score: float
    """S(u, v)."""
    score_of_equals: float
    """S(0, v): of an identical pair in the same place."""
    score_parts: Float[np.ndarray, " dim"]
    """Each dimension's contribution to S, below 0 if it makes the pair less similar; their sum is `score -
    score_of_equals`, but for a share of `_TOLERANCE`."""
    elsewhere: Float[np.ndarray, " places"]
    """S of the same difference at other places."""
    mahalanobis: float = float("nan")
    """D_M; NaN if no metric was given."""
    mahalanobis_shares: Float[np.ndarray, " dim"] | None = None
    """Shares of D_M^2; they sum to 1, and are below 0 if a dimension compensates for another."""
    familiarity: float = 1.0
    """How familiar the pair's place is, 0 to 1, for a similarity that depends on it (familiarity.py)."""

    @property
    def gain(self) -> float:
        """How much higher this difference scores here than at the other places on average; 0 without any."""
        return self.score - float(self.elsewhere.mean()) if len(self.elsewhere) else 0.0

    @property
    def places_below(self) -> float:
        """Share of the other places where this difference scores lower than here; NaN without any."""
        return float((self.elsewhere < self.score).mean()) if len(self.elsewhere) else float("nan")

    def strongest(self, count: int) -> np.ndarray:
        """The dimensions with the largest contributions to D^2 and S together, (count,), largest first."""
        parts = np.abs(self.score_parts)
        return np.argsort(-(self.distance_shares + parts / max(parts.sum(), 1e-300)), kind="stable")[:count]

    def sentences(self) -> list[str]:
        """The explanation in sentences: on D, on S, and on the place."""
        dim, change = len(self.u), self.score - self.score_of_equals
        sentences = [
            f"D is {self.distance:.2f}; {_half(self.distance_shares)} of {dim} dimensions make up half of D²."
            if self.distance
            else "Both have the same features, so D is 0."
        ]
        if self.distance:
            sentences.append(
                f"S is {self.score:.2f}. An identical pair in this place would have {self.score_of_equals:.2f}. The "
                f"differences {'subtract' if change < 0 else 'add'} {abs(change):.2f}, half of it in "
                f"{_half(np.sign(change) * self.score_parts)} dimensions."
            )
        if len(self.elsewhere):
            sentences.append(
                f"At {len(self.elsewhere):,} other places of the gallery the same difference scores "
                f"{self.elsewhere.mean():.2f} on average. Here it scores {abs(self.gain):.2f} "
                f"{'higher' if self.gain >= 0 else 'lower'} than that, and higher than at "
                f"{100 * self.places_below:.0f} % of them."
            )
        if self.familiarity < 1:
            sentences.append(
                "This S is the unit's alone. In the ranking, it corrects D with the weight of the pair's familiarity, "
                f"{100 * self.familiarity:.0f} %; the pretrained features have the rest of the weight."
            )
        return [sentence.replace("-", "−") for sentence in sentences]


def _half(parts: Float[np.ndarray, " dim"]) -> int:
    """The smallest number of dimensions that make up half of the sum."""
    most_first = np.sort(parts)[::-1].cumsum()
    return int(np.argmax(most_first >= parts.sum() / 2)) + 1


def extremes(
    features: Float[np.ndarray, "items dim"], dimension: int, count: int
) -> tuple[Int[np.ndarray, " count"], Int[np.ndarray, " count"]]:
    """Rows of the items with the lowest and with the highest values of one dimension, the most extreme first."""
    values = np.asarray(features[:, dimension])
    ends = (np.argpartition(side, min(count, len(side)) - 1)[:count] for side in (values, -values))
    least, most = ends
    return least[np.argsort(values[least], kind="stable")], most[np.argsort(-values[most], kind="stable")]


def explain_by(
    similarity: PDDMSimilarity, metric: Mahalanobis, a: Float[np.ndarray, " dim"], b: Float[np.ndarray, " dim"],
    places: Float[np.ndarray, "places dim"],
) -> Explanation:  # fmt: skip
    """Decompose a pair by a run's similarities, as `explain`; if they use the trunk's features too, by the embedding
    alone."""
    if not isinstance(similarity, FamiliarPDDM):
        return explain(a, b, similarity.unit, metric, places)
    pair, around = (split_parts(torch.tensor(part))[0] for part in (np.stack([a, b]), places))
    explanation = explain(pair[0].numpy(), pair[1].numpy(), similarity.unit, None, around.numpy())
    return dataclasses.replace(explanation, familiarity=float(similarity.familiarity(pair).mean()))


def explain(
    a: Float[np.ndarray, " dim"], b: Float[np.ndarray, " dim"], unit: PDDM, metric: Mahalanobis | None = None,
    places: Float[np.ndarray, "places dim"] | None = None,
) -> Explanation:  # fmt: skip
    """Decompose a pair, in float64.

    Args:
        a, b: unit-length features, (dim,).
        unit: scores the pair; on the CPU; not changed.
        metric: to decompose D_M too.
        places: features in whose direction the same difference is scored, (places, dim): all pairs of one D have means
            v of one length, sqrt(1 - D^2 / 4), so a place is that length in a feature's direction.
    """
    unit = copy.deepcopy(unit).double().eval().requires_grad_(False)
    left, right = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    u, v = unit.inputs(left, right)
    score, of_equals = float(unit.score_of(u, v)), float(unit.score_of(torch.zeros_like(u), v))
    at = torch.tensor(places if places is not None else np.empty((0, len(u))), dtype=torch.float64) * v.norm()
    squares = (left - right).square().numpy()
    from_metric = {}
    if metric is not None:
        weight = metric.map.weight.detach().double()
        mapped = weight @ (left - right)
        parts = ((left - right) * (weight.T @ mapped)).numpy()
        from_metric = {"mahalanobis": float(mapped.norm()), "mahalanobis_shares": parts / max(parts.sum(), 1e-300)}
    score_parts = _integrated_gradients(unit, u, v, score - of_equals, _TOLERANCE * max(abs(score), abs(of_equals)))
    return Explanation(
        (left - right).abs().numpy(), ((left + right) / 2).numpy(), float(np.sqrt(squares.sum())),
        squares / max(squares.sum(), 1e-300), score, of_equals, score_parts,
        unit.score_of(u.expand_as(at), at).numpy(),
        **from_metric,
    )  # fmt: skip


def _integrated_gradients(
    unit: PDDM, u: Float[Tensor, " dim"], v: Float[Tensor, " dim"], total: float, tolerance: float
) -> Float[np.ndarray, " dim"]:
    """u_d times the mean of dS/du_d along the path from 0 to u, by the midpoint rule: S has kinks along the path, so a
    rule of higher order gains nothing."""
    steps = _FIRST_STEPS
    while True:
        path = ((torch.arange(steps, dtype=u.dtype) + 0.5) / steps)[:, None] * u
        path.requires_grad_()
        (slopes,) = torch.autograd.grad(unit.score_of(path, v.expand_as(path)).sum(), path)
        parts = u * slopes.mean(0)
        if abs(float(parts.sum()) - total) <= tolerance or steps >= _MOST_STEPS:
            return parts.numpy()
        steps *= 4
