"""Which class a query has by each similarity, or that it is not in the range.

By local structure this takes some seconds the first time; until then the page is there without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st
from app_pages.search import views
from shared import loaders
from shared.cache import GALLERIES, LOCAL, MODEL, cached
from shared.plain_text import plain
from shared.work import Background
from streamlit.delta_generator import DeltaGenerator

from pddm_lab.gallery.gallery import Gallery
from pddm_lab.runs.run import Run

if TYPE_CHECKING:
    from pddm_lab.analysis.decision import Decision
    from pddm_lab.local.unit import LocalStructure
    from pddm_lab.model.similarity import Similarity

SAMPLE = 500
"""Items of a gallery that a decision is fitted on: a second by D, some by local structure."""
AT_ONCE = 2.0
"""Seconds that a page waits for a decision before it is drawn without it."""


class Fitting(Background):
    """A decision that is being fitted, or read where it is kept."""

    def __init__(self, run: Run, gallery: Gallery, name: str, by: Similarity | LocalStructure) -> None:
        self._of = run, gallery, name, by
        self.decision: Decision | None = None
        """None until it is there, and where the range has too few items to tell."""
        super().__init__()

    def _work(self) -> None:
        from pddm_lab.analysis.decision import decision_of

        self.decision = decision_of(*self._of, SAMPLE)

    @property
    def share(self) -> float:
        """Not known before it is done."""
        return float(not self.running)


@dataclass(frozen=True)
class Answer:
    """What a decision says of a query."""

    class_name: str
    """The class of its most similar item."""
    probability: float
    """That this is its class."""
    in_range: bool
    help: str
    """What the probability is of, in sentences."""


def decided(response: views.Response, decision: Decision, name: str) -> Answer:
    """Which class a query has by one similarity, or none; the size of the page's shortlist doesn't matter."""
    first, probability, in_range = decision.of_query(
        response.gallery, _similarity(response.run, name), response.feature, response.row, response.pretrained
    )
    text = (
        "The probability that this is its class, as if every second query were not in the range. It follows from how "
        f"similar the first items are, whatever the size of the shortlist. {decision.items:,} items of this gallery "
        f"were asked with their class in it and without: {100 * decision.hits:.0f} % get their class, "
        f"{100 * decision.false_accepts:.0f} % are accepted without it."
    )
    return Answer(first, probability, in_range, text)


def decide(places: list[tuple[views.Response, str, DeltaGenerator]]) -> None:
    """Say in each ranking which class the query has, or that it is not in the range; after everything else is drawn."""
    waiting = []
    for response, name, place in places:
        run, protocol = response.run, response.gallery.protocol
        if not run.is_labelled or response.result.table.empty:
            continue
        fitting = _fitting(run, protocol, name)
        fitting.wait(AT_ONCE)
        if fitting.running:
            place.caption(":material/progress_activity: In the range?")
            waiting.append(fitting)
        elif fitting.decision is not None:
            answer = decided(response, fitting.decision, name)
            place.markdown(decision_text(answer), help=f"{plain(answer.class_name)}. {answer.help}")
    if waiting:
        _wait_for(waiting)


@st.fragment(run_every=1)
def _wait_for(waiting: list[Fitting]) -> None:
    """Draw the page again when all decisions are there."""
    if not any(one.running for one in waiting):
        st.rerun()


def decision_text(answer: Answer) -> str:
    """The probability of an answer and its class, which is cut if it is long; or, in two lines, that none fits."""
    name, share = plain(answer.class_name), f"{100 * answer.probability:.0f} %"
    return f"{share} **{name}**" if answer.in_range else f":orange[**Not in the range**]\n\nor {share} {name}"


@cached(*GALLERIES, MODEL, LOCAL, max_entries=64)
def _fitting(run: Run, protocol: str, name: str) -> Fitting:
    """The decision by one similarity, begun at the first call."""
    return Fitting(run, loaders.gallery(run, protocol), name, _similarity(run, name))


def _similarity(run: Run, name: str) -> Similarity | LocalStructure:
    local = loaders.local(run)
    return local.structure if name == "local" and local is not None else loaders.similarities(run)[name]
