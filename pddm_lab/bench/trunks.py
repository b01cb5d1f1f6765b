"""What pretrained trunks see at each size of picture, and what it costs: no training, features from the files anew."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from pddm_lab.bench.report import Log
from pddm_lab.config import TrainConfig
from pddm_lab.data.dataset import Dataset, Protocol, read_dataset
from pddm_lab.metrics.retrieval import evaluate
from pddm_lab.model.embedding import signed_power
from pddm_lab.model.engine import Engine
from pddm_lab.model.features import trunk_features
from pddm_lab.model.similarity import Euclidean
from pddm_lab.model.trunks import load_trunk
from pddm_lab.training.loop import resolve_device

METRICS = ("recall@1", "map@r")


def measure(
    datasets: Sequence[str], trunks: Sequence[str], sizes: Sequence[int], items: int, precision: str, root: Path,
    log: Log,
) -> pd.DataFrame:  # fmt: skip
    """Signed square roots of the pooled features, unit length, ranked by their Euclidean distance.

    Args:
        datasets: names, as `read_dataset` takes them.
        trunks: names, as `load_trunk` takes them.
        sizes: sides of the square input, in pixels; the picture's shorter side is scaled to the same.
        items: of each protocol at most, whole classes chosen at random; 0: all.
        precision: auto, 32 or bf16.
        root: folder of the data sets.

    Returns:
        A row per data set, trunk and size: dataset, trunk, size, precision, images, cpu_seconds of all processes, from
        the files to the features, and METRICS of each protocol in %.
    """
    rows = []
    for name in datasets:
        dataset = read_dataset(name, root)
        parts = [_some_classes(dataset, part, items) for part in (dataset.unseen, dataset.known) if part is not None]
        of_parts = [np.concatenate([part.query, part.gallery]) for part in parts]
        every = np.unique(np.concatenate(of_parts or [dataset.train]))
        for trunk in trunks:
            for size in sizes:
                log(f"{name}: {len(every):,} images, {trunk}, {size} px")
                features, seconds, used = _features(trunk, size, precision, [dataset.path(item) for item in every])
                row = {"dataset": name, "trunk": trunk, "size": size, "precision": used, "images": len(every)}
                rows.append(row | {"cpu_seconds": round(seconds, 2)} | _quality(dataset, parts, every, features))
    return pd.DataFrame(rows)


def _some_classes(dataset: Dataset, protocol: Protocol, most: int) -> Protocol:
    """A protocol with only so many of its items, of whole classes."""
    labels = dataset.labels
    every = np.union1d(protocol.query, protocol.gallery)
    classes, counts = np.unique(labels[every], return_counts=True)
    order = np.random.default_rng(0).permutation(len(classes))
    kept = classes[order[: int(np.searchsorted(counts[order].cumsum(), most or len(every))) + 1]]
    query, gallery = (part[np.isin(labels[part], kept)] for part in (protocol.query, protocol.gallery))
    return Protocol(protocol.name, query, gallery)


def _features(trunk: str, size: int, precision: str, paths: Sequence[Path]) -> tuple[torch.Tensor, float, str]:
    """(unit-length features, processor seconds, precision)."""
    device, used = resolve_device(TrainConfig(trunk=trunk, precision=precision))  # type: ignore[arg-type]
    network = load_trunk(trunk).to(device)
    before = _processor_seconds()
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(network, size=size, device=device, precision=used)
        pooled = trunk_features(engine, paths, Path(folder), resize=size)[0]
    seconds = _processor_seconds() - before
    return F.normalize(signed_power(torch.from_numpy(pooled), 0.5)), seconds, used


def _processor_seconds() -> float:
    """Processor time of this process and of those it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _quality(dataset: Dataset, parts: list[Protocol], every: np.ndarray, features: torch.Tensor) -> dict[str, float]:
    quality: dict[str, float] = {}
    for part in parts:
        query, gallery = (features[np.searchsorted(every, items)] for items in (part.query, part.gallery))
        labels = dataset.labels[part.query], dataset.labels[part.gallery]
        metrics = evaluate(Euclidean(), query, gallery, *labels, part.leave_one_out).metrics
        quality |= {f"{part.name} {metric}": round(100 * metrics[metric], 2) for metric in METRICS}
    return quality
