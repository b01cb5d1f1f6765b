"""Scores of any pairs of a gallery's items by local structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from pddm_lab.gallery.gallery import Gallery
    from pddm_lab.gallery.reference import Reference
    from pddm_lab.local.unit import LocalStructure


def score_local_pairs(
    gallery: Gallery, structure: LocalStructure, a: Int[np.ndarray, " pairs"], b: Int[np.ndarray, " pairs"],
    reference: Reference | None = None,
) -> Float[np.ndarray, " pairs"]:  # fmt: skip
    """Similarities of pairs by local structure, larger = more similar; of float32.

    Args:
        gallery: of the run.
        structure: the run's similarity.
        a: rows of queries, each of which is taken out of the gallery if it is in it.
        b: rows of the items. Where only a is searched, a pair is compared the other way round; where neither is, its
            score is NaN.
        reference: of some items of the gallery; None: of all that are searched.
    """
    reference = reference or gallery.reference(structure)
    searched = np.zeros(len(gallery), bool)
    searched[reference.rows] = True
    query, item = np.where(searched[b], a, b), np.where(searched[b], b, a)
    scores = np.full(len(a), np.nan, np.float32)
    for inside in (True, False):
        at = np.flatnonzero(searched[item] & (searched[query] == inside))
        if not len(at):
            continue
        at = at[query[at].argsort(kind="stable")]
        rows, line, counts = np.unique(query[at], return_inverse=True, return_counts=True)
        begins = counts.cumsum() - counts
        place = np.arange(len(at)) - begins[line]
        table = np.repeat(item[at][begins][:, None], counts.max(), axis=1)  # lines are filled up with their first item
        table[line, place] = item[at]
        further = gallery.pretrained
        space = structure.space(gallery.features[rows], None if further is None else further[rows])
        own = reference.places(rows) if inside else None
        places = torch.from_numpy(np.searchsorted(reference.rows, table))
        scores[at] = structure.candidates(reference.neighbourhoods, space, places, own).numpy()[line, place]
    return scores


def local_similarity_to(gallery: Gallery, structure: LocalStructure, anchor: int) -> Float[np.ndarray, " items"]:
    """The similarity of every item to the anchor by local structure; the anchor itself gets the best one.

    NaN for items that are only queries, if the anchor is one too: they have no neighbourhoods in the gallery.
    """
    every = np.arange(len(gallery))
    values = score_local_pairs(gallery, structure, np.full(len(gallery), anchor), every)
    others = np.delete(values, anchor)
    values[anchor] = np.nanmax(others) if np.isfinite(others).any() else np.nan
    return values
