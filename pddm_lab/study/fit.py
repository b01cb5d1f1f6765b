"""Train one method on some items of a material, and watch MAP@R on classes it doesn't train on.

The loop is that of a run (training.py) without files: the same batches, views, seeds of dropout, learning rates and
moving average. The seconds on a curve are those of the training steps alone.
"""

from __future__ import annotations

import copy
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

from pddm_lab.data.sampler import ClassBatches
from pddm_lab.errors import LabError
from pddm_lab.metrics.retrieval import average_precisions
from pddm_lab.model.embedding import MetricModel, signed_power
from pddm_lab.model.similarity import Similarity, make_similarity
from pddm_lab.study.material import Material
from pddm_lab.study.methods import Method
from pddm_lab.study.objectives import Objective
from pddm_lab.training.loop import learning_rate_factor

EVAL_EVERY = 50
"""Steps between measurements."""
NETWORK_QUERIES = 256
"""Validation items that are queries where a network ranks that nothing is chosen by: it costs more than training."""


class DivergedError(LabError):
    """A training whose loss is no number any more."""


class Fitting:
    """A method in training, which can be asked to go on.

    Args:
        material: the features.
        method: one of `METHODS`, or one of your own.
        settings: a configuration of the method: fields of `TrainConfig`, and options of its loss.
        items: training items, among `material.dataset.train`.
        steps: that it will train in all; a schedule of the learning rate looks at them.
        seed: of the weights, the batches and dropout.

    Raises:
        LabError: a bad setting, or too few classes.
    """

    def __init__(
        self, material: Material, method: Method, settings: Mapping[str, Any], items: Int[np.ndarray, " items"],
        steps: int, seed: int = 0,
    ) -> None:  # fmt: skip
        self.material, self.method, self.settings, self.seed = material, method, settings, seed
        self.curve: list[dict[str, Any]] = []
        self.step, self.seconds = 0, 0.0
        self._losses: list[float] = []
        self.model: MetricModel | None = None
        if not method.trains:
            self._features = _untrained(material, method, settings, items)
            return
        labels, train = material.dataset.labels, material.dataset.train
        classes, numbers = np.unique(labels[items], return_inverse=True)
        torch.manual_seed(seed)
        self._objective = method.build(material, settings, seed, len(classes))
        self._config = dataclasses.replace(self._objective.config, steps=max(steps, 1))
        self._optimizer = _optimizer(self._objective)
        self._batches = ClassBatches(labels, items, self._config.classes_per_batch, self._config.images_per_class, seed)
        self._number_of, self._row_of = np.full((2, len(labels)), -1)
        self._number_of[items] = numbers
        self._row_of[train] = np.arange(len(train))
        self._objective.model.embedding.fit_pretrained(material.inputs[torch.from_numpy(items)])
        self._items = items
        self.model = copy.deepcopy(self._objective.model).eval().requires_grad_(False)

    def advance(self, to: int, validation: Int[np.ndarray, " validation"] | None = None) -> dict[str, Any]:
        """Train up to a step, and add a row to the curve.

        Args:
            to: the step; a method that doesn't train stays at step 0.
            validation: items to measure MAP@R on, each searched among the others.

        Raises:
            DivergedError: its loss is no number any more.
        """
        begun = time.perf_counter()
        while self.model is not None and self.step < to:
            self.step += 1
            self._losses.append(self._take_step(self.model))
        self.seconds += time.perf_counter() - begun
        if self.model is not None and self._config.familiarity:
            labels = torch.from_numpy(self.material.dataset.labels[self._items])
            self.model.remember_classes(self.embed(self._items), labels)
        loss = float(np.mean(self._losses)) if self._losses else None
        if loss is not None and not math.isfinite(loss):
            raise DivergedError(f"{self.method.name} diverged by step {self.step} with {dict(self.settings)}.")
        row: dict[str, Any] = {"step": self.step, "seconds": self.seconds, "loss": loss}
        if validation is not None:
            row |= _measured(self, validation)
        self._losses = []
        self.curve.append(row)
        return row

    def _take_step(self, kept: MetricModel) -> float:
        """As a run takes it: batch, views, dropout and learning rate depend on the seed and the step alone."""
        batch = self._batches.batch(self.step)
        view = np.random.default_rng([self.seed, self.step]).integers(len(self.material.views), size=len(batch))
        inputs = self.material.views[torch.from_numpy(view), torch.from_numpy(self._row_of[batch])]
        torch.manual_seed(self.seed * 1_000_003 + self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = group["base_lr"] * learning_rate_factor(self._config, self.step)
        self._objective.train()
        loss = self._objective(inputs, torch.from_numpy(self._number_of[batch]))
        loss.backward()
        if self._config.clip_norm:
            torch.nn.utils.clip_grad_norm_(self._objective.parameters(), self._config.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        _follow(kept, self._objective.model, self._config.average, self.step)
        return float(loss.detach())

    @torch.no_grad()
    def embed(self, items: Int[np.ndarray, " items"]) -> Float[Tensor, "items dim"]:
        """Features of unit length by the moving average of the weights."""
        chosen = torch.from_numpy(items)
        if self.model is None:
            return self._features[chosen]
        return self.model.embedding.project(self.material.inputs[chosen])

    def similarity(self, name: str) -> Similarity:
        """A similarity by name, trained where it has weights.

        Raises:
            LabError: the method doesn't rank with it.
        """
        if name not in self.method.ranks:
            raise LabError(f"{self.method.name} ranks with {', '.join(self.method.ranks)}, not with {name}.")
        return make_similarity(name, 0) if self.model is None else self.model.similarity(name)


def fit(
    material: Material,
    method: Method,
    settings: Mapping[str, Any],
    items: Int[np.ndarray, " items"],
    steps: int,
    seed: int = 0,
    validation: Int[np.ndarray, " validation"] | None = None,
    eval_every: int = EVAL_EVERY,
) -> Fitting:
    """Train a method from its first step to its last.

    Args:
        material: the features.
        method: one of `METHODS`, or one of your own.
        settings: a configuration of the method.
        items: training items, among `material.dataset.train`.
        steps: to train.
        seed: of the weights, the batches and dropout.
        validation: items to measure MAP@R on.
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


def _optimizer(objective: Objective) -> torch.optim.Optimizer:
    config = objective.config
    groups = [{"lr": config.lr, **group} for group in objective.groups()]
    groups = [group | {"base_lr": group["lr"]} for group in groups]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)


@torch.no_grad()
def _follow(kept: MetricModel, model: MetricModel, decay: float, step: int) -> None:
    """Move the weights that are kept towards the model's, as a run does."""
    decay = min(decay, (1 + step) / (10 + step)) if decay else 0.0
    torch._foreach_lerp_([*kept.parameters()], [p.detach() for p in model.parameters()], 1 - decay)


def _untrained(
    material: Material, method: Method, settings: Mapping[str, Any], items: np.ndarray
) -> Float[Tensor, "items dim"]:
    """Features of all items without training: pretrained features to a power, or their principal components."""
    features = F.normalize(signed_power(material.pooled, float(settings["power"])), dim=1)
    if method.objective == "pca":
        from sklearn.decomposition import PCA

        dim = min(material.config.dim, len(items), features.shape[1])
        found = PCA(dim, whiten=bool(settings["whiten"]), random_state=0).fit(features[torch.from_numpy(items)].numpy())
        features = F.normalize(torch.from_numpy(found.transform(features.numpy())).float(), dim=1)
    return features


def _measured(fitting: Fitting, items: np.ndarray) -> dict[str, Any]:
    features, labels = fitting.embed(items), torch.from_numpy(fitting.material.dataset.labels[items])
    found: dict[str, Any] = {}
    for name in fitting.method.ranks:
        similarity, count = fitting.similarity(name), len(items)
        if similarity.is_network and name != fitting.method.selection:
            count = min(count, NETWORK_QUERIES)
        rows = torch.arange(count) * len(items) // count  # evenly over all classes
        precisions = average_precisions(similarity.matrix(features[rows], features), labels, rows)
        error = float(precisions.std(correction=1)) / math.sqrt(len(precisions)) if len(precisions) > 1 else 0.0
        found[name] = {"map@r": float(precisions.mean()) if len(precisions) else math.nan, "error": error}
    return found
