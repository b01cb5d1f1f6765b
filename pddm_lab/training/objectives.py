"""One step's computation: a batch to its joint objective, the terms for the log, and the quadruplets it came from.

The similarity that a run trains shapes the embedding. The other learned similarities ride along: they mine and learn
their own quadruplets on detached features, so that every run can compare all of them, and leave the embedding as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.distributed.nn
from jaxtyping import Float, Int
from torch import Tensor, nn

from pddm_lab.config import TrainConfig
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.similarity import Euclidean, Similarity
from pddm_lab.similarities import LEARNED
from pddm_lab.training.losses import distance_hinge, double_header_hinge, embedding_hinge, joint_objective, score_hinge
from pddm_lab.training.miner import Quadruplets, mine, positive_pairs


class Step(NamedTuple):
    """What a batch gave: the loss to step on, its terms by name, and its quadruplets with their values.

    A tuple of tensors, since wrappers for mixed precision and DDP walk through what a module returns.
    """

    loss: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]
    quadruplets: Int[Tensor, "4 quads"]
    """i, j, k, l of each quadruplet, as positions in the whole batch."""
    values: Float[Tensor, "8 quads"]
    """s_ij, s_ik, s_jl, d_ij, d_ik, d_jl, slack_ik, slack_jl of each quadruplet, detached."""
    euclidean: Int[Tensor, "4 quads"]
    """What Euclidean mining takes instead from the same batch: of the same i with anchors, else the batch's one."""
    euclidean_values: Float[Tensor, "6 quads"]
    """s_ij, s_ik, s_jl, d_ij, d_ik, d_jl of those, detached."""


VALUE_NAMES = ("s_ij", "s_ik", "s_jl", "d_ij", "d_ik", "d_jl", "slack_ik", "slack_jl")
"""The rows of `Step.values`; the first six are those of `Step.euclidean_values`."""


class Learner(nn.Module):
    """The model with its objective; `forward` takes one process's part of a batch.

    Args:
        model: what learns.
        config: the objective's choices.
        companions: the similarities that learn beside the trained one; one that nobody looks at only costs time.
    """

    def __init__(self, model: MetricModel, config: TrainConfig, companions: Sequence[str] = LEARNED) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.companions = [name for name in companions if name != config.similarity]
        self.trained = nn.ModuleList([model.embedding])
        """What the main loss moves; the rest learns on detached features."""
        if config.similarity in LEARNED:
            self.trained.append(model.similarity(config.similarity))

    def forward(self, inputs: Tensor, labels: Int[Tensor, " part"]) -> Step:
        """Mine the whole batch and compute the objective.

        Args:
            inputs: uint8 images (part, 3, side, side), or the frozen trunk's features (part, trunk_dim).
            labels: classes of the items, (part,).
        """
        embedding = self.model.embedding
        features = embedding.project(inputs) if self.config.freeze_trunk else embedding(inputs)
        features, labels = gather(features), gather(labels)
        with torch.autocast(features.device.type, enabled=False):
            return self._step(features, labels)

    def _step(self, features: Float[Tensor, "items dim"], labels: Int[Tensor, " items"]) -> Step:
        config, similarity = self.config, self.model.similarity(self.config.similarity)
        miner = self.model.similarity(config.mining_similarity or config.similarity)
        mined_by = self._miner(features.detach(), labels)
        quads = mined_by(miner)
        left, right = (features[ends] for ends in _pairs(quads))
        seen = (left.detach(), right.detach()) if config.unit_detached else (left, right)
        scores, distances = similarity(*seen).view(3, -1), -Euclidean()(left, right).view(3, -1)
        hinged = distances.square() if config.squared_distance else distances
        if config.loss == "quadruplet":
            e_m = double_header_hinge(scores[0], scores[1], scores[2], config.score_margin)
            e_e = embedding_hinge(hinged[0], hinged[1], hinged[2], config.distance_margin)
        else:
            e_m = score_hinge(scores[0], scores[1], config.score_margin)
            e_e = distance_hinge(hinged[0], hinged[1], config.distance_margin)
        loss, terms = joint_objective(e_m, e_e, config.embedding_weight)
        for name in self.companions:
            companion = self._companion_loss(self.model.similarity(name), features.detach(), mined_by)
            loss = loss + companion
            terms[f"{name}_loss"] = companion.detach()
        slack = config.score_margin + scores[1:] - scores[:1]
        values = torch.cat([scores, distances, slack]).detach()
        return Step(loss, terms, _ends(quads), values, *self._euclidean(features, mined_by, miner, quads, values[:6]))

    def _miner(self, features: Tensor, labels: Tensor) -> Callable[[Similarity], Quadruplets]:
        """Mines this batch with any similarity; the positive pairs, where they are needed, are listed once for all."""
        pairs = positive_pairs(labels) if self.config.mining == "batch" else None
        return lambda similarity: mine(features, labels, similarity, self.config.mining, pairs)

    @torch.no_grad()
    def _euclidean(
        self,
        features: Tensor,
        mined_by: Callable[[Similarity], Quadruplets],
        miner: Similarity,
        quads: Quadruplets,
        values: Tensor,
    ) -> tuple[Int[Tensor, "4 quads"], Float[Tensor, "6 quads"]]:
        """What Euclidean mining takes from the same features, and the values of its pairs."""
        if miner.name == "euclidean":
            return _ends(quads), values
        others = mined_by(Euclidean())
        if len(others) != len(quads):  # an anchor whose scores are not finite has no quadruplet: it diverged
            others = quads
        similarity = self.model.similarity(self.config.similarity)
        left, right = _pairs(others)
        distances = -Euclidean()(features[left], features[right])
        if quads.scores is not None and miner is similarity:
            scores = quads.scores[left, right]
        else:
            scores = similarity.pairs(features[left], features[right])
        return _ends(others), torch.cat([scores.view(3, -1), distances.view(3, -1)])

    def _companion_loss(
        self, similarity: Similarity, features: Tensor, mined_by: Callable[[Similarity], Quadruplets]
    ) -> Float[Tensor, ""]:
        quads = mined_by(similarity)
        s_ij, s_ik, s_jl = pair_values(similarity, features, quads)
        return double_header_hinge(s_ij, s_ik, s_jl, self.config.score_margin).sum() / max(len(quads), 1)


def pair_values(
    similarity: Similarity, features: Float[Tensor, "items dim"], quads: Quadruplets
) -> Float[Tensor, "3 quads"]:
    """Similarities of the pairs (i, j), (i, k) and (j, l) of each quadruplet, in one call."""
    left, right = _pairs(quads)
    return similarity(features[left], features[right]).view(3, -1)


def _pairs(quads: Quadruplets) -> tuple[Tensor, Tensor]:
    return torch.cat([quads.i, quads.i, quads.j]), torch.cat([quads.j, quads.k, quads.l])


def _ends(quads: Quadruplets) -> Int[Tensor, "4 quads"]:
    return torch.stack([quads.i, quads.j, quads.k, quads.l])


def gather(part: Tensor) -> Tensor:
    """The parts of all processes in rank order, with gradients; the part itself where there is one process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return part
    if part.is_floating_point():
        return torch.cat(torch.distributed.nn.all_gather(part))
    parts = [torch.empty_like(part) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, part)
    return torch.cat(parts)
