"""What a method minimises on a batch: the lab's own objective, or a loss of pytorch-metric-learning. One interface.

Every objective has the same model: a linear head on the frozen trunk's features, and features of unit length.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pddm_lab.config import TrainConfig
from pddm_lab.errors import ConfigError
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.trunks import Trunk
from pddm_lab.training.objectives import Learner


class Objective(nn.Module):
    """A model and the loss that trains it; `forward` takes a batch's inputs and the numbers of its classes.

    Args:
        config: the choices of the model.
        trunk: stands in for the frozen trunk.
    """

    def __init__(self, config: TrainConfig, trunk: Trunk) -> None:
        super().__init__()
        self.config = config
        # The inputs have their power taken already.
        self.model = MetricModel(dataclasses.replace(config, pool_power=1.0), trunk=trunk)

    @abstractmethod
    def forward(self, inputs: Float[Tensor, "items trunk_dim"], labels: Int[Tensor, " items"]) -> Float[Tensor, ""]:
        """The loss of a batch."""

    def groups(self) -> list[dict[str, Any]]:
        """What the optimiser moves, with its learning rates."""
        return [{"params": [*self.model.embedding.head.parameters(), *self.model.learned.parameters()]}]


class Joint(Objective):
    """E of the PDDM unit or of another similarity, as a run trains it.

    Args:
        config: the choices of the model and of E.
        trunk: stands in for the frozen trunk.
        companions: the similarities that learn beside the trained one.
    """

    def __init__(self, config: TrainConfig, trunk: Trunk, companions: Sequence[str]) -> None:
        super().__init__(config, trunk)
        self.learner = Learner(self.model, config, companions)

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """E, and the losses of the similarities that ride along."""
        return self.learner(inputs, labels).loss


class Library(Objective):
    """A loss of pytorch-metric-learning on the embedding, with a miner of that library where the method has one.

    Args:
        config: the choices of the model.
        trunk: stands in for the frozen trunk.
        loss: called with embeddings, labels and what was mined.
        miner: called with embeddings and labels; None for every pair or triplet.
        loss_lr_scale: learning rate of the loss's own weights (proxies, class weights, beta), as a multiple of lr.
        unit_length: whether the loss sees the features as they are compared, of unit length, or as the head gives them.
    """

    def __init__(
        self, config: TrainConfig, trunk: Trunk, loss: nn.Module, miner: nn.Module | None = None,
        loss_lr_scale: float = 1.0, unit_length: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(config, trunk)
        self.loss, self.miner = loss, miner
        self.loss_lr_scale, self.unit_length = loss_lr_scale, unit_length

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The library's loss."""
        embedding = self.model.embedding
        features = embedding.project(inputs) if self.unit_length else embedding.head(inputs)
        mined = self.miner(features.detach(), labels) if self.miner else None
        return self.loss(features, labels, mined)

    def groups(self) -> list[dict[str, Any]]:
        """The head, and the loss's own weights at their own rate, which decay to nothing useful and so don't decay."""
        groups: list[dict[str, Any]] = [{"params": [*self.model.embedding.head.parameters()]}]
        if own := [*self.loss.parameters()]:
            groups.append({"params": own, "lr": self.config.lr * self.loss_lr_scale, "weight_decay": 0.0})
        return groups


class Classifier(nn.Module):
    """Softmax cross-entropy of a linear layer on the embedding, called as a loss of the library is."""

    def __init__(self, num_classes: int, embedding_size: int, smoothing: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.Linear(embedding_size, num_classes)
        self.smoothing = smoothing

    def forward(self, features: Tensor, labels: Tensor, _mined: None = None) -> Tensor:
        """Cross-entropy with label smoothing."""
        return F.cross_entropy(self.layer(features), labels, label_smoothing=self.smoothing)


LIBRARY = (
    "contrastive", "triplet_hard", "triplet_semihard", "lifted", "npairs", "margin", "multi_similarity", "proxy_nca",
    "proxy_anchor", "arcface", "classifier",
)  # fmt: skip
"""Objectives of `library_objective`."""


def library_objective(
    name: str, config: TrainConfig, trunk: Trunk, classes: int, options: Mapping[str, float]
) -> Library:
    """An objective of `LIBRARY`.

    Args:
        name: one of `LIBRARY`.
        config: the choices of the model.
        trunk: stands in for the frozen trunk.
        classes: of the training items, numbered from 0.
        options: of the loss, by its names in pytorch-metric-learning; `loss_lr_scale` beside them.

    Raises:
        ConfigError: an unknown objective.
    """
    from pytorch_metric_learning import distances, losses, miners, regularizers

    rest: dict[str, Any] = dict(options)
    scale = rest.pop("loss_lr_scale", 1.0)
    sizes: dict[str, Any] = {"num_classes": classes, "embedding_size": config.dim}
    if name == "contrastive":
        return Library(config, trunk, losses.ContrastiveLoss(**rest))
    if name == "triplet_hard":
        return Library(config, trunk, losses.TripletMarginLoss(**rest), miners.BatchHardMiner())
    if name == "triplet_semihard":
        miner = miners.TripletMarginMiner(margin=rest["margin"], type_of_triplets="semihard")
        return Library(config, trunk, losses.TripletMarginLoss(**rest), miner)
    if name == "lifted":
        # On features of unit length its sum of exponentials weighs all negatives alike: it comes without, as published.
        loss = losses.GeneralizedLiftedStructureLoss(distance=distances.LpDistance(normalize_embeddings=False), **rest)
        return Library(config, trunk, loss, unit_length=False)
    if name == "npairs":
        # Dot products of features of unit length can't tell 32 classes apart; the authors bound the length softly.
        loss = losses.NPairsLoss(
            distance=distances.DotProductSimilarity(normalize_embeddings=False),
            embedding_regularizer=regularizers.LpRegularizer(power=2), embedding_reg_weight=rest["length_weight"],
        )  # fmt: skip
        return Library(config, trunk, loss, unit_length=False)
    if name == "margin":
        loss = losses.MarginLoss(learn_beta=True, **rest)
        return Library(config, trunk, loss, miners.DistanceWeightedMiner(cutoff=0.5, nonzero_loss_cutoff=1.4), scale)
    if name == "multi_similarity":
        return Library(config, trunk, losses.MultiSimilarityLoss(**rest), miners.MultiSimilarityMiner(epsilon=0.1))
    if name == "proxy_nca":
        return Library(config, trunk, losses.ProxyNCALoss(**sizes, **rest), None, scale)
    if name == "proxy_anchor":
        return Library(config, trunk, losses.ProxyAnchorLoss(**sizes, **rest), None, scale)
    if name == "arcface":
        return Library(config, trunk, losses.ArcFaceLoss(**sizes, **rest), None, scale)
    if name == "classifier":
        return Library(config, trunk, Classifier(**sizes, **rest), None, scale, unit_length=False)
    raise ConfigError(f"Unknown objective {name!r}. Expected one of {', '.join(LIBRARY)}.")
