"""The one interface of all local similarities, and those that need no training.

A local similarity compares a query with the items of a gallery in the light of that gallery, its reference. It is a
function of a pair and the gallery: the same pair may score otherwise in another gallery.

    reference = Neighbourhoods.of(features)
    similarity.matrix(reference, queries)                 # (Q, dim) -> (Q, G)
    similarity.candidates(reference, queries, rows)       # rows (Q, C) -> (Q, C)
    similarity.rerank(reference, query, shortlist)        # rows and scores, best first
    similarity.pairs(reference, left, right)              # items of the gallery, the same both ways: (P,)

Zhong et al.'s k-reciprocal re-ranking: reciprocal.py. The unit that learns: unit.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.errors import ConfigError
from pddm_lab.local.evidence import evidence
from pddm_lab.local.neighbourhoods import Neighbourhoods, Queries, first, place_of
from pddm_lab.local.sizes import LENGTH, NEAR

AT_ONCE = 1 << 14
"""Pairs at a time: what is computed of them fits a cache."""


class LocalSimilarity(ABC):
    """A similarity of a pair and a gallery; larger is more similar. A gallery of too few items is ranked by cosine."""

    name: str

    @abstractmethod
    def _candidates(self, reference: Neighbourhoods, queries: Queries, rows: Tensor) -> Tensor: ...

    @torch.no_grad()
    def candidates(
        self, reference: Neighbourhoods, queries: Float[Tensor, "queries dim"],
        rows: Int[Tensor, "queries candidates"], own: Int[Tensor, " queries"] | None = None,
    ) -> Float[Tensor, "queries candidates"]:  # fmt: skip
        """Similarities of every query with its own rows of the gallery, in limited memory.

        Args:
            reference: the gallery; where it has a `note`, the cosine is returned.
            queries: features of unit length.
            rows: any rows of the gallery.
            own: the row of each query in the gallery, out of which it is taken: all is as in the gallery without it.
                None: the queries are not in the gallery.
        """
        if not rows.numel():
            return queries.new_empty(rows.shape)
        scores = []
        step = max(AT_ONCE // (rows.shape[1] + NEAR), 1)
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            if reference.note:
                scores.append(reference.cosines(queries[part], rows[part]))
                continue
            seen = reference.queries(queries[part], None if own is None else own[part])
            scores.append(self._candidates(reference, seen, rows[part]))
        return torch.cat(scores)

    def matrix(
        self, reference: Neighbourhoods, queries: Float[Tensor, "queries dim"],
        own: Int[Tensor, " queries"] | None = None,
    ) -> Float[Tensor, "queries items"]:  # fmt: skip
        """Similarities of every query with every item. A query's similarity with its own row, if any, means nothing."""
        everything = torch.arange(len(reference), device=queries.device)
        return self.candidates(reference, queries, everything.expand(len(queries), -1), own)

    def rerank(
        self, reference: Neighbourhoods, query: Float[Tensor, " dim"], shortlist: Int[Tensor, " shortlist"],
        own: int | None = None,
    ) -> tuple[Int[Tensor, " shortlist"], Float[Tensor, " shortlist"]]:  # fmt: skip
        """Re-rank rows of the gallery: the same rows and their similarities, best first; ties keep their order."""
        itself = None if own is None else torch.tensor([own], device=query.device)
        scores = self.candidates(reference, query[None], shortlist[None], itself)[0]
        order = scores.argsort(descending=True, stable=True)
        return shortlist[order], scores[order]

    def pairs(
        self, reference: Neighbourhoods, left: Int[Tensor, " pairs"], right: Int[Tensor, " pairs"]
    ) -> Float[Tensor, " pairs"]:  # fmt: skip
        """Similarities of pairs of different items of the gallery, the same both ways.

        A search is not: its query is taken out of the gallery, so the item is in the neighbourhood of the query, and
        the query isn't in that of the item. Expansions, shared neighbours, reciprocal sets and densities feel it;
        cosines and ranks don't. Here each of both is the query once, and the mean counts.
        """
        ways = [
            self.candidates(reference, reference.features[a], b[:, None], a)[:, 0]
            for a, b in ((left, right), (right, left))
        ]  # fmt: skip
        return (ways[0] + ways[1]) / 2

    def among(self, reference: Neighbourhoods, rows: Int[Tensor, " items"]) -> Float[Tensor, "items items"]:
        """Similarities of some items of the gallery with each other, as `pairs` has them; NaN with themselves."""
        ways = self.candidates(reference, reference.features[rows], rows.expand(len(rows), -1), rows)
        return ((ways + ways.T) / 2).fill_diagonal_(torch.nan)


class Global(LocalSimilarity):
    """S = z_q . z_g: no neighbourhoods, to compare with."""

    name = "cosine"

    def _candidates(self, reference: Neighbourhoods, queries: Queries, rows: Tensor) -> Tensor:
        return reference.cosines(queries.features, rows)


class Expansion(LocalSimilarity):
    """Query expansion, S = e_k(q) . z_g, or of both sides, S = e_k(q) . e_k(g) (Arandjelovic, Zisserman, CVPR 2012).

    The weights are Radenovic et al.'s (PAMI 2019), with alpha 3.

    Args:
        k: neighbours in the expansion; one of the scales of the reference.
        both: expand the gallery's items too.
    """

    def __init__(self, k: int = 8, both: bool = False) -> None:
        self.k, self.both = k, both
        self.name = f"{'both-sided' if both else 'query'} expansion"

    def _candidates(self, reference: Neighbourhoods, queries: Queries, rows: Tensor) -> Tensor:
        if self.k not in reference.scales:
            raise ConfigError(f"Expected k to be one of the reference's scales {reference.scales}, got {self.k}.")
        at = reference.scales.index(self.k)
        if not self.both:
            return reference.cosines(queries.directions[:, at], rows)
        return evidence(reference, queries, rows).both[at]


class CSLS(LocalSimilarity):
    """S = 2 z_q . z_g - m(q) - m(g), m the mean cosine to the k nearest: hubs lose (Conneau et al., ICLR 2018).

    Args:
        k: neighbours, at most `LENGTH`.
    """

    name = "CSLS"

    def __init__(self, k: int = 10) -> None:
        check_length("k", k)
        self.k = k

    def _candidates(self, reference: Neighbourhoods, queries: Queries, rows: Tensor) -> Tensor:
        listed = reference.scores[rows]
        place = None
        if queries.own is not None:
            place = place_of(queries.own[:, None].expand_as(rows), reference.neighbours[rows], listed)
        listed = listed.clamp(min=-1)  # where there are fewer, as if they were opposite
        of_items = first(listed, self.k, place) / self.k
        of_query = queries.scores[:, : self.k].clamp(min=-1).mean(1, keepdim=True)
        return 2 * reference.cosines(queries.features, rows) - of_query - of_items


def check_length(name: str, neighbours: int) -> None:
    """Check a number of neighbours.

    Raises:
        ConfigError: less than 1, or more than a list has.
    """
    if not 1 <= neighbours <= LENGTH:
        raise ConfigError(f"Expected {name} from 1 to {LENGTH}, the neighbours in a list, got {neighbours}.")
