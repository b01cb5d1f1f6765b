"""What twins do to Recall@1: queries that have a duplicate or near-duplicate among what they search, and the others.

A twin of the query's own class gives the answer away; one of another class takes it. So the recall is also counted with
each query's twins taken out of what it searches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

if TYPE_CHECKING:
    from pddm_lab.gallery.gallery import Gallery
    from pddm_lab.model.similarity import Similarity

BUDGET = 4_000_000
"""Pairs that are scored to match queries: some seconds by PDDM."""
_SHORTLIST = 32  # best matches kept of a query, so that some are left without its twins
_QUERIES = 64  # scored at a time

Progress = Callable[[int, int, str], None]
"""Called with how many are done, of how many, and what they are."""


@dataclass(frozen=True, eq=False)
class Matches:
    """The items most similar to each query of a protocol, by one similarity."""

    queries: Int[np.ndarray, " queries"]
    """Rows of the gallery."""
    total: int
    """Queries there are; fewer are matched where that would take long."""
    searched: Bool[np.ndarray, " items"]
    """Which items of the gallery are searched."""
    best: Int[np.ndarray, "queries shortlist"]
    """Rows of the items found, best first; the query itself last of all."""
    relevant: Int[np.ndarray, " queries"]
    """Items of its class that are searched, itself aside."""


def best_matches(
    similarity: Similarity,
    gallery: Gallery,
    *,
    budget: int = BUDGET,
    seed: int = 0,
    progress: Progress | None = None,
) -> Matches:
    """Search a gallery with its queries, each left out of what it searches, exactly.

    Args:
        similarity: on the CPU.
        gallery: of a protocol.
        budget: most pairs to score; beyond, a random part of the queries stands for all.
        seed: of that part.
        progress: called with (queries matched, queries, "queries").
    """
    import torch

    features = torch.from_numpy(np.array(gallery.features, dtype=np.float32))
    labels = gallery.items["label"].to_numpy()
    every, searched = gallery.rows("query"), gallery.rows("gallery")
    count = max(min(len(every), budget // max(len(searched), 1)), 1)
    queries = np.sort(np.random.default_rng(seed).permutation(every)[:count])
    found = np.empty((len(queries), min(_SHORTLIST, len(searched))), dtype=np.int64)
    of_class = pd.Series(labels[searched]).value_counts()
    is_searched = np.isin(np.arange(len(labels)), searched)
    for start in range(0, len(queries), _QUERIES):
        part = queries[start : start + _QUERIES]
        scores = similarity.matrix(features[part], features[searched])
        scores[torch.from_numpy(part[:, None] == searched[None])] = -math.inf
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, : found.shape[1]]
        found[start : start + _QUERIES] = searched[order.numpy()]
        if progress:
            progress(min(start + _QUERIES, len(queries)), len(queries), "queries")
    relevant = of_class.reindex(labels[queries]).fillna(0).to_numpy(dtype=np.int64) - is_searched[queries]
    return Matches(queries, len(every), is_searched, found, relevant)


@dataclass(frozen=True)
class Effect:
    """Recall@1 of queries that have a twin among what they search, and of those that have none."""

    similarity: str
    queries: int
    """Queries with something to find."""
    duplicated: int
    """Of these: with a twin."""
    recall: float
    recall_duplicated: float
    recall_others: float
    recall_removed: float
    """Recall@1 of all, were each query's twins taken out of what it searches."""
    removed_queries: int
    """Queries with something left to find then."""


def effect(
    similarity: str, matches: Matches, labels: Int[np.ndarray, " items"], twins: Iterable[tuple[int, int]]
) -> Effect:
    """What twins do to Recall@1. Numbers without a query to speak of are NaN.

    Args:
        similarity: its name.
        matches: of a protocol.
        labels: of the gallery's items.
        twins: pairs of rows of the gallery.
    """
    searched_twins: dict[int, set[int]] = {}
    for pair in twins:
        for query, other in (pair, pair[::-1]):
            if matches.searched[other]:
                searched_twins.setdefault(int(query), set()).add(int(other))
    right, duplicated, right_then = [], [], []
    for query, best, relevant in zip(matches.queries.tolist(), matches.best, matches.relevant, strict=True):
        if relevant <= 0:
            continue
        own = searched_twins.get(query, set())
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
