"""What the neighbourhoods of a query q and an item g say about the pair: the inputs of the unit, and of its rivals.

The paper's u = |f_a - f_b| tells how two features differ, and v = (f_a + f_b) / 2 where they lie. Here both come from
the neighbourhoods instead of the coordinates, so that they mean the same in places that were never seen:

    u  how much the two neighbourhoods agree: expansions (toward, both), shared neighbours, reciprocal sets, ranks
    v  what kind of place it is: how dense it is at both ends, and how differently both ends see it

Each formula is the same for q and g. The only difference: q itself is in no neighbourhood, g may be in that of q.

Notation: E_k, e_k, w as in neighbourhoods.py; N_k(a) the k nearest of a; r_ab the rank of b among the nearest of a.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.local.neighbourhoods import Neighbourhoods, Queries
from pddm_lab.local.sizes import RECIPROCAL, SHARED

_SMALL = 60  # times the candidates: with so few items it is faster to compute the products of all queries with all
_OF_GALLERY = ("features", "neighbours", "scores", "weights", "reverse", "squares", "onward")
_OF_QUERIES = ("neighbours", "scores", "weights", "reverse")


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
    from pddm_lab.local.compiled import compare  # compiling takes a moment, so only where it is needed

    levels, parts = len(reference.scales), int(reference.first_part > 0)
    kinds = 1 + parts + 3 * levels + len(SHARED) + len(RECIPROCAL) + 6
    values = reference.features.new_empty(len(rows), kinds, rows.shape[1])
    own = rows.new_full((len(queries),), -1) if queries.own is None else queries.own
    directions = torch.cat([queries.features[:, None], queries.directions], dim=1)
    candidate_scores = values.new_empty(len(rows), 0) if scores is None else scores.to(values)
    of_gallery = [getattr(reference, name) for name in _OF_GALLERY]
    used = _used(reference, queries, rows)
    table = values.new_empty(len(rows), 1 + levels, 0)
    columns = torch.empty(len(reference), dtype=torch.int32)
    if len(used) <= _SMALL * rows.shape[1]:
        table = (directions.flatten(0, 1) @ reference.features[used].T).view(len(rows), 1 + levels, -1)
        columns[used] = torch.arange(len(used), dtype=torch.int32)
    of_queries = [directions, *(getattr(queries, name) for name in _OF_QUERIES), own, rows, candidate_scores, table]
    constants = [np.array(each) for each in (reference.scales, SHARED, RECIPROCAL)]

    def work(part: slice) -> None:
        compare(
            *(each.numpy() for each in of_gallery), constants[0], reference.first_part,
            *(each[part].contiguous().numpy() for each in of_queries), columns.numpy(), *constants[1:],
            values[part].numpy(),
        )  # fmt: skip

    in_threads(work, len(queries))
    cosine, *others = values.unbind(1)
    each = iter(others)

    def take(count: int) -> list[Tensor]:
        return [next(each) for _ in range(count)]

    return Evidence(
        cosine, next(each) if parts else None, take(levels), take(levels), take(levels), take(len(SHARED)),
        take(len(RECIPROCAL)), (next(each), next(each)), [(next(each), next(each)), (next(each), next(each))],
    )  # fmt: skip


def _used(reference: Neighbourhoods, queries: Queries, rows: Tensor) -> Int[Tensor, " used"]:
    """The items that matter: the queries' neighbours, the candidates, and their neighbours."""
    items, width = len(reference), max(reference.scales[-1], *SHARED, *RECIPROCAL) + 1  # one takes a query's place
    candidates = _distinct([rows], items)
    if 2 * len(candidates) > items:
        return torch.arange(items)
    near = [reference.neighbours[candidates, :width], queries.neighbours[queries.scores > -torch.inf]]
    return _distinct([candidates, *near], items)


def _distinct(rows: list[Tensor], items: int) -> Int[Tensor, " distinct"]:
    """Each of some rows once, ascending."""
    flat = torch.cat([each.flatten().long() for each in rows])
    if len(flat) * 16 < items:  # sorting few is faster than looking through all
        return flat.unique()
    is_in = torch.zeros(items, dtype=torch.bool)
    is_in[flat] = True
    return is_in.nonzero()[:, 0]


def in_threads(work: Callable[[slice], None], count: int) -> None:
    """Do a work that holds no lock, one part in each of torch's threads."""
    parts = min(torch.get_num_threads(), count)
    if parts < 2:
        work(slice(0, count))
        return
    ends = [count * at // parts for at in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        list(pool.map(work, [slice(start, end) for start, end in pairwise(ends)]))
