"""The model of a run: trunk -> embedding head -> unit-length features, with the learned similarities beside it.

Paper -> code:  g(x) -> trunk and head   f = g(x) / ||g(x)|| -> embed(x)   d -> dim
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from pddm_lab.config import TrainConfig
from pddm_lab.model.familiarity import PRETRAINED_DIMS, FamiliarPDDM, PretrainedPart, joined
from pddm_lab.model.head import principal_components
from pddm_lab.model.similarity import Similarity, make_similarity
from pddm_lab.model.trunks import ImportedFeatures, Trunk, load_trunk
from pddm_lab.similarities import LEARNED, SIMILARITIES


def signed_power(pooled: Float[Tensor, "n trunk_dim"], power: float) -> Float[Tensor, "n trunk_dim"]:
    """Pooled features with their sizes raised to a power and their signs kept.

    Below 1 it evens out bursts: a few large values of a feature outweigh the many small ones (power normalisation;
    Perronnin et al., ECCV 2010). Sizes are clamped, since the slope of a root is infinite at 0.
    """
    if power == 1:
        return pooled
    sizes = pooled.abs().clamp(min=1e-6).pow(power)
    return torch.where(pooled < 0, -sizes, sizes)  # not copysign, which ONNX doesn't have


class EmbeddingNet(nn.Module):
    """Images to unit-length features.

    Args:
        trunk: pooled features of images; `ImportedFeatures` have no head, and are the embedding as they are.
        dim: dimensions of the embedding.
        power: of the pooled features, see `signed_power`.
        pretrained: add a part of the frozen trunk's own features to each feature (familiarity.py).
    """

    def __init__(self, trunk: Trunk, dim: int = 128, power: float = 1.0, pretrained: bool = False) -> None:
        super().__init__()
        self.trunk = trunk
        self.power = power
        self._dim = dim
        self.head = nn.Linear(trunk.dim, dim)
        if isinstance(trunk, ImportedFeatures):
            self.head = nn.Identity()  # type: ignore[assignment]  # without weights
        self.pretrained = PretrainedPart(trunk.dim) if pretrained else None

    @property
    def dim(self) -> int:
        """Dimensions of a feature, with the pretrained part."""
        return self._dim + (0 if self.pretrained is None else PRETRAINED_DIMS)

    def project(
        self, pooled: Float[Tensor, "n trunk_dim"], head: Callable[[Tensor], Tensor] | None = None
    ) -> Float[Tensor, "n dim"]:
        """Unit-length features of the trunk's pooled features, by another head if one is given."""
        inputs = signed_power(pooled, self.power)
        features = F.normalize((head or self.head)(inputs), dim=-1)
        return features if self.pretrained is None else joined(features, self.pretrained(inputs))

    def project_head(self, pooled: Float[Tensor, "n trunk_dim"]) -> Float[Tensor, "n dim"]:
        """What the head returns for the trunk's pooled features, before it is scaled to unit length."""
        return self.head(signed_power(pooled, self.power))

    def fit_start(self, pooled: Float[Tensor, "items trunk_dim"], principal: bool) -> None:
        """Before training: fit what depends on the training items' pooled features.

        Args:
            principal: start the head at their principal components (`principal_components`).
        """
        inputs = signed_power(pooled, self.power)
        if principal:
            principal_components(self.head, inputs)
        if self.pretrained is not None:
            self.pretrained.fit(inputs)

    def forward(self, images: UInt8[Tensor, "n 3 side side"]) -> Float[Tensor, "n dim"]:
        """Unit-length features of RGB images with values 0 to 255."""
        pooled = self.trunk(images)
        # With mixed precision only the trunk runs in 16 bits: distances of unit vectors need all 32.
        with torch.autocast(images.device.type, enabled=False):
            return self.project(pooled)


def learned_similarities(config: TrainConfig) -> nn.ModuleDict:
    """New similarities with weights, by name (`LEARNED`)."""
    options: dict[str, Any] = {
        "hidden": config.unit_hidden, "dropout": config.unit_dropout, "normalize_input": config.unit_normalize,
        "position": config.unit_position, "global_weight": config.unit_global,
    }  # fmt: skip
    # Created in this order so that a seed gives the same weights as in earlier versions.
    learned = {name: make_similarity(name, config.dim, **options) for name in reversed(LEARNED)}
    if config.familiarity:
        learned["mahalanobis"] = make_similarity("mahalanobis", config.dim + PRETRAINED_DIMS)
        learned["pddm"] = FamiliarPDDM(learned["pddm"].unit, config.familiarity)  # type: ignore[arg-type]
    return nn.ModuleDict(learned)


class MetricModel(nn.Module):
    """An embedding and its learned similarities: the model that a run saves.

    Args:
        config: all options.
        weights: of the trunk; None for the configuration's.
        trunk: used instead of loading one, such as a placeholder if only pooled features are projected.
    """

    def __init__(self, config: TrainConfig, weights: str | None = None, trunk: Trunk | None = None) -> None:
        super().__init__()
        trunk = ImportedFeatures(config.dim) if config.is_imported else trunk
        trunk = trunk or load_trunk(config.trunk, config.weights if weights is None else weights)
        self.embedding = EmbeddingNet(trunk, config.dim, config.pool_power, bool(config.familiarity))
        self.learned = learned_similarities(config)
        self._fixed = {name: make_similarity(name, config.dim) for name in SIMILARITIES if name not in LEARNED}

    def similarity(self, name: str) -> Similarity:
        """A similarity by name: euclidean, cosine, mahalanobis or pddm."""
        return self._fixed[name] if name in self._fixed else self.learned[name]  # type: ignore[return-value]

    def remember_classes(self, features: Float[Tensor, "items dim"], labels: Int[Tensor, " items"]) -> None:
        """After training: store where the training classes are, if the PDDM similarity uses it."""
        if isinstance(self.learned["pddm"], FamiliarPDDM):
            self.learned["pddm"].remember_classes(features, labels)
