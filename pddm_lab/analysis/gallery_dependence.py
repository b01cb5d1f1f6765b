"""How much a similarity of a pair and its gallery depends on the order of the pair, and on the rest of the gallery.

Among the items of one gallery it is checked for the axioms of a metric, as any other similarity is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from pddm_lab.analysis.local_pairs import LocalScores, score_local_pairs
from pddm_lab.analysis.metric_axioms import Axioms, examine_scores
from pddm_lab.analysis.pairs import sample_pairs
from pddm_lab.gallery.reference import Reference
from pddm_lab.progress import Progress

if TYPE_CHECKING:
    from pddm_lab.gallery.gallery import Gallery
    from pddm_lab.local.unit import LocalStructure

LEFT_OUT = (0.1, 0.25, 0.5)
"""Shares of the other items that leave the gallery."""
PAIRS = 300
"""Pairs that are compared, half of them positive; their items stay."""


@dataclass(frozen=True, eq=False)
class Change:
    """How the scores of pairs change."""

    left_out: float
    """Share of the other items that left; 0: the items of each pair are exchanged instead."""
    items: int
    """Items that are still searched."""
    mean: float
    """Mean size of the change, in standard deviations of the score over the pairs."""
    largest: float
    crossed: float
    """Share of the pairs that are accepted in one case only, at the threshold."""
    pairs: int


def dependence(gallery: Gallery, structure: LocalStructure, threshold: float, seed: int = 0) -> list[Change]:
    """Compare scores of pairs with the items exchanged, and with items left out.

    Args:
        gallery: of the run.
        structure: the run's similarity.
        threshold: at which pairs are accepted.
        seed: of the pairs, and of the items that leave.

    Returns:
        The exchange, where items are both queries and searched; then a row for each of `LEFT_OUT`.
    """
    pairs = sample_pairs(gallery, PAIRS, seed)
    a, b = pairs["a"].to_numpy(), pairs["b"].to_numpy()
    before = score_local_pairs(gallery, structure, a, b)
    searched = gallery.rows("gallery")
    rows = []
    both = np.isin(a, searched)
    if both.any():
        rows.append(_change(before[both], score_local_pairs(gallery, structure, b[both], a[both]), before, threshold,
                            0.0, len(searched)))  # fmt: skip
    others = np.random.default_rng(seed).permutation(np.setdiff1d(searched, np.union1d(a, b)))
    for share in LEFT_OUT:
        stay = np.setdiff1d(searched, others[: round(share * len(others))])
        further = gallery.pretrained[stay] if structure.weight and gallery.pretrained is not None else None
        fewer = Reference.of(structure, gallery.features[stay], further, stay)
        after = score_local_pairs(gallery, structure, a, b, fewer)
        rows.append(_change(before, after, before, threshold, share, len(stay)))
    return rows


def examine_local(
    structure: LocalStructure, reference: Reference, threshold: float, *, rows: int = 200, seed: int = 0,
    progress: Progress | None = None,
) -> Axioms:  # fmt: skip
    """Check the similarity for the axioms of a metric among a gallery's searched items.

    Args:
        structure: the run's similarity.
        reference: the gallery; at least three items.
        threshold: as this and the others for `examine`.

    Returns:
        As `examine` does, by rows of the gallery; S(i,i) of items that aren't searched is NaN.
    """
    of = examine_scores(LocalScores(structure, reference), threshold, rows=rows, seed=seed, progress=progress)
    at = reference.rows
    own = np.full(at.max() + 1, np.nan)
    own[at] = of.own
    triangles, chains = (
        replace(of.triangles, worst=at[of.triangles.worst]),
        replace(of.chains, worst=at[of.chains.worst]),
    )
    return replace(of, own=own, rows=at[of.rows], rival=at[of.rival], triangles=triangles, chains=chains)


def _change(
    before: Float[np.ndarray, " pairs"], after: Float[np.ndarray, " pairs"], every: Float[np.ndarray, " every"],
    threshold: float, share: float, items: int,
) -> Change:  # fmt: skip
    sizes = np.abs(after - before) / max(float(every.std()), 1e-12)
    crossed = float(((after >= threshold) != (before >= threshold)).mean())
    return Change(share, items, float(sizes.mean()), float(sizes.max()), crossed, len(before))
