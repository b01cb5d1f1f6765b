"""The space in which neighbours are looked for: the embedding, whitened within classes, and the pretrained features.

z = [x_w; w p] / sqrt(1 + w^2), with x_w = normalise((Sigma_w + m I)^(-1/2) (x - mean)). Sigma_w is the covariance of
the training items about the means of their classes, m its mean eigenvalue. An embedding that has collapsed, so that all
cosines are near 1, spreads out again, and directions in which classes vary count less.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pddm_lab.errors import DataError

Array = Tensor | np.ndarray


class Whitening(nn.Module):
    """x_w of features, with the mean and the matrix of the items it was fitted to.

    Args:
        dim: of the features.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim))

    @torch.no_grad()
    def fit(self, features: Float[Tensor, "items dim"], labels: Int[Tensor, " items"]) -> Whitening:
        """Compute the mean and the matrix; one item a class gives no covariance, and the matrix stays the identity.

        Raises:
            DataError: the features have no spread at all.
        """
        x = features.double()
        self.mean.copy_(x.mean(0))
        if not (x - x.mean(0)).abs().max() > 0:
            raise DataError("Expected features that differ, got equal ones for all items. Train the embedding anew.")
        _, number, count = labels.unique(return_inverse=True, return_counts=True)
        means = x.new_zeros(len(count), x.shape[1]).index_add_(0, number, x) / count[:, None]
        within = x - means[number]
        values, vectors = torch.linalg.eigh(within.T @ within / len(x))
        values = values.clamp(min=0)
        if values.sum() > 0:
            self.matrix.copy_((vectors * (values + values.mean()).rsqrt()) @ vectors.T)
        return self

    def forward(self, features: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """x_w."""
        return F.normalize((features - self.mean) @ self.matrix, dim=-1)


def joined(x: Float[Tensor, "n dim"], p: Float[Tensor, "n pretrained"] | None, weight: float) -> Float[Tensor, "n z"]:
    """z of both parts, each of unit length; x alone without p."""
    return x if p is None else torch.cat([x, weight * p], dim=-1) / math.sqrt(1 + weight * weight)


def as_tensor(values: Array) -> Tensor:
    """A tensor of an array; a copy of an array of numpy, since torch needs a writable one."""
    return values if isinstance(values, Tensor) else torch.tensor(values)
