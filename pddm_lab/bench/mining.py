"""How mining grows with the batch, and how it stands beside a library's miners on the same embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pddm_lab.bench.report import Measure
from pddm_lab.bench.timing import clustered, fastest, tensor_memory, trained_unit
from pddm_lab.model.similarity import PDDMSimilarity, Similarity
from pddm_lab.training import miner as module
from pddm_lab.training.miner import NEIGHBOURS, mine

PER_CLASS = 4
SPREAD = 1.5
"""Of the classes: so that hard negatives are hard."""
SIZES = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
GROWTH_FROM = 256

Say = Callable[[str], None]


def measure(sizes: Sequence[int], say: Say) -> list[Measure]:
    """Measure both strategies with a trained unit.

    Args:
        sizes: of the batches, ascending.
        say: called with what is being done.
    """
    say("training a unit on clusters")
    unit = trained_unit(spread=SPREAD)
    seconds: dict[int, dict[str, float]] = {}
    for size in sizes:
        say(f"batches of {size}")
        seconds[size] = _side_by_side(size, unit)
    found: list[Measure] = []
    for size in sizes:
        took = seconds[size]
        hard, multi = took["BatchHardMiner"], took["MultiSimilarityMiner"]
        over = f"BatchHardMiner {1000 * hard:.2f} ms, MultiSimilarityMiner {1000 * multi:.2f} ms"
        limit = 1.0 if size >= 1024 else None
        found += [
            Measure(f"{size} items: batch / the faster of both", took["batch"] / min(hard, multi), "x", limit, over),
            Measure(f"{size} items: anchor / BatchHardMiner", took["anchor"] / hard, "x", 3),
        ]
    grown = [size for size in sizes if size >= GROWTH_FROM]
    if len(grown) > 1:
        over = f"{grown[0]} to {grown[-1]} items, {PER_CLASS} a class"
        found.append(Measure("batch: time grows with power", _slope(grown, seconds, "batch"), "", 1.15, over))
        evaluations = {size: {"anchor": float(_evaluations(size, unit))} for size in grown}
        found.append(
            Measure("anchor: evaluations of S grow with power", _slope(grown, evaluations, "anchor"), "", 1.3, over)
        )
        found.append(Measure("anchor: time grows with power", _slope(grown, seconds, "anchor"), "", None, over))
        found.append(_memory_growth(grown, unit))
    say("against scoring all pairs")
    return [*found, _against_all_pairs(unit), _agreement(unit)]


def _side_by_side(size: int, unit: Similarity) -> dict[str, float]:
    """Seconds of either strategy, and of a library's miners on the same embeddings."""
    from pytorch_metric_learning.miners import BatchHardMiner, MultiSimilarityMiner

    features, labels = clustered(size, PER_CLASS, SPREAD, seed=size)
    hard, multi = BatchHardMiner(), MultiSimilarityMiner()
    return fastest(
        {
            "BatchHardMiner": lambda: hard(features, labels),
            "MultiSimilarityMiner": lambda: multi(features, labels),
            "batch": lambda: mine(features, labels, unit, "batch"),
            "anchor": lambda: mine(features, labels, unit, "anchor"),
        },
        rounds=7 if size <= 1024 else 3,
    )


def _slope(sizes: Sequence[int], seconds: dict[int, dict[str, float]], name: str) -> float:
    """Of time over size, both as logarithms."""
    return float(np.polyfit(np.log(sizes), np.log([seconds[size][name] for size in sizes]), 1)[0])


class _Counting(PDDMSimilarity):
    """Counts the pairs that are scored."""

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


def _memory_growth(sizes: Sequence[int], unit: Similarity) -> Measure:
    taken = {}
    for size in sizes:
        features, labels = clustered(size, PER_CLASS, SPREAD, seed=size)
        taken[size] = {"batch": tensor_memory(lambda: mine(features, labels, unit, "batch"))}  # noqa: B023
    over = ", ".join(f"{size}: {taken[size]['batch']:.0f} MB" for size in sizes)
    return Measure("batch: memory grows with power", _slope(sizes, taken, "batch"), "", 1.15, over)


def _against_all_pairs(unit: Similarity) -> Measure:
    features, labels = clustered(4096, PER_CLASS, SPREAD)
    seconds = fastest(
        {"batch": lambda: mine(features, labels, unit, "batch"), "all": lambda: unit.matrix(features, features)}, 2
    )
    over = f"4096 items, all pairs {seconds['all']:.2f} s"
    return Measure("batch: faster than all pairs by", seconds["all"] / seconds["batch"], "x", 20, over, True)


def _agreement(unit: Similarity, size: int = 2048) -> Measure:
    """The share of anchors whose hard negative is the one that scoring all pairs finds."""
    features, labels = clustered(size, PER_CLASS, SPREAD, seed=5)
    near, dense = (mine(features, labels, unit, "anchor", neighbours=count) for count in (NEIGHBOURS, 0))
    assert size > module.DENSE_ITEMS and torch.equal(near.i, dense.i)
    same = 100 * float((near.k == dense.k).double().mean())
    return Measure("anchor: hard negatives as by all pairs", same, "%", 95, f"{size} items, m = {NEIGHBOURS}", True)
