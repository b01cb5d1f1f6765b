"""Arrays and frames to plotly figures, for notebooks and the dashboard alike; `from pddm_lab import figures`.

Every similarity has one colour, dash and marker everywhere, so that a chart reads without its colours too. Positive
pairs carry the similarity's colour, negative pairs are grey. A distance is drawn as the distance (D = -S) on a reversed
axis, so that right is more similar in every chart. Pictures are in `pddm_lab.cards`.
"""

from pddm_lab.figures.looks import (
    METRICS,
    NEGATIVE,
    PHASE_TITLES,
    PROTOCOL_TITLES,
    STYLES,
    Metric,
    Style,
    in_order,
    shown,
    style_of,
)
from pddm_lab.figures.pairs import distributions, roc
from pddm_lab.figures.quadruplets import hardness
from pddm_lab.figures.training import comparison, curves, losses

__all__ = [
    "METRICS",
    "NEGATIVE",
    "PHASE_TITLES",
    "PROTOCOL_TITLES",
    "STYLES",
    "Metric",
    "Style",
    "comparison",
    "curves",
    "distributions",
    "hardness",
    "in_order",
    "losses",
    "roc",
    "shown",
    "style_of",
]
