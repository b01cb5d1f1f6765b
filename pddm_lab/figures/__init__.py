"""Arrays and frames to plotly figures, for notebooks and the dashboard alike; `from pddm_lab import figures`.

Every similarity has one colour, dash and marker everywhere, so that a chart reads without its colours too. Positive
pairs carry the similarity's colour, negative pairs are grey. A distance is drawn as the distance (D = -S) on a reversed
axis, so that right is more similar in every chart. Pictures are in `pddm_lab.cards`.
"""

from pddm_lab.figures.audit import chance_by_density, reliability_diagram, self_margins, slack
from pddm_lab.figures.maps import (
    RAMPS,
    Colouring,
    class_colour,
    colour_by_class,
    colour_by_mistake,
    colour_by_similarity,
    colour_by_value,
    map_of,
)
from pddm_lab.figures.pairs import by_density, distributions, distributions_by_density, joint, roc, roc_by_density
from pddm_lab.figures.plane import (
    plane_along,
    plane_everywhere,
    plane_neighbourhood,
    plane_pairs,
    plane_rulers,
    plane_steps,
    plane_through,
    plane_unit,
)
from pddm_lab.figures.quadruplets import HARDNESS, batch_matrix, confusion, hardness
from pddm_lab.figures.retrieval import ceiling, elsewhere, rank_flow
from pddm_lab.figures.study import differences, learning, side_by_side
from pddm_lab.figures.style import (
    METRICS,
    NEGATIVE,
    PHASE_TITLES,
    PROTOCOL_TITLES,
    SIMILARITIES,
    Metric,
    in_order,
    shown,
    style_of,
)
from pddm_lab.figures.training import comparison, curves, losses

__all__ = [
    "HARDNESS",
    "METRICS",
    "NEGATIVE",
    "PHASE_TITLES",
    "PROTOCOL_TITLES",
    "RAMPS",
    "SIMILARITIES",
    "Colouring",
    "Metric",
    "batch_matrix",
    "by_density",
    "ceiling",
    "chance_by_density",
    "class_colour",
    "colour_by_class",
    "colour_by_mistake",
    "colour_by_similarity",
    "colour_by_value",
    "comparison",
    "confusion",
    "curves",
    "differences",
    "distributions",
    "distributions_by_density",
    "elsewhere",
    "hardness",
    "in_order",
    "joint",
    "learning",
    "losses",
    "map_of",
    "plane_along",
    "plane_everywhere",
    "plane_neighbourhood",
    "plane_pairs",
    "plane_rulers",
    "plane_steps",
    "plane_through",
    "plane_unit",
    "rank_flow",
    "reliability_diagram",
    "roc",
    "roc_by_density",
    "self_margins",
    "shown",
    "side_by_side",
    "slack",
    "style_of",
]
