"""Which queries a ranking gets wrong: each query's first result and its average precision, by a similarity.

What evaluate.py sums up over all queries, query by query, for a shortlist rather than for the whole gallery: Euclidean
distance picks it, and the similarity orders it, as a search does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from pddm_lab.model.similarity import Similarity

SHORTLIST = 100
"""Items that are ordered for a query, where its class has no more than that."""
LONGEST = 1000
"""Items that are ordered at most: of larger classes only so many count."""

_QUERIES_AT_ONCE = 256


def judge(
    features: Float[np.ndarray, "items dim"],
    labels: Int[np.ndarray, " items"],
    queries: Int[np.ndarray, " queries"],
    searched: Int[np.ndarray, " searched"],
    similarity: Similarity | None = None,
) -> pd.DataFrame:
    """Judge a ranking query by query.

    Args:
        features: of all items; may be memory-mapped.
        labels: class of each item.
        queries: rows that ask; one that is also searched doesn't find itself.
        searched: rows that are searched.
        similarity: orders the shortlist; None leaves it ordered by Euclidean distance.

    Returns:
        row, right (1.0 where the first result is of the query's class, else 0.0), ap (average precision over the first
        R, R being how many of its class there are to find: MAP@R is its mean). Queries with nothing to find are left
        out.
    """
    import faiss

    labels, queries, searched = np.asarray(labels), np.asarray(queries), np.asarray(searched)
    classes, codes = np.unique(labels, return_inverse=True)
    to_find = np.bincount(codes[searched], minlength=len(classes))[codes[queries]] - np.isin(queries, searched)
    queries, to_find = queries[to_find > 0], to_find[to_find > 0]
    if not len(queries):
        return pd.DataFrame({"row": queries, "right": np.empty(0), "ap": np.empty(0)})
    depth = min(max(SHORTLIST, int(to_find.max())), LONGEST)
    index = faiss.IndexFlatL2(features.shape[1])
    index.add(np.ascontiguousarray(features[searched], dtype=np.float32))
    right, precision = [], []
    for at in range(0, len(queries), _QUERIES_AT_ONCE):
        rows, wanted = queries[at : at + _QUERIES_AT_ONCE], to_find[at : at + _QUERIES_AT_ONCE, None]
        asked = np.ascontiguousarray(features[rows], dtype=np.float32)
        found = searched[index.search(asked, min(depth + 1, len(searched)))[1]]
        # The query itself goes last, and counts as a miss there.
        found = np.take_along_axis(found, np.argsort(found == rows[:, None], axis=1, kind="stable"), axis=1)
        if similarity is not None:
            found = _ordered(features, asked, rows, found, similarity)
        hits = (labels[found] == labels[rows, None]) & (found != rows[:, None])
        place = np.arange(1, found.shape[1] + 1)
        counted = hits & (place <= wanted)
        right.append(hits[:, 0])
        precision.append((counted.cumsum(1) / place * counted).sum(1) / np.minimum(wanted[:, 0], depth))
    return pd.DataFrame({"row": queries, "right": np.concatenate(right) * 1.0, "ap": np.concatenate(precision)})


def _ordered(
    features: np.ndarray, asked: np.ndarray, rows: np.ndarray, found: np.ndarray, similarity: Similarity
) -> np.ndarray:
    """Each query's shortlist, most similar first, the query itself last."""
    import torch

    others = torch.from_numpy(np.array(features[found.ravel()], dtype=np.float32))
    each = torch.from_numpy(asked).repeat_interleave(found.shape[1], dim=0)
    values = similarity.pairs(each, others).numpy().reshape(found.shape)
    values[found == rows[:, None]] = -np.inf
    return np.take_along_axis(found, np.argsort(-values, axis=1, kind="stable"), axis=1)
