"""A small training in memory, for teaching: a head and the similarities learn on a frozen trunk's features in seconds.

The loop, the miner and the model are those of a run; nothing is chosen on validation classes, and nothing is saved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from pddm_lab.config import TrainConfig
from pddm_lab.data.dataset import Dataset
from pddm_lab.metrics.retrieval import evaluate
from pddm_lab.model.embedding import MetricModel
from pddm_lab.runs.log import coded_table, quadruplet_columns
from pddm_lab.runs.quadruplets import Mined
from pddm_lab.training.loop import Loop, view_inputs
from pddm_lab.training.objectives import Step

PHASE = "refit"
"""The only phase in the log of a small training: it trains on all training classes, like a refit."""

PICTURE = 64
"""Longer side of a picture in a notebook, in pixels."""


@dataclass(eq=False)
class SmallTraining:
    """A model that trains on the training classes of a data set, step by step, on the CPU."""

    dataset: Dataset
    pooled: Float[Tensor, "items trunk_dim"]
    """The frozen trunk's features of all items."""
    config: TrainConfig
    """A step uses its choices of batches, model and objective, its lr, weight_decay and seed."""
    labels: Int[np.ndarray, " items"] | None = None
    """Instead of the data set's own, for example with some wrong ones."""
    model: MetricModel = field(init=False)
    losses: list[float] = field(init=False, default_factory=list)
    """E of each step."""

    def __post_init__(self) -> None:
        if self.labels is None:
            self.labels = self.dataset.labels
        torch.manual_seed(self.config.seed)
        self.model = MetricModel(self.config)
        self.model.embedding.trunk.requires_grad_(False)
        train = self.dataset.train
        inputs = view_inputs(self.pooled[torch.from_numpy(train)][None], train, self.config.seed)
        self._loop = Loop(self.model, self.config, self.labels, train, inputs)
        self._mined: list[dict] = []

    def batch(self, step: int) -> Int[np.ndarray, " items"]:
        """Items of the batch of a step, those of a class next to each other."""
        return self._loop.batch(step)

    def features(self, items: Int[np.ndarray, " items"]) -> Float[Tensor, "items dim"]:
        """Unit-length features of some items by the model as it is now."""
        with torch.no_grad():
            return self.model.embedding.project(self.pooled[torch.from_numpy(items)])

    def look(self, items: Int[np.ndarray, " items"]) -> Step:
        """The step that a batch would give, without learning from it."""
        with torch.no_grad():
            return self._loop.objective(self.pooled[torch.from_numpy(items)], self._loop.numbered(items))

    def columns(self, items: Int[np.ndarray, " items"], result: Step) -> dict[str, np.ndarray]:
        """A batch's quadruplets as columns of a run's log."""
        assert self.labels is not None
        return quadruplet_columns(
            np.array(self.dataset.ids, dtype=object)[items],
            np.array(self.dataset.class_names, dtype=object)[self.labels[items]],
            (result.quadruplets.numpy(), result.values.numpy()),
            (result.euclidean.numpy(), result.euclidean_values.numpy()),
        )

    def train(self, steps: int) -> None:
        """Train for so many more steps."""
        for _ in range(steps):
            result = self._loop.take_step()
            self.losses.append(float(result.loss.detach()))
            step = self._loop.step
            self._mined.append({"phase": PHASE, "step": step, **self.columns(self.batch(step), result)})

    def mined(self) -> Mined:
        """All quadruplets so far."""
        return Mined.of(coded_table(self._mined))

    def metrics(self, similarity: str) -> dict[str, float]:
        """Retrieval metrics on new images of the known classes, or of the unseen ones if there are no others."""
        protocol = self.dataset.known or self.dataset.unseen
        assert protocol is not None
        labels = self.dataset.labels
        return evaluate(
            self.model.similarity(similarity), self.features(protocol.query), self.features(protocol.gallery),
            labels[protocol.query], labels[protocol.gallery], protocol.leave_one_out,
        ).metrics  # fmt: skip


def pictures(dataset: Dataset, ids: Iterable[str]) -> dict[str, bytes]:
    """Small PNG pictures of items by id; tiny ones are enlarged smoothly: sharp pixels of a digit are hard to read."""
    number_of = {item: number for number, item in enumerate(dataset.ids)}
    images = {}
    for item in set(ids):
        image = dataset.load(number_of[item])
        image.thumbnail((PICTURE, PICTURE))
        scale = PICTURE // max(image.size)
        if scale > 1:
            image = image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
        buffer = BytesIO()
        image.save(buffer, "PNG")
        images[item] = buffer.getvalue()
    return images


def ids_in(quadruplets: pd.DataFrame) -> set[str]:
    """Ids of all items in some quadruplets, including those mined by Euclidean distance."""
    ends = [end for end in (*"ijkl", "e_i", "e_j", "e_k", "e_l") if end in quadruplets]
    return set(quadruplets[ends].stack().dropna())


def with_wrong_labels(
    labels: Int[np.ndarray, " items"], items: Int[np.ndarray, " some"], share: float, seed: int = 0
) -> tuple[Int[np.ndarray, " items"], Bool[np.ndarray, " items"]]:
    """Labels with a share of wrong ones: some items are moved at random into another of the items' classes.

    Args:
        labels: of all items.
        items: that may be relabelled; of at least two classes.
        share: of them that get a wrong label, 0 to 1.
        seed: of the choice of items and labels.

    Returns:
        The labels, and a mask of the wrong ones.
    """
    random, wrong = np.random.default_rng(seed), np.zeros(len(labels), dtype=bool)
    wrong[random.choice(items, round(share * len(items)), replace=False)] = True
    classes = np.unique(labels[items])
    away = random.integers(1, len(classes), wrong.sum())  # never 0: another class
    labels = labels.copy()
    labels[wrong] = classes[(np.searchsorted(classes, labels[wrong]) + away) % len(classes)]
    return labels, wrong


def share_with(mined: Mined, items: Iterable[str], hardest: float = 1.0) -> float:
    """Share of quadruplets that contain one of some items; `hardest` < 1 counts only the most violated ones."""
    rows = mined.ordered(np.arange(len(mined)), "violation")[: max(1, round(hardest * len(mined)))]
    among = np.isin(mined.items, list(items))
    return float(np.any([among[mined.ends[end][rows]] for end in "ijkl"], axis=0).mean())
