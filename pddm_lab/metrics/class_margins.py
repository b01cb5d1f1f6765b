"""Class margins: how compact the classes of a feature space are, and how far apart."""

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
"""Largest number of items measured; of more, whole classes in a seeded order up to this number."""
MARGINS = {
    "intra": "Mean distance of two items of one class.",
    "inter": "Mean distance of two items of different classes.",
    "ratio": "inter / intra, independent of scale: larger is better.",
    "nearest": "Mean distance of an item to the nearest item of another class.",
    "margin": "Mean distance to the nearest item of another class, minus that to the nearest of the own class.",
    "overlap": "Share of items that are nearer to an item of another class than to any of their own class.",
    "silhouette": "Mean silhouette, -1 to 1: own class against the nearest other class.",
    "nmi": "Normalised mutual information of k-means clusters and classes, 0 to 1.",
}
"""Column -> description. Distances are Euclidean."""


def class_margins(
    spaces: Mapping[str, Float[Tensor | np.ndarray, "items dim"]], labels: Int[np.ndarray, " items"], seed: int = 0
) -> pd.DataFrame:
    """Distances within and between classes, and cluster quality, a row per space.

    Args:
        spaces: name -> features of the same items; with unit length their distances can be compared.
        labels: class of each item; classes of one item are left out.
        seed: of k-means, and of the classes to measure if there are more than `MOST_ITEMS` items.

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
        square = distances.clone().fill_diagonal_(0).numpy()  # scikit-learn wants exact zeros there
        silhouette = float(silhouette_score(square, classes, metric="precomputed"))
        table.append((
            name, len(rows), len(np.unique(classes)), intra, inter, inter / intra if intra else float("inf"),
            other.mean().item(), (other - own).mean().item(), (other < own).double().mean().item(), silhouette,
            clustering_nmi(points, classes, seed),
        ))  # fmt: skip
    return pd.DataFrame(table, columns=["space", "items", "classes", *MARGINS])


def _some(labels: np.ndarray, seed: int) -> np.ndarray:
    """Rows of whole classes of two items or more, up to `MOST_ITEMS`."""
    classes, counts = np.unique(labels, return_counts=True)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(counts > 1))
    fits = np.cumsum(counts[order]) <= MOST_ITEMS
    fits[:2] = True
    return np.flatnonzero(np.isin(labels, classes[order[fits]]))
