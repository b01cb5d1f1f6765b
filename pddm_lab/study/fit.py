"""Train one method on some items of a material, and watch MAP@R on classes it doesn't train on.

The loop is that of a run (training/loop.py). The seconds on a curve are those of the training steps alone.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.errors import LabError
from pddm_lab.metrics.retrieval import average_precisions
from pddm_lab.model.embedding import MetricModel, signed_power
from pddm_lab.model.similarity import Similarity, make_similarity
from pddm_lab.similarities import LEARNED
from pddm_lab.study.material import Material
from pddm_lab.study.methods import Method
from pddm_lab.training.loop import Loop, view_inputs

EVAL_EVERY = 50
"""Steps between measurements."""
NETWORK_QUERIES = 256
"""Validation queries ranked by a network that isn't used for selection: ranking all would cost more than training."""


class DivergedError(LabError):
    """A training whose loss is no longer finite."""


class Fitting:
    """A method in training, step by step.

    Args:
        method: one of `METHODS`, or your own.
        settings: a configuration of the method: fields of `TrainConfig`, and options of its loss.
        items: training items, among `material.dataset.train`.
        steps: to train in all, for the schedule of the learning rate.
        seed: of the weights, the batches and dropout.

    Raises:
        LabError: a bad setting, or too few classes.
    """

    def __init__(
        self, material: Material, method: Method, settings: Mapping[str, Any], items: Int[np.ndarray, " items"],
        steps: int, seed: int = 0,
    ) -> None:  # fmt: skip
        self.material, self.method, self.settings, self.items = material, method, settings, items
        self.curve: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.loop: Loop | None = None
        if not method.trains:
            self._features = _untrained(material, method, settings, items)
            return
        # `signed_power` was applied to the inputs already.
        config = dataclasses.replace(method.config(material, settings, seed), steps=max(steps, 1), pool_power=1.0)
        torch.manual_seed(seed)
        model = MetricModel(config, trunk=material.stand_in())
        model.embedding.fit_start(material.inputs[torch.from_numpy(items)], config.start == "principal")
        inputs = view_inputs(material.views, material.dataset.train, seed)
        learning = [name for name in LEARNED if name in method.ranks]
        self.loop = Loop(model, config, material.dataset.labels, items, inputs, learning)

    @property
    def model(self) -> MetricModel | None:
        """The model with the moving average of the weights; None for a method that doesn't train."""
        return self.loop.kept if self.loop else None

    @property
    def step(self) -> int:
        """Steps taken so far."""
        return self.loop.step if self.loop else 0

    def advance(self, to: int, validation: Int[np.ndarray, " validation"] | None = None) -> dict[str, Any]:
        """Train up to a step, and add a row to the curve.

        Args:
            to: the step; a method that doesn't train stays at step 0.
            validation: items to measure MAP@R on, each searched among the others.

        Raises:
            DivergedError: the loss is no longer finite.
        """
        start, losses = time.perf_counter(), []
        while self.loop and self.loop.step < to:
            losses.append(float(self.loop.take_step().loss.detach()))
        self.seconds += time.perf_counter() - start
        if self.loop and self.loop.config.familiarity:
            labels = torch.from_numpy(self.material.dataset.labels[self.items])
            self.loop.kept.remember_classes(self.embed(self.items), labels)
        loss = float(np.mean(losses)) if losses else None
        if loss is not None and not math.isfinite(loss):
            raise DivergedError(f"{self.method.name} diverged by step {self.step} with {dict(self.settings)}.")
        row: dict[str, Any] = {"step": self.step, "seconds": self.seconds, "loss": loss}
        if validation is not None:
            row |= _measured(self, validation)
        self.curve.append(row)
        return row

    @torch.no_grad()
    def embed(self, items: Int[np.ndarray, " items"]) -> Float[Tensor, "items dim"]:
        """Unit-length features, by the moving average of the weights."""
        chosen = torch.from_numpy(items)
        if self.model is None:
            return self._features[chosen]
        return self.model.embedding.project(self.material.inputs[chosen])

    def similarity(self, name: str) -> Similarity:
        """A similarity by name, as trained so far.

        Raises:
            LabError: the method doesn't rank with it.
        """
        if name not in self.method.ranks:
            raise LabError(f"{self.method.name} ranks with {', '.join(self.method.ranks)}, not with {name}.")
        return make_similarity(name, 0) if self.model is None else self.model.similarity(name)


def fit(
    material: Material, method: Method, settings: Mapping[str, Any], items: Int[np.ndarray, " items"], steps: int,
    seed: int = 0, validation: Int[np.ndarray, " validation"] | None = None, eval_every: int = EVAL_EVERY,
) -> Fitting:  # fmt: skip
    """Train a method from its first step to its last; arguments as for `Fitting` and `Fitting.advance`.

    Args:
        eval_every: steps between measurements; the last step is measured, too.

    Raises:
        LabError: a bad setting, too few classes, or a training that diverges.
    """
    fitting = Fitting(material, method, settings, items, steps, seed)
    for step in measured_steps(method, steps, eval_every):
        fitting.advance(step, validation)
    return fitting


def measured_steps(method: Method, steps: int, eval_every: int) -> list[int]:
    """The steps at which a curve has a row."""
    return [*range(eval_every, steps, eval_every), steps] if method.trains else [0]


def _untrained(
    material: Material, method: Method, settings: Mapping[str, Any], items: np.ndarray
) -> Float[Tensor, "items dim"]:
    """Features of all items without training: pretrained features to a power, or their principal components."""
    features = F.normalize(signed_power(material.pooled, float(settings["power"])), dim=1)
    if method.objective == "pca":
        from sklearn.decomposition import PCA

        dim = min(material.config.dim, len(items), features.shape[1])
        pca = PCA(dim, whiten=bool(settings["whiten"]), random_state=0).fit(features[torch.from_numpy(items)].numpy())
        features = F.normalize(torch.from_numpy(pca.transform(features.numpy())).float(), dim=1)
    return features


def _measured(fitting: Fitting, items: np.ndarray) -> dict[str, Any]:
    features, labels = fitting.embed(items), torch.from_numpy(fitting.material.dataset.labels[items])
    values: dict[str, Any] = {}
    for name in fitting.method.ranks:
        similarity, count = fitting.similarity(name), len(items)
        if similarity.is_network and name != fitting.method.selection:
            count = min(count, NETWORK_QUERIES)
        rows = torch.arange(count) * len(items) // count  # evenly over all classes
        precisions = average_precisions(similarity.matrix(features[rows], features), labels, rows)
        error = float(precisions.std(correction=1)) / math.sqrt(len(precisions)) if len(precisions) > 1 else 0.0
        values[name] = {"map@r": float(precisions.mean()) if len(precisions) else math.nan, "error": error}
    return values
