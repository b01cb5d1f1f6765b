"""How well a similarity ranks a gallery and separates positive from negative pairs.

Ranking: Recall@K, R-precision, MAP@R (Musgrave et al., ECCV 2020), as pytorch-metric-learning defines them. Separation:
separation.py. NMI of a k-means clustering. Queries are processed in chunks: memory is limited for any gallery size.

Ties rank by gallery row, lowest first, so that results are reproducible.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pddm_lab.errors import LabError
from pddm_lab.metrics.separation import Distribution, histogram, separation

Array: TypeAlias = Tensor | np.ndarray
PlacesScorer: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Scores of pairs in a chunk: rows and columns, (pairs,) each -> (pairs,)."""

RECALLS = (1, 2, 4, 8, 16, 32)
_CHUNK_SCORES = 1 << 21  # scores at a time: 8 MB, and some 50 MB with the keys that order them
_CHUNK_ROWS = 128  # least number of queries at a time with a shortlist: fewer make poor use of a matrix product
_MIRRORED_ITEMS = 8000  # up to here all scores fit in 256 MB, and each unordered pair is scored once
_POSITIVE_BUDGET = 8_000_000  # pair scores kept, 4 bytes each; of more pairs, a sample
_NEGATIVE_BUDGET = 20_000_000
_SAMPLED = (500_000, 2_000_000)  # budgets with a shortlist, where pairs are scored one by one


class PairScorer(Protocol):
    """A similarity that scores all pairs."""

    name: str

    @property
    def matrix(self) -> Callable[[Tensor, Tensor], Tensor]: ...


class ShortlistScorer(PairScorer, Protocol):
    """A similarity that can also rank a shortlist."""

    @property
    def candidates(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]: ...
    @property
    def pairs(self) -> Callable[[Tensor, Tensor], Tensor]: ...


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One similarity under one protocol."""

    metrics: dict[str, float]
    """recall@K, r_precision, map@r, auc, eer, dprime, tpr@1%fpr, and nmi if requested; NaN if it can't be measured."""
    distribution: Distribution
    queries: int
    """Queries ranked."""
    map_at_r_error: float
    """Standard error of MAP@R over the queries."""
    excluded: int
    """Queries left out, since the gallery has no other item of their class."""


def evaluate(
    similarity: PairScorer, query: Float[Array, "queries dim"], gallery: Float[Array, "items dim"],
    query_labels: Int[Array, " queries"], gallery_labels: Int[Array, " items"], leave_one_out: bool, nmi: bool = False,
    seed: int = 0, shortlist: int = 0,
) -> Evaluation:  # fmt: skip
    """Rank the gallery for every query, and score the pairs.

    Args:
        similarity: larger means more similar.
        query: features, on the similarity's device.
        leave_one_out: query and gallery are the same items, and an item doesn't retrieve itself. A pair counts once.
        nmi: also cluster all the features by k-means.
        seed: of the sample of pairs if there are too many, and of k-means.
        shortlist: for large galleries: only re-rank this many of each query's nearest items by Euclidean distance (the
            rest keep that order), and score a sample of the pairs; 0: all.

    Raises:
        LabError: the similarity gives NaN.
    """
    items = _Items.of(query, gallery, query_labels, gallery_labels, leave_one_out)
    budgets = _SAMPLED if shortlist else (_POSITIVE_BUDGET, _NEGATIVE_BUDGET)
    ranking, pairs = _Ranking(items), _PairScores(items, seed, *budgets)
    if shortlist:
        scorer = cast(ShortlistScorer, similarity)
        for rows, scores in _shortlisted(scorer, items, shortlist):
            pairs.add(rows, functools.partial(_score_places, scorer, items, rows))
            ranking.add(rows, scores)
    else:
        for rows, scores in _scores(similarity, items):
            pairs.add(rows, functools.partial(_places_of, scores))  # first: the ranking overwrites the query itself
            ranking.add(rows, scores)
    metrics = ranking.metrics() | pairs.metrics()
    if nmi:
        both = [(items.gallery, items.gallery_labels), (items.query, items.query_labels)][: 1 if leave_one_out else 2]
        features, labels = (torch.cat(parts) for parts in zip(*both, strict=True))
        metrics["nmi"] = clustering_nmi(features, labels, seed)
    excluded = len(items.query) - ranking.queries
    return Evaluation(metrics, pairs.distribution(), ranking.queries, ranking.map_at_r_error(), excluded)


def rank(
    similarity: PairScorer, query: Float[Array, "queries dim"], gallery: Float[Array, "items dim"],
    query_labels: Int[Array, " queries"], gallery_labels: Int[Array, " items"], leave_one_out: bool, shortlist: int = 0,
) -> dict[str, float]:  # fmt: skip
    """The metrics of the ranking alone, as `evaluate` has them, without the distributions of pairs."""
    items = _Items.of(query, gallery, query_labels, gallery_labels, leave_one_out)
    ranking = _Ranking(items)
    chunks = (
        _shortlisted(cast(ShortlistScorer, similarity), items, shortlist) if shortlist else _scores(similarity, items)
    )
    for rows, scores in chunks:
        ranking.add(rows, scores)
    return ranking.metrics()


@torch.no_grad()
def average_precisions(
    scores: Float[Tensor, "queries items"], labels: Int[Tensor, " items"], rows: Int[Tensor, " queries"]
) -> Float[Tensor, " ranked"]:
    """AP@R of items that are searched among all the others; the mean is MAP@R, as `evaluate` has it.

    Args:
        scores: of each query with every item, larger is more similar; a query's score with itself is overwritten.
        rows: the row of each query among the items.

    Returns:
        One value per query whose class has another item.
    """
    scores[torch.arange(len(rows)), rows] = -math.inf
    _, classes, counts = labels.unique(return_inverse=True, return_counts=True)
    relevant = (counts[classes] - 1)[rows]
    ranked = relevant > 0
    scores, rows, relevant = scores[ranked], rows[ranked], relevant[ranked]
    best = _top(scores, int(relevant.max()) if len(relevant) else 0)
    return _average_precisions(labels[best] == labels[rows, None], relevant)


def clustering_nmi(features: Float[Array, "items dim"], labels: Int[Array, " items"], seed: int = 0) -> float:
    """Normalised mutual information between the classes and as many k-means clusters (faiss, seeded)."""
    from sklearn.metrics import normalized_mutual_info_score

    classes = _tensor(labels).cpu().numpy()
    if not len(classes):
        return math.nan
    return float(normalized_mutual_info_score(classes, cluster(features, len(np.unique(classes)), seed)))


def cluster(features: Float[Array, "items dim"], clusters: int, seed: int = 0) -> Int[np.ndarray, " items"]:
    """The k-means cluster of each item (faiss, seeded); the order of the items is part of the seed."""
    import faiss

    points = _tensor(features).float().cpu().contiguous().numpy()
    means = faiss.Kmeans(points.shape[1], clusters, niter=20, seed=seed)
    means.cp.min_points_per_centroid, means.cp.max_points_per_centroid = 1, len(points)
    means.cp.init_method = faiss.ClusteringInitMethod_AFK_MC2  # k-means++ by sampling: a fifth of the time
    means.train(points)
    return means.index.search(points, 1)[1][:, 0]


@dataclass(frozen=True)
class _Items:
    """Queries and gallery as tensors on one device."""

    query: Tensor
    gallery: Tensor
    query_labels: Tensor
    gallery_labels: Tensor
    leave_one_out: bool
    relevant: Tensor
    """(queries,) int64: R, the number of gallery items of each query's class without the query itself."""

    @classmethod
    def of(cls, query: Array, gallery: Array, query_labels: Array, gallery_labels: Array, loo: bool) -> _Items:
        query = _tensor(query)
        gallery = query if loo else _tensor(gallery).to(query.device)
        classes, labels = torch.cat([_tensor(query_labels), _tensor(gallery_labels)]).unique(return_inverse=True)
        of_query, of_gallery = (part.to(query.device, torch.int32) for part in labels.split([len(query), len(gallery)]))
        counts = torch.bincount(of_gallery, minlength=len(classes))
        return cls(query, gallery, of_query, of_gallery, loo, counts[of_query.long()] - int(loo))

    def pair_counts(self) -> tuple[int, int]:
        """Number of positive and of negative pairs."""
        positives = int(self.relevant.sum())
        every = len(self.query) * (len(self.gallery) - int(self.leave_one_out))
        return (positives // 2, (every - positives) // 2) if self.leave_one_out else (positives, every - positives)


def _tensor(values: Array) -> Tensor:
    return values if isinstance(values, Tensor) else torch.tensor(values)  # a copy: torch needs writable arrays


def _scores(similarity: PairScorer, items: _Items) -> Iterator[tuple[slice, Float[Tensor, "rows items"]]]:
    """Scores of chunks of queries with the whole gallery; the caller may overwrite them.

    With leave-one-out each unordered pair is scored once if all fit into memory, since similarities are symmetric.
    """
    queries, count = len(items.query), len(items.gallery)
    step = max(_CHUNK_SCORES // max(count, 1), 1)
    mirrored = items.leave_one_out and count <= _MIRRORED_ITEMS
    every = items.query.new_empty(count, count, dtype=torch.float32) if mirrored else None
    if mirrored:  # blocks on the diagonal are scored in full: with small ones that is little more than half of all
        step = min(step, max(count // 16, 32))
    for start in range(0, queries, step):
        rows = slice(start, min(start + step, queries))
        if every is None:
            scores = similarity.matrix(items.query[rows], items.gallery).float()
        else:
            every[rows, start:] = similarity.matrix(items.query[rows], items.gallery[start:]).float()
            every[rows.stop :, rows] = every[rows, rows.stop :].T
            scores = every[rows]
        _check(similarity, scores, start)
        yield rows, scores


def _check(similarity: PairScorer, scores: Tensor, start: int) -> None:
    if scores.numel() and scores.amax().isnan():  # the maximum of values with a NaN is NaN
        hint = "The training diverged: lower --lr, or set --clip-norm"
        raise LabError(f"Expected numbers, but {similarity.name} gives NaN from query {start} on. {hint}.")


def _shortlisted(
    similarity: ShortlistScorer, items: _Items, shortlist: int
) -> Iterator[tuple[slice, Float[Tensor, "rows items"]]]:
    """As `_scores`, but only each query's nearest items are scored; the others follow in the order of distance."""
    count = len(items.gallery)
    step = max(_CHUNK_SCORES // max(count, 1), _CHUNK_ROWS)
    for start in range(0, len(items.query), step):
        rows = slice(start, min(start + step, len(items.query)))
        scores = -torch.cdist(items.query[rows], items.gallery)
        if items.leave_one_out:
            scores[torch.arange(len(scores)), torch.arange(rows.start, rows.stop)] = -math.inf
        nearest = _top(scores, min(shortlist, count))
        reranked = similarity.candidates(items.query[rows], items.gallery, nearest).float()
        _check(similarity, reranked, start)
        scores += reranked.min() - 1  # these are negative distances: now all are below the shortlist's scores
        yield rows, scores.scatter_(1, nearest, reranked)


def _places_of(scores: Tensor, row: Int[Tensor, " pairs"], column: Int[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    return scores[row, column]


def _score_places(
    similarity: ShortlistScorer, items: _Items, rows: slice, row: Int[Tensor, " pairs"], column: Int[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    return similarity.pairs(items.query[rows][row], items.gallery[column]).float()


class _Ranking:
    """Sums of Recall@K, R-precision and MAP@R over chunks of queries."""

    def __init__(self, items: _Items) -> None:
        self.items = items
        self.queries = int((items.relevant > 0).sum())
        self._depth = min(max(int(items.relevant.max()) if len(items.query) else 0, *RECALLS), len(items.gallery))
        self._sums = dict.fromkeys([*(f"recall@{k}" for k in RECALLS), "r_precision", "map@r"], 0.0)
        self._squares = 0.0

    def add(self, rows: slice, scores: Float[Tensor, "rows items"]) -> None:
        relevant = self.items.relevant[rows]
        if self.items.leave_one_out:  # last, the query itself can't be among its first R, nor its first right item
            scores[torch.arange(len(scores)), torch.arange(rows.start, rows.stop)] = -math.inf
        best = _top(scores, self._depth)
        hits = (self.items.gallery_labels[best] == self.items.query_labels[rows, None])[relevant > 0]
        relevant = relevant[relevant > 0]
        for k in RECALLS:
            self._sums[f"recall@{k}"] += hits[:, :k].any(1).sum().item()
        self._sums["r_precision"] += (_within_r(hits, relevant).sum(1) / relevant).sum().item()
        precisions = _average_precisions(hits, relevant)
        self._sums["map@r"] += precisions.sum().item()
        self._squares += precisions.square().sum().item()

    def metrics(self) -> dict[str, float]:
        return {name: total / self.queries if self.queries else math.nan for name, total in self._sums.items()}

    def map_at_r_error(self) -> float:
        if self.queries < 2:
            return math.nan
        variance = max(self._squares / self.queries - (self._sums["map@r"] / self.queries) ** 2, 0.0)
        return math.sqrt(variance / (self.queries - 1))


def _within_r(hits: Bool[Tensor, "queries depth"], relevant: Int[Tensor, " queries"]) -> Float[Tensor, "queries depth"]:
    """1 for each hit among a query's first R results, 0 elsewhere."""
    return (hits & (torch.arange(hits.shape[1], device=hits.device) < relevant[:, None])).double()


def _average_precisions(
    hits: Bool[Tensor, "queries depth"], relevant: Int[Tensor, " queries"]
) -> Float[Tensor, " queries"]:
    """AP@R: the precision at each hit among the first R results, summed and divided by R (`relevant`)."""
    counted = _within_r(hits, relevant)
    position = torch.arange(1, hits.shape[1] + 1, device=hits.device)
    return (counted.cumsum(1) / position * counted).sum(1) / relevant


def _top(scores: Float[Tensor, "rows items"], depth: int) -> Int[Tensor, "rows depth"]:
    """Columns of the largest scores in each row, best first, ties by column."""
    if depth >= scores.shape[1]:
        return scores.sort(dim=1, descending=True, stable=True).indices
    values, columns = scores.topk(depth + 1, dim=1)
    tied = values[:, depth - 1] == values[:, depth]  # topk has chosen some of several equal scores at the end
    columns, by_column = columns[:, :depth].sort(dim=1)
    values = values.gather(1, by_column)
    best = columns.gather(1, values.sort(dim=1, descending=True, stable=True).indices)
    if tied.any():
        best[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :depth]
    return best


class _PairScores:
    """Scores of all positive and negative pairs, or of a sample, and how well they are separated."""

    def __init__(self, items: _Items, seed: int, positive_budget: int, negative_budget: int) -> None:
        self.items = items
        positives, negatives = items.pair_counts()
        self._total = positives + negatives
        self._positive, self._negative = _Sample(positives, positive_budget), _Sample(negatives, negative_budget)
        self._sorted_labels, self._by_label = items.gallery_labels.sort(stable=True)
        self._random = torch.Generator(items.query.device).manual_seed(seed)

    def add(self, rows: slice, score: PlacesScorer) -> None:
        self._positive.add(score(*self._positive_places(rows)))
        self._negative.add(score(*self._negative_places(rows)))

    def _positive_places(self, rows: slice) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        labels = self.items.query_labels[rows]
        first, last = (torch.searchsorted(self._sorted_labels, labels, side=side) for side in ("left", "right"))
        row = torch.arange(len(labels), device=labels.device).repeat_interleave(last - first)
        begins = (last - first).cumsum(0) - (last - first)
        column = self._by_label[torch.arange(len(row), device=row.device) - begins[row] + first[row]]
        keep = torch.ones_like(row, dtype=torch.bool)
        if self._positive.share < 1:
            keep = torch.rand(len(row), generator=self._random, device=row.device) < self._positive.share
        if self.items.leave_one_out:  # pairs above the diagonal: each unordered pair once
            keep &= column > row + rows.start
        return row[keep], column[keep]

    def _negative_places(self, rows: slice) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
        labels, columns = self.items.query_labels[rows], len(self.items.gallery)
        if self._negative.share < 1:  # sampling with replacement takes time by the sample, not by all pairs
            count = round(len(labels) * columns * self._negative.share)
            at = torch.randint(len(labels) * columns, (count,), generator=self._random, device=labels.device)
            row, column = at // columns, at % columns
            keep = labels[row] != self.items.gallery_labels[column]
            if self.items.leave_one_out:
                keep &= column > row + rows.start
            return row[keep], column[keep]
        different = labels[:, None] != self.items.gallery_labels
        if self.items.leave_one_out:
            different = different.triu(1 + rows.start)
        row, column = different.nonzero(as_tuple=True)
        return row, column

    def metrics(self) -> dict[str, float]:
        return separation(self._positive.values(), self._negative.values())

    def distribution(self) -> Distribution:
        positive, negative = self._positive.values(), self._negative.values()
        return histogram(positive, negative, self._total)


class _Sample:
    """Values up to a budget; the caller adds only `share` of all values."""

    def __init__(self, total: int, budget: int) -> None:
        self.share = min(budget / total, 1.0) if total else 1.0
        self._buffer = np.empty(min(total, budget), dtype=np.float32)
        self._count = 0
        self._sorted = False

    def add(self, chosen: Float[Tensor, " pairs"]) -> None:
        room = self._buffer[self._count : self._count + len(chosen)]
        room[:] = chosen[: len(room)].cpu().numpy()
        self._count += len(room)

    def values(self) -> np.ndarray:
        """Ascending."""
        values = self._buffer[: self._count]
        if not self._sorted:
            values.sort()
            self._sorted = True
        return values
