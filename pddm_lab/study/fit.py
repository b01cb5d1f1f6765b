"""Train one method on some items of a material, and watch MAP@R on classes it doesn't train on.

The loop is that of a run (training.py) without files: the same batches, views, seeds of dropout, learning rates and
moving average. The seconds on a curve are those of the training steps alone.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.data.sampler import ClassBatches
from pddm_lab.errors import LabError
from pddm_lab.model import MetricModel
from pddm_lab.similarity import Similarity, make_similarity
from pddm_lab.study.material import Material, powered
from pddm_lab.study.methods import Method
from pddm_lab.study.objectives import Objective
from pddm_lab.training import learning_rate_factor

EVAL_EVERY = 50
"""Steps between measurements."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A trained (or untrained) method."""

    method: Method
    model: MetricModel | None
    """The moving average of its weights, in evaluation mode; None where nothing is trained."""
    embed: Callable[[np.ndarray], Tensor]
    """Items -> features of unit length, (items, dim)."""
    curve: list[dict[str, Any]]
    """A row per measurement: step, seconds, loss (mean since the row before), and by similarity map@r and error."""
    seconds: float
    """Of the training steps."""

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
) -> Fit:
    """Train a method from its first step.

    Args:
        material: the features.
        method: one of `METHODS`, or one of your own.
        settings: a configuration of the method: fields of `TrainConfig`, and options of its loss.
        items: training items, among `material.dataset.train`.
        steps: to train; unused by a method that doesn't train.
        seed: of the weights, the batches and dropout.
        validation: items to measure MAP@R on every `eval_every` steps, each searched among the others.
        eval_every: steps between measurements; the last step is measured, too.

    Raises:
        LabError: a bad setting, too few classes, or a training that diverges.
    """
    if not method.trains:
        untrained = _untrained(material, method, settings, items)
        row: dict[str, Any] = {"step": 0, "seconds": 0.0, "loss": None}
        if validation is not None:
            row |= _measured(method, untrained(validation), material.dataset.labels[validation], None)
        return Fit(method, None, untrained, [row], 0.0)
    classes, numbers = np.unique(material.dataset.labels[items], return_inverse=True)
    torch.manual_seed(seed)
    objective = method.build(material, settings, seed, len(classes))
    config = dataclasses.replace(objective.config, steps=max(steps, 1))
    number_of = np.full(len(material.dataset), -1)
    number_of[items] = numbers
    row_of = np.full(len(material.dataset), -1)
    row_of[material.dataset.train] = np.arange(len(material.dataset.train))
    batches = ClassBatches(material.dataset.labels, items, config.classes_per_batch, config.images_per_class, seed)
    optimizer = _optimizer(objective)
    kept = copy.deepcopy(objective.model).eval().requires_grad_(False)
    curve: list[dict[str, Any]] = []
    seconds, total, since = 0.0, 0.0, 0

    def embed(chosen: np.ndarray) -> Tensor:
        with torch.no_grad():
            return kept.embedding.project(material.inputs[torch.from_numpy(chosen)])

    for step in range(1, steps + 1):
        begun = time.perf_counter()
        batch = batches.batch(step)
        view = np.random.default_rng([seed, step]).integers(len(material.views), size=len(batch))
        inputs = material.views[torch.from_numpy(view), torch.from_numpy(row_of[batch])]
        loss = _step(objective, optimizer, config, step, inputs, torch.from_numpy(number_of[batch]))
        _follow(kept, objective.model, config.average, step)
        seconds += time.perf_counter() - begun
        total, since = total + loss, since + 1
        if step % eval_every == 0 or step == steps:
            if not math.isfinite(total):
                raise LabError(f"{method.name} diverged by step {step} with {dict(settings)}: its loss is {loss}.")
            row = {"step": step, "seconds": seconds, "loss": total / since}
            if validation is not None:
                row |= _measured(method, embed(validation), material.dataset.labels[validation], kept)
            curve.append(row)
            total, since = 0.0, 0
    return Fit(method, kept, embed, curve, seconds)


def _optimizer(objective: Objective) -> torch.optim.Optimizer:
    config = objective.config
    groups = [{"lr": config.lr, **group} for group in objective.groups()]
    groups = [group | {"base_lr": group["lr"]} for group in groups]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)


def _step(
    objective: Objective, optimizer: torch.optim.Optimizer, config: Any, step: int, inputs: Tensor, labels: Tensor
) -> float:
    torch.manual_seed(config.seed * 1_000_003 + step)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * learning_rate_factor(config, step)
    objective.train()
    loss = objective(inputs, labels)
    loss.backward()
    if config.clip_norm:
        torch.nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]], config.clip_norm
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


@torch.no_grad()
def _follow(kept: MetricModel, model: MetricModel, decay: float, step: int) -> None:
    """Move the weights that are kept towards the model's, as a run does."""
    decay = min(decay, (1 + step) / (10 + step)) if decay else 0.0
    torch._foreach_lerp_([*kept.parameters()], [p.detach() for p in model.parameters()], 1 - decay)


def _untrained(material: Material, method: Method, settings: Mapping[str, Any], items: np.ndarray) -> Callable:
    """What embeds items without training: pretrained features to a power, or their principal components."""
    features = F.normalize(powered(material.pooled, float(settings["power"])), dim=1)
    if method.objective == "pca":
        from sklearn.decomposition import PCA

        dim = min(material.config.dim, len(items), features.shape[1])
        found = PCA(dim, whiten=bool(settings["whiten"]), random_state=0).fit(features[torch.from_numpy(items)].numpy())
        features = F.normalize(torch.from_numpy(found.transform(features.numpy())).float(), dim=1)
    return lambda chosen: features[torch.from_numpy(chosen)]


def _measured(method: Method, features: Tensor, labels: np.ndarray, model: MetricModel | None) -> dict[str, Any]:
    of = (lambda name: make_similarity(name, 0)) if model is None else model.similarity
    found: dict[str, Any] = {}
    for name in method.ranks:
        precisions = average_precisions(of(name).matrix(features, features), torch.from_numpy(labels))
        error = float(precisions.std(correction=1)) / math.sqrt(len(precisions)) if len(precisions) > 1 else 0.0
        found[name] = {"map@r": float(precisions.mean()) if len(precisions) else math.nan, "error": error}
    return found


@torch.no_grad()
def average_precisions(
    scores: Float[Tensor, "items items"], labels: Int[Tensor, " items"]
) -> Float[Tensor, " queries"]:
    """The AP@R of every item searched among all the others; their mean is MAP@R, as `evaluate` has it.

    Args:
        scores: of all pairs, larger is more similar; the diagonal is overwritten.
        labels: class of each item.

    Returns:
        One value per item whose class has another.
    """
    scores.fill_diagonal_(-math.inf)
    _, number, counts = labels.unique(return_inverse=True, return_counts=True)
    relevant = counts[number] - 1
    depth = max(int(relevant.max()), 1)
    best = scores.topk(min(depth, len(labels) - 1), dim=1).indices
    position = torch.arange(1, best.shape[1] + 1)
    hits = ((labels[best] == labels[:, None]) & (position <= relevant[:, None])).double()
    return ((hits.cumsum(1) / position * hits).sum(1) / relevant.clamp(min=1))[relevant > 0]
