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
from typing import Protocol, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pddm_lab.errors import LabError
from pddm_lab.metrics.pair_scores import Array, Items, PairScores, as_tensor
from pddm_lab.metrics.separation import Distribution

RECALLS = (1, 2, 4, 8, 16, 32)
_CHUNK_SCORES = 1 << 21  # scores at a time: 8 MB, and some 50 MB with the keys that order them
_CHUNK_ROWS = 128  # least number of queries at a time with a shortlist: fewer make poor use of a matrix product
_MIRRORED_ITEMS = 8000  # up to here all scores fit in 256 MB, and each unordered pair is scored once
_POSITIVE_BUDGET = 8_000_000  # pair scores kept, 4 bytes each; of more pairs, a sample
_NEGATIVE_BUDGET = 20_000_000
_SAMPLED = (500_000, 2_000_000)  # budgets with a shortlist, where pairs are scored one by one
_SAMPLED_IN_GALLERY = (40_000, 160_000)  # where a pair costs a hundred times as much


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


class GalleryScorer(Protocol):
    """A similarity that depends on the gallery too. It takes queries and items by their numbers."""

    @property
    def name(self) -> str: ...
    @property
    def of_rows(self) -> Callable[[Int[Tensor, " queries"], Int[Tensor, "queries candidates"]], Tensor]: ...


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
        leave_one_out: query and gallery are the same items, or the queries are the gallery's first items, and an item
            doesn't retrieve itself. A pair counts once.
        nmi: also cluster all the features by k-means.
        seed: of the sample of pairs if there are too many, and of k-means.
        shortlist: for large galleries: only re-rank this many of each query's nearest items by Euclidean distance (the
            rest keep that order), and score a sample of the pairs; 0: all.

    Raises:
        LabError: the similarity gives NaN.
    """
    items = Items.of(query, gallery, query_labels, gallery_labels, leave_one_out)
    budgets = _SAMPLED if shortlist else (_POSITIVE_BUDGET, _NEGATIVE_BUDGET)
    ranking, pairs = _Ranking(items), PairScores(items, seed, *budgets)
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
    return _evaluation(metrics, pairs, ranking)


def evaluate_in_gallery(
    scorer: GalleryScorer, query: Float[Array, "queries dim"], gallery: Float[Array, "items dim"],
    query_labels: Int[Array, " queries"], gallery_labels: Int[Array, " items"], leave_one_out: bool, shortlist: int,
    seed: int = 0,
) -> Evaluation:  # fmt: skip
    """As `evaluate` with a shortlist, for a similarity of a pair and the gallery; it scores a smaller sample of pairs.

    Raises:
        LabError: the similarity gives NaN.
    """
    items = Items.of(query, gallery, query_labels, gallery_labels, leave_one_out)
    ranking, pairs = _Ranking(items), PairScores(items, seed, *_SAMPLED_IN_GALLERY)
    for rows, distances, nearest in _shortlists(items, shortlist):
        (positive, positive_item), (negative, negative_item) = pairs.places(rows)
        table, place = _side_by_side(
            torch.cat([positive, negative]), torch.cat([positive_item, negative_item]), nearest
        )
        # A query's neighbourhood is looked at once: for the shortlist and the pairs together.
        scores = scorer.of_rows(torch.arange(rows.start, rows.stop), torch.cat([nearest, table], dim=1)).float()
        of_pairs = scores[:, nearest.shape[1] :][torch.cat([positive, negative]), place]
        pairs.add_scores(*of_pairs.split([len(positive), len(negative)]))
        ranking.add(rows, _reranked(scorer.name, distances, nearest, scores[:, : nearest.shape[1]], rows.start))
    return _evaluation(ranking.metrics() | pairs.metrics(), pairs, ranking)


def _evaluation(metrics: dict[str, float], pairs: PairScores, ranking: _Ranking) -> Evaluation:
    excluded = len(ranking.items.query) - ranking.queries
    return Evaluation(metrics, pairs.distribution(), ranking.queries, ranking.map_at_r_error(), excluded)


def rank(
    similarity: PairScorer, query: Float[Array, "queries dim"], gallery: Float[Array, "items dim"],
    query_labels: Int[Array, " queries"], gallery_labels: Int[Array, " items"], leave_one_out: bool, shortlist: int = 0,
) -> dict[str, float]:  # fmt: skip
    """The metrics of the ranking alone, as `evaluate` has them, without the distributions of pairs."""
    items = Items.of(query, gallery, query_labels, gallery_labels, leave_one_out)
    ranking = _Ranking(items)
    chunks = _scores(similarity, items)
    if shortlist:
        chunks = _shortlisted(cast(ShortlistScorer, similarity), items, shortlist)
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


@torch.no_grad()
def outcomes(
    scores: Float[Tensor, "queries items"], query_labels: Int[Tensor, " queries"], labels: Int[Tensor, " items"]
) -> tuple[Bool[Tensor, " queries"], Float[Tensor, " queries"]]:
    """Query by query, what `evaluate` has on average.

    Args:
        scores: of each query with every item, larger is more similar; -inf: the item isn't searched for the query.
        query_labels: classes of the queries.
        labels: classes of the items.

    Returns:
        Whether the first result is right, and AP@R; NaN for a query without another item of its class.
    """
    relevant = ((labels == query_labels[:, None]) & (scores > -math.inf)).sum(1)
    best = _top(scores, min(max(int(relevant.max()), 1), scores.shape[1]))
    hits = labels[best] == query_labels[:, None]
    return hits[:, 0], _average_precisions(hits, relevant)


def clustering_nmi(features: Float[Array, "items dim"], labels: Int[Array, " items"], seed: int = 0) -> float:
    """Normalised mutual information between the classes and as many k-means clusters (faiss, seeded)."""
    from sklearn.metrics import normalized_mutual_info_score

    classes = as_tensor(labels).cpu().numpy()
    if not len(classes):
        return math.nan
    return float(normalized_mutual_info_score(classes, cluster(features, len(np.unique(classes)), seed)))


def cluster(features: Float[Array, "items dim"], clusters: int, seed: int = 0) -> Int[np.ndarray, " items"]:
    """The k-means cluster of each item (faiss, seeded); the order of the items is part of the seed."""
    import faiss

    points = as_tensor(features).float().cpu().contiguous().numpy()
    means = faiss.Kmeans(points.shape[1], clusters, niter=20, seed=seed)
    means.cp.min_points_per_centroid, means.cp.max_points_per_centroid = 1, len(points)
    means.cp.init_method = faiss.ClusteringInitMethod_AFK_MC2  # k-means++ by sampling: a fifth of the time
    means.train(points)
    return means.index.search(points, 1)[1][:, 0]


def _scores(similarity: PairScorer, items: Items) -> Iterator[tuple[slice, Float[Tensor, "rows items"]]]:
    """Scores of chunks of queries with the whole gallery; the caller may overwrite them.

    With leave-one-out each unordered pair is scored once if all fit into memory, since similarities are symmetric.
    """
    queries, count = len(items.query), len(items.gallery)
    step = max(_CHUNK_SCORES // max(count, 1), 1)
    mirrored = items.leave_one_out and queries == count <= _MIRRORED_ITEMS
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
        _check(similarity.name, scores, start)
        yield rows, scores


def _check(name: str, scores: Tensor, start: int) -> None:
    if scores.numel() and scores.amax().isnan():  # the maximum of values with a NaN is NaN
        hint = "The training diverged: lower --lr, or set --clip-norm"
        raise LabError(f"Expected numbers, but {name} gives NaN from query {start} on. {hint}.")


def _shortlisted(
    similarity: ShortlistScorer, items: Items, shortlist: int
) -> Iterator[tuple[slice, Float[Tensor, "rows items"]]]:
    """As `_scores`, but only each query's nearest items are scored; the others follow in the order of distance."""
    for rows, distances, nearest in _shortlists(items, shortlist):
        scores = similarity.candidates(items.query[rows], items.gallery, nearest).float()
        yield rows, _reranked(similarity.name, distances, nearest, scores, rows.start)


def _shortlists(
    items: Items, shortlist: int
) -> Iterator[tuple[slice, Float[Tensor, "rows items"], Int[Tensor, "rows nearest"]]]:
    """Negative distances of chunks of queries to all items, and each query's nearest items."""
    count = len(items.gallery)
    step = max(_CHUNK_SCORES // max(count, 1), _CHUNK_ROWS)
    for start in range(0, len(items.query), step):
        rows = slice(start, min(start + step, len(items.query)))
        distances = -torch.cdist(items.query[rows], items.gallery)
        if items.leave_one_out:
            distances[torch.arange(len(distances)), torch.arange(rows.start, rows.stop)] = -math.inf
        yield rows, distances, _top(distances, max(min(shortlist, count - int(items.leave_one_out)), 1))


def _reranked(name: str, distances: Tensor, nearest: Tensor, scores: Tensor, start: int) -> Float[Tensor, "rows items"]:
    """Scores of the nearest items, with negative distances below them for the others."""
    _check(name, scores, start)
    return distances.add_(scores.min() - 1).scatter_(1, nearest, scores)


def _places_of(scores: Tensor, row: Int[Tensor, " pairs"], column: Int[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    return scores[row, column]


def _score_places(
    similarity: ShortlistScorer, items: Items, rows: slice, row: Int[Tensor, " pairs"], column: Int[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    return similarity.pairs(items.query[rows][row], items.gallery[column]).float()


def _side_by_side(
    row: Int[Tensor, " pairs"], column: Int[Tensor, " pairs"], others: Int[Tensor, "rows nearest"]
) -> tuple[Int[Tensor, "rows widest"], Int[Tensor, " pairs"]]:
    """The columns of pairs in a line for each row, filled up with the row's first one of others, and their places."""
    counts = torch.bincount(row, minlength=len(others))
    order = row.argsort(stable=True)
    place = torch.empty_like(row)
    place[order] = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row[order]]
    table = others[:, :1].repeat(1, int(counts.max()))
    table[row, place] = column
    return table, place


class _Ranking:
    """Sums of Recall@K, R-precision and MAP@R over chunks of queries."""

    def __init__(self, items: Items) -> None:
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
