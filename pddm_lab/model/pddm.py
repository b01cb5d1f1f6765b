"""The Position-Dependent Deep Metric unit: a similarity of two features that also uses the position of the pair.

Paper -> code:  f_i, f_j -> a, b   u -> u   v -> v   u', v' -> u_hidden, v_hidden   c -> joint   S -> the returned score
W_u, b_u -> difference   W_v, b_v -> position   W_c, b_c -> joint   W_s, b_s -> score

Source: Huang, Loy, Tang, "Local Similarity-Aware Deep Feature Embedding", NIPS 2016. Options beyond it: `hidden` (the
paper's layers are d wide), `dropout`, `normalize_input`, `position`, `global_weight`; off by default.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class PDDM(nn.Module):
    """S(a, b) = W_s relu(W_c [u'; v'] + b_c) + b_s with u = |a - b|, v = (a + b) / 2; larger means more similar.

    Args:
        dim: d, the dimensions of the features.
        hidden: width of the three layers; 0 for d, as in the paper.
        dropout: share of each layer's outputs dropped while training.
        normalize_input: L2-normalise u and v before their layers.
        position: False removes the position, v' = 0: one learned measure of u for the whole space.
        global_weight: initial g in S = W_s c + b_s - g ||a - b||, where the unit learns to correct a global metric,
            starting at W_s = 0. 0 leaves the term out, as in the paper.
    """

    def __init__(
        self, dim: int = 128, hidden: int = 0, dropout: float = 0.0, normalize_input: bool = False,
        position: bool = True, global_weight: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        hidden = hidden or dim
        self.difference = nn.Linear(dim, hidden)
        self.position = nn.Linear(dim, hidden)
        self.joint = nn.Linear(2 * hidden, hidden)
        self.score = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(dropout)
        self.normalize_input = normalize_input
        self.global_weight: nn.Parameter | None = None
        if not position:
            for parameter in self.position.parameters():
                nn.init.zeros_(parameter).requires_grad_(False)
        if global_weight:
            self.global_weight = nn.Parameter(torch.tensor([global_weight]))
            nn.init.zeros_(self.score.weight)

    def forward(self, a: Float[Tensor, "*#batch dim"], b: Float[Tensor, "*#batch dim"]) -> Float[Tensor, "*batch"]:
        """Score pairs; `a` and `b` broadcast against each other, and S(a, b) = S(b, a).

        Args:
            a, b: unit-length features, (..., dim).

        Returns:
            Scores, (...): unbounded, larger is more similar.
        """
        return self.score_of(*self.inputs(a, b))

    def inputs(
        self, a: Float[Tensor, "*#batch dim"], b: Float[Tensor, "*#batch dim"]
    ) -> tuple[Float[Tensor, "*batch dim"], Float[Tensor, "*batch dim"]]:
        """u and v of pairs as the layers take them, (..., dim) each; normalised with `normalize_input`."""
        u = (a - b).abs()
        v = (a + b) / 2
        return (F.normalize(u, dim=-1), F.normalize(v, dim=-1)) if self.normalize_input else (u, v)

    def score_of(self, u: Float[Tensor, "*batch dim"], v: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        """Score differences u at positions v, (..., dim) each and of one shape, as `inputs` gives them."""
        u_hidden = F.normalize(self.dropout(F.relu(self.difference(u))), dim=-1)
        v_hidden = F.normalize(self.dropout(F.relu(self.position(v))), dim=-1)
        joint = self.dropout(F.relu(self.joint(torch.cat([u_hidden, v_hidden], dim=-1))))
        score = self.score(joint).squeeze(-1)
        return score if self.global_weight is None else score - self.global_weight[0] * safe_sqrt(u.square().sum(-1))


def safe_sqrt(squares: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """A square root with the gradient 0 at 0 instead of infinity."""
    positive = squares > 0
    return torch.where(positive, squares, 1.0).sqrt() * positive
