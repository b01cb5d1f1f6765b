"""Large margin: how tightly a space packs its classes and how far apart it keeps them, before and after training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.errors import DataError
from pddm_lab.metrics.retrieval import clustering_nmi

MOST_ITEMS = 5000
"""Items measured; of more, whole classes in a seeded order up to so many."""
MARGINS = {
    "intra": "Mean distance of two items of one class.",
    "inter": "Mean distance of two items of different classes.",
    "ratio": "inter / intra, free of scale: larger is better.",
    "nearest": "Mean distance of an item to the nearest of another class.",
    "margin": "Mean over items of the distance to the nearest of another class, less that to the nearest of its own.",
    "overlap": "Share of items that are nearer to one of another class than to any of their own.",
    "silhouette": "Mean silhouette, -1 to 1: own class against the next one.",
    "nmi": "Normalised mutual information of k-means clusters and classes, 0 to 1.",
}
"""Column -> what it says. Distances are Euclidean."""


def class_margins(
    spaces: Mapping[str, Float[Tensor | np.ndarray, "items dim"]], labels: Int[np.ndarray, " items"], seed: int = 0
) -> pd.DataFrame:
    """Distances within and between classes, and cluster quality, a row per space.

    Args:
        spaces: name -> features of the same items; unit length makes their distances comparable.
        labels: class of each item; classes of one item are left out.
        seed: of k-means, and of which classes are measured where there are more than `MOST_ITEMS` items.

    Returns:
        space, items, classes, and the columns of `MARGINS`.

    Raises:
        DataError: fewer than two classes of two items.
    """
    from sklearn.metrics import silhouette_score

    rows = _some(labels, seed)
    classes = labels[rows]
    if len(np.unique(classes)) < 2:
        raise DataError("Margins need at least two classes with two items each: choose a larger gallery.")
    same = torch.from_numpy(classes[:, None] == classes)
    same_other = same.clone().fill_diagonal_(False)
    table = []
    for name, features in spaces.items():
        points = torch.as_tensor(features).float().cpu()[torch.from_numpy(rows)]
        distances = torch.cdist(points, points)
        intra, inter = distances[same_other].mean().item(), distances[~same].mean().item()
        own = distances.masked_fill(~same_other, torch.inf).amin(1)
        other = distances.masked_fill(same, torch.inf).amin(1)
        table.append(
            {
                "space": name,
                "items": len(rows),
                "classes": len(np.unique(classes)),
                "intra": intra,
                "inter": inter,
                "ratio": inter / intra if intra else float("inf"),
                "nearest": other.mean().item(),
                "margin": (other - own).mean().item(),
                "overlap": (other < own).double().mean().item(),
                "silhouette": float(silhouette_score(_square(distances), classes, metric="precomputed")),
                "nmi": clustering_nmi(points, classes, seed),
            }
        )
    return pd.DataFrame(table)


def _some(labels: np.ndarray, seed: int) -> np.ndarray:
    """Rows of whole classes of two items or more, up to `MOST_ITEMS`."""
    classes, counts = np.unique(labels, return_counts=True)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(counts > 1))
    fits = np.cumsum(counts[order]) <= MOST_ITEMS
    fits[:2] = True
    return np.flatnonzero(np.isin(labels, classes[order[fits]]))


def _square(distances: Tensor) -> np.ndarray:
    """Distances as scikit-learn wants them: nothing but 0 on the diagonal."""
    return distances.clone().fill_diagonal_(0).numpy()
