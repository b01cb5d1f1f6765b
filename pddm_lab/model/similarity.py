"""Similarities with one interface, for mining and ranking: Euclidean, cosine, learned Mahalanobis and PDDM.

Larger always means more similar, so the two distances have a minus sign: S_euclidean = -D, S_mahalanobis = -D_M.

Scores of all pairs with the PDDM unit: all_pairs.py.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pddm_lab.errors import ConfigError
from pddm_lab.model.all_pairs import all_pairs, own_pairs
from pddm_lab.model.pddm import PDDM, safe_sqrt
from pddm_lab.similarities import SIMILARITIES

CHUNK_PAIRS = 1 << 16
"""Pairs scored at a time by `pairs`: limits the memory."""


class Similarity(nn.Module):
    """A similarity of features. `forward` is differentiable and broadcasts; the other methods score without
    gradients."""

    name: str

    @classmethod
    def make(cls, dim: int, **_unit: Any) -> Similarity:
        """A new one for features of `dim` dimensions; see `make_similarity` for the options of a PDDM unit."""
        return cls()

    @property
    def is_network(self) -> bool:
        """Whether it scores a pair with its own layers, so that all pairs cost much more than one matrix product."""
        return self.name in SIMILARITIES and SIMILARITIES[self.name].is_network

    @abstractmethod
    def forward(self, a: Float[Tensor, "*#batch dim"], b: Float[Tensor, "*#batch dim"]) -> Float[Tensor, "*batch"]:
        """Similarities of pairs, (..., dim) and (..., dim) -> (...); larger is more similar."""

    @abstractmethod
    def _matrix(self, queries: Float[Tensor, "queries dim"], gallery: Float[Tensor, "items dim"]) -> Tensor: ...

    @torch.no_grad()
    def matrix(
        self, queries: Float[Tensor, "queries dim"], gallery: Float[Tensor, "items dim"]
    ) -> Float[Tensor, "queries items"]:
        """Similarities of every query with every gallery item, (queries, items)."""
        with self._evaluating():
            return self._matrix(queries, gallery)

    @torch.no_grad()
    def pairs(self, a: Float[Tensor, "pairs dim"], b: Float[Tensor, "pairs dim"]) -> Float[Tensor, " pairs"]:
        """Similarities of a[n] with b[n], (pairs,), in limited memory."""
        with self._evaluating():
            chunks = zip(a.split(CHUNK_PAIRS), b.split(CHUNK_PAIRS), strict=True)
            return torch.cat([self(left, right) for left, right in chunks]) if len(a) else a.new_zeros(0)

    @torch.no_grad()
    def candidates(
        self, queries: Float[Tensor, "queries dim"], gallery: Float[Tensor, "items dim"],
        rows: Int[Tensor, "queries candidates"],
    ) -> Float[Tensor, "queries candidates"]:  # fmt: skip
        """Similarities of every query with its own rows of the gallery, (queries, candidates), in limited memory."""
        with self._evaluating():
            return self._candidates(queries, gallery, rows)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)

    def _candidates(self, queries: Tensor, gallery: Tensor, rows: Tensor) -> Tensor:
        at_once = max(CHUNK_PAIRS // max(rows.shape[1], 1), 1)
        parts = zip(queries.split(at_once), rows.split(at_once), strict=True)
        return torch.cat([self(part[:, None], gallery[own]) for part, own in parts])

    def rerank(
        self, query: Float[Tensor, " dim"], gallery: Float[Tensor, "items dim"], shortlist: Int[Tensor, " shortlist"]
    ) -> tuple[Int[Tensor, " shortlist"], Float[Tensor, " shortlist"]]:
        """Re-rank a shortlist of gallery rows by this similarity to the query.

        Args:
            query: one feature, (dim,).
            gallery: features, (items, dim).
            shortlist: rows of the gallery, (shortlist,).

        Returns:
            The same rows and their similarities, best first; equal ones keep the shortlist's order.
        """
        scores = self.matrix(query[None], gallery[shortlist])[0]
        order = scores.argsort(descending=True, stable=True)
        return shortlist[order], scores[order]


class Euclidean(Similarity):
    """S = -D = -||a - b||."""

    name = "euclidean"

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Minus the Euclidean distance; its gradient is 0 where both are equal."""
        return -safe_sqrt((a - b).square().sum(-1))

    def _matrix(self, queries: Tensor, gallery: Tensor) -> Tensor:
        return -_distances(queries, gallery)


class Cosine(Similarity):
    """S = a . b / (||a|| ||b||). On unit-length features it ranks like Euclidean, with other distributions."""

    name = "cosine"

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The cosine of the angle between a and b, -1 to 1."""
        return F.cosine_similarity(a, b, dim=-1)

    def _matrix(self, queries: Tensor, gallery: Tensor) -> Tensor:
        return F.normalize(queries, dim=-1) @ F.normalize(gallery, dim=-1).T


class Mahalanobis(Similarity):
    """S = -D_M = -||L (a - b)||: a learned global metric, M = L^T L, initialised with the identity."""

    name = "mahalanobis"

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim, dim, bias=False)
        nn.init.eye_(self.map.weight)

    @classmethod
    def make(cls, dim: int, **_unit: Any) -> Similarity:
        """A new one, equal to the Euclidean distance."""
        return cls(dim)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Minus the Mahalanobis distance."""
        return -safe_sqrt(self.map(a - b).square().sum(-1))

    def _matrix(self, queries: Tensor, gallery: Tensor) -> Tensor:
        return -_distances(self.map(queries), self.map(gallery))


class PDDMSimilarity(Similarity):
    """S of a PDDM unit."""

    name = "pddm"

    def __init__(self, unit: PDDM) -> None:
        super().__init__()
        self.unit = unit

    @classmethod
    def make(cls, dim: int, **unit: Any) -> Similarity:
        """A new one with a new unit."""
        return cls(PDDM(dim, **unit))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The unit's score."""
        return self.unit(a, b)

    def _matrix(self, queries: Tensor, gallery: Tensor) -> Tensor:
        if self._is_global():
            return self._of(Euclidean()._matrix(queries, gallery))
        return all_pairs(self.unit, queries, gallery)

    def _candidates(self, queries: Tensor, gallery: Tensor, rows: Tensor) -> Tensor:
        if self._is_global():
            return self._of(Euclidean()._candidates(queries, gallery, rows))
        if self.unit.normalize_input:
            return super()._candidates(queries, gallery, rows)
        return own_pairs(self.unit, queries, gallery, rows)

    def _is_global(self) -> bool:
        """Whether W_s = 0: S = b_s - g D then, and needs no network. So it is where a run uses no correction of D."""
        return self.unit.global_weight is not None and not self.unit.score.weight.any()

    def _of(self, minus_d: Tensor) -> Tensor:
        assert self.unit.global_weight is not None
        return self.unit.global_weight * minus_d + self.unit.score.bias


CLASSES: dict[str, type[Similarity]] = {one.name: one for one in (Euclidean, Cosine, Mahalanobis, PDDMSimilarity)}


def make_similarity(name: str, dim: int, **unit: Any) -> Similarity:
    """A new similarity by name.

    Args:
        name: one of `CLASSES`.
        dim: dimensions of the features.
        unit: options of `PDDM`; the other similarities ignore them.

    Raises:
        ConfigError: unknown name.
    """
    if name not in CLASSES:
        raise ConfigError(f"Unknown similarity {name!r}. Expected one of {', '.join(SIMILARITIES)}.")
    return CLASSES[name].make(dim, **unit)


def _distances(a: Float[Tensor, "a dim"], b: Float[Tensor, "b dim"]) -> Float[Tensor, "a b"]:
    """Euclidean distances of all pairs by one matrix product; near 0 they are off by 1e-3 of a feature's length."""
    squares = torch.addmm(b.square().sum(1), a, b.T, alpha=-2)
    return squares.add_(a.square().sum(1, keepdim=True)).clamp_(min=0).sqrt_()
