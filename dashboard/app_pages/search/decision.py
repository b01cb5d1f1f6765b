"""Which class a query has by each similarity, or that it is not in the range."""

from __future__ import annotations

from dataclasses import dataclass

from app_pages.search import views
from shared import loaders
from shared.cache import GALLERIES, LOCAL, MODEL, cached
from shared.plain_text import plain
from streamlit.delta_generator import DeltaGenerator

from pddm_lab.analysis.decision import Decision, Range, Shortlists
from pddm_lab.errors import DataError
from pddm_lab.gallery.gallery import SearchResult
from pddm_lab.runs.run import Run

SAMPLE = 500
"""Items of a gallery that a decision is fitted on: a second by D, some by local structure."""


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


def decided(run: Run, protocol: str, name: str, result: SearchResult) -> Answer | None:
    """Which class a query has by one similarity, or none; None where the range has too few items to tell."""
    decision = _decision(run, protocol, name)
    if decision is None or result.table.empty:
        return None
    labels = loaders.gallery(run, protocol).items["label"].to_numpy()[result.table["row"]]
    probability = decision.probability(Shortlists.of(result.table[name].to_numpy(float)[None], labels[None]))
    first = str(result.table["class_name"].iloc[result.table[f"{name}_rank"].argmin()])
    text = (
        "The probability that this is its class, as if every second query were not in the range. It follows from how "
        f"similar the first items are. {decision.items:,} items of this gallery were asked with their class in it and "
        f"without: {100 * decision.hits:.0f} % get their class, {100 * decision.false_accepts:.0f} % are accepted "
        "without it."
    )
    return Answer(first, float(probability[0]), bool(decision.in_range(probability)[0]), text)


def decide(places: list[tuple[views.Response, str, DeltaGenerator]]) -> None:
    """Say in each ranking which class the query has, or that it is not in the range; after everything else is drawn."""
    for response, name, place in places:
        answer = decided(response.run, response.gallery.protocol, name, response.result)
        if answer is not None:
            place.markdown(decision_text(answer), help=f"{plain(answer.class_name)}. {answer.help}")


def decision_text(answer: Answer) -> str:
    """The class of an answer with its probability, or that none fits."""
    name, share = plain(answer.class_name), f"{100 * answer.probability:.0f} %"
    return f"**{name}** {share}" if answer.in_range else f":orange[**Not in the range**] :gray[or {name}, {share}]"


@cached(*GALLERIES, MODEL, LOCAL, max_entries=64)
def _decision(run: Run, protocol: str, name: str) -> Decision | None:
    if not run.is_labelled:
        return None
    local = loaders.local(run)
    by = local.structure if name == "local" and local is not None else loaders.similarities(run)[name]
    try:
        return Decision.fit(Range.of(loaders.gallery(run, protocol), by), sample=SAMPLE)
    except DataError:  # too few items
        return None
