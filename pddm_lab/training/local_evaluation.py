"""Measure the similarity on local structure of a run, and its rivals without training, under a protocol.

They re-rank each query's nearest items by D. The shortlist is longer than the largest class, and the items beyond it
keep the order of D. Under the unseen protocol a query is an item of the gallery, and is taken out of it exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.local.episodes import shortlist_size
from pddm_lab.local.neighbourhoods import Neighbourhoods
from pddm_lab.local.reciprocal import KReciprocal
from pddm_lab.local.similarity import CSLS, Expansion, LocalSimilarity
from pddm_lab.metrics.retrieval import Evaluation, evaluate_in_gallery
from pddm_lab.runs.local import RunLocal
from pddm_lab.similarities import IN_GALLERY


@dataclass(frozen=True, eq=False)
class Sides:
    """The queries and the searched items of a protocol, on the CPU."""

    features: Float[Tensor, "items dim"]
    pretrained: Float[Tensor, "items pretrained"] | None
    labels: Int[Tensor, " items"]
    query: Int[Tensor, " queries"]
    gallery: Int[Tensor, " searched"]
    leave_one_out: bool


@dataclass(frozen=True, eq=False)
class InGallery:
    """A local similarity with its gallery and queries, which have numbers."""

    name: str
    similarity: LocalSimilarity
    reference: Neighbourhoods
    queries: Float[Tensor, "queries dim"]
    own: Int[Tensor, " queries"] | None

    def of_rows(
        self, queries: Int[Tensor, " some"], rows: Int[Tensor, "some candidates"]
    ) -> Float[Tensor, "some candidates"]:
        """Similarities of queries with items, both by their numbers."""
        own = None if self.own is None else self.own[queries]
        return self.similarity.candidates(self.reference, self.queries[queries], rows, own)


def evaluate_local(local: RunLocal, sides: Sides, names: tuple[str, ...] = tuple(IN_GALLERY)) -> Iterator[
    tuple[str, Evaluation]
]:  # fmt: skip
    """Measure similarities by name, one after the other.

    Args:
        local: of the run; the rivals look at the same space.
        sides: what is searched among what.
        names: of `IN_GALLERY`.
    """
    pretrained = sides.pretrained
    queries = local.structure.space(
        sides.features[sides.query], None if pretrained is None else pretrained[sides.query]
    )
    reference = local.structure.reference(
        sides.features[sides.gallery], None if pretrained is None else pretrained[sides.gallery]
    )
    own = torch.arange(len(sides.query)) if sides.leave_one_out else None
    similarities: dict[str, LocalSimilarity] = {
        "local": local.structure, "expansion": Expansion(), "both_expansion": Expansion(both=True), "csls": CSLS(),
        "k_reciprocal": KReciprocal(),
    }  # fmt: skip
    of_query, of_gallery = sides.labels[sides.query], sides.labels[sides.gallery]
    largest = int(of_gallery.unique(return_counts=True)[1].max())
    for name in names:
        yield name, evaluate_in_gallery(
            InGallery(name, similarities[name], reference, queries, own), sides.features[sides.query],
            sides.features[sides.gallery], of_query, of_gallery, sides.leave_one_out,
            shortlist_size(largest),
        )  # fmt: skip
