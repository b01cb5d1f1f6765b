"""Which items of a map are shown: some classes, a role, queries that a similarity gets right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from shared import review
from shared.plain_text import plain

from pddm_lab.similarities import EVERY

if TYPE_CHECKING:
    from app_pages.map.scene import Map

ROLES = {"": "all", "query": "queries", "gallery": "searched items"}


@dataclass(frozen=True)
class Filter:
    """A choice of items; all of its conditions hold for each of them."""

    classes: tuple[str, ...] = ()
    """Class names; none for all."""
    role: str = ""
    """From `ROLES`."""
    results: str = ""
    """From `results`: what the first result of a query is."""
    tag: str = ""
    """A tag of the data set."""

    def __bool__(self) -> bool:
        return bool(self.classes or self.role or self.results or self.tag)

    def rows(self, of: Map) -> np.ndarray | None:
        """1 for each row of the page that is shown, (items,) uint8; None if all are.

        Raises:
            LabError: a similarity is missing.
        """
        if not self:
            return None
        items = of.gallery.items.iloc[of.order]
        kept = np.ones(len(items), bool)
        if self.classes:
            kept &= items["class_name"].isin(self.classes).to_numpy()
        if self.role:
            kept &= items["role"].isin([self.role, "both"]).to_numpy()
        if self.tag:
            tagged = review.tags_in(review.tag_file_of(of.run)).get(self.tag, [])
            kept &= items["id"].isin(tagged).to_numpy()
        for verdict, by in _verdicts(self.results):
            errors = of.query_errors(by)
            kept &= np.isin(np.arange(len(items)), errors["row"][(errors["right"] > 0) == (verdict == "right")])
        return kept.astype(np.uint8)

    def in_words(self) -> str:
        """The conditions, for the line under a map."""
        classes = [plain(name) for name in self.classes[:3]]
        if more := len(self.classes) - len(classes):
            classes.append(f"{more} more")
        tag = f"tag {plain(self.tag)}" if self.tag else ""
        parts = [", ".join(classes), tag, ROLES[self.role] if self.role else "", results_title(self.results)]
        return "; ".join(filter(None, parts))


def results(similarities: Sequence[str]) -> dict[str, str]:
    """The choices of a first result and their titles: right or wrong by each similarity, or other than by the first."""
    single = [f"{verdict}-{name}" for name in similarities for verdict in ("wrong", "right")]
    first, *others = similarities
    pairs = [f"right-{a}-wrong-{b}" for other in others for a, b in ((other, first), (first, other))]
    return {"": "any"} | {name: results_title(name) for name in [*single, *pairs]}


def results_title(name: str) -> str:
    """right by L, wrong by D."""
    return ", ".join(f"{verdict} by {EVERY[by].letter}" for verdict, by in _verdicts(name))


def _verdicts(name: str) -> list[tuple[str, str]]:
    parts = name.split("-") if name else []
    return list(zip(parts[::2], parts[1::2], strict=True))
