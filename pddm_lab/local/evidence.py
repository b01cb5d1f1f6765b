"""What the neighbourhoods of a query q and an item g say about the pair: the inputs of the unit, and of its rivals.

The paper's u = |f_a - f_b| tells how two features differ, and v = (f_a + f_b) / 2 where they lie. Here both come from
the neighbourhoods instead of the coordinates, so that they mean the same in places that were never seen:

    u  how much the two neighbourhoods agree: expansions (toward, both), shared neighbours, reciprocal sets, ranks
    v  what kind of place it is: how dense it is at both ends, and how differently both ends see it

Each formula is the same for q and g. The only difference: q itself is in no neighbourhood, g may be in that of q.

Notation: E_k, e_k, w as in neighbourhoods.py; N_k(a) the k nearest of a; r_ab the rank of b among the nearest of a.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.local.neighbourhoods import LENGTH, Neighbourhoods, Queries, first, ranks

SHARED = (4, 32)
"""k of the neighbours that two items share."""
RECIPROCAL = (6, 20)
"""k of the reciprocal sets."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of candidates, (queries, candidates) each."""

    cosine: Tensor
    """z_q . z_g."""
    first_part: Tensor | None
    """The cosine of the first parts, x of [x; w p]; None: z is one whole."""
    forth: list[Tensor]
    """e_k(q) . z_g, query expansion, per scale."""
    back: list[Tensor]
    """z_q . e_k(g), per scale."""
    both: list[Tensor]
    """e_k(q) . e_k(g), expansion of both sides, per scale."""
    shared: list[Tensor]
    """Cosine of the sparse vectors of neighbours' weights, per k of `SHARED`; an item is its own neighbour."""
    reciprocal: list[Tensor]
    """Jaccard index of the reciprocal sets {a} + {h in N_k(a): a in N_k(h)}, per k of `RECIPROCAL`."""
    ranks: tuple[Tensor, Tensor]
    """log(1 + r_qg) and log(1 + r_gq), with 0 the nearest and `LENGTH` for all beyond."""
    densities: list[tuple[Tensor, Tensor]]
    """Mean weight of the k nearest of q and of g, at the smallest and the largest scale."""

    def u(self) -> list[Tensor]:
        """How much both neighbourhoods agree, without the cosines."""
        toward = [(forth + back) / 2 for forth, back in zip(self.forth, self.back, strict=True)]
        return [*toward, *self.both, *self.shared, *self.reciprocal, -(self.ranks[0] + self.ranks[1]) / 2]

    def v(self) -> list[Tensor]:
        """What kind of place it is."""
        asymmetry = [(forth - back).abs() for forth, back in zip(self.forth, self.back, strict=True)]
        means = [(q + g) / 2 for q, g in self.densities]
        differences = [(q - g).abs() for q, g in self.densities]
        return [*asymmetry, (self.ranks[0] - self.ranks[1]).abs(), *means, *differences]


def evidence(
    reference: Neighbourhoods, queries: Queries, rows: Int[Tensor, "queries candidates"],
    scores: Float[Tensor, "queries candidates"] | None = None,
) -> Evidence:  # fmt: skip
    """Compare the neighbourhoods of queries and of candidates.

    Args:
        rows: candidates of each query in the gallery; never the query itself.
        scores: of the candidates, by which both sides' lists were made; None: the cosine.
    """
    table = _Table(reference, queries, rows)
    cosine, forth = table.own(table.cosines), [table.own(of) for of in table.expanded]
    score = cosine if scores is None else scores
    out = None if table.places is None else table.own(table.places)
    place = reference.scores.new_full(rows.shape, reference.scores.shape[1], dtype=torch.long) if out is None else out
    back, both = [], []
    seen = table.listed(table.cosines, reference.scales[-1])
    weights = reference.weights[rows]
    for at, k in enumerate(reference.scales):
        length = table.length(at, k, cosine, weights, seen, out)
        back.append((cosine + first(weights[..., : k + 1] * seen[..., : k + 1], k, out)) / length)
        others = table.listed(table.expanded[at], k)
        both.append((forth[at] + first(weights[..., : k + 1] * others, k, out)) / length)
    r_qg, r_gq = table.own(table.ranks), ranks(reference.scores[rows], score, place)
    scales = (reference.scales[0], reference.scales[-1])
    own_densities = [queries.weights[:, :k].sum(1, keepdim=True).expand_as(cosine) / k for k in scales]
    return Evidence(
        cosine, table.first_part(), forth, back, both,
        [table.shared(k, weights, out) for k in SHARED], table.reciprocal(r_qg, r_gq, out),
        (r_qg.to(cosine).log1p(), r_gq.to(cosine).log1p()),
        [(of_q, first(weights, k, out) / k) for of_q, k in zip(own_densities, scales, strict=True)],
    )  # fmt: skip


class _Table:
    """Per query one value for every item of the gallery, in several tables, read at candidates and their neighbours."""

    def __init__(self, reference: Neighbourhoods, queries: Queries, rows: Int[Tensor, "queries candidates"]) -> None:
        self.reference, self.queries, self.rows = reference, queries, rows
        count, items = len(queries), len(reference)
        # Scale by scale in memory, so that each table can be read as it is.
        products = queries.directions.transpose(0, 1).flatten(0, 1) @ reference.features.T
        self.cosines, self.expanded = queries.cosines, products.view(-1, count, items).unbind(0)
        self.ranks = torch.full((count, items), LENGTH, device=rows.device)
        real = queries.scores > -torch.inf
        named = queries.neighbours.long()
        query, entry = real.nonzero(as_tuple=True)
        self.ranks[query, named[query, entry]] = entry
        self.places = queries.places
        self._base = items * torch.arange(count, device=rows.device, dtype=torch.int32)[:, None, None]
        self._flat = reference.neighbours[rows] + self._base

    def first_part(self) -> Float[Tensor, "queries candidates"] | None:
        """The cosine of the first parts."""
        if not (split := self.reference.first_part):
            return None
        left, right = self.queries.features[:, :split], self.reference.features[:, :split][self.rows]
        return torch.einsum("qd,qcd->qc", left, right) / left.square().sum(
            1, keepdim=True
        )  # its share is one everywhere

    def own(self, table: Tensor) -> Float[Tensor, "queries candidates"]:
        """A table's values of the candidates."""
        return table.gather(1, self.rows)

    def listed(self, table: Tensor, k: int) -> Float[Tensor, "queries candidates k_1"]:
        """A table's values of the first k + 1 neighbours of each candidate."""
        flat = self._flat[..., : k + 1]
        return table.reshape(-1).index_select(0, flat.reshape(-1)).view(flat.shape)

    def length(
        self, at: int, k: int, cosine: Tensor, weights: Tensor, seen: Tensor, out: Tensor | None
    ) -> Float[Tensor, "queries candidates"]:
        """||E_k(g)||, where q is taken out of E_k(g) and the neighbour after the k-th takes its place."""
        squares = self.reference.squares[self.rows, at]
        if out is None:
            return squares.sqrt()
        # E' = E - a q + b h; all products of these vectors are known.
        a = weights.gather(-1, out.clamp(max=weights.shape[-1] - 1)[..., None])[..., 0]
        b, h_q, h_e = weights[..., k], seen[..., k], self.reference.onward[self.rows, at]
        q_e = cosine + (weights[..., :k] * seen[..., :k]).sum(-1)
        changed = squares - 2 * a * q_e + a * a + 2 * b * (h_e - a * h_q) + b * b
        return changed.where(out < k, squares).sqrt()

    def shared(self, k: int, weights: Tensor, out: Tensor | None) -> Float[Tensor, "queries candidates"]:
        """Cosine of the weights of the k nearest of q and of g, {g} itself with weight 1."""
        own = self.queries.weights[:, :k]
        table = torch.zeros_like(self.cosines).scatter_add_(1, self.queries.neighbours[:, :k].long(), own)
        listed = weights[..., : k + 1]
        common = self.own(table) + first(listed * self.listed(table, k), k, out)
        return common / ((1 + own.square().sum(1, keepdim=True)) * (1 + first(listed.square(), k, out))).sqrt()

    def reciprocal(self, r_qg: Tensor, r_gq: Tensor, out: Tensor | None) -> list[Tensor]:
        """Jaccard indices of the reciprocal sets of q and g; q belongs to the set of g if g belongs to that of q."""
        at_neighbour = self.reference.reverse[self.rows].long()
        if self.places is not None:  # where q comes before g, g moves up once q is taken out
            places = self.listed(self.places, at_neighbour.shape[-1] - 1)
            at_neighbour = at_neighbour - (places < at_neighbour).long()
        indices = []
        for k in RECIPROCAL:
            belongs = (self.queries.reverse[:, :k] < k).to(self.cosines)
            table = torch.zeros_like(self.cosines).scatter_add_(1, self.queries.neighbours[:, :k].long(), belongs)
            of_g = (at_neighbour[..., : k + 1] < k).to(self.cosines)
            mutual = ((r_qg < k) & (r_gq < k)).to(self.cosines)
            common = first(of_g * self.listed(table, k), k, out) + 2 * mutual
            sizes = 2 + belongs.sum(1, keepdim=True) + first(of_g, k, out) + mutual
            indices.append(common / (sizes - common))
        return indices
