"""What all methods of a study share: a frozen trunk's features of a data set, and folds of its training classes."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pddm_lab.config import TrainConfig, runs_root
from pddm_lab.data.dataset import Dataset, Protocol
from pddm_lab.data.splits import class_folds
from pddm_lab.errors import ConfigError, DataError
from pddm_lab.model.embedding import signed_power
from pddm_lab.model.engine import Engine
from pddm_lab.model.features import trunk_features
from pddm_lab.model.trunks import Trunk, load_trunk
from pddm_lab.progress import Bar
from pddm_lab.training.loop import dataset_of, resolve_device

FOLDS = 3
"""Parts of the training classes; each is held out once."""
SHARED = (
    "dataset", "data_root", "trunk", "weights", "resize", "image_size", "freeze_trunk", "views", "augmentation",
    "pool_power", "known_query_share", "split_seed",
)  # fmt: skip
"""Fields that define the material; a method can't change them."""


@dataclass(frozen=True, eq=False)
class Material:
    """One data set, ready for the methods of a study."""

    config: TrainConfig
    """The choices it was made with, and the defaults of every method."""
    dataset: Dataset
    pooled: Float[Tensor, "items trunk_dim"]
    """The frozen trunk's features of all items, from centred crops."""
    inputs: Float[Tensor, "items trunk_dim"]
    """The same after `signed_power`: the input of the embedding's head."""
    views: Float[Tensor, "views train trunk_dim"]
    """Inputs of the training items, in the order of `dataset.train`: the centred crop, then random ones."""
    folds: tuple[np.ndarray, ...]
    """Items of each fold; every training class is in exactly one."""

    @classmethod
    def load(
        cls, config: TrainConfig, folds: int = FOLDS, bar: Bar | None = None, dataset: Dataset | None = None
    ) -> Material:  # fmt: skip
        """Read the data set, and compute the features that aren't cached yet.

        Args:
            config: the choices named in `SHARED`, and where features are cached.
            folds: how many; fewer if they would have fewer than two classes each.
            bar: opens a progress bar; None for none.
            dataset: with other training items than those of the configuration's data set.

        Raises:
            LabError: no such data, too few classes, or `freeze_trunk` is off.
        """
        if not config.freeze_trunk:
            raise ConfigError("A study works on features of a frozen trunk: --freeze-trunk must be on.")
        dataset, engine = dataset or dataset_of(config), engine_of(config)
        items_of: dict[int, Any] = {0: range(len(dataset))} | dict.fromkeys(range(1, config.views), dataset.train)
        with bar(f"{config.dataset}: trunk features") if bar else nullcontext() as report:
            features = trunk_features(
                engine, [dataset.path(item) for item in range(len(dataset))], runs_root(config.runs_root) / ".features",
                resize=config.resize, progress=report, views=items_of, augmentation=config.augmentation,
            )  # fmt: skip
        pooled, *others = (torch.from_numpy(features[view]) for view in items_of)
        inputs = signed_power(pooled, config.pool_power)
        views = [inputs[torch.from_numpy(dataset.train)], *(signed_power(part, config.pool_power) for part in others)]
        dealt = class_folds(dataset.labels, dataset.train, folds, config.split_seed)
        if not dealt:
            count = len(np.unique(dataset.labels[dataset.train]))
            raise DataError(f"A study needs at least four training classes, so that it can hold some out; got {count}.")
        return cls(config, dataset, pooled, inputs, torch.stack(views), dealt)

    @property
    def protocols(self) -> list[Protocol]:
        """The data set's protocols: unseen, known, or both."""
        return [protocol for protocol in (self.dataset.unseen, self.dataset.known) if protocol]

    def fit_items(self, fold: int) -> np.ndarray:
        """The training items of all classes outside a fold."""
        return np.setdiff1d(self.dataset.train, self.folds[fold])

    def stand_in(self) -> Trunk:
        """A trunk without weights, since the features are computed already."""
        return Trunk(nn.Identity(), self.inputs.shape[1], (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def engine_of(config: TrainConfig) -> Engine:
    """What computes a material's features."""
    device, precision = resolve_device(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.split_seed)  # random weights are the same in every process, as cached features ask
        trunk = load_trunk(config.trunk, config.weights).to(device)
    return Engine(trunk, size=config.image_size, device=device, precision=precision)


@functools.lru_cache(maxsize=1)
def material_of(config: TrainConfig, folds: int) -> Material:
    """`Material.load`, cached in this process for the last configuration."""
    return Material.load(config, folds)
