"""Hard quadruplets (i, j, k, l) of a batch, as indices: i-j a hard positive pair, k hard negative of i, l of j.

Paper -> code:  (i*, j*) = argmin S over the positive pairs -> i, j
k* = argmax S(i*, negatives) -> k   l* = argmax S(j*, negatives) -> l
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.errors import ConfigError
from pddm_lab.model.similarity import Similarity

NEIGHBOURS = 32
"""Negatives of an anchor that a network scores in a large batch."""
DENSE_ITEMS = 128
"""Up to this many items all pairs are scored: there are few, and half of them come by symmetry."""

_ROWS = 1024  # rows of distances at a time


@dataclass(frozen=True)
class Quadruplets:
    """Indices into a batch, one entry per quadruplet: i and j share a class, k is of another than i, l of another than
    j."""

    i: Int[Tensor, " quads"]
    j: Int[Tensor, " quads"]
    k: Int[Tensor, " quads"]
    l: Int[Tensor, " quads"]
    scores: Float[Tensor, "items items"] | None = None
    """Similarities of all pairs of the batch, where mining scored them all."""

    def __len__(self) -> int:
        return len(self.i)


@torch.no_grad()
def mine(
    embeddings: Float[Tensor, "items dim"], labels: Int[Tensor, " items"], similarity: Similarity,
    strategy: str = "batch", pairs: tuple[Tensor, Tensor] | None = None, neighbours: int = NEIGHBOURS,
) -> Quadruplets:  # fmt: skip
    """Mine hard quadruplets with any similarity; no gradient is recorded.

    Args:
        embeddings: unit-length features of a batch, (items, dim).
        labels: class of each item, (items,).
        similarity: scores the pairs; larger is more similar.
        strategy: `batch`: the paper's, the one hardest quadruplet of the batch; only the positive pairs and two rows of
            negatives are scored, so the cost grows almost linearly with the batch. `anchor`: one for every item that
            has a positive and a negative; learns several times faster per step. In batches of more than `DENSE_ITEMS` a
            network scores only the nearest negatives of an anchor: beside a matrix product the cost grows linearly.
        pairs: `positive_pairs(labels)`, where several similarities mine one batch.
        neighbours: negatives of an anchor that a network scores in a large batch, the nearest by Euclidean distance;
            0 for all.

    Returns:
        1 quadruplet for `batch`, up to one an item for `anchor`; none where the batch has no positive pair or one
        class only.

    Raises:
        ConfigError: an unknown strategy.
    """
    if strategy not in ("batch", "anchor"):
        raise ConfigError(f"Unknown mining strategy {strategy!r}. Expected 'batch' or 'anchor'.")
    if not len(labels) or bool((labels == labels[0]).all()):
        return _none(labels)
    if strategy == "anchor" and not (similarity.is_network and neighbours and len(labels) > DENSE_ITEMS):
        return _hardest_of_anchors(embeddings, labels, similarity)
    pairs = positive_pairs(labels) if pairs is None else pairs
    if not len(pairs[0]):
        return _none(labels)
    if strategy == "anchor":
        return _hardest_of_neighbourhoods(embeddings, labels, similarity, pairs, neighbours)
    return _hardest_of_batch(embeddings, labels, similarity, pairs)


def positive_pairs(labels: Int[Tensor, " items"]) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """All pairs of different items that share a class, each once, without a items x items table."""
    ordered, order = labels.sort(stable=True)
    firsts, seconds = [], []
    # Sorted by class, the partners of an item follow it 1, 2, ... places later, up to the size of the largest class.
    for offset in range(1, len(labels)):
        same = (ordered[offset:] == ordered[:-offset]).nonzero().squeeze(1)
        if not len(same):
            break
        firsts.append(order[same])
        seconds.append(order[same + offset])
    nothing = labels.new_empty(0, dtype=torch.long)
    return torch.cat([nothing, *firsts]), torch.cat([nothing, *seconds])


def _hardest_of_batch(
    embeddings: Tensor, labels: Tensor, similarity: Similarity, pairs: tuple[Tensor, Tensor]
) -> Quadruplets:
    first, second = pairs
    hardest = similarity.pairs(embeddings[first], embeddings[second]).argmin()
    ends = torch.stack([first[hardest], second[hardest]])
    # Both ends are of one class, so they share their negatives.
    rows = similarity.matrix(embeddings[ends], embeddings)
    rows.masked_fill_(labels == labels[ends[0]], -torch.inf)
    k, l = rows.argmax(dim=1)
    return Quadruplets(ends[:1], ends[1:], k[None], l[None])


def _hardest_of_anchors(embeddings: Tensor, labels: Tensor, similarity: Similarity) -> Quadruplets:
    scores = similarity.matrix(embeddings, embeddings)
    same = labels[:, None] == labels[None]
    hard_negative = scores.masked_fill(same, -torch.inf).argmax(dim=1)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive_scores, hard_positive = scores.masked_fill(~same | itself, torch.inf).min(dim=1)
    i = (positive_scores < torch.inf).nonzero().squeeze(1)
    j = hard_positive[i]
    return Quadruplets(i, j, hard_negative[i], hard_negative[j], scores)


def _hardest_of_neighbourhoods(
    embeddings: Tensor, labels: Tensor, similarity: Similarity, pairs: tuple[Tensor, Tensor], neighbours: int
) -> Quadruplets:
    first, second = pairs
    scores = similarity.pairs(embeddings[first], embeddings[second]).repeat(2)
    anchor, partner, items = torch.cat([first, second]), torch.cat([second, first]), len(labels)
    lowest = scores.new_full((items,), torch.inf).scatter_reduce(0, anchor, scores, "amin")
    lowest_partner = torch.where(scores == lowest[anchor], partner, items)
    hard_positive = partner.new_full((items,), items).scatter_reduce(0, anchor, lowest_partner, "amin")
    nearest = _nearest_negatives(embeddings, labels, min(neighbours, items))
    negative_scores = similarity.candidates(embeddings, embeddings, nearest)
    # If there are fewer than `neighbours` negatives, the last of the nearest are items of the anchor's own class.
    negative_scores.masked_fill_(labels[nearest] == labels[:, None], -torch.inf)
    hard_negative = nearest.gather(1, negative_scores.argmax(dim=1, keepdim=True)).squeeze(1)
    i = (hard_positive < items).nonzero().squeeze(1)
    j = hard_positive[i]
    return Quadruplets(i, j, hard_negative[i], hard_negative[j])


def _nearest_negatives(embeddings: Tensor, labels: Tensor, count: int) -> Int[Tensor, "items count"]:
    """The items of other classes nearest to each item by Euclidean distance, in chunks of rows."""
    halves = embeddings.square().sum(1) / 2
    nearest = []
    for own, row in zip(labels.split(_ROWS), embeddings.split(_ROWS), strict=True):
        closeness = torch.addmm(halves, row, embeddings.T, beta=-1)  # -D^2 / 2, but for a constant of the row
        closeness.masked_fill_(own[:, None] == labels, -torch.inf)
        nearest.append(closeness.topk(count, dim=1, sorted=False).indices)
    return torch.cat(nearest)


def _none(labels: Tensor) -> Quadruplets:
    nothing = labels.new_empty(0, dtype=torch.long)
    return Quadruplets(nothing, nothing, nothing, nothing)
