"""Losses of the joint objective E = E_m + lambda E_e (Huang et al., NIPS 2016). Pure functions of scores and distances.

Paper -> code:  S_ij -> s_ij   D_ij -> d_ij
alpha -> score_margin   beta -> distance_margin   lambda -> embedding_weight   gamma -> the optimiser's weight decay
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def score_hinge(
    s_ij: Float[Tensor, " quads"], s_ik: Float[Tensor, " quads"], score_margin: float
) -> Float[Tensor, " quads"]:
    """max(0, alpha + S_ik - S_ij): a positive pair must outscore a negative one by a margin. E_m of PDDM+Triplet.

    Args:
        s_ij: scores of the hard positive pairs; larger is more similar.
        s_ik: scores of pairs of one of their ends and its hardest negative.
        score_margin: alpha, in score units.

    Returns:
        One value per pair of scores, 0 where the margin holds.

    Source: Huang et al., NIPS 2016, E_m.
    """
    return F.relu(score_margin + s_ik - s_ij)


def double_header_hinge(
    s_ij: Float[Tensor, " quads"], s_ik: Float[Tensor, " quads"], s_jl: Float[Tensor, " quads"], score_margin: float
) -> Float[Tensor, " quads"]:
    """E_m: each end of the hard positive pair must beat its own hard negative by a margin.

    Args:
        s_ij: scores of the hard positive pairs; larger is more similar.
        s_ik: scores between i and its hardest negative k.
        s_jl: scores between j and its hardest negative l.
        score_margin: alpha, in score units.

    Returns:
        One value per quadruplet, 0 where both margins hold.

    Source: Huang et al., NIPS 2016, E_m.
    """
    return score_hinge(s_ij, s_ik, score_margin) + score_hinge(s_ij, s_jl, score_margin)


def distance_hinge(
    d_ij: Float[Tensor, " quads"], d_ik: Float[Tensor, " quads"], distance_margin: float
) -> Float[Tensor, " quads"]:
    """max(0, beta + D_ij - D_ik): a negative must lie a margin further off than the positive. E_e of PDDM+Triplet.

    Args:
        d_ij: distances of the hard positive pairs; smaller is more similar.
        d_ik: distances of pairs of one of their ends and its hardest negative.
        distance_margin: beta, in the unit of the distances (or of their squares, if those are given).

    Returns:
        One value per pair of distances, 0 where the margin holds.

    Source: Huang et al., NIPS 2016, E_e.
    """
    return F.relu(distance_margin + d_ij - d_ik)


def embedding_hinge(
    d_ij: Float[Tensor, " quads"], d_ik: Float[Tensor, " quads"], d_jl: Float[Tensor, " quads"], distance_margin: float
) -> Float[Tensor, " quads"]:
    """E_e: the distances of the embedding must agree with E_m at both ends of the positive pair.

    Args:
        d_ij: distances of the hard positive pairs; smaller is more similar.
        d_ik: distances between i and k.
        d_jl: distances between j and l.
        distance_margin: beta, in the unit of the distances.

    Returns:
        One value per quadruplet, 0 where both margins hold.

    Source: Huang et al., NIPS 2016, E_e.
    """
    return distance_hinge(d_ij, d_ik, distance_margin) + distance_hinge(d_ij, d_jl, distance_margin)


def joint_objective(
    e_m: Float[Tensor, " quads"], e_e: Float[Tensor, " quads"], embedding_weight: float
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """E = E_m + lambda E_e, averaged over the quadruplets; a differentiable 0 where none was mined.

    Args:
        e_m: the scores' hinge per quadruplet.
        e_e: the embedding's hinge per quadruplet.
        embedding_weight: lambda.

    Returns:
        The loss, and its terms (detached) by the names the log uses: loss, E_m, E_e.
    """
    count = max(len(e_m), 1)
    mean_e_m, mean_e_e = e_m.sum() / count, e_e.sum() / count
    loss = mean_e_m + embedding_weight * mean_e_e
    return loss, {"loss": loss.detach(), "E_m": mean_e_m.detach(), "E_e": mean_e_e.detach()}
