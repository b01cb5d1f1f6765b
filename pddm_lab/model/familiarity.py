"""A similarity that is local near the training classes and global elsewhere.

S(a, b) = phi k (W_s c + b_s) + (1 - phi) w g (1 - P) - g D. For familiar pairs, D is corrected by what the PDDM unit
learned about their position; for others by P, the distance of the frozen trunk's own features, which has no position.
phi is the familiarity of the pair: the mean over a and b of a sigmoid of the cosine to the nearest centre of a training
class. In training phi = 1 and k = 1, so that S is the unit's score.

An item's feature contains both parts, x of the embedding and p of the trunk, so that every similarity finds what it
needs: [sqrt(1 - e^2) x; e p], of unit length. p is so short that it hardly affects D and D_M.

Not in the paper; chosen on held-out training classes (notebooks/results/experiments.md).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pddm_lab.model.all_pairs import all_pairs, own_pairs
from pddm_lab.model.head import components
from pddm_lab.model.pddm import PDDM
from pddm_lab.model.similarity import PDDMSimilarity

PRETRAINED_DIMS = 128
"""Principal components of the trunk's features in an item's feature."""
PRETRAINED_LENGTH = 0.05
"""e: at most e^2 of D^2 comes from the trunk's features."""
PRETRAINED_WEIGHT = 0.5
"""w: weight of a distance of the trunk's features, relative to one of the embedding, if nothing is familiar."""
CORRECTION_WEIGHT = 0.3
"""k: weight of the unit's correction, if everything is familiar."""
STEEPNESS = 50.0
"""Slope of the sigmoid per unit of the cosine: it rises within some hundredths."""
MOST_CENTRES = 1024
"""Largest number of centres; with more classes, centres of clusters, so that the model doesn't grow with them."""

_AT_ONCE = 1 << 18  # values of a block of distances


class PretrainedPart(nn.Module):
    """p: the main directions of the frozen trunk's features, centred, of unit length.

    Args:
        trunk_dim: dimensions of the trunk's features.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, trunk_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(trunk_dim))
        self.register_buffer("directions", torch.zeros(trunk_dim, PRETRAINED_DIMS))

    @torch.no_grad()
    def fit(self, inputs: Float[Tensor, "items trunk_dim"]) -> None:
        """Compute the mean and the principal components of the training items' features."""
        self.mean.copy_(inputs.mean(0))
        centred = F.normalize(inputs - self.mean, dim=1).double()
        main = components(centred)[1][:, -PRETRAINED_DIMS:]
        self.directions.zero_()[:, : main.shape[1]] = main.to(self.directions)

    def forward(self, inputs: Float[Tensor, "n trunk_dim"]) -> Float[Tensor, "n pretrained"]:
        """p of the trunk's features, without a gradient."""
        return F.normalize((inputs.detach() - self.mean) @ self.directions, dim=-1)


def joined(x: Float[Tensor, "n dim"], p: Float[Tensor, "n pretrained"]) -> Float[Tensor, "n joined"]:
    """One feature of unit length from both parts."""
    return torch.cat([math.sqrt(1 - PRETRAINED_LENGTH**2) * x, PRETRAINED_LENGTH * p], dim=-1)


def split_parts(features: Float[Tensor, "*n joined"]) -> tuple[Float[Tensor, "*n dim"], Float[Tensor, "*n pretrained"]]:
    """x and p of features, each of unit length."""
    x, p = features[..., :-PRETRAINED_DIMS], features[..., -PRETRAINED_DIMS:]
    return x / math.sqrt(1 - PRETRAINED_LENGTH**2), p / PRETRAINED_LENGTH


class FamiliarPDDM(PDDMSimilarity):
    """S of a PDDM unit that corrects D near the training classes and fades into a global measure elsewhere.

    Args:
        unit: with a `global_weight`; it scores x only.
        threshold: cosine to the nearest centre at which the familiarity is one half.
    """

    centres: Tensor
    used: Tensor

    def __init__(self, unit: PDDM, threshold: float) -> None:
        super().__init__(unit)
        self.threshold = threshold
        self.register_buffer("centres", torch.zeros(MOST_CENTRES, unit.difference.in_features))
        self.register_buffer("used", torch.tensor(0))

    @torch.no_grad()
    def remember_classes(self, features: Float[Tensor, "items joined"], labels: Int[Tensor, " items"]) -> None:
        """Store the mean direction of each training class."""
        x = split_parts(features)[0]
        numbers = labels.to(x.device).unique(return_inverse=True)[1]
        centres = F.normalize(x.new_zeros(int(numbers.max()) + 1, x.shape[1]).index_add_(0, numbers, x), dim=1)
        if len(centres) > MOST_CENTRES:
            centres = _clustered(centres)
        self.centres.zero_()[: len(centres)] = centres
        self.used.fill_(len(centres))

    @torch.no_grad()
    def familiarity(self, x: Float[Tensor, "items dim"]) -> Float[Tensor, " items"]:
        """Familiarity of items, 0 to 1; 1 before there are centres."""
        centres = self.centres[: int(self.used)]
        if not len(centres):
            return x.new_ones(len(x))
        nearest = torch.cat([(part @ centres.T).amax(1) for part in x.split(_AT_ONCE // len(centres) + 1)])
        return torch.sigmoid(STEEPNESS * (nearest - self.threshold))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """S; in training, the unit's score."""
        (x_a, p_a), (x_b, p_b) = split_parts(a), split_parts(b)
        local = self.unit(x_a, x_b)
        if self.training or not int(self.used):
            return local
        of_a, of_b = (self.familiarity(x.reshape(-1, x.shape[-1])).view(x.shape[:-1]) for x in (x_a, x_b))
        return self._faded(local, (x_a - x_b).norm(dim=-1), (p_a - p_b).norm(dim=-1), (of_a + of_b) / 2)

    def _faded(self, local: Tensor, d: Tensor, p: Tensor, familiar: Tensor) -> Tensor:
        g = self.unit.get_parameter("global_weight")
        correction, instead = CORRECTION_WEIGHT * (local + g * d), PRETRAINED_WEIGHT * g * (1 - p)
        return torch.lerp(instead, correction, familiar) - g * d

    def _matrix(self, queries: Tensor, gallery: Tensor) -> Tensor:
        (x_q, p_q) = split_parts(queries)
        (x_g, p_g) = (x_q, p_q) if queries is gallery else split_parts(gallery)
        scores = all_pairs(self.unit, x_q, x_g)
        if not int(self.used):
            return scores
        of_query, of_gallery = self.familiarity(x_q), self.familiarity(x_g)
        at_once = _AT_ONCE // max(len(gallery), 1) + 1
        for start in range(0, len(queries), at_once):
            own = slice(start, start + at_once)
            d, p, familiar = _distances(x_q[own], x_g), _distances(p_q[own], p_g), of_query[own, None] + of_gallery
            scores[own] = self._faded(scores[own], d, p, familiar / 2)
        return scores

    def _candidates(self, queries: Tensor, gallery: Tensor, rows: Tensor) -> Tensor:
        if rows.numel() < len(gallery):  # only keep the rows that are used
            used, rows = rows.unique(return_inverse=True)
            gallery = gallery[used]
        (x_q, p_q), (x_g, p_g) = split_parts(queries), split_parts(gallery)
        scores = own_pairs(self.unit, x_q, x_g, rows)
        if not int(self.used):
            return scores
        of_query, of_gallery = self.familiarity(x_q), self.familiarity(x_g)
        at_once = _AT_ONCE // (max(rows.shape[1], 1) * queries.shape[1]) + 1
        for start in range(0, len(queries), at_once):
            own = slice(start, start + at_once)
            near = rows[own]
            d, p = (x_q[own, None] - x_g[near]).norm(dim=-1), (p_q[own, None] - p_g[near]).norm(dim=-1)
            scores[own] = self._faded(scores[own], d, p, (of_query[own, None] + of_gallery[near]) / 2)
        return scores


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Exact even near 0; cheap compared with the unit's products."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _clustered(centres: Float[Tensor, "classes dim"]) -> Float[Tensor, "clusters dim"]:
    import faiss

    clusters = faiss.Kmeans(centres.shape[1], MOST_CENTRES, spherical=True, seed=0)
    clusters.train(centres.cpu().float().numpy())
    return torch.from_numpy(clusters.centroids).to(centres)
