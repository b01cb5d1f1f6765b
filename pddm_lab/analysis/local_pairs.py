"""Scores of any pairs of a gallery's items by local structure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from pddm_lab.gallery.gallery import Gallery
    from pddm_lab.gallery.reference import Reference
    from pddm_lab.local.unit import LocalStructure


def score_local_pairs(
    gallery: Gallery, structure: LocalStructure, a: Int[np.ndarray, " pairs"], b: Int[np.ndarray, " pairs"],
    reference: Reference | None = None,
) -> Float[np.ndarray, " pairs"]:  # fmt: skip
    """Similarities of pairs by local structure, larger = more similar; of float32.

    Args:
        gallery: of the run.
        structure: the run's similarity.
        a: rows of queries, each of which is taken out of the gallery if it is in it.
        b: rows of the items. Where only a is searched, a pair is compared the other way round; where neither is, its
            score is NaN.
        reference: of some items of the gallery; None: of all that are searched.
    """
    reference = reference or gallery.reference(structure)
    return score_pairs_in(reference, gallery.features, gallery.pretrained, a, b)


def score_pairs_in(
    reference: Reference, features: Float[np.ndarray, "items dim"],
    pretrained: Float[np.ndarray, "items pretrained"] | None, a: Int[np.ndarray, " pairs"],
    b: Int[np.ndarray, " pairs"],
) -> Float[np.ndarray, " pairs"]:  # fmt: skip
    """As `score_local_pairs`, of items with these features, which need no gallery on disk."""
    structure, searched = reference.structure, np.zeros(len(features), bool)
    searched[reference.rows] = True
    query, item = np.where(searched[b], a, b), np.where(searched[b], b, a)
    scores = np.full(len(a), np.nan, np.float32)

    def scored(inside: bool, rows: np.ndarray, table: np.ndarray) -> np.ndarray:
        z = structure.space(features[rows], None if pretrained is None else pretrained[rows])
        own = reference.places(rows) if inside else None
        return structure.candidates(reference.neighbourhoods, z, reference.places(table), own).numpy()

    for inside in (True, False):
        at = np.flatnonzero(searched[item] & (searched[query] == inside))
        if len(at):
            scores[at] = _by_query(query[at], item[at], partial(scored, inside))
    return scores


class LocalScores:
    """L among the searched items of a gallery, by their places among these, as the audit of axioms takes it.

    The query is taken out of the gallery. In a pair each of both is the query once, and the mean counts; in a matrix
    the left items are. L(i,i) is that of a copy of i that is not in the gallery.
    """

    def __init__(self, structure: LocalStructure, reference: Reference) -> None:
        self.name, self.items = structure.name, len(reference.rows)
        self._structure, self._neighbourhoods = structure, reference.neighbourhoods

    def pairs(
        self, left: Int[np.ndarray, " left"], right: Int[np.ndarray, " left"]
    ) -> Float[np.ndarray, " left"]:  # fmt: skip
        """L of pairs, the same both ways."""
        ways = (_by_query(left, right, self._scored), _by_query(right, left, self._scored))
        return (ways[0].astype(np.float64) + ways[1]) / 2

    def matrix(
        self, left: Int[np.ndarray, " left"], right: Int[np.ndarray, " right"]
    ) -> Float[np.ndarray, "left right"]:
        """L of each query on the left with each item on the right, as search has it."""
        return self._scored(left, np.broadcast_to(right, (len(left), len(right))))

    def own(self) -> Float[np.ndarray, " items"]:
        """L of a copy of each item with the item."""
        z, every = self._neighbourhoods.features, torch.arange(self.items)
        return self._structure.candidates(self._neighbourhoods, z, every[:, None])[:, 0].double().numpy()

    def _scored(self, queries: np.ndarray, items: np.ndarray) -> np.ndarray:
        own = torch.from_numpy(queries)
        z = self._neighbourhoods.features[own]
        return self._structure.candidates(self._neighbourhoods, z, torch.tensor(items), own).numpy()


def _by_query(
    queries: Int[np.ndarray, " pairs"], items: Int[np.ndarray, " pairs"],
    scored: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Float[np.ndarray, " pairs"]:  # fmt: skip
    """Score pairs, all of one query together: `scored` takes distinct queries and a line of items for each."""
    order = queries.argsort(kind="stable")
    distinct, line, counts = np.unique(queries[order], return_inverse=True, return_counts=True)
    begins = counts.cumsum() - counts
    place = np.arange(len(order)) - begins[line]
    table = np.repeat(items[order][begins][:, None], counts.max(), axis=1)  # lines are filled up with their first item
    table[line, place] = items[order]
    scores = np.empty(len(queries), np.float32)
    scores[order] = scored(distinct, table)[line, place]
    return scores


def local_similarity_to(gallery: Gallery, structure: LocalStructure, anchor: int) -> Float[np.ndarray, " items"]:
    """The similarity of every item to the anchor by local structure; the anchor itself gets the best one.

    NaN for items that are only queries, if the anchor is one too: they have no neighbourhoods in the gallery.
    """
    every = np.arange(len(gallery))
    values = score_local_pairs(gallery, structure, np.full(len(gallery), anchor), every)
    others = np.delete(values, anchor)
    values[anchor] = np.nanmax(others) if np.isfinite(others).any() else np.nan
    return values
