"""Neighbourhoods in plain loops over float64 lists, to check the fast ones against."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LENGTH = 40


def items(count: int, dim: int = 8, seed: int = 0, classes: int = 7) -> Float[Tensor, "count dim"]:
    """Clustered features of unit length in float64."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=random, dtype=torch.float64)
    noise = torch.randn(count, dim, generator=random, dtype=torch.float64)
    return F.normalize(centres[torch.arange(count) % classes] + 0.7 * noise, dim=1)


class Slow:
    """One gallery and one query that is not in it."""

    def __init__(self, gallery: Float[Tensor, "items dim"], query: Float[Tensor, " dim"]) -> None:
        self.z, self.q = gallery.double().numpy(), query.double().numpy()
        n = len(self.z)
        self.lists = [sorted((h for h in range(n) if h != g), key=(-self.z @ self.z[g]).__getitem__) for g in range(n)]
        self.own = sorted(range(n), key=lambda h: -self.q @ self.z[h])

    def expansion(self, g: int | None, k: int) -> np.ndarray:
        """e_k of an item, or of the query."""
        at, near = (self.q, self.own) if g is None else (self.z[g], self.lists[g])
        total = at + sum(max(0.0, at @ self.z[h]) ** 3 * self.z[h] for h in near[:k])
        return total / np.linalg.norm(total)

    def weights(self, g: int | None, k: int) -> dict[int, float]:
        at, near = (self.q, self.own) if g is None else (self.z[g], self.lists[g])
        return {h: max(0.0, at @ self.z[h]) ** 3 for h in near[:k]}

    def shared(self, g: int, k: int) -> float:
        of_q, of_g = self.weights(None, k), self.weights(g, k) | {g: 1.0}
        dot = sum(w * of_g.get(h, 0.0) for h, w in of_q.items())
        return dot / math.sqrt((1 + sum(w * w for w in of_q.values())) * sum(w * w for w in of_g.values()))

    def rank_of_query(self, g: int) -> int:
        return min(sum(self.z[g] @ self.z[h] > self.z[g] @ self.q for h in self.lists[g]), LENGTH)

    def rank_in_query(self, g: int) -> int:
        return min(self.own.index(g), LENGTH)

    def reciprocal(self, g: int, k: int) -> float:
        of_q = {-1} | {h for h in self.own[:k] if self.rank_of_query(h) < k}
        of_g = {g} | {h for h in self.lists[g][:k] if g in self.lists[h][:k]}
        if g in of_q:
            of_g.add(-1)
        return len(of_q & of_g) / len(of_q | of_g)


def k_reciprocal(pool: np.ndarray, q: int, k1: int = 20, k2: int = 6, weight: float = 0.3) -> np.ndarray:
    """Zhong et al. by the formulas of the paper, in loops; the query is one of the pool."""
    n = len(pool)
    nearest = [sorted(range(n), key=(-pool @ pool[p]).__getitem__) for p in range(n)]

    def mutual(p: int, k: int) -> set[int]:
        return {g for g in nearest[p][: k + 1] if p in nearest[g][: k + 1]}

    vectors = np.zeros((n, n))
    for p in range(n):
        expanded = mutual(p, k1)
        for g in mutual(p, k1):
            more = mutual(g, round(k1 / 2))
            if len(mutual(p, k1) & more) >= 2 / 3 * len(more):
                expanded |= more
        for g in expanded:
            vectors[p, g] = math.exp(-(1 - pool[p] @ pool[g]))
        vectors[p] /= vectors[p].sum()
    averaged = np.stack([vectors[nearest[p][:k2]].mean(0) for p in range(n)])
    jaccard = [1 - np.minimum(averaged[q], v).sum() / np.maximum(averaged[q], v).sum() for v in averaged]
    return -(1 - weight) * np.array(jaccard) - weight * (1 - pool @ pool[q])
