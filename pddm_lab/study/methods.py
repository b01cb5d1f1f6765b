"""The methods of a study: each one's loss, its fixed settings, and the small grid that is searched.

All search equally many configurations: three learning rates by two values of the setting that matters most to the
method. A setting is a field of `TrainConfig`, or an option of the method's loss.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pddm_lab.config import LOSSES, PRESETS, TrainConfig
from pddm_lab.errors import ConfigError
from pddm_lab.similarities import SimilarityName
from pddm_lab.study.material import SHARED, Material

CONFIGURATIONS = 6
"""How many each method searches."""
LEARNING_RATES = (5e-4, 2e-4, 1.25e-3)
HIGHER_RATES = (1.25e-3, 5e-4, 3e-3)
"""For losses that learn more slowly: those with weights of their own, and those that see the features' length."""
LAB: dict[str, Any] = {"unit_global": 1.0, "unit_detached": True, "familiarity": 0.55}
"""The S of earlier runs of the preset `lab` (model/familiarity.py)."""
UNTRAINED = ("pretrained", "pca")
_FIELDS = {field.name for field in dataclasses.fields(TrainConfig)}
_PDDM: tuple[SimilarityName, ...] = ("euclidean", "mahalanobis", "pddm")


@dataclass(frozen=True)
class Method:
    """One row of the comparison."""

    name: str
    title: str
    family: str
    """pddm, mined (PDDM's loss on quadruplets that another similarity mines), baseline or untrained."""
    objective: str
    """joint: PDDM's loss, as the settings say; else another loss of `config.LOSSES`, or one of `UNTRAINED`."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Settings that aren't searched."""
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Setting -> values; every combination is a configuration."""
    ranks: tuple[SimilarityName, ...] = ("euclidean",)
    """The similarities it ranks with; all are reported."""
    selection: SimilarityName = "euclidean"
    """The similarity whose MAP@R on held-out classes chooses its configuration and its steps."""

    @property
    def trains(self) -> bool:
        """Whether it is trained at all."""
        return self.objective not in UNTRAINED

    def configurations(self, count: int = CONFIGURATIONS) -> list[dict[str, Any]]:
        """The first `count` combinations of the grid, each with the fixed settings."""
        combinations = itertools.product(*self.grid.values())
        every = [{**self.fixed, **dict(zip(self.grid, values, strict=True))} for values in combinations]
        return every[:count]

    def config(self, material: Material, settings: Mapping[str, Any], seed: int = 0) -> TrainConfig:
        """The configuration that settings stand for on a material.

        Args:
            settings: one of `configurations`: fields of `TrainConfig`, and options of the loss.

        Raises:
            ConfigError: a setting that would change the material, an unknown setting, or a bad value.
        """
        if foreign := sorted(set(settings) & set(SHARED)):
            raise ConfigError(f"{', '.join(foreign)} can't differ between the methods of a study.")
        base = material.config.to_dict()
        preset = PRESETS[material.config.preset].to_dict()
        changed = {name: value for name, value in base.items() if name in SHARED or value != preset[name]}
        own = {name: value for name, value in settings.items() if name in _FIELDS}
        options = ",".join(f"{name}={value}" for name, value in settings.items() if self.trains and name not in _FIELDS)
        loss = {"loss": self.objective} if self.objective in LOSSES else {}
        of_method = {
            "preset": material.config.preset,
            "selection": self.selection,
            "loss_options": options,
            **loss,
            **own,
            "seed": seed,
        }
        return TrainConfig.from_parameters(changed | of_method)


def _pddm(name: str, title: str, family: str = "pddm", **fixed: Any) -> Method:
    grid = {"lr": LEARNING_RATES, "embedding_weight": (0.5, 2.0)}
    return Method(name, title, family, "joint", fixed, grid, _PDDM)


def _baseline(
    objective: str, title: str, *, fixed: Mapping[str, Any] | None = None, rates: tuple[float, ...] = LEARNING_RATES,
    **grid: tuple[Any, ...],
) -> Method:  # fmt: skip
    return Method(objective.replace("-", "_"), title, "baseline", objective, fixed or {}, {"lr": rates, **grid})


def _proxy(objective: str, title: str, fixed: Mapping[str, Any] | None = None, **grid: tuple[Any, ...]) -> Method:
    """A loss with weights per class, which learn at their own rate, as their authors propose."""
    return _baseline(objective, title, fixed={**(fixed or {}), "loss_lr_scale": 30.0}, rates=HIGHER_RATES, **grid)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        _pddm("pddm", "PDDM+Quadruplet"),
        # Only E_e trains this embedding, so its weight doesn't matter; its margin does.
        dataclasses.replace(
            _pddm("lab", "PDDM+Quadruplet, preset lab", **LAB),
            grid={"lr": LEARNING_RATES, "distance_margin": (1.0, 0.5)},
        ),
        _pddm("pddm_batch", "PDDM+Quadruplet, one per batch", mining="batch"),
        _pddm("pddm_triplet", "PDDM+Triplet", loss="triplet"),
        _pddm("pddm_triplet_batch", "PDDM+Triplet, one per batch", loss="triplet", mining="batch"),
        _pddm("mined_euclidean", "PDDM+Quadruplet mined by Euclidean", "mined", mining_similarity="euclidean"),
        _pddm("mined_cosine", "PDDM+Quadruplet mined by cosine", "mined", mining_similarity="cosine"),
        _pddm("mined_mahalanobis", "PDDM+Quadruplet mined by Mahalanobis", "mined", mining_similarity="mahalanobis"),
        Method(
            "mahalanobis", "Mahalanobis, trained alone", "baseline", "joint",
            {"similarity": "mahalanobis", "embedding_weight": 0.0},
            {"lr": LEARNING_RATES, "score_margin": (0.5, 0.2)}, ("euclidean", "mahalanobis"), "mahalanobis",
        ),
        _baseline("contrastive", "Contrastive", neg_margin=(1.0, 0.5)),
        _baseline("triplet-hard", "Triplet, batch-hard", margin=(0.2, 0.5)),
        _baseline("triplet-semihard", "Triplet, semi-hard", margin=(0.2, 0.1)),
        _baseline("lifted", "Lifted structure (generalised)", rates=HIGHER_RATES, neg_margin=(1.0, 10.0)),
        _baseline("npairs", "N-pairs", rates=HIGHER_RATES, length_weight=(0.002, 0.02)),
        _baseline("margin", "Margin", fixed={"margin": 0.2, "loss_lr_scale": 10.0}, beta=(1.2, 0.6)),
        _baseline("multi-similarity", "Multi-similarity", fixed={"alpha": 2, "beta": 50}, base=(0.5, 0.8)),
        _proxy("proxy-nca", "Proxy-NCA", softmax_scale=(9.0, 30.0)),
        _proxy("proxy-anchor", "Proxy-Anchor", {"margin": 0.1}, alpha=(32.0, 16.0)),
        _proxy("arcface", "ArcFace", {"margin": 28.6}, scale=(64.0, 16.0)),
        _proxy("classifier", "Classifier's features", smoothing=(0.0, 0.1)),
        Method("pretrained", "Pretrained features", "untrained", "pretrained",
               grid={"power": (1.0, 0.8, 0.6, 0.5, 0.4, 0.3)}),
        Method("pca", "Pretrained features, PCA", "untrained", "pca",
               grid={"power": (1.0, 0.5, 0.3), "whiten": (False, True)}),
    )
}  # fmt: skip
"""By name. An untrained method searches as many configurations, of how the features are transformed."""


FACTORS = (
    "default", "loss", "alpha (score_margin)", "beta (distance_margin)", "lambda (embedding_weight)", "place v",
    "S", "dropout", "width", "u and v",
)  # fmt: skip
"""What the ablation varies, in the order of its tables."""
# Computed on distances, the score's hinge is E_e, with alpha in place of beta.
_E_E = {"similarity": "euclidean", "score_margin": 1.0, "embedding_weight": 0.0}


@dataclass(frozen=True)
class Variant:
    """One row of the ablation."""

    factor: str
    """One of `FACTORS`."""
    method: Method


def _variant(name: str, factor: str, title: str, **fixed: Any) -> Variant:
    return Variant(factor, Method(name, title, "ablation", "joint", fixed, {}, _PDDM))


ABLATIONS: dict[str, Variant] = {
    variant.method.name: variant
    for variant in (
        _variant("default", "default", "E_m and E_e; alpha 0.5, beta 1, lambda 0.5, width 128"),
        _variant("e_m_only", "loss", "E_m only", embedding_weight=0.0),
        _variant("e_e_only", "loss", "E_e only, mined by D; S learns on detached features", **_E_E),
        _variant(
            "detached", "loss", "E_e only, mined by S; S learns on detached features",
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
        _variant("lab", "S", "the same, fading where no class is familiar: preset lab", **LAB),
        _variant("dropout", "dropout", "0.3", unit_dropout=0.3),
        _variant("narrow", "width", "64", unit_hidden=64),
        _variant("wide", "width", "256", unit_hidden=256),
        _variant("normalised", "u and v", "normalised", unit_normalize=True),
    )
}  # fmt: skip
"""By name; the default first."""
PRESETS_THEMSELVES = ("default", "lab")
"""The presets `quick` and `lab` with their own settings instead of searched ones; as many seeds as the methods."""
