"""Class scaling: what ten to a hundred thousand classes cost in a gallery of features and in a softmax classifier.

A classifier's last layer has a row of weights per class, so the model grows with the number of classes, and a new class
means a larger layer that must be retrained. The lab's model stays the same: a class is its items in the gallery, which
is data and not part of the model. Both are measured on arrays of their real sizes. The features are random, since their
values make no difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pddm_lab.config import TrainConfig
from pddm_lab.model.embedding import MetricModel
from pddm_lab.progress import Progress

CLASSES = (10, 100, 1_000, 10_000, 100_000)
FLOAT = 4
"""Bytes per number."""
PASS_LIMIT = 5.0
"""Seconds; a pass of training that takes longer is estimated from the duration of a step."""
_BATCH = 128
_ROUNDS = 5


def class_costs(
    model: MetricModel, classes: Sequence[int] = CLASSES, *, images: int = 5, seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Compare the lab's model with a softmax classifier on the same trunk: sizes, and what one more class costs.

    Args:
        model: the lab's: trunk, head and similarities.
        images: of each class, in the gallery and in the classifier's training data.
        progress: called after each number of classes.

    Returns:
        A row per number of classes:
        `lab_parameters`, `classifier_parameters` with their `_bytes`; `gallery_bytes`, the features of all items;
        `add_gallery_seconds`: adding one more class's items to the index;
        `enlarge_seconds`: copying the layer into one with one more row;
        `step_seconds`: one training step of that layer on a batch of 128 stored features, the median of 5;
        `pass_seconds`: a pass over all images of all classes, measured if `pass_measured`, else the number of its
        steps times `step_seconds`;
        `search_seconds`, `classify_seconds`: one query against all classes, without the network, which both need.
    """
    rows = []
    for number, count in enumerate(classes):
        rows.append(sizes(model, count, images) | _measure(model, count, images, seed))
        if progress:
            progress(number + 1, len(classes), "numbers of classes")
    return pd.DataFrame(rows)


def sizes(model: MetricModel, classes: int, images: int = 5) -> dict[str, int]:
    """Parameters and bytes of both models, and bytes of the gallery's features.

    Args:
        images: of each class in the gallery.
    """
    trunk = sum(parameter.numel() for parameter in model.embedding.trunk.parameters())
    lab = sum(parameter.numel() for parameter in model.parameters())
    classifier = trunk + classes * (model.embedding.trunk.dim + 1)
    return {
        "classes": classes, "lab_parameters": lab, "classifier_parameters": classifier, "lab_bytes": FLOAT * lab,
        "classifier_bytes": FLOAT * classifier,
        "gallery_bytes": FLOAT * classes * images * model.embedding.dim,
    }  # fmt: skip


def embedding_seconds(model: MetricModel, config: TrainConfig, rounds: int = _ROUNDS) -> float:
    """Seconds to embed one picture on the CPU, the same for both models and any number of classes."""
    image = torch.zeros(1, 3, config.image_size, config.image_size, dtype=torch.uint8)
    with torch.inference_mode():
        model.embedding(image)
        return _median(lambda: model.embedding(image), rounds)


def _measure(model: MetricModel, classes: int, images: int, seed: int) -> dict[str, float]:
    random = torch.Generator().manual_seed(seed)
    gallery = _gallery_seconds(_unit(classes * images, model.embedding.dim, random), images)
    return gallery | _classifier_seconds(classes, images, model.embedding.trunk.dim, random)


def _gallery_seconds(features: Tensor, images: int) -> dict[str, float]:
    import faiss

    index = faiss.IndexFlatL2(features.shape[1])
    index.add(features.numpy())
    new, query = features[:images].numpy(), features[:1].numpy()
    index.add(new)  # the index doubles its memory now and then; that copy must not be measured
    return {
        "add_gallery_seconds": _median(lambda: index.add(new)),
        "search_seconds": _median(lambda: index.search(query, 1)),
    }


def _classifier_seconds(classes: int, images: int, dim: int, random: torch.Generator) -> dict[str, float]:
    layer = nn.Linear(dim, classes)
    enlarge = _median(lambda: _enlarged(layer))
    larger = _enlarged(layer)
    features = _unit(_BATCH, dim, random)
    labels = torch.randint(classes + 1, (_BATCH,), generator=random)
    optimizer = torch.optim.SGD(larger.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(larger(features), labels).backward()
        optimizer.step()

    seconds = _median(step)
    with torch.inference_mode():
        classify = _median(lambda: larger(features[:1]).argmax(1))
    steps = -(-(classes + 1) * images // _BATCH)
    measured = steps * seconds <= PASS_LIMIT
    start = time.perf_counter()
    for _ in range(steps if measured else 0):
        step()
    whole = time.perf_counter() - start if measured else steps * seconds
    return {
        "enlarge_seconds": enlarge, "step_seconds": seconds, "pass_seconds": whole, "pass_measured": measured,
        "classify_seconds": classify,
    }  # fmt: skip


@torch.no_grad()
def _enlarged(layer: nn.Linear) -> nn.Linear:
    """The same layer with a row for one more class."""
    larger = nn.utils.skip_init(nn.Linear, layer.in_features, layer.out_features + 1)
    for new, old in zip(larger.parameters(), layer.parameters(), strict=True):
        new[: layer.out_features] = old
        new[layer.out_features :] = 0
    return larger


def _unit(items: int, dim: int, random: torch.Generator) -> Tensor:
    return F.normalize(torch.randn(items, dim, generator=random), dim=1)


def _median(work: Callable[[], Any], rounds: int = _ROUNDS) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))
