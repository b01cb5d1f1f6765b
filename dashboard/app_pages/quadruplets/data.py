"""Cached calls for the Quadruplets page, keyed as those in loaders.py are: on a path and on when its files changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st
from shared import loaders

from pddm_lab.analysis import hardness
from pddm_lab.runs.quadruplets import Mined
from pddm_lab.runs.run import Run


def mined(run: Run) -> Mined:
    """The quadruplets that the run mined so far, mirror images left out. Raises RunError where a part is torn."""
    return _mined(str(run.path), loaders._stamp(run.path / "quadruplets.parquet"))


@st.cache_resource(max_entries=3, show_spinner="Reading the quadruplets")
def _mined(path: str, stamp: loaders.Stamp) -> Mined:
    import pyarrow as pa

    found = Mined.of(Run.open(path).mined())
    pa.default_memory_pool().release_unused()  # of a million rows some 350 MB, which it would keep
    return found


@dataclass(frozen=True)
class Choice:
    """Which quadruplets of a run the page is about."""

    phase: str
    steps: tuple[int, int]
    own: tuple[str, ...] = ()
    """Classes of i and j; none for all."""
    others: tuple[str, ...] = ()
    """Classes of which k or l is; none for all."""
    item: str = ""
    """Id of i or j; empty for all."""
    only: str = ""
    """An `only` of `Mined.pick`."""

    def rows(self, of: Mined) -> np.ndarray:
        """Their places in what was mined."""
        return of.pick(self.phase, self.steps, own=self.own, others=self.others, item=self.item, only=self.only)


def through_training(run: Run, choice: Choice) -> pd.DataFrame:
    """`hardness.through_training` of what is chosen."""
    return _told(run, choice, "through training", hardness.through_training)


def confusions(run: Run, choice: Choice) -> pd.DataFrame:
    """`hardness.confusions` of what is chosen."""
    return _told(run, choice, "confusions", hardness.confusions)


def mutual(run: Run, choice: Choice) -> pd.DataFrame:
    """The same as `hardness.mutual` of both directions."""
    return _told(run, choice, "mutual", lambda of, rows: hardness.mutual(hardness.confusions(of, rows)))


def suspects(run: Run, choice: Choice) -> pd.DataFrame:
    """`hardness.suspects` of what is chosen."""
    return _told(run, choice, "suspects", hardness.suspects)


def _told(run: Run, choice: Choice, what: str, tell: Callable[[Mined, np.ndarray], pd.DataFrame]) -> pd.DataFrame:
    return _cached(str(run.path), loaders._stamp(run.path / "quadruplets.parquet"), choice, what, tell, mined(run))


@st.cache_resource(max_entries=48, show_spinner="Counting")
def _cached(
    path: str, stamp: loaders.Stamp, choice: Choice, what: str, _tell: Callable[[Mined, np.ndarray], pd.DataFrame],
    _of: Mined,
) -> pd.DataFrame:  # fmt: skip
    return _tell(_of, choice.rows(_of))
