"""A PDDM unit on points of a plane: trained in seconds, saved at some steps, and compared with D.

Unit, miner, hinge and metrics are those of every training here. Only the points are fixed, so that the similarity alone
changes: E = E_m + gamma ||W||^2, without E_e, which would move the points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pddm_lab.metrics.separation import highest_rejected, separation
from pddm_lab.model.pddm import PDDM
from pddm_lab.model.similarity import Euclidean, PDDMSimilarity, Similarity
from pddm_lab.teaching.point_sets import PlaneConfig, PointSet
from pddm_lab.training.losses import double_header_hinge
from pddm_lab.training.miner import mine

PER_CLASS = 5
"""Points of each class in a step's batch."""
ACCEPTED_NEGATIVES = 0.01
"""Share of the negative pairs that a threshold accepts: makes a circle of D and a contour of S comparable."""
_WEIGHT_DECAY = 0.5  # gamma, decoupled; with less, S keeps its initial slope over the plane


@dataclass(frozen=True)
class Measured:
    """One similarity on the held-out points of one protocol."""

    metrics: dict[str, float]
    """As for a run: recall@1, auc, tpr@1%fpr, ..."""
    threshold: float
    """Pairs above it are accepted: `ACCEPTED_NEGATIVES` of the negative ones."""
    tpr_by_region: dict[str, float]
    """The share of each region's positive pairs that the threshold accepts; only regions that have some."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The unit at one step of its training."""

    step: int
    loss: float
    """E_m, averaged over the steps since the previous snapshot; NaN before the first step."""
    unit: PDDM
    """In evaluation mode; don't change it."""
    known: Measured
    unseen: Measured


def snapshot_steps(steps: int) -> list[int]:
    """The steps that are saved: 0, the last, and in between ever further apart, because a unit learns most at first."""
    return sorted({0, *np.geomspace(1, steps, 24).round().astype(int).tolist()})


def train_plane(
    point_set: PointSet, config: PlaneConfig, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Snapshot]:
    """Train a unit on the training points of a point set, and yield each snapshot as soon as its step is done.

    The same points and settings give the same snapshots, even if other code draws random numbers meanwhile.

    Args:
        stopped: called after each step; True ends the training.
    """
    random = torch.Generator().manual_seed(config.seed)
    unit = _new_unit(config, random)
    pddm = PDDMSimilarity(unit)
    parameters = [parameter for parameter in unit.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=0.01, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    points, labels = torch.from_numpy(point_set.points), torch.from_numpy(point_set.labels)
    of_class = [torch.from_numpy(np.flatnonzero(point_set.trains & (point_set.labels == label)))
                for label in np.unique(point_set.labels[point_set.trains])]  # fmt: skip
    losses: list[float] = []
    keep = snapshot_steps(config.steps)
    for step in range(config.steps + 1):
        if step:
            rows = torch.cat([some[torch.randperm(len(some), generator=random)[:PER_CLASS]] for some in of_class])
            f = points[rows]
            quads = mine(f, labels[rows], pddm, "anchor")
            s_ij, s_ik, s_jl = pddm(f[quads.i], f[quads.j]), pddm(f[quads.i], f[quads.k]), pddm(f[quads.j], f[quads.l])
            loss = double_header_hinge(s_ij, s_ik, s_jl, config.score_margin).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        last = step == config.steps or stopped()
        if last or step in keep:
            kept = PDDM(2, config.hidden).eval().requires_grad_(False)
            kept.load_state_dict(unit.state_dict())
            known, unseen = (measure(PDDMSimilarity(kept), point_set, protocol) for protocol in ("known", "unseen"))
            yield Snapshot(step, float(np.mean(losses)) if losses else math.nan, kept, known, unseen)
            losses.clear()
        if last:
            break


def _new_unit(config: PlaneConfig, random: torch.Generator) -> PDDM:
    """A unit with torch's default weights from its own generator: other threads may train at the same time."""
    unit = PDDM(2, config.hidden)
    for layer in (unit.difference, unit.position, unit.joint, unit.score):
        bound = 1 / math.sqrt(layer.in_features)
        nn.init.uniform_(layer.weight, -bound, bound, generator=random)
        nn.init.uniform_(layer.bias, -bound, bound, generator=random)
    if not config.position:
        nn.init.zeros_(unit.position.weight).requires_grad_(False)
    return unit


def measure(similarity: Similarity, point_set: PointSet, protocol: str) -> Measured:
    """Measure a similarity on the held-out points of a protocol: each searches the others, as in a gallery.

    Args:
        similarity: of points on the plane.
        protocol: known or unseen.
    """
    rows = point_set.held_out(protocol)
    points, labels = torch.from_numpy(point_set.points[rows]), point_set.labels[rows]
    matrix = similarity.matrix(points, points).numpy()
    first, second = np.triu_indices(len(rows), 1)
    scores, positive = matrix[first, second], labels[first] == labels[second]
    negative = np.sort(scores[~positive])
    threshold = float(highest_rejected(negative, ACCEPTED_NEGATIVES))
    metrics = separation(np.sort(scores[positive]), negative)
    np.fill_diagonal(matrix, -np.inf)
    metrics["recall@1"] = float((labels[matrix.argmax(1)] == labels).mean())
    region = point_set.region_of(rows)[first]
    tpr_by_region = {
        name: float((scores[positive & (region == name)] > threshold).mean())
        for name in dict.fromkeys(point_set.regions)
        if (positive & (region == name)).any()
    }
    return Measured(metrics, threshold, tpr_by_region)


def measure_distance(point_set: PointSet) -> dict[str, Measured]:
    """Measure the Euclidean distance on each protocol; the similarity is -D, and so is the threshold."""
    return {protocol: measure(Euclidean(), point_set, protocol) for protocol in ("known", "unseen")}


def table_of(measured: Mapping[str, Mapping[str, Measured]]) -> pd.DataFrame:
    """The metrics of similarities on the plane, in the format of a run's metrics.

    Args:
        measured: by similarity and protocol.

    Returns:
        run ("plane"), protocol, similarity, metric, value.
    """
    rows = [
        ("plane", protocol, similarity, metric, value)
        for similarity, protocols in measured.items()
        for protocol, of in protocols.items()
        for metric, value in of.metrics.items()
    ]
    return pd.DataFrame(rows, columns=["run", "protocol", "similarity", "metric", "value"])


class Inside(NamedTuple):
    """What a unit computes on its way to S, by the paper's symbols."""

    u: Float[Tensor, "pairs dim"]
    v: Float[Tensor, "pairs dim"]
    u_hidden: Float[Tensor, "pairs hidden"]
    """u'."""
    v_hidden: Float[Tensor, "pairs hidden"]
    """v'."""
    joint: Float[Tensor, "pairs hidden"]
    """c."""
    score: Float[Tensor, " pairs"]
    """S."""


@torch.no_grad()
def inside(unit: PDDM, a: Float[Tensor, "pairs dim"], b: Float[Tensor, "pairs dim"]) -> Inside:
    """Score pairs, and record the input of each layer of the unit.

    Args:
        unit: in evaluation mode.
    """
    recorded: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: recorded.update({name: inputs[0]})

    hooks = [layer.register_forward_pre_hook(recorder(name)) for name, layer in unit.named_children()]
    try:
        scores = unit(a, b)
    finally:
        for hook in hooks:
            hook.remove()
    u_hidden, v_hidden = recorded["joint"].chunk(2, dim=-1)
    return Inside(recorded["difference"], recorded["position"], u_hidden, v_hidden, recorded["score"], scores)


@torch.no_grad()
def score(unit: PDDM, a: Float[np.ndarray, "*#batch 2"], b: Float[np.ndarray, "*#batch 2"]) -> np.ndarray:
    """S of pairs of points that broadcast against each other, (...) float32."""
    return unit(*(torch.from_numpy(np.ascontiguousarray(ends, dtype=np.float32)) for ends in (a, b))).numpy()


def score_at(unit: PDDM, means: Float[np.ndarray, "*batch 2"], difference: Float[np.ndarray, " 2"]) -> np.ndarray:
    """S of the pairs that share one difference and differ in their mean, (...) float32."""
    return score(unit, means - difference / 2, means + difference / 2)


@dataclass(frozen=True)
class Accepted:
    """How many of the other held-out points of its protocol an anchor accepts."""

    own: int
    """Accepted points of its class."""
    own_total: int
    others: int
    """Accepted points of other classes."""
    others_total: int


def accepted(point_set: PointSet, anchor: int, similarities: Float[np.ndarray, " items"], threshold: float) -> Accepted:
    """Count the points that an anchor accepts.

    Args:
        anchor: a row of the points.
        similarities: of the anchor with every point.
        threshold: the similarity above which a pair is accepted.
    """
    rows = point_set.held_out("unseen" if point_set.unseen[anchor] else "known")
    rows = rows[rows != anchor]
    passed, own = similarities[rows] > threshold, point_set.labels[rows] == point_set.labels[anchor]
    return Accepted(int(passed[own].sum()), int(own.sum()), int(passed[~own].sum()), int((~own).sum()))
