"""Arrays and frames to plotly figures, for notebooks and the dashboard alike; `from pddm_lab import figures`.

Every similarity has one colour, dash and marker everywhere, so that a chart reads without its colours too. Positive
pairs carry the similarity's colour, negative pairs are grey. A distance is drawn as the distance (D = -S) on a reversed
axis, so that right is more similar in every chart. Pictures are in `pddm_lab.cards`.
"""

from pddm_lab.figures.audit import probability_by_density, reliability_diagram, self_margins, slack
from pddm_lab.figures.change import drift_over_stream, then_and_now
from pddm_lab.figures.churn import churn
from pddm_lab.figures.lesson import plane_pair, plane_searches
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
from pddm_lab.figures.regions import plane_nearest, plane_regions
from pddm_lab.figures.retrieval import ceiling, elsewhere, rank_flow
from pddm_lab.figures.study import differences, learning, side_by_side
from pddm_lab.figures.style import METRICS, NEGATIVE, PHASE_TITLES, PROTOCOL_TITLES, Metric, in_order, shown, style_of
from pddm_lab.figures.training import comparison, curves, losses
