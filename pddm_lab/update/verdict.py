"""Is an updated model better than the one that serves? R@1 of both, on the saved queries and on new pictures.

Both search the same items: those of the catalogue and the new ones. The saved queries (analysis/saved_queries.py) are
of the old items; the new pictures that were held out of training stand for the new classes. Every query counts alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.analysis.decision import Range
from pddm_lab.local.unit import LocalStructure
from pddm_lab.model.similarity import Similarity, make_similarity


@dataclass(frozen=True)
class Verdict:
    """R@1 of both models."""

    queries: Mapping[str, int]
    """saved and new -> number of queries."""
    recall: Mapping[str, Mapping[str, Mapping[str, float]]]
    """before and after -> saved and new, where there are such queries -> similarity -> R@1."""

    @property
    def by(self) -> str:
        """The similarity that decides: local structure, where the run has it, else D."""
        similarities = {name for of in self.recall["after"].values() for name in of}
        return "local" if "local" in similarities else "euclidean"

    def overall(self, which: str) -> float:
        """R@1 over all queries, before or after, by the similarity that decides."""
        of = self.recall[which]
        return sum(self.queries[name] * of[name][self.by] for name in of) / max(sum(self.queries.values()), 1)

    @property
    def better(self) -> bool:
        """Whether the updated model finds more."""
        return self.overall("after") > self.overall("before")


@dataclass(frozen=True, eq=False)
class Side:
    """All items as one model sees them."""

    features: Float[Tensor, "all dim"]
    pretrained: Float[Tensor, "all pretrained"] | None
    structure: LocalStructure | None


def judge(
    before: Side, after: Side, labels: Int[np.ndarray, " all"], searched: Int[np.ndarray, " items"],
    queries: Mapping[str, Int[np.ndarray, " queries"]],
) -> Verdict:  # fmt: skip
    """Search with each query among all other items, by both models.

    Args:
        labels: (all items,) class of each item.
        searched: rows of the items that are searched.
        queries: saved and new -> rows of these queries.
    """
    there = {name: rows for name, rows in queries.items() if len(rows)}
    recall = {
        when: {name: _recall(side, labels, searched, rows) for name, rows in there.items()}
        for when, side in (("before", before), ("after", after))
    }
    return Verdict({name: len(rows) for name, rows in there.items()}, recall)


def _recall(
    side: Side, labels: Int[np.ndarray, " all"], searched: Int[np.ndarray, " items"], rows: Int[np.ndarray, " queries"]
) -> dict[str, float]:
    """R@1 by D, and by local structure where there is one."""
    by: dict[str, Similarity | LocalStructure] = {"euclidean": make_similarity("euclidean", side.features.shape[1])}
    if side.structure is not None:
        by["local"] = side.structure
    place = np.full(len(labels), -1)
    place[searched] = np.arange(len(searched))
    values = {}
    for name, similarity in by.items():
        of = Range.over(side.features[searched], labels[searched], similarity, _rows(side.pretrained, searched))
        right = 0
        for is_searched in (True, False):
            some = rows[(place[rows] >= 0) == is_searched]
            if len(some):
                own = torch.from_numpy(place[some]) if is_searched else None
                near = of.nearest(side.features[some], _rows(side.pretrained, some), own)
                right += int((near.first == labels[some]).sum())
        values[name] = right / len(rows)
    return values


def _rows(values: Tensor | None, rows: np.ndarray) -> Tensor | None:
    return None if values is None else values[torch.from_numpy(rows)]


def in_words(verdict: Verdict, letter: Callable[[str], str]) -> list[str]:
    """A line for each kind of queries: R@1 before and after, by each similarity."""
    what = {"saved": "saved queries", "new": "new pictures that didn't train"}
    return [
        f"R@1 of {verdict.queries[name]:,} {what[name]}: "
        + ", ".join(
            f"{100 * verdict.recall['before'][name][similarity]:.1f} % before and {100 * after:.1f} % now by "
            f"{letter(similarity)}"
            for similarity, after in of.items()
        )
        + "."
        for name, of in verdict.recall["after"].items()
    ]
