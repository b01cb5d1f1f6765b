"""Which queries a ranking gets wrong: each query's first result and its average precision, by a similarity.

metrics/retrieval.py averages these over all queries. Here they are measured query by query, and on a shortlist rather
than the whole gallery: as in a search, Euclidean distance picks the shortlist and the similarity re-ranks it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from pddm_lab.model.similarity import Similarity
    from pddm_lab.progress import Progress

PairsOfRows: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Scores of pairs of items, given by their rows: (pairs,), (pairs,) -> (pairs,)."""
RERANKED = 100
"""Items that are re-ranked for a query, unless its class is larger."""
LONGEST = 1000
"""Most items that are re-ranked; of larger classes only this many count."""

_QUERIES_AT_ONCE = 256


def judge(
    features: Float[np.ndarray, "items dim"], labels: Int[np.ndarray, " items"], queries: Int[np.ndarray, " queries"],
    searched: Int[np.ndarray, " searched"], score: PairsOfRows | None = None, shortlist: int = RERANKED,
    progress: Progress | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Evaluate a ranking query by query.

    Args:
        features: of all items; may be memory-mapped.
        queries: rows of the queries; one that is also searched doesn't find itself.
        searched: rows that are searched.
        score: of pairs of rows, query and item, larger = more similar: re-ranks the shortlist (`by_features`); None:
            ranked by Euclidean distance.
        shortlist: items that are re-ranked for a query, unless its class is larger.
        progress: called with (queries done, queries, "queries").

    Returns:
        row, right (1.0 if the first result is of the query's class, else 0.0), ap (average precision over the first R,
        the number of searched items of its class; MAP@R is its mean). Queries without any such item are left out.
    """
    import faiss

    labels, queries, searched = np.asarray(labels), np.asarray(queries), np.asarray(searched)
    classes, codes = np.unique(labels, return_inverse=True)
    relevant = np.bincount(codes[searched], minlength=len(classes))[codes[queries]] - np.isin(queries, searched)
    queries, relevant = queries[relevant > 0], relevant[relevant > 0]
    if not len(queries):
        return pd.DataFrame({"row": queries, "right": np.empty(0), "ap": np.empty(0)})
    depth = min(max(shortlist, int(relevant.max())), LONGEST)
    index = faiss.IndexFlatL2(features.shape[1])
    index.add(np.ascontiguousarray(features[searched], dtype=np.float32))
    right, precision = [], []
    for at in range(0, len(queries), _QUERIES_AT_ONCE):
        rows, wanted = queries[at : at + _QUERIES_AT_ONCE], relevant[at : at + _QUERIES_AT_ONCE, None]
        vectors = np.ascontiguousarray(features[rows], dtype=np.float32)
        results = searched[index.search(vectors, min(depth + 1, len(searched)))[1]]
        # The query itself moves to the end, where it counts as a miss.
        results = np.take_along_axis(results, np.argsort(results == rows[:, None], axis=1, kind="stable"), axis=1)
        if score is not None:
            values = score(np.repeat(rows, results.shape[1]), results.ravel()).reshape(results.shape)
            values[results == rows[:, None]] = -np.inf
            results = np.take_along_axis(results, np.argsort(-values, axis=1, kind="stable"), axis=1)
        hits = (labels[results] == labels[rows, None]) & (results != rows[:, None])
        place = np.arange(1, results.shape[1] + 1)
        counted = hits & (place <= wanted)
        right.append(hits[:, 0])
        precision.append((counted.cumsum(1) / place * counted).sum(1) / np.minimum(wanted[:, 0], depth))
        if progress:
            progress(at + len(rows), len(queries), "queries")
    return pd.DataFrame({"row": queries, "right": np.concatenate(right) * 1.0, "ap": np.concatenate(precision)})


def by_features(features: Float[np.ndarray, "items dim"], similarity: Similarity) -> PairsOfRows:
    """Scores pairs of rows by a similarity of their features."""
    import torch

    def score(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        left, right = (torch.from_numpy(np.array(features[rows], dtype=np.float32)) for rows in (a, b))
        return similarity.pairs(left, right).numpy()

    return score
