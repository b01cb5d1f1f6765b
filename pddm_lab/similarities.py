"""The similarities by name: what each is called and how it looks everywhere. Their computation: model/similarity.py.

A similarity is a line here and a class there; tables, charts, pages and the command line follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True)
class SimilaritySpec:
    """One similarity's name for people, its looks, and how it is used."""

    title: str
    letter: str
    """Symbol of its shown value, as plain text."""
    colour: str
    """At least 3:1 in contrast on white and on near-black."""
    dash: str
    symbol: str
    """Plotly's name of its marker."""
    axis: str
    """What its values are called, with the direction that is more similar."""
    is_distance: bool = False
    """Shown as the distance D = -S."""
    is_learned: bool = False
    """Has weights: every run trains it, on detached features unless it is the one the run was asked for."""
    is_network: bool = False
    """Scores a pair by layers of its own: it re-ranks a shortlist where scoring all pairs would take too long."""


SIMILARITIES: dict[str, SimilaritySpec] = {
    "euclidean": SimilaritySpec(
        "Euclidean", "D", "#2F78D0", "solid", "circle", "Euclidean distance D (smaller = more similar)",
        is_distance=True,
    ),
    "cosine": SimilaritySpec("Cosine", "cos", "#B83280", "dot", "triangle-up", "cosine (larger = more similar)"),
    "mahalanobis": SimilaritySpec(
        "Mahalanobis", "D_M", "#0E9470", "dash", "square", "Mahalanobis distance D_M (smaller = more similar)",
        is_distance=True, is_learned=True,
    ),
    "pddm": SimilaritySpec(
        "PDDM", "S", "#D9570B", "solid", "diamond", "PDDM score S (larger = more similar)", is_learned=True,
        is_network=True,
    ),
}  # fmt: skip
"""In the order that every table and legend uses."""
IN_GALLERY: dict[str, SimilaritySpec] = {
    "local": SimilaritySpec(
        "Local structure", "L", "#7D55D9", "longdash", "hexagon", "local structure L (larger = more similar)",
        is_learned=True,
    ),
    "expansion": SimilaritySpec(
        "Query expansion", "cos", "#A8750B", "dot", "triangle-down",
        "cosine with the expanded query (larger = more similar)",
    ),
    "both_expansion": SimilaritySpec(
        "Expansion of both sides", "cos", "#5E8A14", "dash", "cross", "cosine of the expansions (larger = more similar)"
    ),
    "csls": SimilaritySpec("CSLS", "CSLS", "#128C9C", "dashdot", "pentagon", "CSLS (larger = more similar)"),
    "k_reciprocal": SimilaritySpec(
        "k-reciprocal re-ranking", "-d", "#B5506B", "longdashdot", "bowtie", "minus the k-reciprocal distance"
    ),
}  # fmt: skip
"""Similarities of a pair and its gallery (local/): the one that learns, and its rivals without training.

A run with local structure is measured by them too. What only has features, and no gallery, leaves them out.
"""
EVERY = SIMILARITIES | IN_GALLERY
SHOWN = (*SIMILARITIES, "local")
"""Those that pages show pair by pair, where a run has them."""
PRETRAINED = "pretrained"
"""In tables of similarities, the name of a row to compare a run with: D of the trunk's own features before training."""
PRETRAINED_FEATURES = SimilaritySpec(
    "Pretrained features", "D", "#857550", "dashdot", "star", "distance of the pretrained features", is_distance=True
)
LEARNED = tuple(name for name, spec in SIMILARITIES.items() if spec.is_learned)

if TYPE_CHECKING:
    SimilarityName = str
else:
    SimilarityName = Literal[tuple(SIMILARITIES)]
