"""The effect of duplicates on Recall@1: queries that have a (near-)duplicate among the searched items, and the others.

A duplicate of the query's own class makes the query easy; one of another class makes it fail. So the recall is also
measured with each query's duplicates removed from the searched items.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from pddm_lab.progress import Progress

if TYPE_CHECKING:
    from pddm_lab.gallery.gallery import Gallery
    from pddm_lab.model.similarity import Similarity

BUDGET = 4_000_000
"""Most pairs that are scored to match queries: some seconds with PDDM."""
_SHORTLIST = 32  # best matches kept per query, so that some are left without its duplicates
_QUERIES = 64  # scored at a time


@dataclass(frozen=True, eq=False)
class Matches:
    """The items most similar to each query of a protocol, by one similarity."""

    queries: Int[np.ndarray, " queries"]
    """Rows of the gallery."""
    total: int
    """All queries; fewer are matched if matching all would take long."""
    searched: Bool[np.ndarray, " items"]
    """Which items of the gallery are searched."""
    best: Int[np.ndarray, "queries shortlist"]
    """Rows of the most similar items, best first; the query itself comes last."""
    relevant: Int[np.ndarray, " queries"]
    """Searched items of the query's class, without the query itself."""


def best_matches(
    similarity: Similarity, gallery: Gallery, *, budget: int = BUDGET, seed: int = 0, progress: Progress | None = None
) -> Matches:
    """Search a gallery exactly with its queries, each without itself.

    Args:
        similarity: on the CPU.
        budget: most pairs to score; beyond, a random sample of the queries is matched.
        progress: called with (queries matched, queries, "queries").
    """
    import torch

    features = torch.from_numpy(np.array(gallery.features, dtype=np.float32))
    labels = gallery.items["label"].to_numpy()
    every, searched = gallery.rows("query"), gallery.rows("gallery")
    count = max(min(len(every), budget // max(len(searched), 1)), 1)
    queries = np.sort(np.random.default_rng(seed).permutation(every)[:count])
    best = np.empty((len(queries), min(_SHORTLIST, len(searched))), dtype=np.int64)
    of_class = pd.Series(labels[searched]).value_counts()
    is_searched = np.isin(np.arange(len(labels)), searched)
    for start in range(0, len(queries), _QUERIES):
        part = queries[start : start + _QUERIES]
        scores = similarity.matrix(features[part], features[searched])
        scores[torch.from_numpy(part[:, None] == searched[None])] = -math.inf
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, : best.shape[1]]
        best[start : start + _QUERIES] = searched[order.numpy()]
        if progress:
            progress(min(start + _QUERIES, len(queries)), len(queries), "queries")
    relevant = of_class.reindex(labels[queries]).fillna(0).to_numpy(dtype=np.int64) - is_searched[queries]
    return Matches(queries, len(every), is_searched, best, relevant)


@dataclass(frozen=True)
class Effect:
    """Recall@1 of queries that have a duplicate among the searched items, and of those that have none."""

    similarity: str
    queries: int
    """Queries with an item of their class to find."""
    duplicated: int
    """Queries with a duplicate to find."""
    recall: float
    recall_duplicated: float
    recall_others: float
    recall_removed: float
    """Recall@1 of all, with each query's duplicates removed from the searched items."""
    removed_queries: int
    """Queries that still have an item of their class to find then."""


def effect(
    similarity: str, matches: Matches, labels: Int[np.ndarray, " items"], duplicates: Iterable[tuple[int, int]]
) -> Effect:
    """The effect of duplicates on Recall@1; shares of no queries are NaN.

    Args:
        duplicates: pairs of rows of the gallery.
    """
    duplicates_of: dict[int, set[int]] = {}
    for pair in duplicates:
        for query, other in (pair, pair[::-1]):
            if matches.searched[other]:
                duplicates_of.setdefault(int(query), set()).add(int(other))
    right, duplicated, right_then = [], [], []
    for query, best, relevant in zip(matches.queries.tolist(), matches.best, matches.relevant, strict=True):
        if relevant <= 0:
            continue
        own = duplicates_of.get(query, set())
        right.append(labels[best[0]] == labels[query])
        duplicated.append(bool(own))
        others = [row for row in best.tolist() if row not in own and row != query]
        if others and relevant > sum(labels[row] == labels[query] for row in own):
            right_then.append(labels[others[0]] == labels[query])
    hits, has = np.array(right, dtype=bool), np.array(duplicated, dtype=bool)
    return Effect(
        similarity, len(hits), int(has.sum()), _mean(hits), _mean(hits[has]), _mean(hits[~has]),
        _mean(np.array(right_then, dtype=bool)), len(right_then),
    )  # fmt: skip


def _mean(values: Bool[np.ndarray, " values"]) -> float:
    return float(values.mean()) if len(values) else math.nan
