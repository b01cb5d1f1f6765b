"""How mining scales with the batch, compared with a library's miners on the same embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pddm_lab.bench.report import Log, Measure
from pddm_lab.bench.timing import clustered, fastest, tensor_memory, trained_unit
from pddm_lab.model.similarity import PDDMSimilarity, Similarity
from pddm_lab.training import miner as module
from pddm_lab.training.miner import NEIGHBOURS, mine

PER_CLASS = 4
SPREAD = 1.5
"""Spread of the classes, wide enough that hard negatives are hard."""
SIZES = (64, 128, 256, 512, 1024, 2048, 4096, 8192)


def measure(largest: int, log: Log) -> list[Measure]:
    """Measure both strategies with a trained unit, in batches of up to `largest` items."""
    sizes = [size for size in SIZES if size <= largest]
    log("training a unit on clusters")
    unit = trained_unit(spread=SPREAD)
    seconds: dict[int, dict[str, float]] = {}
    for size in sizes:
        log(f"batches of {size}")
        seconds[size] = _side_by_side(size, unit)
    measures: list[Measure] = []
    for size in sizes:
        by_miner = seconds[size]
        hard, multi = by_miner["BatchHardMiner"], by_miner["MultiSimilarityMiner"]
        over = f"BatchHardMiner {1000 * hard:.2f} ms, MultiSimilarityMiner {1000 * multi:.2f} ms"
        limit = 1.0 if size >= 1024 else None
        measures += [
            Measure(f"{size} items: batch / the faster", by_miner["batch"] / min(hard, multi), "x", limit, over),
            Measure(f"{size} items: anchor / BatchHardMiner", by_miner["anchor"] / hard, "x", 3),
        ]
    large = [size for size in sizes if size >= 256]
    if len(large) > 1:
        over = f"{large[0]} to {large[-1]} items, {PER_CLASS} a class"
        measures.append(Measure("batch: time scales with power", _slope(large, seconds, "batch"), "", 1.15, over))
        evaluations = {size: {"anchor": float(_evaluations(size, unit))} for size in large}
        measures.append(
            Measure("anchor: evaluations of S scale with power", _slope(large, evaluations, "anchor"), "", 1.3, over)
        )
        measures.append(Measure("anchor: time scales with power", _slope(large, seconds, "anchor"), "", None, over))
        measures.append(_memory_scaling(large, unit))
    log("comparing with scoring all pairs")
    return [*measures, _against_all_pairs(unit), _agreement(unit)]


def _side_by_side(size: int, unit: Similarity) -> dict[str, float]:
    """Seconds of both strategies, and of a library's miners on the same embeddings."""
    from pytorch_metric_learning.miners import BatchHardMiner, MultiSimilarityMiner

    features, labels = clustered(size, PER_CLASS, SPREAD, seed=size)
    hard, multi = BatchHardMiner(), MultiSimilarityMiner()
    return fastest({
        "BatchHardMiner": lambda: hard(features, labels), "MultiSimilarityMiner": lambda: multi(features, labels),
        "batch": lambda: mine(features, labels, unit, "batch"),
        "anchor": lambda: mine(features, labels, unit, "anchor"),
    }, rounds=7 if size <= 1024 else 3)  # fmt: skip


def _slope(sizes: Sequence[int], seconds: dict[int, dict[str, float]], name: str) -> float:
    """Slope of log time over log size."""
    return float(np.polyfit(np.log(sizes), np.log([seconds[size][name] for size in sizes]), 1)[0])


class _Counting(PDDMSimilarity):
    """A PDDM similarity that counts the pairs it scores."""

    def __init__(self, of: Similarity) -> None:
        super().__init__(of.unit)  # type: ignore[arg-type]
        self.scored = 0

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        self.scored += max(len(a), len(b))
        return super().forward(a, b)

    def _matrix(self, queries: Tensor, gallery: Tensor) -> Tensor:
        self.scored += len(queries) * len(gallery)
        return super()._matrix(queries, gallery)

    def _candidates(self, queries: Tensor, gallery: Tensor, rows: Tensor) -> Tensor:
        self.scored += rows.numel()
        return super()._candidates(queries, gallery, rows)


def _evaluations(size: int, unit: Similarity) -> int:
    features, labels = clustered(size, PER_CLASS, SPREAD, seed=size)
    counting = _Counting(unit)
    mine(features, labels, counting, "anchor")
    return counting.scored


def _memory_scaling(sizes: Sequence[int], unit: Similarity) -> Measure:
    memory = {}
    for size in sizes:
        features, labels = clustered(size, PER_CLASS, SPREAD, seed=size)
        memory[size] = {"batch": tensor_memory(lambda: mine(features, labels, unit, "batch"))}  # noqa: B023
    over = ", ".join(f"{size}: {memory[size]['batch']:.0f} MB" for size in sizes)
    return Measure("batch: memory scales with power", _slope(sizes, memory, "batch"), "", 1.15, over)


def _against_all_pairs(unit: Similarity) -> Measure:
    features, labels = clustered(4096, PER_CLASS, SPREAD)
    seconds = fastest(
        {"batch": lambda: mine(features, labels, unit, "batch"), "all": lambda: unit.matrix(features, features)}, 2
    )
    over = f"4096 items, all pairs {seconds['all']:.2f} s"
    return Measure("batch: faster than all pairs by", seconds["all"] / seconds["batch"], "x", 20, over, True)


def _agreement(unit: Similarity, size: int = 2048) -> Measure:
    """Share of anchors with the same hard negative as in a search of all pairs."""
    features, labels = clustered(size, PER_CLASS, SPREAD, seed=5)
    near, dense = (mine(features, labels, unit, "anchor", neighbours=count) for count in (NEIGHBOURS, 0))
    assert size > module.DENSE_ITEMS and torch.equal(near.i, dense.i)
    same = 100 * float((near.k == dense.k).double().mean())
    return Measure("anchor: hard negatives as among all pairs", same, "%", 95, f"{size} items, m = {NEIGHBOURS}", True)
