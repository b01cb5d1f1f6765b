"""Cached calls for the Similarity page, keyed as those in loaders.py are: on a path and on when its files changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st
from shared import loaders

from pddm_lab.analysis.thresholds import ByDensity
from pddm_lab.metrics.density import DENSITIES
from pddm_lab.metrics.separation import Distribution, histogram
from pddm_lab.runs.run import Run


def by_density(run: Run, protocol: str, similarity: str, share: float) -> ByDensity:
    """One threshold within each third of the sampled pairs; a run's files are read as `loaders.sampled_pairs` does."""
    pairs = loaders.sampled_pairs(run, protocol)
    return _by_density(str(run.path), protocol, loaders.pair_stamps(run, protocol), similarity, share, pairs)


@st.cache_resource(max_entries=32, show_spinner="Measuring the threshold by density, with intervals")
def _by_density(
    path: str, protocol: str, stamps: tuple[loaders.Stamp, ...], similarity: str, share: float, _pairs: pd.DataFrame
) -> ByDensity:
    from pddm_lab.analysis.thresholds import by_density

    return by_density(_pairs, similarity, share)


def thirds(run: Run, protocol: str, similarity: str) -> dict[str, Distribution]:
    """The distribution of the sampled pairs of each third, by density."""
    pairs = loaders.sampled_pairs(run, protocol)
    return _thirds(str(run.path), protocol, loaders.pair_stamps(run, protocol), similarity, pairs)


@st.cache_resource(max_entries=32, show_spinner=False)
def _thirds(
    path: str, protocol: str, stamps: tuple[loaders.Stamp, ...], similarity: str, _pairs: pd.DataFrame
) -> dict[str, Distribution]:
    values, density, positive = (_pairs[name].to_numpy() for name in (similarity, "density", "positive"))
    found = {}
    for third, name in enumerate(DENSITIES):
        ones, others = (np.sort(values[(density == third) & (positive == kind)]) for kind in (True, False))
        found[name] = histogram(ones, others, pairs_total=len(ones) + len(others))
    return found


WHERE = {"all": "any density"} | {name: f"{name} third" for name in DENSITIES}
"""Which of the scored pairs to look at, by how densely their items lie."""


def pairs_where(run: Run, protocol: str, where: str) -> pd.DataFrame:
    """The scored pairs of one density, or all of them; raises as `loaders.scored_pairs` does."""
    if where == "all":
        return loaders.scored_pairs(run, protocol)
    pairs = loaders.sampled_pairs(run, protocol)
    return pairs[pairs["density"].to_numpy() == DENSITIES.index(where)]


def scored_in_words(run: Run, protocol: str) -> str:
    """How many of the pairs that there are were scored one by one."""
    pairs, scored = loaders.pairs(run, protocol), len(loaders.scored_pairs(run, protocol))
    return f"{scored:,} of {pairs.positives + pairs.negatives:,} pairs were scored one by one."


def scores_of(run: Run, protocol: str, items: Sequence[str]) -> dict[str, float] | None:
    """Every similarity of two items of a gallery; None where it doesn't hold both. Raises as `scored_pairs` does."""
    from pddm_lab.analysis.pairs import score_pairs

    of = loaders.gallery(run, protocol)
    a, b = (loaders.row_of(of, item) for item in items)
    if a is None or b is None:
        return None
    similarities = loaders.similarities(run)
    scored = score_pairs(of.features, pd.DataFrame({"a": [a], "b": [b]}), similarities)
    return {name: float(scored[name].iloc[0]) for name in similarities}
