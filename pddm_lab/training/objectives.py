"""What a training minimises: a batch to its loss, the terms for the log, and the quadruplets mined from it.

PDDM's own losses train the embedding through the similarity that a run asks for. A rival's loss, from
pytorch-metric-learning, trains the embedding alone. The other learned similarities mine and learn their own quadruplets
on detached features: every run can compare all of them, and they leave the embedding as it is.

A rival's loss is a line in `config.LOSSES` (its name, title and options) and a line in `RIVALS` here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed.nn
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pddm_lab.config import LOSSES, TrainConfig
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
    """What Euclidean mining chooses from the same batch: one quadruplet for each i with anchors, else one in all."""
    euclidean_values: Float[Tensor, "6 quads"]
    """s_ij, s_ik, s_jl, d_ij, d_ik, d_jl of those, detached."""


class Near(NamedTuple):
    """What keeps the features of some classes near those of an earlier model, so that both can be compared."""

    features: Callable[[Tensor], Tensor]
    """Unit-length features by the earlier model, from the trunk's."""
    weight: float
    classes: Bool[Tensor, " classes"]
    """Which of the training classes are kept near: those that the earlier model was trained on."""

    def apart(
        self, features: Float[Tensor, "items dim"], pooled: Float[Tensor, "items trunk_dim"],
        labels: Int[Tensor, " items"],
    ) -> Float[Tensor, ""]:  # fmt: skip
        """Mean squared distance of the features of these classes to the earlier model's; 0 without any."""
        kept = self.classes[labels]
        squares = (features - self.features(pooled).detach()).square().sum(1)
        return squares.where(kept, 0).sum() / kept.sum().clamp(min=1)


class Objective(nn.Module):
    """A model with the loss that trains it; `forward` takes one process's part of a batch.

    Args:
        model: what learns.
        config: the choices of the loss.
        classes: how many classes train; their labels are 0 to classes - 1.
        learning: the learned similarities that train; leave out those that nobody looks at, to save time. PDDM's losses
            always train `config.similarity`.
        near: an earlier model whose features those of the embedding stay near to.
    """

    def __init__(
        self, model: MetricModel, config: TrainConfig, classes: int, learning: Sequence[str] = LEARNED,
        near: Near | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model = model
        self.config = config
        self.near = near
        self.rival = RivalLoss(config, classes) if LOSSES[config.loss].is_rival else None
        self.companions = [name for name in learning if name != config.similarity]
        self.is_joint = self.rival is None and not config.detaches_unit
        """Whether the embedding learns through the similarity; else the similarity learns on detached features."""
        self.mines = self.is_joint or bool(learning)
        if not self.mines:
            model.learned.requires_grad_(False)  # DDP waits for the gradient of every parameter
        self.used_head: Callable[[Tensor], Tensor] | None = None
        """The head whose features similarities learn on, if it isn't the one in training."""
        self.trained = nn.ModuleList([model.embedding])
        """What the main loss moves; the rest learns on detached features."""
        if self.rival is not None:
            self.trained.append(self.rival)
        elif self.is_joint and config.similarity in LEARNED:
            self.trained.append(model.similarity(config.similarity))

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimiser, each group with its own learning rate as `base_lr`."""
        config, embedding = self.config, self.model.embedding
        heads = [*embedding.head.parameters(), *(self.model.learned.parameters() if self.mines else ())]
        groups: list[dict[str, Any]] = [{"params": heads, "base_lr": config.lr}]
        if not config.freeze_trunk:
            groups.append({"params": [*embedding.trunk.parameters()], "base_lr": config.lr * config.trunk_lr_scale})
        if self.rival is not None and (own := [*self.rival.parameters()]):
            # Proxies and class weights don't decay: they are compared by direction.
            groups.append({"params": own, "base_lr": config.lr * self.rival.lr_scale, "weight_decay": 0.0})
        return groups

    def forward(self, inputs: Tensor, labels: Int[Tensor, " part"]) -> Step:
        """Mine the whole batch and compute the loss.

        Args:
            inputs: uint8 images (part, 3, side, side), or the frozen trunk's features (part, trunk_dim).
            labels: classes of the items, (part,).
        """
        embedding = self.model.embedding
        pooled = inputs if self.config.freeze_trunk else embedding.trunk(inputs)
        # Under mixed precision the trunk alone runs in 16 bits: distances of unit vectors need all 32.
        with torch.autocast(pooled.device.type, enabled=False):
            step = self._step_on(pooled, labels)
            if self.near is None:
                return step
            apart = self.near.apart(embedding.project(pooled), pooled, labels)
            return step._replace(
                loss=step.loss + self.near.weight * apart, terms=step.terms | {"apart": apart.detach()}
            )  # fmt: skip

    def _step_on(self, pooled: Float[Tensor, "part trunk_dim"], labels: Int[Tensor, " part"]) -> Step:
        """The step without what keeps features near those of another model."""
        embedding = self.model.embedding
        if self.is_joint:
            return self._joint_step(gather(embedding.project(pooled)), gather(labels))
        loss, terms = self._embedding_loss(gather(embedding.project_head(pooled)), gather(labels))
        if not self.mines:
            return _only(loss, terms)
        with torch.no_grad():
            features = gather(embedding.project(pooled, self.used_head))
        return self._detached_step(features, gather(labels), loss, terms)

    def _embedding_loss(
        self, heads: Float[Tensor, "items dim"], labels: Int[Tensor, " items"]
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The loss that trains the embedding alone: a rival's, or E_e on quadruplets that D mines."""
        if self.rival is not None:
            loss = self.rival(heads, labels)
            return loss, {"loss": loss.detach()}
        features = F.normalize(heads, dim=-1)
        quads = mine(features.detach(), labels, Euclidean(), self.config.mining)
        left, right = (features.index_select(0, ends) for ends in _pairs(quads))
        e_e = self._e_e(-Euclidean()(left, right).view(3, -1)).sum() / max(len(quads), 1)
        loss = self.config.embedding_weight * e_e
        return loss, {"loss": loss.detach(), "E_e": e_e.detach()}

    def _joint_step(self, features: Float[Tensor, "items dim"], labels: Int[Tensor, " items"]) -> Step:
        """E_m and E_e of the same quadruplets train the embedding and the similarity."""
        mined = self._mined(features, labels)
        e_m, e_e = self._e_m(mined.scores), self._e_e(mined.distances)
        loss, terms = joint_objective(e_m, e_e, self.config.embedding_weight)
        return self._step(features, mined, loss, terms)

    def _detached_step(
        self, features: Float[Tensor, "items dim"], labels: Int[Tensor, " items"], loss: Float[Tensor, ""],
        terms: dict[str, Float[Tensor, ""]],
    ) -> Step:  # fmt: skip
        """Beside the loss of the embedding the similarity learns on features without gradients."""
        mined = self._mined(features, labels)
        e_m = self._e_m(mined.scores).sum() / max(len(mined.quads), 1)
        if self.rival is None:
            terms |= {"loss": (loss + e_m).detach(), "E_m": e_m.detach()}
        else:
            terms[f"{self.config.similarity}_loss"] = e_m.detach()
        return self._step(features, mined, loss + e_m, terms)

    def _mined(self, features: Float[Tensor, "items dim"], labels: Int[Tensor, " items"]) -> _Mined:
        similarity = self.model.similarity(self.config.similarity)
        miner = self.model.similarity(self.config.mining_similarity or self.config.similarity)
        mined_by = self._miner(features.detach(), labels)
        quads = mined_by(miner)
        left, right = (features.index_select(0, ends) for ends in _pairs(quads))
        scores, distances = similarity(left, right).view(3, -1), -Euclidean()(left, right).view(3, -1)
        return _Mined(mined_by, miner, quads, scores, distances)

    def _e_m(self, scores: Float[Tensor, "3 quads"]) -> Float[Tensor, " quads"]:
        if self.config.loss == "triplet":
            return score_hinge(scores[0], scores[1], self.config.score_margin)
        return double_header_hinge(scores[0], scores[1], scores[2], self.config.score_margin)

    def _e_e(self, distances: Float[Tensor, "3 quads"]) -> Float[Tensor, " quads"]:
        hinged = distances.square() if self.config.squared_distance else distances
        if self.config.loss == "triplet":
            return distance_hinge(hinged[0], hinged[1], self.config.distance_margin)
        return embedding_hinge(hinged[0], hinged[1], hinged[2], self.config.distance_margin)

    def _step(
        self, features: Float[Tensor, "items dim"], mined: _Mined, loss: Float[Tensor, ""],
        terms: dict[str, Float[Tensor, ""]],
    ) -> Step:  # fmt: skip
        """The step with the losses of the companions, and with what the log keeps of the quadruplets."""
        for name in self.companions:
            companion = self._companion_loss(self.model.similarity(name), features.detach(), mined.by)
            loss = loss + companion
            terms[f"{name}_loss"] = companion.detach()
        slack = self.config.score_margin + mined.scores[1:] - mined.scores[:1]
        values = torch.cat([mined.scores, mined.distances, slack]).detach()
        euclidean = self._euclidean(features.detach(), mined.by, mined.miner, mined.quads, values[:6])
        return Step(loss, terms, _ends(mined.quads), values, *euclidean)

    def _miner(self, features: Tensor, labels: Tensor) -> Callable[[Similarity], Quadruplets]:
        """Mines this batch with any similarity; the positive pairs, where they are needed, are listed once for all."""
        pairs = positive_pairs(labels) if self.config.mining == "batch" else None
        return lambda similarity: mine(features, labels, similarity, self.config.mining, pairs)

    @torch.no_grad()
    def _euclidean(
        self, features: Tensor, mined_by: Callable[[Similarity], Quadruplets], miner: Similarity, quads: Quadruplets,
        values: Tensor,
    ) -> tuple[Int[Tensor, "4 quads"], Float[Tensor, "6 quads"]]:  # fmt: skip
        """What Euclidean mining chooses from the same features, and the values of its pairs."""
        if miner.name == "euclidean":
            return _ends(quads), values
        others = mined_by(Euclidean())
        if len(others) != len(quads):  # an anchor whose scores are not finite has no quadruplet: it diverged
            others = quads
        similarity = self.model.similarity(self.config.similarity)
        left, right = _pairs(others)
        a, b = features.index_select(0, left), features.index_select(0, right)
        distances = -Euclidean()(a, b)
        if quads.scores is not None and miner is similarity:
            scores = quads.scores[left, right]
        else:
            scores = similarity.pairs(a, b)
        return _ends(others), torch.cat([scores.view(3, -1), distances.view(3, -1)])

    def _companion_loss(
        self, similarity: Similarity, features: Tensor, mined_by: Callable[[Similarity], Quadruplets]
    ) -> Float[Tensor, ""]:
        quads = mined_by(similarity)
        left, right = (features.index_select(0, ends) for ends in _pairs(quads))
        s_ij, s_ik, s_jl = similarity(left, right).view(3, -1)
        return double_header_hinge(s_ij, s_ik, s_jl, self.config.score_margin).sum() / max(len(quads), 1)


class _Mined(NamedTuple):
    """The quadruplets of a batch with the values of their pairs ij, ik, jl."""

    by: Callable[[Similarity], Quadruplets]
    miner: Similarity
    quads: Quadruplets
    scores: Float[Tensor, "3 quads"]
    distances: Float[Tensor, "3 quads"]


def _only(loss: Float[Tensor, ""], terms: dict[str, Float[Tensor, ""]]) -> Step:
    """The step of a loss if nothing is mined for a similarity."""
    ends, values = loss.new_empty(4, 0, dtype=torch.long), loss.new_empty(8, 0)
    return Step(loss, terms, ends, values, ends, values[:6])


class RivalLoss(nn.Module):
    """A loss of pytorch-metric-learning on the embedding, with a miner of that library where it has one.

    Args:
        config: names the loss and its options.
        classes: how many classes train.
    """

    def __init__(self, config: TrainConfig, classes: int) -> None:
        super().__init__()
        options = config.options_of_loss()
        self.lr_scale = options.pop("loss_lr_scale", 1.0)
        sizes = {"num_classes": classes, "embedding_size": config.dim}
        self.loss, self.miner, self.unit_length = RIVALS[config.loss](options, sizes)

    def forward(self, heads: Float[Tensor, "items dim"], labels: Int[Tensor, " items"]) -> Float[Tensor, ""]:
        """The loss of a batch, from what the embedding's head returns."""
        features = F.normalize(heads, dim=-1) if self.unit_length else heads
        return self.loss(features, labels, self.miner(features.detach(), labels) if self.miner else None)


class Classifier(nn.Module):
    """Softmax cross-entropy of a linear layer on the embedding, called like a loss of the library."""

    def __init__(self, num_classes: int, embedding_size: int, smoothing: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.Linear(embedding_size, num_classes)
        self.smoothing = smoothing

    def forward(self, features: Tensor, labels: Tensor, _mined: None = None) -> Float[Tensor, ""]:
        """Cross-entropy with label smoothing."""
        return F.cross_entropy(self.layer(features), labels, label_smoothing=self.smoothing)


class Rival(NamedTuple):
    """What a rival's loss consists of."""

    loss: nn.Module
    """Called with features, labels and what the miner returned."""
    miner: nn.Module | None = None
    """Called with features and labels; None for every pair or triplet."""
    unit_length: bool = True
    """Whether the loss sees features of unit length, as they are compared, or as the head returns them."""


def _lifted(options: dict[str, float], _sizes: Mapping[str, int]) -> Rival:
    from pytorch_metric_learning import distances, losses

    # On features of unit length its sum of exponentials weighs all negatives alike, so they keep theirs, as published.
    distance = distances.LpDistance(normalize_embeddings=False)
    return Rival(losses.GeneralizedLiftedStructureLoss(distance=distance, **options), unit_length=False)


def _npairs(options: dict[str, float], _sizes: Mapping[str, int]) -> Rival:
    from pytorch_metric_learning import distances, losses, regularizers

    # Dot products of features of unit length can't distinguish 32 classes; the authors penalise the length instead.
    loss = losses.NPairsLoss(
        distance=distances.DotProductSimilarity(normalize_embeddings=False),
        embedding_regularizer=regularizers.LpRegularizer(power=2), embedding_reg_weight=options["length_weight"],
    )  # fmt: skip
    return Rival(loss, unit_length=False)


def _margin(options: dict[str, float], _sizes: Mapping[str, int]) -> Rival:
    from pytorch_metric_learning import losses, miners

    miner = miners.DistanceWeightedMiner(cutoff=0.5, nonzero_loss_cutoff=1.4)
    return Rival(losses.MarginLoss(learn_beta=True, **options), miner)


def _semihard(options: dict[str, float], _sizes: Mapping[str, int]) -> Rival:
    from pytorch_metric_learning import losses, miners

    miner = miners.TripletMarginMiner(margin=options["margin"], type_of_triplets="semihard")
    return Rival(losses.TripletMarginLoss(**options), miner)


def _library(loss: str, miner: str = "", sized: bool = False, **miner_options: float) -> Callable[..., Rival]:
    """A loss and a miner of pytorch-metric-learning by their names there; `sized` where it has weights per class."""

    def build(options: dict[str, float], sizes: Mapping[str, int]) -> Rival:
        from pytorch_metric_learning import losses, miners

        mining = getattr(miners, miner)(**miner_options) if miner else None
        return Rival(getattr(losses, loss)(**options, **(sizes if sized else {})), mining)

    return build


RIVALS: dict[str, Callable[[dict[str, float], dict[str, int]], Rival]] = {
    "contrastive": _library("ContrastiveLoss"),
    "triplet-hard": _library("TripletMarginLoss", "BatchHardMiner"),
    "triplet-semihard": _semihard,
    "lifted": _lifted,
    "npairs": _npairs,
    "margin": _margin,
    "multi-similarity": _library("MultiSimilarityLoss", "MultiSimilarityMiner", epsilon=0.1),
    "proxy-nca": _library("ProxyNCALoss", sized=True),
    "proxy-anchor": _library("ProxyAnchorLoss", sized=True),
    "arcface": _library("ArcFaceLoss", sized=True),
    "classifier": lambda options, sizes: Rival(Classifier(**sizes, smoothing=options["smoothing"]), unit_length=False),
}
"""Builds each rival's loss from its options and from the number of classes and dimensions."""


def _pairs(quads: Quadruplets) -> tuple[Tensor, Tensor]:
    """The ends of the pairs (i, j), (i, k) and (j, l) of all quadruplets, to compute their values in one call."""
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
