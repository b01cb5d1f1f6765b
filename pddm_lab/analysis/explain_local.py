"""Why two items are similar by local structure: what their neighbourhoods say, and what of it drove the score.

The score L of the pair is compared with that of an average item of the shortlist. Each input's contribution is its
integrated gradient (Sundararajan et al., ICML 2017) on the straight way from the average inputs to the pair's, through
both passes: all contributions add up to the difference of the two scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.gallery.reference import Reference
from pddm_lab.local.neighbourhoods import Neighbourhoods, Queries
from pddm_lab.local.sizes import LENGTH, RECIPROCAL, SCALES, SECOND_SCALES, SHARED
from pddm_lab.local.unit import LocalStructure, first_inputs

NEAR = SHARED[-1]
"""How many neighbours of each item are compared."""
DENSITY = 8
"""Neighbours whose mean cosine says how densely an item lies."""
_STEPS = 64
_AGREEMENTS = ("toward", "both", "shared", "reciprocal", "ranks")
INPUTS = {
    "cosine": "Cosine of the two items",
    "toward": "Each item and the other's neighbourhood",
    "both": "Both neighbourhoods",
    "shared": "Shared neighbours",
    "reciprocal": "Mutual neighbours",
    "ranks": "Their ranks for each other",
    "place": "The kind of place",
}
"""Groups of the unit's inputs, with titles."""


@dataclass(frozen=True, eq=False)
class LocalExplanation:
    """What the neighbourhoods of a query and an item say about them."""

    score: float
    average: float
    """The score of an average item of the shortlist."""
    parts: dict[str, float]
    """Group of inputs (`INPUTS`) -> what it contributes to the difference of the two."""
    shared: list[tuple[int, float, float]]
    """Rows of the items that are neighbours of both, with their cosines to the query and to the item, nearest first."""
    ranks: tuple[int | None, int | None]
    """The item's rank among the query's neighbours, and the query's among the item's, from 1; None beyond `LENGTH`."""
    densities: tuple[float, float]
    """Mean cosine of the query and of the item to their `DENSITY` nearest."""
    note: str
    """Why the gallery is ranked by the cosine; then only the score says something."""

    def sentences(self) -> list[str]:
        """The explanation in sentences: on the score, the ranks, the shared neighbours, and the place."""
        if self.note:
            return [self.note]
        strongest = max(self.parts, key=lambda name: abs(self.parts[name]))
        gain, dense = self.score - self.average, [f"{value:.2f}" for value in self.densities]
        ranks = [f"number {rank}" if rank else f"beyond the {LENGTH} nearest" for rank in self.ranks]
        return [
            text.replace("-", "−")
            for text in (
                f"L is {self.score:.2f}, {abs(gain):.2f} {'more' if gain >= 0 else 'less'} than that of an average "
                f"item of the shortlist. What counts most: {INPUTS[strongest][0].lower()}{INPUTS[strongest][1:]} "
                f"({self.parts[strongest]:+.2f}).",
                f"Among the query's neighbours the result is {ranks[0]}; among the result's the query is {ranks[1]}.",
                f"They share {len(self.shared)} of their {NEAR} nearest neighbours.",
                f"Mean cosine to the {DENSITY} nearest: {dense[0]} for the query, {dense[1]} for the result.",
            )
        ]


def explain_local(
    reference: Reference, feature: Float[np.ndarray, " dim"], pretrained: Float[np.ndarray, " pretrained"] | None,
    row: int, shortlist: Int[np.ndarray, " rows"], exclude: int | None = None,
) -> LocalExplanation:  # fmt: skip
    """Explain how similar a query and an item of the gallery are by local structure.

    Args:
        reference: the gallery.
        feature, pretrained, exclude: of the query, as for `Reference.scores`.
        row: the item, one that is searched.
        shortlist: rows of the items that the score is compared with.
    """
    structure, near = reference.structure, reference.neighbourhoods
    query = structure.space(feature[None], None if pretrained is None else pretrained[None])
    own = reference.own_place(query, exclude)
    place = reference.places(np.array([row]))
    if near.note:
        score = float(structure.candidates(near, query, place[None], own)[0, 0])
        return LocalExplanation(score, score, {}, [], (None, None), (np.nan, np.nan), near.note)
    queries = near.queries(query, own)
    rows = torch.cat([place, reference.places(shortlist[shortlist != row])])[None]
    parts, scores = _contributions(structure, near, queries, rows)
    places, cosines = _list_of(queries.neighbours[0], queries.scores[0])
    others, others_cosines = _list_of(near.neighbours[place[0]], near.scores[place[0]], None if own is None else own[0])
    of_other = dict(zip(others[:NEAR].tolist(), others_cosines[:NEAR].tolist(), strict=True))
    shared = [
        (int(reference.rows[item]), cosine, of_other[item])
        for item, cosine in zip(places[:NEAR].tolist(), cosines[:NEAR].tolist(), strict=True) if item in of_other
    ]  # fmt: skip
    places_in_list = (places[:LENGTH] == place[0]).nonzero()
    backward = int((others_cosines[:LENGTH] > (near.features[place[0]] @ query[0])).sum())
    return LocalExplanation(
        scores[0], scores[1], parts, shared,
        (int(places_in_list[0, 0]) + 1 if len(places_in_list) else None, backward + 1 if backward < LENGTH else None),
        (float(cosines[:DENSITY].mean()), float(others_cosines[:DENSITY].mean())), "",
    )  # fmt: skip


def _list_of(
    rows: Int[Tensor, " kept"], scores: Float[Tensor, " kept"], without: Tensor | None = None
) -> tuple[Int[Tensor, " kept"], Float[Tensor, " kept"]]:
    """A list of neighbours, without the padding at its end and without one item."""
    real = scores > -torch.inf
    if without is not None:
        real &= rows != without
    return rows[real].long(), scores[real]


def _contributions(
    structure: LocalStructure, near: Neighbourhoods, queries: Queries, rows: Int[Tensor, "1 items"]
) -> tuple[dict[str, float], tuple[float, float]]:
    """What each group of inputs contributes to the first item's score, and the scores of it and of the average."""
    first = structure.first
    u, v = first_inputs(near, queries, rows)
    inputs = [u[0], v[0]]
    groups = [_u_groups(u.shape[-1], SCALES), ["place"] * v.shape[-1]]
    if structure.second is not None and near.second is not None:
        both_u, both_v = structure.second_inputs(near, queries, rows)
        inputs += [both_u[0, :, 1 + u.shape[-1] :], both_v[0, :, v.shape[-1] :]]
        groups += [_u_groups(inputs[2].shape[-1], SECOND_SCALES, by_score=True), ["place"] * inputs[3].shape[-1]]

    def score(u: Tensor, v: Tensor, *more: Tensor) -> Tensor:
        once = first(u, v)
        if structure.second is None or not more:
            return once
        return structure.second(torch.cat([once[..., None], u, more[0]], dim=-1), torch.cat([v, more[1]], dim=-1))

    pair, average = [part[0] for part in inputs], [part.mean(0) for part in inputs]
    way = (torch.arange(_STEPS) + 0.5)[:, None] / _STEPS
    on_way = [
        (start + way * (end - start)).requires_grad_() for start, end in zip(average, pair, strict=True)
    ]  # fmt: skip
    with torch.enable_grad():
        slopes = torch.autograd.grad(score(*on_way).sum(), on_way)
    parts = dict.fromkeys(INPUTS, 0.0)
    for slope, start, end, names in zip(slopes, average, pair, groups, strict=True):
        for name, value in zip(names, (slope.mean(0) * (end - start)).tolist(), strict=True):
            parts[name] += value
    with torch.no_grad():
        ends = float(score(*pair)), float(score(*average))
    return parts, ends


def _u_groups(count: int, scales: tuple[int, ...], by_score: bool = False) -> list[str]:
    """The group of each value of u (`Evidence.u`); the cosines come first, where there are any."""
    sizes = (len(scales), len(scales), len(SHARED), len(RECIPROCAL), 1)
    agreements = [name for name, size in zip(_AGREEMENTS, sizes, strict=True) for _ in range(size)]
    return ["cosine"] * (0 if by_score else count - len(agreements)) + agreements
