"""A PDDM unit on a plane of points: trained in seconds, kept at steps along the way, and measured beside D.

Unit, miner, hinge and measures are those of every training here. Only the points are fixed, so that all there is to see
is the similarity: E = E_m + gamma ||W||^2, and no E_e, which would move the points.
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
"""Share of the negative pairs that a threshold lets pass: what makes a circle of D and a contour of S comparable."""
SNAPSHOTS = 24
"""About how many steps of a training are kept."""
_LEARNING_RATE = 0.01
_WEIGHT_DECAY = 0.5  # gamma, decoupled: less than that, and S keeps the slope over the plane that it began with


@dataclass(frozen=True)
class Measured:
    """One similarity on the held-out points of one protocol."""

    metrics: dict[str, float]
    """As for a run: recall@1, auc, tpr@1%fpr, ..."""
    threshold: float
    """The least similarity of a pair that is accepted when `ACCEPTED_NEGATIVES` of the negative ones pass."""
    tpr_by_region: dict[str, float]
    """By region that has some: the share of its positive pairs that the threshold accepts."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The unit at one step of its training."""

    step: int
    loss: float
    """E_m, averaged over the steps since the snapshot before; NaN before the first step."""
    unit: PDDM
    """In evaluation mode, not to be changed."""
    known: Measured
    unseen: Measured


def snapshot_steps(steps: int) -> list[int]:
    """The steps that are kept: 0, the last, and between them ever further apart, for a unit learns most at first."""
    return sorted({0, *np.geomspace(1, steps, SNAPSHOTS).round().astype(int).tolist()})


def train_plane(
    scene: PointSet, config: PlaneConfig, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Snapshot]:
    """Train a unit on the points of a scene that train; a snapshot is given out as soon as its step is done.

    The same scene and choices give the same snapshots, whatever else draws random numbers meanwhile.

    Args:
        scene: the points.
        config: the choices.
        stopped: asked after each step whether that was the last.
    """
    random = torch.Generator().manual_seed(config.seed)
    unit = _new_unit(config, random)
    pddm = PDDMSimilarity(unit)
    parameters = [parameter for parameter in unit.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    points, labels = torch.from_numpy(scene.points), torch.from_numpy(scene.labels)
    of_class = [torch.from_numpy(np.flatnonzero(scene.trains & (scene.labels == label)))
                for label in np.unique(scene.labels[scene.trains])]  # fmt: skip
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
            known, unseen = (measure(PDDMSimilarity(kept), scene, protocol) for protocol in ("known", "unseen"))
            yield Snapshot(step, float(np.mean(losses)) if losses else math.nan, kept, known, unseen)
            losses.clear()
        if last:
            break


def _new_unit(config: PlaneConfig, random: torch.Generator) -> PDDM:
    """A unit with torch's usual start, drawn from a generator of its own: other threads may train meanwhile."""
    unit = PDDM(2, config.hidden)
    for layer in (unit.difference, unit.position, unit.joint, unit.score):
        bound = 1 / math.sqrt(layer.in_features)
        nn.init.uniform_(layer.weight, -bound, bound, generator=random)
        nn.init.uniform_(layer.bias, -bound, bound, generator=random)
    if not config.position:
        nn.init.zeros_(unit.position.weight).requires_grad_(False)
    return unit


def measure(similarity: Similarity, scene: PointSet, protocol: str) -> Measured:
    """Measure a similarity on the held-out points of a protocol: each is searched among the others, as in a gallery.

    Args:
        similarity: of points on the plane.
        scene: the points.
        protocol: known or unseen.
    """
    rows = scene.held_out(protocol)
    points, labels = torch.from_numpy(scene.points[rows]), scene.labels[rows]
    matrix = similarity.matrix(points, points).numpy()
    first, second = np.triu_indices(len(rows), 1)
    scores, positive = matrix[first, second], labels[first] == labels[second]
    negative = np.sort(scores[~positive])
    threshold = float(highest_rejected(negative, ACCEPTED_NEGATIVES))
    metrics = separation(np.sort(scores[positive]), negative)
    np.fill_diagonal(matrix, -np.inf)
    metrics["recall@1"] = float((labels[matrix.argmax(1)] == labels).mean())
    region = scene.region_of(rows)[first]
    found = {
        name: float((scores[positive & (region == name)] > threshold).mean())
        for name in dict.fromkeys(scene.regions)
        if (positive & (region == name)).any()
    }
    return Measured(metrics, threshold, found)


def measure_distance(scene: PointSet) -> dict[str, Measured]:
    """The Euclidean distance by protocol; its similarity is -D, and so is the threshold."""
    return {protocol: measure(Euclidean(), scene, protocol) for protocol in ("known", "unseen")}


def table_of(measured: Mapping[str, Mapping[str, Measured]]) -> pd.DataFrame:
    """The metrics of similarities on the plane as those of a run are kept.

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
    """Score pairs, and catch what comes to each layer of the unit meanwhile.

    Args:
        unit: in evaluation mode.
        a: features.
        b: features.
    """
    came: dict[str, Tensor] = {}

    def catching(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: came.update({name: inputs[0]})

    hooks = [layer.register_forward_pre_hook(catching(name)) for name, layer in unit.named_children()]
    try:
        scores = unit(a, b)
    finally:
        for hook in hooks:
            hook.remove()
    u_hidden, v_hidden = came["joint"].chunk(2, dim=-1)
    return Inside(came["difference"], came["position"], u_hidden, v_hidden, came["score"], scores)


@torch.no_grad()
def score(unit: PDDM, a: Float[np.ndarray, "*#batch 2"], b: Float[np.ndarray, "*#batch 2"]) -> np.ndarray:
    """S of pairs of points that broadcast against each other, (...) float32."""
    return unit(*(torch.from_numpy(np.ascontiguousarray(ends, dtype=np.float32)) for ends in (a, b))).numpy()


def score_at(unit: PDDM, means: Float[np.ndarray, "*batch 2"], difference: Float[np.ndarray, " 2"]) -> np.ndarray:
    """S of the pairs that share one difference and differ in their mean, (...) float32."""
    return score(unit, means - difference / 2, means + difference / 2)


@dataclass(frozen=True)
class Accepted:
    """What an anchor accepts at a threshold, among the other held-out points of its protocol."""

    own: int
    """Points of its class that are accepted,"""
    own_total: int
    """of how many."""
    others: int
    """Points of other classes that are accepted,"""
    others_total: int
    """of how many."""


def accepted(scene: PointSet, anchor: int, similarities: Float[np.ndarray, " items"], threshold: float) -> Accepted:
    """Count what lies above a threshold.

    Args:
        scene: the points.
        anchor: a row of them.
        similarities: of the anchor with every point of the scene.
        threshold: the similarity above which a pair is accepted.
    """
    rows = scene.held_out("unseen" if scene.unseen[anchor] else "known")
    rows = rows[rows != anchor]
    passed, own = similarities[rows] > threshold, scene.labels[rows] == scene.labels[anchor]
    return Accepted(int(passed[own].sum()), int(own.sum()), int(passed[~own].sum()), int((~own).sum()))
