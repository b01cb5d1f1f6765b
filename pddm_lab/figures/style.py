"""The common style of all figures: colours, a title and unit per metric, one template.

Colours have a contrast of at least 3:1 on white and on near-black, and backgrounds are transparent: one figure suits a
light and a dark page. The style of each similarity: similarities.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from pddm_lab.similarities import EVERY, PRETRAINED, PRETRAINED_FEATURES, SimilaritySpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEGATIVE = "#8A93A3"
"""Colour of negative pairs."""
DARK = "#6B7686"
"""Colour of neutral lines and marks."""
RIGHT, WRONG = "#17875A", "#C4382F"
"""Colours of right and wrong classes, which always differ in another way too."""
PROTOCOL_TITLES = {
    "unseen": "Unseen classes", "known": "Known classes", "validation": "Validation classes",
    "train": "Training batches", "catalogue": "Whole range",
}  # fmt: skip
PHASE_TITLES = {
    "select": "Choosing the best step", "refit": "Refit on all training classes", "local": "Local structure",
    "evaluate": "Measuring", "gallery": "Building the galleries", "done": "Done",
}  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """How to display one metric."""

    title: str
    unit: str
    """ "%" for fractions, which are shown in percent; "" for plain numbers."""
    help: str
    digits: int = 1
    larger_is_better: bool = True

    def format(self, value: float) -> str:
        """The value as text without its unit; a dash if there is none."""
        if value is None or not np.isfinite(value):
            return "–"
        return f"{value * self.scale:.{self.digits}f}"

    @property
    def scale(self) -> int:
        """What values are multiplied by for display."""
        return 100 if self.unit == "%" else 1

    @property
    def heading(self) -> str:
        """Title with its unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


METRICS: dict[str, Metric] = {
    **{
        f"recall@{k}": Metric(f"R@{k}", "%", f"Queries with a right item among the first {k} results.")
        for k in (1, 2, 4, 8, 16, 32)
    },
    "r_precision": Metric(
        "R-precision", "%", "Share of right items among the first R, R being the number of right items."
    ),
    "map@r": Metric(
        "MAP@R",
        "%",
        "Share of right items among the first R results, R being the number of right items; early ones count more.",
    ),
    "nmi": Metric("NMI", "%", "Normalised mutual information of k-means clusters and classes."),
    "auc": Metric("ROC AUC", "", "Probability that a positive pair is more similar than a negative one.", 4),
    "eer": Metric("EER", "%", "Error rate where false positives and false negatives are equally frequent.", 1, False),
    "dprime": Metric("d′", "", "Distance of the means of positive and negative pairs, in standard deviations.", 2),
    "tpr@1%fpr": Metric("TPR at 1 % FPR", "%", "Positive pairs accepted when 1 % of the negative ones are."),
}
"""Every metric of a run, in the order of tables."""
TEMPLATE = go.layout.Template(
    layout=go.Layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#7B8594", "size": 13},
        xaxis={"gridcolor": "rgba(138,147,163,.22)", "zeroline": False, "automargin": True},
        yaxis={"gridcolor": "rgba(138,147,163,.22)", "zeroline": False, "automargin": True},
    )
)
RING = {"color": "white", "width": 1.5}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def new_figure(title: str, height: int, figure: go.Figure | None = None) -> go.Figure:
    layout = {
        "template": TEMPLATE,
        "height": height,
        "title": {"text": title, "x": 0, "xanchor": "left", "font": {"size": 15}} if title else None,
        "margin": {"l": 8, "r": 12, "t": 72 if title else 40, "b": 4},
        "legend": {
            "orientation": "h", "x": 0, "xanchor": "left", "yref": "container", "y": 0.88 if title else 0.995,
            "yanchor": "top", "title": None,
        },
        "hovermode": "x unified",
    }  # fmt: skip
    # Passing the layout to a new figure takes a quarter of the time of an update.
    return go.Figure(layout=layout) if figure is None else figure.update_layout(layout)


def style_of(similarity: str) -> SimilaritySpec:
    """The style of a similarity or of `PRETRAINED`; an unknown one is drawn in grey under its own name."""
    if similarity == PRETRAINED:
        return PRETRAINED_FEATURES
    plain = SimilaritySpec(similarity, "s", DARK, "dashdot", "x", f"{similarity} (larger = more similar)")
    return EVERY.get(similarity, plain)


def shown(similarity: str, values: NDArray) -> NDArray:
    """Similarities as displayed: a distance becomes positive again."""
    return -np.asarray(values) if style_of(similarity).is_distance else np.asarray(values)


def in_order(similarities: Iterable[str]) -> list[str]:
    """Similarities in the order of every table and legend."""
    order = {name: rank for rank, name in enumerate(EVERY)}
    return sorted(set(similarities), key=lambda name: (order.get(name, len(order)), name))


def metric_of(metric: str | Metric) -> Metric:
    """How to display a metric; an unknown one appears under its own name."""
    return metric if isinstance(metric, Metric) else METRICS.get(metric) or Metric(metric, "", "", 3)


def ticks_at(values: Iterable[float]) -> dict[str, list]:
    """Axis ticks at values, written without trailing zeros."""
    return {"tickvals": list(values), "ticktext": [f"{value:,g}" for value in values]}


def translucent(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
