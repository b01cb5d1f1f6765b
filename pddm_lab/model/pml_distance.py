"""The lab's similarities as distances for the losses and miners of pytorch-metric-learning."""

from __future__ import annotations

from jaxtyping import Float
from pytorch_metric_learning.distances import BaseDistance
from torch import Tensor

from pddm_lab.model.similarity import Similarity


class SimilarityDistance(BaseDistance):
    """A similarity as an "inverted" distance of pytorch-metric-learning: larger means more similar.

    Its weights, such as those of a PDDM unit, are parameters of the loss that contains it: pass them to an optimiser.

    Args:
        similarity: from `pddm_lab.model.similarity.make_similarity`.
    """

    def __init__(self, similarity: Similarity) -> None:
        super().__init__(is_inverted=True, normalize_embeddings=True)
        self.similarity = similarity

    def compute_mat(
        self, query_emb: Float[Tensor, "queries dim"], ref_emb: Float[Tensor, "items dim"]
    ) -> Float[Tensor, "queries items"]:
        """Similarities of all pairs, differentiable."""
        return self.similarity(query_emb[:, None], ref_emb[None])

    def pairwise_distance(
        self, query_emb: Float[Tensor, "pairs dim"], ref_emb: Float[Tensor, "pairs dim"]
    ) -> Float[Tensor, " pairs"]:
        """Similarities of query_emb[n] with ref_emb[n], differentiable."""
        return self.similarity(query_emb, ref_emb)
