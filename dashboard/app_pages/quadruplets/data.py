"""What the Quadruplets page reads and counts, cached until the run mines more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from shared.cache import cached

from pddm_lab.runs.quadruplets import Mined
from pddm_lab.runs.run import Run

FILE = "quadruplets.parquet"


@cached(FILE, max_entries=3, show_spinner="Reading the quadruplets")
def mined(run: Run) -> Mined:
    """The quadruplets that the run has mined so far, without mirror images. Raises RunError where a part is damaged."""
    import pyarrow as pa

    quadruplets = Mined.of(run.mined())
    pa.default_memory_pool().release_unused()  # some 350 MB for a million rows, which it would keep
    return quadruplets


@dataclass(frozen=True)
class Choice:
    """The quadruplets of a run that the page shows."""

    phase: str
    steps: tuple[int, int]
    own: tuple[str, ...] = ()
    """Classes of i and j; empty: all."""
    others: tuple[str, ...] = ()
    """Classes of k or l; empty: all."""
    item: str = ""
    """Id of i or j; empty: all."""
    only: str = ""
    """An `only` of `Mined.pick`."""

    def rows(self, of: Mined) -> np.ndarray:
        """Their rows in what was mined."""
        return of.pick(self.phase, self.steps, own=self.own, others=self.others, item=self.item, only=self.only)


@cached(FILE, max_entries=48, show_spinner="Counting")
def counted(run: Run, choice: Choice, count: Callable[[Mined, np.ndarray], pd.DataFrame]) -> pd.DataFrame:
    """The chosen quadruplets, as a function of `pddm_lab.analysis.hardness` counts them."""
    return count(mined(run), choice.rows(mined(run)))
