"""Why a pair has its similarity: what each dimension of the features adds to D, to D_M and to S.

Paper -> code:  u, v -> u, v   D -> distance   S(u, v) -> score   S(0, v) -> score_of_equals   d -> a dimension

The squared distances are sums over dimensions: D^2 = sum u_d^2, D_M^2 = sum (a - b)_d (M (a - b))_d. S is none, so it
is taken apart by integrated gradients (Sundararajan, Taly, Yan, ICML 2017) along the straight path from an identical
pair in the same place, u = 0, to the pair, v held: what the dimensions add comes to S(u, v) - S(0, v). What the place
itself adds shows by moving it: the same u at other places of the gallery.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.model.familiarity import FamiliarPDDM, parted
from pddm_lab.model.pddm import PDDM
from pddm_lab.model.similarity import Mahalanobis, PDDMSimilarity

_FIRST_STEPS, _MOST_STEPS = 256, 4096
_TOLERANCE = 5e-4
"""Share of the larger of S(u, v) and S(0, v) that what the dimensions add may miss; more steps are taken until then."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """One pair taken apart. Arrays have a value per dimension, float64, unless they say otherwise."""

    u: Float[np.ndarray, " dim"]
    """|a - b|."""
    v: Float[np.ndarray, " dim"]
    """(a + b) / 2."""
    distance: float
    """D, Euclidean."""
    distance_shares: Float[np.ndarray, " dim"]
    """Of D^2; they sum to 1, or are all 0 for an identical pair."""
    score: float
    """S(u, v)."""
    score_of_equals: float
    """S(0, v): of an identical pair in the same place."""
    score_parts: Float[np.ndarray, " dim"]
    """What each dimension's difference adds to S, below 0 where it makes the pair less similar; their sum is
    `score - score_of_equals` but for `remainder`."""
    elsewhere: Float[np.ndarray, " places"]
    """S of the same difference at other places."""
    mahalanobis: float = float("nan")
    """D_M; NaN where no metric was given."""
    mahalanobis_shares: Float[np.ndarray, " dim"] | None = None
    """Of D_M^2; they sum to 1, and may be below 0 where a dimension makes up for another."""
    familiarity: float = 1.0
    """How familiar the pair's place is, where what ranks takes that into account (familiarity.py); 0 to 1."""

    @property
    def remainder(self) -> float:
        """What the dimensions miss of `score - score_of_equals`."""
        return self.score - self.score_of_equals - float(self.score_parts.sum())

    @property
    def gain(self) -> float:
        """How much more similar this difference counts here than at the other places on average; 0 without any."""
        return self.score - float(self.elsewhere.mean()) if len(self.elsewhere) else 0.0

    @property
    def places_below(self) -> float:
        """Share of the other places where this difference scores lower than here; NaN without any."""
        return float((self.elsewhere < self.score).mean()) if len(self.elsewhere) else float("nan")

    def strongest(self, count: int) -> np.ndarray:
        """The dimensions that weigh most in D^2 and in S together, (count,), strongest first."""
        parts = np.abs(self.score_parts)
        return np.argsort(-(self.distance_shares + parts / max(parts.sum(), 1e-300)), kind="stable")[:count]

    def sentences(self) -> list[str]:
        """What there is to say, in sentences: on D, on S, and on the place."""
        dim, change = len(self.u), self.score - self.score_of_equals
        said = [
            f"D is {self.distance:.2f}; {_half(self.distance_shares)} of {dim} dimensions hold half of D²."
            if self.distance
            else "Both have the same features, so that D is 0."
        ]
        if self.distance:
            taken = "take away" if change < 0 else "add"
            said.append(
                f"S is {self.score:.2f}. An identical pair in this place would have {self.score_of_equals:.2f}: the "
                f"differences {taken} {abs(change):.2f}, half of it by {_half(np.sign(change) * self.score_parts)} "
                "dimensions."
            )
        if len(self.elsewhere):
            said.append(
                f"At {len(self.elsewhere):,} other places of the gallery the same difference scores "
                f"{self.elsewhere.mean():.2f} on average: here it counts {abs(self.gain):.2f} "
                f"{'more' if self.gain >= 0 else 'less'} similar than that, and more similar than at "
                f"{100 * self.places_below:.0f} % of them."
            )
        if self.familiarity < 1:
            said.append(
                f"This S is the unit's alone. In what ranks it corrects D for the {100 * self.familiarity:.0f} % that "
                "the pair is familiar; for the rest the pretrained features do."
            )
        return [sentence.replace("-", "−") for sentence in said]


def _half(parts: Float[np.ndarray, " dim"]) -> int:
    """The fewest dimensions that hold half of the sum."""
    most_first = np.sort(parts)[::-1].cumsum()
    return int(np.argmax(most_first >= parts.sum() / 2)) + 1


def extremes(
    features: Float[np.ndarray, "items dim"], dimension: int, count: int
) -> tuple[Int[np.ndarray, " count"], Int[np.ndarray, " count"]]:
    """Rows of the items with the least and with the most of one dimension, the least and the most first: what it
    stands for, as far as pictures can say."""
    values = np.asarray(features[:, dimension])
    ends = (np.argpartition(side, min(count, len(side)) - 1)[:count] for side in (values, -values))
    least, most = ends
    return least[np.argsort(values[least], kind="stable")], most[np.argsort(-values[most], kind="stable")]


def explain_by(
    similarity: PDDMSimilarity, metric: Mahalanobis, a: Float[np.ndarray, " dim"], b: Float[np.ndarray, " dim"],
    places: Float[np.ndarray, "places dim"],
) -> Explanation:  # fmt: skip
    """Take a pair apart by a run's similarities; where they see the trunk's features too, by the embedding alone.

    Args:
        similarity: PDDM's.
        metric: Mahalanobis.
        a: a unit-length feature, (dim,).
        b: another.
        places: as `explain` takes them.
    """
    if not isinstance(similarity, FamiliarPDDM):
        return explain(a, b, similarity.unit, metric, places)
    pair, around = (parted(torch.tensor(part))[0] for part in (np.stack([a, b]), places))
    found = explain(pair[0].numpy(), pair[1].numpy(), similarity.unit, None, around.numpy())
    return dataclasses.replace(found, familiarity=float(similarity.familiarity(pair).mean()))


def explain(
    a: Float[np.ndarray, " dim"],
    b: Float[np.ndarray, " dim"],
    unit: PDDM,
    metric: Mahalanobis | None = None,
    places: Float[np.ndarray, "places dim"] | None = None,
) -> Explanation:
    """Take a pair apart, in float64.

    Args:
        a: a unit-length feature, (dim,).
        b: another.
        unit: scores the pair; on the CPU, and left as it is.
        metric: also takes D_M apart.
        places: features at whose direction the same difference is scored, (places, dim): each pair of a given D has
            a mean v of one length, sqrt(1 - D^2 / 4), so a place is that length in a feature's direction.
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
    return Explanation(
        u=(left - right).abs().numpy(),
        v=((left + right) / 2).numpy(),
        distance=float(np.sqrt(squares.sum())),
        distance_shares=squares / max(squares.sum(), 1e-300),
        score=score,
        score_of_equals=of_equals,
        score_parts=_integrated_gradients(unit, u, v, score - of_equals, _TOLERANCE * max(abs(score), abs(of_equals))),
        elsewhere=unit.score_of(u.expand_as(at), at).numpy(),
        **from_metric,
    )


def _integrated_gradients(
    unit: PDDM, u: Float[Tensor, " dim"], v: Float[Tensor, " dim"], total: float, tolerance: float
) -> Float[np.ndarray, " dim"]:
    """u_d times the mean of dS/du_d along the path from 0 to u, by the midpoint rule: S has kinks along the path, where
    a rule of a higher order gains nothing."""
    steps = _FIRST_STEPS
    while True:
        path = ((torch.arange(steps, dtype=u.dtype) + 0.5) / steps)[:, None] * u
        path.requires_grad_()
        (slopes,) = torch.autograd.grad(unit.score_of(path, v.expand_as(path)).sum(), path)
        parts = u * slopes.mean(0)
        if abs(float(parts.sum()) - total) <= tolerance or steps >= _MOST_STEPS:
            return parts.numpy()
        steps *= 4
