"""Cached calls of the Similarity page into pddm_lab."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from shared import loaders
from shared.cache import GALLERIES, LOCAL, MODEL, cached

from pddm_lab.analysis.thresholds import ByDensity
from pddm_lab.metrics.density import DENSITIES
from pddm_lab.metrics.separation import Distribution, histogram
from pddm_lab.runs.run import Run
from pddm_lab.similarities import SIMILARITIES

WHERE = {"all": "any density"} | {name: f"{name} third" for name in DENSITIES}
"""Which of the scored pairs to look at, by how densely their items lie."""


def not_measured(run: Run) -> list[str]:
    """The similarities of a run that some of its galleries were not measured by. Raises as `loaders.pairs` does."""
    lacking = {name for protocol in run.protocols() for name in loaders.pairs(run, protocol).not_measured}
    return [
        name for name, spec in SIMILARITIES.items() if name in lacking and (name in run.learned or not spec.is_learned)
    ]


@cached(*GALLERIES, MODEL, LOCAL, max_entries=32, show_spinner="Measuring the threshold by density, with intervals")
def by_density(run: Run, protocol: str, similarity: str, share: float) -> ByDensity:
    """One threshold within each third of the sampled pairs. Raises as `loaders.sampled_pairs` does."""
    from pddm_lab.analysis.thresholds import by_density

    return by_density(loaders.sampled_pairs(run, protocol), similarity, share)


@cached(*GALLERIES, MODEL, LOCAL, max_entries=32)
def thirds(run: Run, protocol: str, similarity: str) -> dict[str, Distribution]:
    """The distributions of the sampled pairs in each third by density."""
    pairs = loaders.sampled_pairs(run, protocol)
    values, density, positive = (pairs[name].to_numpy() for name in (similarity, "density", "positive"))
    distributions = {}
    for third, name in enumerate(DENSITIES):
        ones, others = (np.sort(values[(density == third) & (positive == kind)]) for kind in (True, False))
        distributions[name] = histogram(ones, others, pairs_total=len(ones) + len(others))
    return distributions


def pairs_where(run: Run, protocol: str, where: str) -> pd.DataFrame:
    """The scored pairs of one density, or all of them. Raises as `loaders.scored_pairs` does."""
    if where == "all":
        return loaders.scored_pairs(run, protocol)
    pairs = loaders.sampled_pairs(run, protocol)
    return pairs[pairs["density"].to_numpy() == DENSITIES.index(where)]


def scored_in_words(run: Run, protocol: str) -> str:
    """How many of all pairs were scored one by one."""
    pairs, scored = loaders.pairs(run, protocol), len(loaders.scored_pairs(run, protocol))
    return f"{scored:,} of {pairs.positives + pairs.negatives:,} pairs were scored one by one."


def scores_of(run: Run, protocol: str, items: Sequence[str]) -> dict[str, float] | None:
    """Every similarity of two items of a gallery; None if it lacks one of them. Raises as `scored_pairs` does."""
    from pddm_lab.analysis.local_pairs import score_local_pairs
    from pddm_lab.analysis.pairs import score_pairs

    gallery = loaders.gallery(run, protocol)
    a, b = (loaders.row_of(gallery, item) for item in items)
    if a is None or b is None:
        return None
    similarities, local = loaders.similarities(run), loaders.local(run)
    scored = score_pairs(gallery.features, pd.DataFrame({"a": [a], "b": [b]}), similarities)
    scores = {name: float(scored[name].iloc[0]) for name in similarities}
    if local is not None:
        scores["local"] = float(score_local_pairs(gallery, local.structure, np.array([a]), np.array([b]))[0])
    return {name: score for name, score in scores.items() if np.isfinite(score)}
