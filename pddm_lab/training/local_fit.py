"""Fit the similarity on local structure of a run, once its embedding is trained.

It learns from galleries of classes that the embedding didn't train on. Per fold of the training classes a head is
therefore trained anew on the fold's part and used as the run's head is: a few seconds on cached features. A trunk that
trains takes too long for that: then the embedding is the same in all folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from lightning_fabric import Fabric
from torch import Tensor

from pddm_lab.config import TrainConfig
from pddm_lab.local.episodes import folds
from pddm_lab.local.fit import fit_local_structure
from pddm_lab.model.embedding import MetricModel, signed_power
from pddm_lab.model.familiarity import PretrainedPart
from pddm_lab.progress import Progress
from pddm_lab.runs.local import RunLocal
from pddm_lab.training.loop import Inputs, Loop
from pddm_lab.training.shares import used_head

FIXED = (
    "The similarity on local structure learned from one embedding in all folds, since the trunk trains too: new "
    "classes may look easier to it than they are. Freeze the trunk to train one per fold."
)

FIXED_IMPORTED = (
    "The similarity on local structure learned from one embedding in all folds, since the features were imported: "
    "where they were trained on its classes, new classes may look easier to it than they are."
)


def fold_embeddings(
    new_model: Callable[[], MetricModel], config: TrainConfig, share: float, labels: Int[np.ndarray, " items"],
    train: Int[np.ndarray, " train"], groups: Int[np.ndarray, " train"], pooled: Float[Tensor, "items trunk_dim"],
    inputs: Inputs, fabric: Fabric | None = None, progress: Progress | None = None,
) -> list[Float[Tensor, "train dim"]]:  # fmt: skip
    """Features of the training items by a head per fold, trained on the fold's `rest` alone; on the CPU.

    Args:
        new_model: a model at the start of the training, on the device.
        config: `steps` is how long each head trains.
        share: how far the heads go from their start, see `used_head`.
        labels: (all items,) class of each item.
        train: the training items.
        groups: of near-duplicates among them.
        pooled: the trunk's features of all items, on the device.
        inputs: of the training, see `view_inputs`.
        fabric: see `Loop`.
        progress: called after some steps, on every rank; it may stop all of them by raising.

    Raises:
        DataError: too few classes, see `folds`.
    """
    divided, features, done = folds(_numbers(labels, train), config.seed, torch.from_numpy(groups)), [], 0
    for fold in divided:
        fit = train[fold.rest.numpy()]
        loop = Loop(new_model(), config, labels, fit, inputs, learning=(), fabric=fabric)
        for _ in range(config.steps):
            loop.take_step()
            done += 1
            if progress and done % 10 == 0:
                progress(done, len(divided) * config.steps, "heads of the folds")
        head, embedding = used_head(config, share, pooled, labels, fit), loop.kept.embedding
        with torch.no_grad():
            of_train = pooled[torch.from_numpy(train)]
            used = head(loop.start, embedding.head) if head else None
            features.append(embedding.project(of_train, used).cpu())
    return features


def fit_local(
    config: TrainConfig, features: Float[Tensor, "train dim"], labels: Int[np.ndarray, " items"],
    train: Int[np.ndarray, " train"], groups: Int[np.ndarray, " train"],
    pooled: Float[Tensor, "items trunk_dim"] | None,
    of_folds: Sequence[Float[Tensor, "train dim"]], progress: Progress | None = None,
) -> RunLocal:  # fmt: skip
    """Fit the similarity to the training items; it chooses on the folds how much the pretrained features count.

    Args:
        features: of the training items by the run's model.
        labels: (all items,) class of each item.
        train: the training items.
        groups: of near-duplicates among them, as for `fold_embeddings`.
        pooled: the frozen trunk's features of all items; None if the trunk trains, and there are none.
        of_folds: as `fold_embeddings` returns them; empty: `features` in all folds.
        progress: called after each step.

    Raises:
        DataError: too few classes, or equal features for all items.
    """
    part, p = None, None
    if pooled is not None:
        inputs = signed_power(pooled[torch.from_numpy(train)].cpu(), config.pool_power)
        part = PretrainedPart(inputs.shape[1])
        part.fit(inputs)
        p = part(inputs)
    structure = fit_local_structure(
        features.cpu(), _numbers(labels, train), p, (lambda at, _: of_folds[at]) if of_folds else None,
        seed=config.seed, progress=progress, groups=groups,
    )  # fmt: skip
    return RunLocal(structure, part if structure.weight else None, config.pool_power)


def _numbers(labels: Int[np.ndarray, " items"], train: Int[np.ndarray, " train"]) -> Int[Tensor, " train"]:
    """Classes of the training items, from 0 without gaps."""
    return torch.from_numpy(np.unique(labels[train], return_inverse=True)[1])
