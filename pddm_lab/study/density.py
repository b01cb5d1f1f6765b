"""One threshold for all pairs, and what it does where items lie densely and where they lie sparsely: the paper's claim.

A pair's place is the mean local radius of its items in the embedding that is measured. Thirds are those of the positive
pairs. The dashboard does the same with pictures and intervals (verdicts.py); here seeds give the interval.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.neighbourhoods import DENSITIES, local_radius
from pddm_lab.similarity import Similarity

FALSE_POSITIVES = 0.01
"""Share of all negative pairs that the one threshold accepts, at most."""
MOST_PAIRS = 100_000
"""Of either kind; beyond, a sample, the same for every similarity and every method."""


def rates_by_density(
    similarity: Similarity,
    query: Float[Tensor, "queries dim"],
    gallery: Float[Tensor, "items dim"],
    query_labels: Int[np.ndarray, " queries"],
    gallery_labels: Int[np.ndarray, " items"],
    leave_one_out: bool,
) -> dict[str, float]:
    """True and false-positive rates of each third at the threshold of 1 % false positives over all pairs.

    Args:
        similarity: larger is more similar.
        query: features.
        gallery: features; those of the query, where one is left out.
        query_labels: class of each query.
        gallery_labels: class of each item.
        leave_one_out: query and gallery are the same items.

    Returns:
        tpr_dense, tpr_middle, tpr_sparse, fpr_dense, fpr_middle, fpr_sparse; NaN where there are no such pairs.
    """
    every = query if leave_one_out else torch.cat([query, gallery])
    radius = local_radius(every.numpy())
    of_query, of_gallery = (radius, radius) if leave_one_out else np.split(radius, [len(query)])
    found = {f"{rate}_{third}": math.nan for rate in ("tpr", "fpr") for third in DENSITIES}
    scores, places = [], []
    for a, b in sampled(query_labels, gallery_labels, leave_one_out):
        scores.append(similarity.pairs(query[torch.from_numpy(a)], gallery[torch.from_numpy(b)]).numpy())
        places.append((of_query[a] + of_gallery[b]) / 2)
    if not len(scores[0]) or not len(scores[1]):
        return found
    negative = np.sort(scores[1])
    highest_rejected = negative[len(negative) - 1 - int(FALSE_POSITIVES * len(negative))]
    bounds = np.quantile(places[0], [1 / 3, 2 / 3])
    for rate, values, place in zip(("tpr", "fpr"), scores, places, strict=True):
        thirds = np.searchsorted(bounds, place, side="left")
        for number, third in enumerate(DENSITIES):
            if (thirds == number).any():
                found[f"{rate}_{third}"] = float((values[thirds == number] > highest_rejected).mean())
    return found


def sampled(
    query_labels: Int[np.ndarray, " queries"], gallery_labels: Int[np.ndarray, " items"], leave_one_out: bool
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Positive pairs, and negative ones, as rows of queries and of gallery items; no pair of an item with itself.

    Drawn with replacement, seeded, where there are more than `MOST_PAIRS`.
    """
    rng = np.random.default_rng(0)
    order = np.argsort(gallery_labels, kind="stable")
    ordered = gallery_labels[order]
    first, last = (ordered.searchsorted(query_labels, side) for side in ("left", "right"))
    ends = (last - first).cumsum()
    count = int(ends[-1]) if len(ends) else 0
    # A drawn number is a place in the list of all positive pairs, query by query.
    slots = np.arange(count) if count <= MOST_PAIRS else rng.integers(count, size=2 * MOST_PAIRS)
    a = ends.searchsorted(slots, "right")
    b = order[slots - (ends - (last - first))[a] + first[a]]
    once = a < b if leave_one_out else np.ones(len(a), bool)
    positive = (a[once][:MOST_PAIRS], b[once][:MOST_PAIRS])
    a, b = (rng.integers(size, size=MOST_PAIRS) for size in (len(query_labels), len(gallery_labels)))
    differ = query_labels[a] != gallery_labels[b]
    return positive, (a[differ], b[differ])
