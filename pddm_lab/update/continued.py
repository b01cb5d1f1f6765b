"""Train a model on, from the weights that it has: its head and its unit, on a frozen trunk's features.

The head goes on from the weights that are used, which are whitened already. It isn't whitened anew: the few items of a
replay buffer say less about how pictures of a class vary than all items did. With `near` the new features stay near the
old ones, so that a query by the new model can be searched among vectors of the old one. Local structure keeps its unit,
which compares neighbourhoods and doesn't depend on classes, and gets the whitening of the new features.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.config import TrainConfig
from pddm_lab.local.unit import LocalStructure
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.pddm import PDDM
from pddm_lab.progress import Progress
from pddm_lab.similarities import LEARNED
from pddm_lab.training.loop import Inputs, Loop, torch_threads
from pddm_lab.training.objectives import Near


@dataclass(frozen=True)
class Choices:
    """How a model is trained on."""

    steps: int = 100
    lr: float = 5e-4
    near: float = 0.0
    """Weight of the squared distance between new and old features of items of old classes; 0: off."""
    replay: int = 2000
    """Old items that train again, at most."""

    def of(self, config: TrainConfig, seed: int = 0) -> TrainConfig:
        """The configuration of a training with these choices."""
        return replace(config, steps=self.steps, lr=self.lr, seed=seed)


class Continued:
    """A model in training on some items, from its own weights.

    Args:
        model: where it begins; it stays as it is.
        config: of its training; `steps`, `lr` and `seed` are this training's.
        near: see `Choices`.
        labels: (all items,) class of each item.
        items: that train.
        inputs: of these items, see `view_inputs`.
        often: the new classes: some come in every batch, and `near` leaves them free.
        learning: similarities that train beside the embedding. None: all, if the unit corrects D, else none: then
            held-out classes have left nothing of its correction, and few items don't bring it back.
        fixed: leave the embedding as it is, and train the similarities alone.
    """

    def __init__(
        self, model: MetricModel, config: TrainConfig, near: float, labels: Int[np.ndarray, " all"],
        items: Int[np.ndarray, " items"], inputs: Inputs, often: Int[np.ndarray, " classes"] | None = None,
        learning: Sequence[str] | None = None, fixed: bool = False,
    ) -> None:  # fmt: skip
        self.before, learner = model, copy.deepcopy(model).requires_grad_(True)
        learner.embedding.trunk.requires_grad_(False)
        if not fixed:
            _scale(learner, model, inputs, items)
        learner.embedding.head.requires_grad_(not fixed)
        is_old = torch.from_numpy(~np.isin(np.unique(labels[items]), [] if often is None else often))
        old = Near(model.embedding.project, near, is_old) if near else None
        if learning is None:
            learning = LEARNED if corrects(model) else ()
        self._loop = Loop(learner, config, labels, items, inputs, learning, near=old, often=often)

    def advance(self, steps: int, report: Callable[[int], None] | None = None) -> None:
        """Take some steps; `report` is called with the number of those taken so far."""
        with torch_threads(1):
            for _ in range(steps):
                self._loop.take_step()
                if report:
                    report(self._loop.step)

    @property
    def model(self) -> MetricModel:
        """The model as it is used: the moving average of the weights."""
        return self._loop.kept.eval()


def corrects(model: MetricModel) -> bool:
    """Whether the unit adds anything to -g D; else S ranks like D."""
    unit = model.similarity("pddm").unit
    assert isinstance(unit, PDDM)
    return any(bool(values.any()) for values in unit.score.parameters())


@torch.no_grad()
def _scale(learner: MetricModel, model: MetricModel, inputs: Inputs, items: Int[np.ndarray, " items"]) -> None:
    """Scale the head so that its outputs are of mean length 1: features stay the same, and a learning rate fits."""
    some = items[:: -(-len(items) // 1000)]
    pooled = next(inputs(iter([(0, some, np.arange(len(some)))])))
    length = model.embedding.project_head(pooled).norm(dim=1).mean().clamp(min=1e-12)
    for values in learner.embedding.head.parameters():
        values.div_(length)


def train_on(
    model: MetricModel, config: TrainConfig, choices: Choices, labels: Int[np.ndarray, " all"],
    items: Int[np.ndarray, " items"], inputs: Inputs, often: Int[np.ndarray, " classes"] | None = None,
    progress: Progress | None = None,
) -> MetricModel:  # fmt: skip
    """The model after a whole training; arguments as for `Continued`.

    Raises:
        DataError: fewer than two classes with two items train.
    """
    config = choices.of(config, config.seed)
    training = Continued(model, config, choices.near, labels, items, inputs, often)
    training.advance(choices.steps, (lambda step: progress(step, choices.steps, "training")) if progress else None)
    return training.model


def structure_on(
    structure: LocalStructure, features: Float[Tensor, "items dim"], labels: Int[np.ndarray, " items"]
) -> LocalStructure:
    """The similarity on local structure for features of a model that was trained on.

    Args:
        structure: of the model before.
        features: of the items that trained, by the new model.
        labels: of these items.
    """
    new = copy.deepcopy(structure)
    new.whitening.fit(features.cpu(), torch.from_numpy(labels))
    return new.eval().requires_grad_(False)
