"""What a shortlist's size costs: items outside the shortlist can never appear in the results."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pddm_lab.gallery.gallery import Gallery

MOST_QUERIES = 1000
"""Most queries that are measured; of more, a seeded sample."""
_CHUNK_QUERIES = 256


@dataclass(frozen=True, eq=False)
class Ceiling:
    """The best that re-ranking a shortlist can reach, for shortlists of 1, 2, 3, ... items."""

    recall: Float[np.ndarray, " sizes"]
    """Share of a query's right items that are in the shortlist; mean over the queries."""
    reached: Float[np.ndarray, " sizes"]
    """Share of the queries with a right item in the shortlist: the highest possible R@1."""
    queries: int
    """Queries measured."""
    total: int
    """Queries that have a right item in the gallery."""

    def at(self, size: int) -> tuple[float, float]:
        """`recall` and `reached` of a shortlist of this size, or of the largest measured; NaN if none was."""
        if not len(self.recall):
            return float("nan"), float("nan")
        place = min(size, len(self.recall)) - 1
        return float(self.recall[place]), float(self.reached[place])


def ceiling(gallery: Gallery, longest: int = 1000, most_queries: int = MOST_QUERIES, seed: int = 0) -> Ceiling:
    """Search a gallery with its own queries, each without itself, and count the right items.

    Args:
        gallery: to search, with the index that a search uses.
        longest: the largest shortlist.
        most_queries: to measure; of more, a sample.
    """
    labels, searched, queries = gallery.items["label"].to_numpy(), gallery.rows("gallery"), gallery.rows("query")
    is_searched = np.zeros(len(labels), bool)
    is_searched[searched] = True
    right_items = np.bincount(labels[searched], minlength=labels.max(initial=0) + 1)[labels] - is_searched
    able = queries[right_items[queries] > 0]
    chosen = able
    if len(able) > most_queries:
        chosen = np.sort(np.random.default_rng(seed).choice(able, most_queries, replace=False))
    sizes = min(longest, len(searched))
    recall, reached = np.zeros(sizes), np.zeros(sizes)
    for start in range(0, len(chosen), _CHUNK_QUERIES):
        rows = chosen[start : start + _CHUNK_QUERIES, None]
        near, _ = gallery.search(gallery.features[rows[:, 0]], sizes + 1)
        # One more column, a wrong item: each row then drops either the query itself or that column.
        itself, right = (np.pad(value, ((0, 0), (0, 1))) for value in (near == rows, labels[near] == labels[rows]))
        itself[~itself.any(axis=1), -1] = True
        count = right[~itself].reshape(len(rows), -1)[:, :sizes].cumsum(axis=1)
        recall += (count / right_items[rows]).sum(axis=0)
        reached += (count > 0).sum(axis=0)
    if not len(chosen):
        return Ceiling(np.empty(0), np.empty(0), 0, 0)
    return Ceiling(recall / len(chosen), reached / len(chosen), len(chosen), len(able))
