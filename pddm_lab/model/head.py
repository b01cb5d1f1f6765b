"""The embedding's head in closed form: where it starts, where it ends, and the heads between.

Training a head on frozen features gains most on the classes it trains on. On new classes it gains first, and then it
loses what the trunk knew. So a head starts as the trunk's own distances (`principal_components`), is used a share of
the way to its trained weights (`interpolated`), and is whitened within the training classes (`whitened`). All three are
linear maps: the result is again one linear layer. What was measured: notebooks/results/experiments.md.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

START_POWER = -0.15
"""Power of the variance by which a component is scaled at the start: 0 keeps the trunk's distances, -0.5 whitens."""


class Scatter(NamedTuple):
    """How the head's inputs vary within classes."""

    mean: Float[Tensor, " trunk_dim"]
    within: Float[Tensor, "trunk_dim trunk_dim"]
    """Covariance of the differences to the mean of the own class."""

    @classmethod
    @torch.no_grad()
    def of(cls, inputs: Float[Tensor, "items trunk_dim"], labels: Int[Tensor, " items"]) -> Scatter:
        """The scatter of some items by their classes."""
        _, numbers, counts = labels.unique(return_inverse=True, return_counts=True)
        sums = inputs.new_zeros(len(counts), inputs.shape[1]).index_add_(0, numbers, inputs)
        differences = inputs - (sums / counts[:, None])[numbers]
        return cls(inputs.mean(0), differences.T @ differences / len(inputs))


@torch.no_grad()
def principal_components(head: nn.Linear, inputs: Float[Tensor, "items trunk_dim"]) -> None:
    """Set a head to the centred principal components of its inputs, of mean length 1.

    Its features then rank as the inputs do, a little better: components are scaled by a power of their variance, which
    evens out the largest ones. Components without variance stay 0.
    """
    mean = inputs.double().mean(0)
    centred = inputs.double() - mean
    variance, directions = components(centred)
    used = variance > 1e-7 * variance[-1]
    scales = torch.where(used, variance.clamp(min=1e-300).pow(START_POWER), 0)
    rows = (directions * scales).T.flip(0)[: head.out_features]
    rows /= (centred @ rows.T).norm(dim=1).mean().clamp(min=1e-12)
    head.weight.zero_()[: len(rows)] = rows.to(head.weight)
    head.bias.zero_()[: len(rows)] = -(rows @ mean).to(head.bias)


def components(centred: Float[Tensor, "items dim"]) -> tuple[Float[Tensor, " some"], Float[Tensor, "dim some"]]:
    """Variances and directions of the principal components of centred items, ascending."""
    if len(centred) < centred.shape[1]:  # of so many equal eigenvalues, LAPACK's solver may find none
        _, values, directions = torch.linalg.svd(centred, full_matrices=False)
        return values.flip(0).square() / len(centred), directions.T.flip(1)
    return torch.linalg.eigh(centred.T @ centred / len(centred))


@torch.no_grad()
def interpolated(start: nn.Linear, end: nn.Linear, share: float) -> nn.Linear:
    """A head between two others: 0 is the start, 1 the end (as Wortsman et al., CVPR 2022, for whole networks)."""
    between = copy.deepcopy(start)
    for of_between, of_end in zip(between.parameters(), end.parameters(), strict=True):
        if share:  # weights that diverged stay out of the start
            of_between.lerp_(of_end, share)
    return between


@torch.no_grad()
def whitened(head: nn.Linear, scatter: Scatter) -> nn.Linear:
    """A head whose outputs are centred, and vary about equally in all directions within a class.

    A (W (x - mean)) with A = (C + mean eigenvalue of C)^(-1/2) and C = W within W^T: directions in which pictures of
    one class differ count less. A head whose classes don't vary stays as it is.
    """
    weight = head.weight.double()
    covariance = weight @ scatter.within.double() @ weight.T
    ridge = covariance.diagonal().mean()
    if not ridge > 0:
        return copy.deepcopy(head)
    values, directions = torch.linalg.eigh(covariance)
    white = copy.deepcopy(head)
    rows = directions * (values.clamp(min=0) + ridge).rsqrt() @ directions.T @ weight
    white.weight.copy_(rows)
    white.bias.copy_(-(rows @ scatter.mean.double()))
    return white


class UsedHead(NamedTuple):
    """Which head is used once another is trained."""

    share: float = 1.0
    """Of the way from the start to the trained weights."""
    scatter: Scatter | None = None
    """Of the training items, to whiten the head; None: leave it."""

    def __call__(self, start: nn.Linear, trained: nn.Linear) -> nn.Linear:
        """The head that is used, without gradients."""
        head = interpolated(start, trained, self.share)
        return whitened(head, self.scatter) if self.scatter else head
