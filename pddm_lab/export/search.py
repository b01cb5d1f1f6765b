"""Search with an exported model: the nearest by distance, then ranked by its score. No torch.

The same as `Gallery.search_by` in the lab, exactly: for a large catalogue the lab has an index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pddm_lab.export.folder import Exported, Items
from pddm_lab.export.local import ExportedLocal

_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Match:
    """An item of a result."""

    rank: int
    id: str
    class_name: str
    distance: float
    """Euclidean distance D; smaller is more similar."""
    score: float
    """Of the export's similarity, or L; larger is more similar."""
    distance_rank: int
    """Its rank by D."""


def search(
    exported: Exported, query: Float[np.ndarray, " dim"], items: Items, k: int = 10, shortlist: int = 100,
    local: ExportedLocal | None = None, pretrained: Float[np.ndarray, " pretrained"] | None = None,
) -> list[Match]:  # fmt: skip
    """The k best items, ranked by the export's score among the nearest.

    Args:
        exported: the model.
        query: a feature, as `Exported.embed` gives it.
        items: to search.
        k: number of results.
        shortlist: how many of the nearest by Euclidean distance are ranked; equal scores keep their order.
        local: the export's, to rank by L instead; the items are then the export's own copy.
        pretrained: of the query, as `Exported.embed_both` gives it.
    """
    distances = distances_to(query, items.features)
    rows = np.argsort(distances, kind="stable")[:shortlist]
    if local is None:
        scores = exported.scores(np.broadcast_to(query, (len(rows), len(query))), items.features[rows])
    else:
        scores = local.scores(query, pretrained, rows)
    order = np.argsort(-scores, kind="stable")[:k]
    return [
        Match(
            rank, items.ids[rows[place]], items.class_names[rows[place]], float(distances[rows[place]]),
            float(scores[place]), int(place) + 1,
        )
        for rank, place in enumerate(order, start=1)
    ]  # fmt: skip


def distances_to(query: Float[np.ndarray, " dim"], features: Float[np.ndarray, "items dim"]) -> np.ndarray:
    """Euclidean distances of a query to all items, in limited memory."""
    parts = range(0, len(features), _AT_ONCE)
    return np.concatenate([np.linalg.norm(features[start : start + _AT_ONCE] - query, axis=1) for start in parts])
