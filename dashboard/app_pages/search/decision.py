"""Which class a query has by each similarity, or that it is not in the range."""

from __future__ import annotations

from dataclasses import dataclass

from app_pages.search import views
from shared import loaders
from shared.cache import GALLERIES, LOCAL, MODEL, cached
from shared.plain_text import plain
from streamlit.delta_generator import DeltaGenerator

from pddm_lab.analysis.decision import ClassScores, Decision, Range
from pddm_lab.errors import DataError
from pddm_lab.gallery.gallery import SearchResult
from pddm_lab.runs.run import Run

SHOWN_CLASSES, LEAST_SHOWN = 3, 0.01
"""Classes that an answer names at most, and the smallest probability of the second and third."""


@dataclass(frozen=True)
class Answer:
    """What a decision says of a query."""

    classes: list[tuple[str, float]]
    """The most probable classes with their probabilities."""
    none: float
    """Probability that the query is of no class of the range."""
    in_range: bool
    help: str
    """What the probabilities are of, in sentences."""


def decided(run: Run, protocol: str, name: str, result: SearchResult) -> Answer | None:
    """Which class a query has by one similarity, or none; None where the range has too few items to tell."""
    decision = _decision(run, protocol, name)
    if decision is None or result.table.empty:
        return None
    labels = loaders.gallery(run, protocol).items["label"].to_numpy()[result.table["row"]]
    of = ClassScores.of(result.table[name].to_numpy(float)[None], labels[None])
    shares, none = decision.probabilities(of)
    names = dict(zip(labels.tolist(), result.table["class_name"].astype(str), strict=True))
    ranked = sorted(zip(of.labels[0].tolist(), shares[0].tolist(), strict=True), key=lambda pair: -pair[1])
    shown = [pair for at, pair in enumerate(ranked[:SHOWN_CLASSES]) if not at or pair[1] >= LEAST_SHOWN]
    text = (
        f"Probabilities as if every second query were not in the range. They were fitted on {decision.asked:,} items "
        f"of this gallery, each asked with its class and without it: {100 * decision.found:.0f} % get their class, and "
        f"{100 * decision.false_accepts:.0f} % are accepted without it."
    )
    return Answer(
        [(names[label], share) for label, share in shown], float(none[0]), bool(decision.in_range(none)[0]), text
    )


def decide(places: list[tuple[views.Response, str, DeltaGenerator]]) -> None:
    """Say in each ranking which class the query has, or that it is not in the range; after everything else is drawn."""
    for response, name, place in places:
        answer = decided(response.run, response.gallery.protocol, name, response.result)
        if answer is not None:
            place.markdown(decision_text(answer), help=details(answer))


def decision_text(answer: Answer) -> str:
    """The class of an answer with its probability, or that none fits."""
    name, share = answer.classes[0]
    if answer.in_range:
        return f"**{plain(name)}** {100 * share:.0f} %"
    return f":orange[:material/help: **Not in the range** {100 * answer.none:.0f} %]"


def details(answer: Answer) -> str:
    """The other classes, and what the probabilities are of."""
    named = [f"{plain(name)} {100 * share:.0f} %" for name, share in answer.classes]
    return f"{', '.join(named)}, not in the range {100 * answer.none:.0f} %. {answer.help}"


@cached(*GALLERIES, MODEL, LOCAL, max_entries=64)
def _decision(run: Run, protocol: str, name: str) -> Decision | None:
    if not run.is_labelled:
        return None
    local = loaders.local(run)
    by = local.structure if name == "local" and local is not None else loaders.similarities(run)[name]
    try:
        return Decision.fit(Range.of(loaders.gallery(run, protocol), by))
    except DataError:  # too few items
        return None
