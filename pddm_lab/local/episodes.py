"""What a unit on neighbourhoods learns from: galleries like those it will meet, made of training items.

Per fold of classes: the held-out classes, each item searched among the others (unseen), and held-out items of the other
classes, searched among the rest (known). Both also in galleries thinned to a few items a class, since small classes
have other neighbourhoods.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pddm_lab.errors import DataError
from pddm_lab.local.neighbourhoods import Neighbourhoods
from pddm_lab.local.sizes import FEWEST

FOLDS = 3
HELD_OUT = 0.2
"""Share of the items that are the queries of known classes."""
THINNED = (1, 2, 4, 8, 16)
"""Items a class in the thinned galleries; only those below the median size of a class."""
FULL_WEIGHT = 4.0
"""How often a full gallery is drawn, compared with a thinned one."""
SHORTLIST = 250
"""Least number of candidates; more where a class is larger."""
PAIRS = 100_000
"""Pairs of an episode at most, so that time and memory don't grow with the data."""


@dataclass(frozen=True, eq=False)
class Fold:
    """A division of training items, as rows."""

    classes: Int[Tensor, " unseen"]
    """Items of the held-out classes."""
    queries: Int[Tensor, " known"]
    """Held-out items of the other classes."""
    rest: Int[Tensor, " fit"]
    """All others, which fit whatever is fitted in the fold."""


@dataclass(frozen=True, eq=False)
class Split:
    """Which items are searched among which, as rows of all training items."""

    gallery: Int[Tensor, " items"]
    queries: Int[Tensor, " queries"]
    own: Int[Tensor, " queries"] | None
    """Places of the queries in the gallery; None: they are not in it."""
    is_full: bool


@dataclass(frozen=True, eq=False)
class Episode:
    """A gallery, queries, and their candidates."""

    reference: Neighbourhoods
    features: Float[Tensor, "queries dim"]
    own: Int[Tensor, " queries"] | None
    rows: Int[Tensor, "queries candidates"]
    positive: Bool[Tensor, "queries candidates"]
    relevant: Int[Tensor, " queries"]
    """Items of the query's class in the gallery."""
    weight: float


def shortlist_size(largest: int, least: int = SHORTLIST) -> int:
    """Candidates of a query, more than its class has, so that others are among them.

    Args:
        largest: items of the largest class that is searched.
        least: candidates where the classes are small.
    """
    return max(least, round(1.25 * largest))


def folds(labels: Int[Tensor, " items"], seed: int, groups: Int[Tensor, " items"] | None = None) -> list[Fold]:
    """Divide the items by class, and hold out some of the other classes' items.

    Args:
        groups: of near-duplicates, numbered from 0: all of a group are held out, or none. None: each item is its own.

    Raises:
        DataError: fewer than 4 classes of at least 2 items.
    """
    classes, counts = labels.unique(return_counts=True)
    if int((counts > 1).sum()) < 4:
        raise DataError(
            f"Expected at least 4 classes with 2 or more items to learn from, got {int((counts > 1).sum())}. "
            "Use a similarity without training, such as Expansion(both=True)."
        )
    random = torch.Generator().manual_seed(seed)
    count = min(FOLDS, len(classes) // 2)
    fold_of = torch.empty(int(classes.max()) + 1, dtype=torch.long)
    fold_of[classes[torch.randperm(len(classes), generator=random)]] = torch.arange(len(classes)) % count
    group_of = torch.arange(len(labels)) if groups is None else groups
    held_out = (torch.rand(int(group_of.max()) + 1, generator=random) < HELD_OUT)[group_of]
    of = fold_of[labels]
    return [
        Fold(*(part.nonzero()[:, 0] for part in (of == fold, (of != fold) & held_out, (of != fold) & ~held_out)))
        for fold in range(count)
    ]


def splits(fold: Fold, labels: Int[Tensor, " items"], seed: int) -> Iterator[Split]:
    """The galleries of a fold: full ones first, then thinned ones."""
    yield Split(fold.classes, fold.classes, torch.arange(len(fold.classes)), True)
    yield Split(fold.rest, fold.queries, None, True)
    random = torch.Generator().manual_seed(seed)
    for among in (fold.classes, fold.rest):
        median = int(labels[among].unique(return_counts=True)[1].median())
        for count in (count for count in THINNED if count < median):
            shuffled = among[torch.randperm(len(among), generator=random)]
            chosen = _occurrence(labels[shuffled]) < count
            others = shuffled[~chosen] if among is fold.classes else fold.queries
            yield Split(shuffled[chosen], others, None, False)


def episode(
    split: Split, features: Float[Tensor, "items dim"], labels: Int[Tensor, " items"], first_part: int, seed: int
) -> Episode | None:
    """Search a sample of a split's queries in its gallery; None where there is too little to learn from."""
    if len(split.gallery) <= FEWEST or not len(split.queries):
        return None
    largest = int(labels[split.gallery].bincount().max())
    size = min(shortlist_size(largest), len(split.gallery) - (split.own is not None))
    random = torch.Generator().manual_seed(seed)
    sample = torch.randperm(len(split.queries), generator=random)[: max(PAIRS // size, 1)]
    own, query = None if split.own is None else split.own[sample], split.queries[sample]
    reference = Neighbourhoods.of(features[split.gallery], first_part=first_part)
    rows = reference.shortlist(reference.queries(features[query], own), size)
    positive = labels[split.gallery][rows] == labels[query, None]
    relevant = (labels[split.gallery] == labels[query, None]).sum(1) - int(own is not None)
    useful = positive.any(1) & ~positive.all(1)
    if not useful.any():
        return None
    return Episode(
        reference, features[query][useful], None if own is None else own[useful], rows[useful], positive[useful],
        relevant[useful], FULL_WEIGHT if split.is_full else 1.0,
    )  # fmt: skip


def map_at_r(scores: Float[Tensor, "queries candidates"], found: Episode) -> float:
    """MAP@R of an episode by scores of its candidates."""
    order = scores.argsort(dim=1, descending=True)
    place = torch.arange(1, order.shape[1] + 1)
    hits = found.positive.gather(1, order) & (place <= found.relevant[:, None])
    return float(((hits.cumsum(1) / place * hits).sum(1) / found.relevant).mean())


def _occurrence(labels: Int[Tensor, " items"]) -> Int[Tensor, " items"]:
    """How many items of the same class come before each item."""
    order = labels.argsort(stable=True)
    _, counts = labels[order].unique_consecutive(return_counts=True)
    within = torch.arange(len(labels)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return torch.empty_like(order).scatter_(0, order, within)
