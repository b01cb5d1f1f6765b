"""What a worker decides by: fitted on the catalogue at the start, and again in the background when it has changed.

By local structure it takes twenty seconds of a catalogue of 7,000 items, so searches don't wait for it at the start.

A decision knows signs, not classes, so that it holds for a class that came a moment ago.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Executor, Future

import numpy as np
import pandas as pd

from pddm_lab.analysis.decision import Decision, Range
from pddm_lab.errors import LabError
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.local.unit import LocalStructure
from pddm_lab.model.similarity import Similarity

SAMPLE = 500
"""Items that a decision is fitted on: a second by D among 100,000 items."""
CHANGED = 0.01
"""Share of the items that may come, go or get another class before it is fitted again."""
MOST_LOCAL = 20_000
"""Items beyond which none is fitted by local structure: it would list the neighbourhoods of all of them four times."""
_SOON = "The service has just begun to answer by this model, and still fits this decision: search again in a minute."
_FAILED = "This decision could not be fitted: the log of the service has the reason."


class Decisions:
    """Decisions by each similarity of a run.

    Args:
        by: name -> similarity.
        is_labelled: whether the classes of the items are known.
        background: where they are fitted again.
    """

    def __init__(
        self, by: Mapping[str, Similarity | LocalStructure], is_labelled: bool, background: Executor
    ) -> None:  # fmt: skip
        self._by, self._is_labelled, self._background = by, is_labelled, background
        self._fitted: dict[str, tuple[Decision | None, str]] = {}
        self._classes = pd.Series(dtype="int64")
        self._followed = -1  # number of the change that was looked at last
        self._fitting: Future[None] | None = None

    def of(self, name: str) -> tuple[Decision | None, str]:
        """The decision by a similarity, or None and the reason in a sentence."""
        return self._fitted.get(name, (None, _SOON))

    def start(self, gallery: Gallery) -> None:
        """Fit those that take a moment; the one by local structure follows in the background."""
        self._classes = _classes(gallery)
        quick = [name for name, by in self._by.items() if not isinstance(by, LocalStructure)]
        self._fitted = {name: self._fit(gallery, name) for name in quick}
        if len(quick) < len(self._by):
            self._fitting = self._background.submit(self.fit, gallery)

    def fit(self, gallery: Gallery) -> None:
        """Fit all on a gallery."""
        self._classes = _classes(gallery)
        self._fitted = {name: self._fit(gallery, name) for name in self._by}

    def follow(self, gallery: Gallery) -> None:
        """Fit all again in the background, if the gallery has changed enough and none is being fitted."""
        change = int(gallery.manifest.get("change", 0))
        if change == self._followed or (self._fitting is not None and not self._fitting.done()):
            return
        self._followed = change
        changed = _changes(self._classes, _classes(gallery))
        if changed and changed >= CHANGED * len(gallery):
            self._fitting = self._background.submit(self.fit, gallery)

    def _fit(self, gallery: Gallery, name: str) -> tuple[Decision | None, str]:
        if not self._is_labelled:
            return None, "The items have no classes, so none can be decided on."
        by = self._by[name]
        if isinstance(by, LocalStructure) and len(gallery) > MOST_LOCAL:
            return None, f"Local structure decides up to {MOST_LOCAL:,} items: search by euclidean for a decision."
        try:
            return Decision.fit(Range.of(gallery, by), sample=SAMPLE), ""
        except LabError as error:
            return None, str(error)
        except Exception:  # in the background nobody would hear of it; an earlier decision still holds
            logging.getLogger(__name__).exception("The decision by %s could not be fitted.", name)
            return self._fitted.get(name, (None, _FAILED))


def _classes(gallery: Gallery) -> pd.Series:
    """The label of each item, by the place of its vector, which another picture doesn't get."""
    return pd.Series(gallery.items["label"].to_numpy(), gallery.places_of(np.arange(len(gallery))))


def _changes(before: pd.Series, after: pd.Series) -> int:
    """How many items came, went or are of another class; a class that only has another name is the same."""
    is_same = before.reindex(after.index) == after
    return int((~is_same).sum() + (~before.index.isin(after.index)).sum())
