"""Choose a method's configuration and number of steps on held-out training classes, then train on all and measure once.

Each configuration is trained once per fold, on the classes of the other folds, and rated by MAP@R on the fold's own
classes. The latest step within one standard error of the best is chosen, as in a run; a configuration that stays worse
for `PATIENCE` measurements is given up. Only `train_and_measure` looks at the test classes and the known-class queries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pddm_lab.analysis.thresholds import rates_by_density
from pddm_lab.config import TrainConfig
from pddm_lab.errors import LabError
from pddm_lab.metrics.retrieval import evaluate
from pddm_lab.study.fit import DivergedError, Fitting, fit, measured_steps
from pddm_lab.study.material import Material, material_of
from pddm_lab.study.methods import Method

WHOLE_MATRIX = 200_000_000
"""Beyond this many pairs of query and item, a network re-ranks a shortlist only and a sample of pairs is scored."""
SHORTLIST = 100
PATIENCE = 3
"""A search ends when this many measurements in a row lie outside the tolerance of the best."""


def search_configuration(
    needed: Sequence[Mapping[str, Any]], *, config: TrainConfig, folds: int, method: Method,
    settings: Mapping[str, Any], steps: int, eval_every: int,
) -> dict[str, Any]:  # fmt: skip
    """One configuration's cell: its mean curve over the folds, the chosen step, and MAP@R there.

    Args:
        needed: unused; every task of a study takes it.
        settings: one of the method's configurations.
        steps: the most it may train.
        eval_every: steps between measurements.
    """
    material = material_of(config, folds)
    fits = [Fitting(material, method, settings, material.fit_items(fold), steps) for fold in range(len(material.folds))]
    tolerance = method.config(material, settings).selection_tolerance
    curve: list[dict[str, Any]] = []
    chosen: Mapping[str, Any] = {"step": 0} | {name: {"map@r": 0.0, "error": 0.0} for name in method.ranks}
    for step in measured_steps(method, steps, eval_every):
        try:
            rows = [fitting.advance(step, held_out) for fitting, held_out in zip(fits, material.folds, strict=True)]
        except DivergedError:  # its curve until then counts
            break
        curve.append(mean_row(rows, method.ranks))
        chosen = chosen_row(curve, method.selection, tolerance)
        if chosen not in curve[-PATIENCE:]:
            break
    return {
        "part": "search", "dataset": config.dataset, "method": method.name, "seed": 0, "settings": dict(settings),
        "metrics": {"validation": {name: {"map@r": chosen[name]["map@r"]} for name in method.ranks}},
        "curve": curve, "chosen": {"step": chosen["step"], "similarity": method.selection, **chosen[method.selection]},
    }  # fmt: skip


def mean_row(rows: Sequence[Mapping[str, Any]], similarities: Sequence[str]) -> dict[str, Any]:
    """Mean over the folds of rows of one step, with the standard error of the mean.

    Args:
        rows: one per fold.
        similarities: the measured ones.
    """
    mean: dict[str, Any] = {"step": rows[0]["step"], "seconds": float(np.mean([row["seconds"] for row in rows]))}
    for name in similarities:
        values, errors = ([row[name][what] for row in rows] for what in ("map@r", "error"))
        mean[name] = {"map@r": float(np.mean(values)), "error": math.hypot(*errors) / len(rows), "folds": values}
    return mean


def chosen_row(curve: Sequence[Mapping[str, Any]], similarity: str, tolerance: float) -> Mapping[str, Any]:
    """The latest row whose MAP@R lies within `tolerance` standard errors of the best row's.

    Raises:
        LabError: every value on the curve is NaN.
    """
    values = [row[similarity]["map@r"] for row in curve]
    if not np.isfinite(values).any():
        raise LabError(f"MAP@R by {similarity} is NaN at every step: the training diverged.")
    best = int(np.nanargmax(values))
    enough = values[best] - tolerance * curve[best][similarity]["error"]
    return next(row for row, value in zip(reversed(curve), reversed(values), strict=True) if value >= enough)


def best_of(searched: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The searched cell whose chosen step is best; the first of equals."""
    return max(searched, key=lambda cell: cell["chosen"]["map@r"])


def train_and_measure(
    needed: Sequence[Mapping[str, Any]], *, config: TrainConfig, folds: int, method: Method, seed: int, part: str
) -> dict[str, Any]:
    """The cell of one training on all training classes by the best configuration, measured once.

    Args:
        needed: the method's searched cells.
        seed: of the weights, the batches and dropout.

    Raises:
        DivergedError: every configuration diverged, or this training does.
    """
    material = material_of(config, folds)
    best = best_of(needed)
    if method.trains and not best["chosen"]["step"]:
        raise DivergedError(f"Every configuration of {method.name} diverged on {config.dataset}.")
    train = material.dataset.train
    # As many passes over all training classes as the chosen step made over those of the folds.
    steps = round(
        best["chosen"]["step"] * len(train) / np.mean([len(material.fit_items(n)) for n in range(len(material.folds))])
    )
    trained = fit(material, method, best["settings"], train, steps, seed)
    return {
        "part": part, "dataset": config.dataset, "method": method.name, "seed": seed,
        "settings": {**best["settings"], "steps": steps}, "metrics": measure(trained, material), "curve": trained.curve,
    }  # fmt: skip


@torch.no_grad()
def measure(trained: Fitting, material: Material) -> dict[str, dict[str, dict[str, float]]]:
    """All metrics of a trained method: protocol -> similarity -> metric -> value."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    labels = material.dataset.labels
    for protocol in material.protocols:
        query, gallery = trained.embed(protocol.query), trained.embed(protocol.gallery)
        of_query, of_gallery = labels[protocol.query], labels[protocol.gallery]
        metrics[protocol.name] = {}
        for name in trained.method.ranks:
            similarity = trained.similarity(name)
            large = similarity.is_network and len(query) * len(gallery) > WHOLE_MATRIX
            retrieval = evaluate(
                similarity, query, gallery, of_query, of_gallery, protocol.leave_one_out,
                nmi=name == "euclidean" and protocol.name == "unseen", shortlist=SHORTLIST if large else 0,
            ).metrics  # fmt: skip
            by_density = rates_by_density(similarity, query, gallery, of_query, of_gallery, protocol.leave_one_out)
            metrics[protocol.name][name] = retrieval | by_density
    return metrics
