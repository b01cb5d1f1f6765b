"""What the pages' words mean, each defined here and nowhere else: shown under a page's title, on hover and on focus."""

from __future__ import annotations

import html
from collections.abc import Sequence

from pddm_lab.figures import METRICS

TERMS = {
    "D": "The Euclidean distance of two features: one ruler for the whole space. Smaller is more similar.",
    "D_M": "The Mahalanobis distance: a ruler stretched in training, the same one everywhere. Smaller is more similar.",
    "S": "The score of the PDDM unit. It sees how two features differ, and where they lie. Larger is more similar.",
    "L": "The similarity on local structure: it compares the neighbours of two items in the gallery. Larger is more "
    "similar.",
    "unseen": "Classes that were not trained on: new ones, as a growing range has them.",
    "known": "New pictures of classes that were trained on.",
    "hinge": "What a quadruplet adds to the loss. It is 0, and not violated, where the negative pair scores lower than "
    "the positive pair by a margin.",
    "shortlist": "The items that are nearest to a query by D. The other similarities rank these again, and no others.",
    "near-duplicate": "A picture that differs from another one in its encoding or size, or by a slight crop.",
    "in the range": "Of a class that the run can find. A query that is too unlike all of them is not in the range.",
    "window": "A number of successive queries that are judged together, against as many of the run's own.",
    "mCE": "The mean corruption error: errors relative to those of the pretrained features, which have 100.",
    "R@1": METRICS["recall@1"].help,
    "MAP@R": METRICS["map@r"].help,
    "TPR at 1 % FPR": METRICS["tpr@1%fpr"].help,
}
_WITH_INDEX = {"D_M": "D<sub>M</sub>"}


RESULTS = "pl-results"
"""Id of the place where a page's results begin."""


def lead(text: str, words: Sequence[str], results: bool = False) -> str:
    """A page's one line as HTML, followed by its words with their meanings.

    Args:
        text: the line.
        words: from `TERMS`.
        results: for the keyboard, begin with a link to the results, which is shown while it has the focus.
    """
    explained = ", ".join(
        f'<span class="pl-term" tabindex="0">{_WITH_INDEX.get(term, html.escape(term))}'
        f'<span class="pl-meaning" role="tooltip">{html.escape(TERMS[term])}</span></span>'
        for term in words
    )
    skip = f'<a class="pl-skip" href="#{RESULTS}" target="_self">Skip to the results</a>' if results else ""
    return f'<p class="pl-lead">{skip}{html.escape(text)}{f" <span>Words: {explained}</span>" if words else ""}</p>'


def meaning(*terms: str) -> str:
    """The meanings of some words, for a control's help."""
    return " ".join(f"{term[0].upper()}{term[1:]}: {TERMS[term]}" for term in terms)
