"""The training loop: one for runs, for the study and for teaching.

A step follows from the configuration, the weights and the step's number alone: batches, views, dropout and learning
rate need no state to resume, and are the same on every rank. With several processes every rank embeds its part of a
batch and sees the features of all, so that two processes compute what one would.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from lightning_fabric import Fabric
from torch import Tensor

from pddm_lab.config import TrainConfig, data_root, runs_root
from pddm_lab.data.corrected import with_corrections
from pddm_lab.data.corrections import COPY, FOLDER, corrections_file
from pddm_lab.data.dataset import Dataset, read_dataset
from pddm_lab.data.imported import read_imported
from pddm_lab.data.sampler import ClassBatches
from pddm_lab.errors import ConfigError
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.features import ImageFiles, image_loader
from pddm_lab.model.head import UsedHead
from pddm_lab.model.pddm import PDDM
from pddm_lab.similarities import LEARNED
from pddm_lab.training.objectives import Near, Objective, Step

REFRESH = 10
"""Steps after which the head that will be used follows the one in training."""

Part = tuple[int, np.ndarray, np.ndarray]
"""A step, the items of its whole batch, and the places in it that belong to this process."""
Inputs = Callable[[Iterable[Part]], Iterator[Tensor]]
"""Yields what the model sees of each part: uint8 images, or the frozen trunk's features."""


def resolve_device(config: TrainConfig) -> tuple[torch.device, str]:
    """The device and the precision that a configuration means on this machine.

    Raises:
        ConfigError: cuda is required and there is none, or fp16 is to run on a CPU.
    """
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise ConfigError("--device cuda expects a CUDA GPU and there is none; use --device cpu or auto.")
    device = torch.device("cuda" if config.device != "cpu" and has_cuda else "cpu")
    if config.precision == "fp16" and device.type == "cpu":
        raise ConfigError("--precision fp16 expects a GPU; use bf16 or 32 on a CPU.")
    if config.precision != "auto":
        return device, config.precision
    if device.type == "cuda":
        return device, "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    # On a CPU fine-tuning is slower in bf16 than in 32. A frozen trunk is faster in bf16, but one model's R@1 moves by
    # up to 0.6 points by distance and 3.2 by S (notebooks/results/experiments.md): no loss on average, no equality.
    return device, "32"


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads on the CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def dataset_of(config: TrainConfig, root: Path | None = None, name: str = "") -> Dataset:
    """The data set that a configuration names, with its split and, if it says so, its corrections.

    Args:
        config: names the data set and how it is split.
        root: the runs' root, where checks of images are cached; None: the configuration's.
        name: of the run, whose own copy of the corrections counts if it has one; empty: the configuration's.

    Raises:
        DataError: it is missing or damaged, or can't be split or corrected like this.
        RunError: the run lacks the features that it imported.
    """
    root = root or runs_root(config.runs_root)
    if config.is_imported:
        return read_imported(root / config.run_name).dataset
    dataset = read_dataset(
        config.dataset, data_root(config.data_root), known_query_share=config.known_query_share,
        split_seed=config.split_seed, check_cache=root / ".checked",
    )  # fmt: skip
    if not config.corrections:
        return dataset
    copy = root / (name or config.run_name or FOLDER) / COPY
    return with_corrections(dataset, copy if copy.is_file() else corrections_file(root, config.dataset))


def learning_rate_factor(config: TrainConfig, step: int) -> float:
    """What the learning rate is multiplied by at a step (1, 2, ...): the warm-up, then the schedule.

    A warm-up takes at most a fifth of the steps.
    """
    warmup = min(config.warmup_steps, config.steps // 5)
    if step <= warmup:
        return step / warmup
    done = (step - warmup) / max(config.steps - warmup, 1)
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    if config.schedule == "step":
        return 0.01 if done > 0.75 else 0.1 if done > 0.5 else 1.0
    return 1.0


def view_inputs(views: Float[Tensor, "views train trunk_dim"], train: Int[np.ndarray, " train"], seed: int) -> Inputs:
    """Inputs from the frozen trunk's features: of each item in a batch one of its views, at random.

    Args:
        views: features of the training items, on the device that trains.
        train: the training items, in the order of `views`.
        seed: of the choice.
    """
    row_of = {int(item): row for row, item in enumerate(train)}

    def inputs(parts: Iterable[Part]) -> Iterator[Tensor]:
        for step, batch, own in parts:
            view = np.random.default_rng([seed, step]).integers(len(views), size=len(batch))[own]
            row = np.array([row_of[int(item)] for item in batch[own]])
            yield views[torch.from_numpy(view).to(views.device), torch.from_numpy(row).to(views.device)]

    return inputs


def image_inputs(paths: Sequence[Path], config: TrainConfig, device: torch.device) -> Inputs:
    """Inputs from image files: a random view of each, decoded by worker processes, for `config.steps` steps."""
    images = ImageFiles(paths, config.resize, config.image_size, config.seed, config.augmentation)

    def inputs(parts: Iterable[Part]) -> Iterator[Tensor]:
        needed = itertools.takewhile(lambda part: part[0] <= config.steps, parts)
        keys = ([(step, int(item), int(item)) for item in batch[own]] for step, batch, own in needed)
        for images_of_batch in image_loader(images, keys, config.workers, device):
            yield images_of_batch.to(device, non_blocking=True)

    return inputs


class Loop:
    """A model in training on some items, step by step, with the moving average of its weights.

    Args:
        model: at step 0, on the device; it learns.
        config: the choices; `steps` is where a schedule of the learning rate ends.
        labels: (all items,) class of each item.
        items: that train.
        inputs: `view_inputs` or `image_inputs`.
        learning: the learned similarities that train, see `Objective`.
        fabric: launched, where there are several processes or mixed precision; None for one process on the CPU.
        used_head: the head that will be used, if it isn't the one in training; similarities learn on its features.
        unit_share: how much of the unit's correction of D will be used.
        near: an earlier model whose features those of this one stay near to.
        often: classes that come in every batch, see `ClassBatches`.
    """

    def __init__(
        self, model: MetricModel, config: TrainConfig, labels: Int[np.ndarray, " items"],
        items: Int[np.ndarray, " train"], inputs: Inputs, learning: Sequence[str] = LEARNED,
        fabric: Fabric | None = None, used_head: UsedHead | None = None, unit_share: float = 1.0,
        near: Near | None = None, often: Int[np.ndarray, " classes"] | None = None,
    ) -> None:  # fmt: skip
        self.model, self.config, self.step = model, config, 0
        self.fabric = fabric or Fabric(accelerator="cpu", devices=1)
        classes, numbers = np.unique(labels[items], return_inverse=True)
        self._number_of = torch.full((len(labels),), -1)
        self._number_of[torch.from_numpy(items)] = torch.from_numpy(numbers)
        self.objective = Objective(model, config, len(classes), learning, near)
        self.kept = copy.deepcopy(model).eval()
        """The model with the moving average of the weights."""
        self.unit_share = unit_share
        self.start = copy.deepcopy(model.embedding.head).requires_grad_(False)
        """The head before training."""
        self._used_head = used_head
        self._start_training()
        self._wrapped, self._optimizer = self.fabric.setup(self.objective, _optimizer(self.objective))
        pairs = zip(self.kept.parameters(), model.parameters(), strict=True)
        self._averages, self._latest = zip(*(pair for pair in pairs if pair[1].requires_grad), strict=True)
        self._batches = ClassBatches(
            labels, items, config.classes_per_batch, config.images_per_class, config.seed, often
        )
        self._followed: torch.nn.Linear | None = None
        self._inputs: Iterator[Tensor] | None = None
        self._source = inputs

    @torch.no_grad()
    def used(self) -> MetricModel:
        """The model as it is measured and saved: `kept` with the head that is used, and its share of the correction."""
        if self._used_head is None and self.unit_share == 1:
            return self.kept
        trunk = self.kept.embedding.trunk
        model = copy.deepcopy(self.kept, {id(trunk): trunk})
        if self._used_head is not None:
            model.embedding.head = self._head()
        use_correction(model, self.unit_share)
        return model

    def _head(self) -> torch.nn.Linear:
        assert self._used_head is not None
        return self._used_head(self.start, self.kept.embedding.head)

    @property
    def lr(self) -> float:
        """The learning rate of the head at the last step."""
        return float(self._optimizer.param_groups[0]["lr"])

    def batch(self, step: int) -> Int[np.ndarray, " batch"]:
        """Items of the batch of a step, those of a class next to each other."""
        return self._batches.batch(step)

    def numbered(self, items: Int[np.ndarray, " some"]) -> Int[Tensor, " some"]:
        """Classes of training items as the loss numbers them, 0 to classes - 1."""
        return self._number_of[torch.from_numpy(items)]

    def take_step(self) -> Step:
        """Train on the next batch."""
        config = self.config
        if self._inputs is None:
            self._inputs = self._source(self._parts(self.step + 1))
        if self._used_head is not None and self.objective.mines and self.step % REFRESH == 0:
            self._follow(self._head())
        self.step += 1
        inputs = next(self._inputs)
        labels = self.numbered(self.batch(self.step)[self._own()]).to(inputs.device)
        torch.manual_seed(config.seed * 1_000_003 + self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = group["base_lr"] * learning_rate_factor(config, self.step)
        if not self.model.training:
            self._start_training()
        result: Step = self._wrapped(inputs, labels)
        self.fabric.backward(result.loss)
        if config.clip_norm:
            result.terms["grad_norm"] = self.fabric.clip_gradients(
                self.objective.trained, self._optimizer, max_norm=config.clip_norm, error_if_nonfinite=False
            )  # type: ignore[assignment]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._average()
        return result

    @torch.no_grad()
    def _average(self) -> None:
        """Move the weights that are kept towards the model's: a moving average that follows fast in the first steps."""
        decay = self.config.average
        decay = min(decay, (1 + self.step) / (10 + self.step)) if decay else 0.0
        torch._foreach_lerp_(self._averages, self._latest, 1 - decay)
        if self.model.embedding.trunk.training:  # its batch norms' statistics; a frozen trunk's never change
            for average, value in zip(self.kept.buffers(), self.model.buffers(), strict=True):
                average.copy_(value)

    def close(self) -> None:
        """End the processes that load images; a further step starts them again."""
        inputs, self._inputs = self._inputs, None
        if isinstance(inputs, Generator):
            inputs.close()

    def _start_training(self) -> None:
        """Put all but a frozen trunk into training mode."""
        self.objective.train()
        self.model.embedding.trunk.train(not self.config.freeze_trunk)

    def _follow(self, head: torch.nn.Linear) -> None:
        self._followed = head
        self.objective.used_head = head.forward  # not the module: its weights are no part of the objective

    def _parts(self, first: int) -> Iterator[Part]:
        for step in itertools.count(first):
            yield step, self.batch(step), self._own()

    def _own(self) -> Int[np.ndarray, " part"]:
        places = np.arange(self._batches.batch_size)
        return np.array_split(places, self.fabric.world_size)[self.fabric.global_rank]

    def state_dict(self) -> dict[str, Any]:
        """All that training needs to continue after `step`."""
        state = {
            "model": self.model, "kept": self.kept, "optimizer": self._optimizer, "rival": self.objective.rival,
            "used_head": self._followed,
        }  # fmt: skip
        return {"step": self.step, **{name: one.state_dict() for name, one in state.items() if one is not None}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the step at which `state_dict` was called.

        Raises:
            RuntimeError: the state is of a model with other shapes.
        """
        self.step = int(state["step"])
        self.model.load_state_dict(state["model"])
        self.kept.load_state_dict(state["kept"])
        groups = self._optimizer.state_dict()["param_groups"]  # its options are those of the configuration
        self._optimizer.load_state_dict({"state": state["optimizer"]["state"], "param_groups": groups})
        for parameter, values in self._optimizer.state.items():
            if any(value.shape not in (parameter.shape, ()) for value in values.values()):
                raise RuntimeError(f"the optimizer's state doesn't have the shape {tuple(parameter.shape)}")
        if "used_head" in state:
            head = copy.deepcopy(self.start)
            head.load_state_dict(state["used_head"])
            self._follow(head)
        if self.objective.rival:
            self.objective.rival.load_state_dict(state["rival"])


@torch.no_grad()
def use_correction(model: MetricModel, share: float) -> None:
    """Scale what the PDDM unit adds to -g D; with a share of 0, S ranks like D."""
    unit = model.similarity("pddm").unit
    assert isinstance(unit, PDDM)
    for parameter in unit.score.parameters() if share != 1 else ():
        parameter.mul_(share)


def _optimizer(objective: Objective) -> torch.optim.Optimizer:
    config, groups = objective.config, objective.groups()
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)
