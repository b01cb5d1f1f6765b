"""How far to go from the pretrained features to what training makes of them, chosen on classes that didn't train.

Known classes gain from a larger share of the head, which held-out classes can't show: of the shares that are as good as
the best one on held-out classes, the largest is used. The unit's correction of D is used as far as it surely gains on
held-out classes: a gain on known classes isn't worth a loss on new ones. The head's share is chosen by training it once
per fold of the training classes, alone: a few seconds on cached features. Heads on the line between start and end
contain better compromises than earlier steps of the training do (notebooks/results/experiments.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from lightning_fabric import Fabric
from torch import Tensor

from pddm_lab.config import TrainConfig
from pddm_lab.data.splits import class_folds, sample_of_classes, without_lone_items
from pddm_lab.metrics.retrieval import average_precisions
from pddm_lab.model.embedding import MetricModel, signed_power
from pddm_lab.model.head import Scatter, UsedHead
from pddm_lab.model.similarity import Euclidean, Similarity
from pddm_lab.progress import Progress
from pddm_lab.training.loop import Inputs, Loop

HEAD_SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
UNIT_SHARES = (0.0, 0.25, 0.5, 1.0)
FOLDS = 3
"""Parts of the training classes, each held out once."""
FEWEST_CLASSES = 8
"""With fewer held-out classes the differences between them say too little: the best share is used."""
MOST_LACK = 0.005
"""Of MAP@R, that a share may lack of the best one."""
SURE = 2.0
"""Standard errors of a gain that is more than chance."""
MOST_HELD = 5000
"""Most held-out items that are searched among each other."""
OF_CLASS = 50
"""Items of a held-out class that stand for all of it, where there are more items than that."""
UNCHOSEN = 0.3
"""The head's share if there are too few classes to hold any out; the unit's is 0 then, so that S ranks like D."""


def used_head(
    config: TrainConfig, share: float, pooled: Float[Tensor, "items trunk_dim"], labels: Int[np.ndarray, " items"],
    train: Int[np.ndarray, " train"],
) -> UsedHead | None:  # fmt: skip
    """The head that a training on some items uses; None for the one that it trains, or where there is none.

    Args:
        share: as chosen.
        pooled: the trunk's features of all items, on the device.
        labels: (all items,) class of each item.
        train: the training items.
    """
    if config.is_imported or not (config.interpolates or config.whitens):
        return None
    scatter = Scatter.of(*_inputs_of(pooled, labels, train, config)) if config.whitens else None
    return UsedHead(share if config.interpolates else 1.0, scatter)


def choose_head_share(
    new_model: Callable[[], MetricModel], config: TrainConfig, labels: Int[np.ndarray, " items"],
    train: Int[np.ndarray, " train"], pooled: Float[Tensor, "items trunk_dim"], inputs: Inputs,
    fabric: Fabric | None = None, progress: Progress | None = None,
) -> tuple[float, dict[float, float]]:  # fmt: skip
    """The head's share by MAP@R of D on held-out training classes.

    Args:
        new_model: a model at the start of the training, on the device.
        labels: (all items,) class of each item.
        train: the training items.
        pooled: the trunk's features of all items, on the device.
        inputs: of the training, see `view_inputs`.
        fabric: see `Loop`.
        progress: called after some steps, on every rank; it may stop all of them by raising.

    Returns:
        The share, and share -> mean MAP@R over the held-out classes; empty where there are too few classes.
    """
    folds = class_folds(labels, train, FOLDS, config.split_seed)
    values, queries, done = [], [], 0
    for held in folds:
        fit = np.setdiff1d(train, held)
        loop = Loop(new_model(), config, labels, fit, inputs, learning=(), fabric=fabric)
        for _ in range(config.steps):
            loop.take_step()
            done += 1
            if progress and done % 10 == 0:
                progress(done, len(folds) * config.steps, "held-out classes")
        head = used_head(config, 0.0, pooled, labels, fit)
        assert head
        searched = sample_of_classes(labels, held, MOST_HELD, OF_CLASS, config.split_seed)
        of_held, classes = _inputs_of(pooled, labels, searched, config)
        rows = []
        for share in HEAD_SHARES:
            used = head._replace(share=share)(loop.start, loop.kept.embedding.head)
            rows.append(precisions(Euclidean(), F.normalize(used(of_held), dim=1), classes))
        values.append(torch.stack(rows))
        queries.append(torch.from_numpy(labels[without_lone_items(labels, searched)]))
    if not folds:
        return UNCHOSEN, {}
    return choose(HEAD_SHARES, torch.cat(values, 1), torch.cat(queries), config.selection_tolerance)


def _inputs_of(
    pooled: Float[Tensor, "items trunk_dim"], labels: Int[np.ndarray, " items"], items: Int[np.ndarray, " some"],
    config: TrainConfig,
) -> tuple[Float[Tensor, "some trunk_dim"], Int[Tensor, " some"]]:  # fmt: skip
    """What the head sees of some items, and their classes."""
    chosen = torch.from_numpy(items)
    classes = torch.from_numpy(labels[items]).to(pooled.device)
    return signed_power(pooled[chosen], config.pool_power), classes


@torch.no_grad()
def precisions(
    similarity: Similarity, features: Float[Tensor, "items dim"], labels: Int[Tensor, " items"]
) -> Float[Tensor, " ranked"]:
    """AP@R of items that are searched among each other; 0 where a score is not finite."""
    scores = similarity.matrix(features, features).cpu()
    ranked = average_precisions(scores.nan_to_num(), labels.cpu(), torch.arange(len(labels)))
    return ranked if scores.isfinite().all() else torch.zeros_like(ranked)


def choose(
    shares: Sequence[float], precisions: Float[Tensor, "shares ranked"], labels: Int[Tensor, " ranked"],
    tolerance: float = 1.0,
) -> tuple[float, dict[float, float]]:  # fmt: skip
    """The largest share that is as good as the best one.

    As good: the mean over classes of the difference to the best share is at most `tolerance` of its standard errors,
    and at most `MOST_LACK`: with few classes the errors are large.

    Args:
        shares: in ascending order.
        precisions: AP@R of every query with every share.
        labels: classes of the queries.

    Returns:
        The share, and share -> mean over the classes of their MAP@R.
    """
    of_class = _means_of_classes(precisions, labels)
    means = of_class.mean(1)
    lacks = of_class[means.argmax()] - of_class
    if of_class.shape[1] < FEWEST_CLASSES:
        tolerance = 0.0
    allowed = (tolerance * _errors(lacks)).clamp(max=MOST_LACK)
    chosen = int((lacks.mean(1) <= allowed).nonzero().max())
    return shares[chosen], dict(zip(shares, means.tolist(), strict=True))


def choose_sure_gain(
    shares: Sequence[float], precisions: Float[Tensor, "shares ranked"], labels: Int[Tensor, " ranked"]
) -> tuple[float, dict[float, float]]:  # fmt: skip
    """The best share whose gain over the first one is more than two standard errors over classes; else the first.

    For what can do more harm on new classes than it shows on few held-out ones. Arguments and result as for `choose`.
    """
    of_class = _means_of_classes(precisions, labels)
    means, gains = of_class.mean(1), of_class - of_class[:1]
    sure = gains.mean(1) > SURE * _errors(gains)
    chosen = int(means.where(sure, -1.0).argmax()) if sure.any() else 0
    return shares[chosen], dict(zip(shares, means.tolist(), strict=True))


def _means_of_classes(
    precisions: Float[Tensor, "shares ranked"], labels: Int[Tensor, " ranked"]
) -> Float[Tensor, "shares classes"]:
    _, numbers, counts = labels.unique(return_inverse=True, return_counts=True)
    return precisions.new_zeros(len(precisions), len(counts)).index_add_(1, numbers, precisions) / counts


def _errors(differences: Float[Tensor, "shares classes"]) -> Float[Tensor, " shares"]:
    """Standard errors of means over classes."""
    return differences.std(1, correction=0) / math.sqrt(max(differences.shape[1] - 1, 1))
