"""Can a query by the new model be searched among vectors of the old one, and what does embedding them again bring?

The new classes' pictures arrive with the new model. So a gallery that isn't embedded again holds old vectors of the
old classes, and new vectors of the new ones; before the update all vectors were old. Backfill embeds the old ones
again, one after the other: in random order, or first those that the update has moved farthest.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.metrics.retrieval import outcomes
from pddm_lab.model.similarity import Euclidean

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Of the old classes' items that are embedded again."""
ORDERS = ("random", "farthest")


def two_by_two(
    old: Float[Tensor, "all dim"], new: Float[Tensor, "all dim"], labels: Int[np.ndarray, " all"],
    queries: Mapping[str, Int[np.ndarray, " queries"]], searched: Int[np.ndarray, " items"],
    of_old_classes: Int[np.ndarray, " items"],
) -> dict[str, dict[str, float]]:  # fmt: skip
    """MAP@R by D of old and new queries in the old and in the new gallery.

    Args:
        old: features of all items by the old model.
        new: by the new one.
        queries: name -> rows, such as those of old and of new classes.
        searched: rows of the gallery.
        of_old_classes: the rows of old classes among them.

    Returns:
        "old in new" for old queries in the new gallery, and so on -> name of the queries -> MAP@R. An old gallery holds
        new vectors of the new classes where the query is new.
    """
    mixed = _mixed(old, new, of_old_classes)
    return {
        f"{query} in {gallery}": {
            name: _map_at_r(features[rows], of[searched], labels[rows], labels[searched])
            for name, rows in queries.items()
        }
        for query, features in (("old", old), ("new", new))
        for gallery, of in (("old", old if query == "old" else mixed), ("new", new))
    }


def backfill(
    old: Float[Tensor, "all dim"], new: Float[Tensor, "all dim"], labels: Int[np.ndarray, " all"],
    queries: Int[np.ndarray, " queries"], searched: Int[np.ndarray, " items"],
    of_old_classes: Int[np.ndarray, " items"], seed: int = 0,
) -> dict[str, list[float]]:  # fmt: skip
    """MAP@R by D of new queries after each of `SHARES`, in each of `ORDERS`; arguments as for `two_by_two`."""
    moved = (new[of_old_classes] - old[of_old_classes]).norm(dim=1)
    orders = {
        "random": np.random.default_rng(seed).permutation(of_old_classes),
        "farthest": of_old_classes[moved.argsort(descending=True).numpy()],
    }
    return {
        name: [
            _map_at_r(
                new[queries], _mixed(old, new, orders[name][round(share * len(of_old_classes)) :])[searched],
                labels[queries], labels[searched],
            )
            for share in SHARES
        ]
        for name in ORDERS
    }  # fmt: skip


def _mixed(old: Tensor, new: Tensor, left: Int[np.ndarray, " items"]) -> Tensor:
    """New features, but for some items, whose vectors are old."""
    mixed = new.clone()
    mixed[left] = old[left]
    return mixed


def _map_at_r(query: Tensor, items: Tensor, of_query: np.ndarray, of_items: np.ndarray) -> float:
    scores = Euclidean().matrix(query, items)
    return float(outcomes(scores, torch.from_numpy(of_query), torch.from_numpy(of_items))[1].nanmean())
