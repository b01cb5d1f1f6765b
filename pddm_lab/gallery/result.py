"""What a search returns, and what it takes: similarities that re-rank a shortlist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pandas as pd

if TYPE_CHECKING:
    from torch import Tensor


class Reranker(Protocol):
    """A similarity that re-ranks the shortlist of one query."""

    name: str

    def rerank(self, query: Tensor, gallery: Tensor, shortlist: Tensor) -> tuple[Tensor, Tensor]: ...


class BatchReranker(Protocol):
    """A similarity that scores the shortlists of many queries at once."""

    def candidates(self, queries: Tensor, gallery: Tensor, rows: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class SearchResult:
    """One query's shortlist, ranked by Euclidean distance and by further similarities."""

    table: pd.DataFrame
    """The shortlist, nearest first: row, id, class_name, and for each similarity its value (larger = more similar;
    for Euclidean -D) under its name and its rank from 1 under <name>_rank."""
    similarities: tuple[str, ...]
    """The similarities of the ranks, euclidean first."""
    seconds: dict[str, float]
    """Time of each stage: search, and each re-ranking under its similarity's name."""
    note: str = ""
    """Why the similarity on local structure ranks by the cosine here; empty if it doesn't."""

    def ranked(self, name: str, k: int | None = None) -> pd.DataFrame:
        """The best k by a similarity: rank, row, id, class_name, value, rank_change (places an item rises from its
        Euclidean rank, negative if it falls)."""
        order = self.table.sort_values(f"{name}_rank")[:k]
        ranks, columns = order[f"{name}_rank"], order[["row", "id", "class_name"]]
        table = columns.assign(value=order[name], rank_change=order["euclidean_rank"] - ranks)
        table.insert(0, "rank", ranks)
        return table.reset_index(drop=True)
