"""What each part of PDDM is for: the preset `quick` with one choice changed at a time.

Every variant has one configuration, the default's, and chooses its number of steps on held-out classes as any method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pddm_lab.config import SimilarityName
from pddm_lab.study.methods import LAB, Method

FACTORS = (
    "default", "loss", "alpha (score_margin)", "beta (distance_margin)", "lambda (embedding_weight)", "place v",
    "S", "dropout", "width", "u and v",
)  # fmt: skip
"""What is varied, in the order of the tables."""
_RANKS: tuple[SimilarityName, ...] = ("euclidean", "mahalanobis", "pddm")
# On distances the score's hinge is E_e, with alpha in the place of beta.
_E_E = {"similarity": "euclidean", "score_margin": 1.0, "embedding_weight": 0.0}


@dataclass(frozen=True)
class Variant:
    """One row of the ablation."""

    factor: str
    """One of `FACTORS`."""
    method: Method


def _variant(name: str, factor: str, title: str, **fixed: Any) -> Variant:
    return Variant(factor, Method(name, title, "ablation", "joint", fixed, {}, _RANKS))


ABLATIONS: dict[str, Variant] = {
    variant.method.name: variant
    for variant in (
        _variant("default", "default", "E_m and E_e; alpha 0.5, beta 1, lambda 0.5, width 128"),
        _variant("e_m_only", "loss", "E_m only", embedding_weight=0.0),
        _variant("e_e_only", "loss", "E_e only, on what D mines; S learns beside, on detached features", **_E_E),
        _variant(
            "detached", "loss", "E_e only, on what S mines; S learns beside, on detached features",
            **_E_E, mining_similarity="pddm",
        ),
        _variant("alpha_low", "alpha (score_margin)", "0.25", score_margin=0.25),
        _variant("alpha_high", "alpha (score_margin)", "1", score_margin=1.0),
        _variant("beta_low", "beta (distance_margin)", "0.5", distance_margin=0.5),
        _variant("beta_high", "beta (distance_margin)", "1.5", distance_margin=1.5),
        _variant("lambda_low", "lambda (embedding_weight)", "0.1", embedding_weight=0.1),
        _variant("lambda_high", "lambda (embedding_weight)", "2", embedding_weight=2.0),
        _variant("no_position", "place v", "without: u alone", unit_position=False),
        _variant("corrects", "S", "corrects D: W_s c + b_s - g D", unit_global=1.0),
        _variant("corrects_detached", "S", "the same, on detached features", unit_global=1.0, unit_detached=True),
        _variant("lab", "S", "the same, and fades where nothing is familiar: the preset lab", **LAB),
        _variant("dropout", "dropout", "0.3", unit_dropout=0.3),
        _variant("narrow", "width", "64", unit_hidden=64),
        _variant("wide", "width", "256", unit_hidden=256),
        _variant("normalised", "u and v", "normalised", unit_normalize=True),
    )
}  # fmt: skip
"""By name; the default first."""
PRESETS_THEMSELVES = ("default", "lab")
"""The presets `quick` and `lab` with their own settings, which no search chose: as many seeds as the methods have."""
