"""What local similarities cost for each query beyond the search itself, on one core, and what a gallery takes offline.

Times are processor time of one thread, so that other work on the machine hardly changes them. The features are random,
but distributed like embeddings: items around centres of classes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pddm_lab.bench.report import Log, Measure
from pddm_lab.bench.timing import clustered
from pddm_lab.local import fit
from pddm_lab.local.fit import fit_local_structure
from pddm_lab.local.neighbourhoods import Neighbourhoods, Search
from pddm_lab.local.reciprocal import KReciprocal
from pddm_lab.local.similarity import CSLS, Expansion, LocalSimilarity
from pddm_lab.local.store import load, save
from pddm_lab.local.unit import LocalStructure
from pddm_lab.local.upkeep import change, refresh

SHORTLIST = 200
BATCH = 256
"""Queries in one call."""
SINGLE = 30
"""Queries one by one."""
TRAINING_ITEMS = 1200
LARGE = 20_000
"""With more items than this, neighbours are found by a graph, not by comparing all."""
ADDED = 10
"""Items that come into the gallery."""
EACH = 8
"""Items of a class."""


def measure(items: int, log: Log) -> list[Measure]:
    """Measure on synthetic clusters with a unit trained on other clusters.

    Args:
        items: in the gallery.
    """
    import faiss

    threads = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    try:
        return _measure(items, log)
    finally:
        torch.set_num_threads(threads[0])
        faiss.omp_set_num_threads(threads[1])


def _measure(items: int, log: Log) -> list[Measure]:
    log("training the unit on other clusters")
    features, labels = clustered(TRAINING_ITEMS, EACH, 1.5)
    start = time.process_time()
    structure = fit_local_structure(features, labels, features.flip(1))
    seconds = time.process_time() - start
    over = f"{TRAINING_ITEMS:,} items, {fit.STEPS} steps a pass"
    measures = [Measure("training the unit", seconds, "s", 60, over)]
    log(f"the neighbourhoods of {items:,} items")
    gallery = structure.space(clustered(items, EACH, 1.5, seed=1)[0], clustered(items, EACH, 1.5, seed=2)[0])
    queries = structure.space(clustered(BATCH, EACH, 1.5, seed=3)[0], clustered(BATCH, EACH, 1.5, seed=4)[0])
    index = _index(gallery)
    search = None if items <= LARGE else _searching(index)

    def first() -> tuple[Neighbourhoods, Tensor]:
        return Neighbourhoods.with_nearest(gallery, first_part=structure.first_part, search=search)

    rounds = 2 if items <= LARGE else 1
    works: dict[str, Callable[[], object]] = {"index": lambda: _index(gallery)}
    works |= {"first": first, "both": lambda: structure.with_second(*first())}
    offline = _least(works, rounds)
    one_pass, nearest = first()
    both = structure.with_second(one_pass, nearest)
    over = f"{items:,} items of {gallery.shape[1]} dimensions, best of {rounds}"
    measures += [
        Measure("offline, the index of the search", offline["index"], "s", over=over),
        Measure("offline, first pass", offline["first"], "s", over=over),
        Measure("offline, both passes", offline["both"], "s", 3 if items <= LARGE else None, over),
        Measure("memory an item beside the features", _bytes(both) / 1024 / items, "KB", 4.5),
    ]
    log(f"adding {ADDED} items")
    measures += _upkeep(structure, both, offline["first"])
    log("queries")
    with tempfile.TemporaryDirectory() as folder:
        save(both, Path(folder) / "neighbourhoods.safetensors")
        both = load(Path(folder) / "neighbourhoods.safetensors", search=search)
        return measures + _online(structure, replace(both, second=None), both, queries, index)


def _index(features: Tensor) -> Any:
    """Exact for a small gallery, a graph (HNSW) for a large one."""
    import faiss

    dim = features.shape[1]
    index: Any = faiss.IndexFlatIP(dim)
    if len(features) > LARGE:
        index = faiss.IndexHNSWFlat(dim, 16, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = 64, 2 * SHORTLIST
    index.add(features.numpy())
    return index


def _searching(index: Any) -> Search:
    def search(queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        cosines, rows = index.search(queries.numpy(), k)
        return torch.from_numpy(cosines), torch.from_numpy(rows)

    return search


def _upkeep(structure: LocalStructure, both: Neighbourhoods, anew: float) -> list[Measure]:
    """What it costs to keep the neighbourhoods up when some items come in, beside building them anew."""
    features = both.features  # changes are searched for exactly
    kept = len(features) - ADDED
    origin = torch.cat([torch.arange(kept), torch.full((ADDED,), -1)])
    before = change(both, features[:kept], torch.arange(kept))
    changed = change(before, features, origin)
    seconds = _least({
        "change": lambda: change(before, features, origin), "refresh": lambda: refresh(structure, changed),
    }, rounds=3)  # fmt: skip
    assert changed.second is not None and changed.second.stale is not None
    over = f"{ADDED} items added to {kept:,}, best of 3"
    return [
        Measure("upkeep, first pass", 1000 * seconds["change"], "ms", over=over),
        Measure("upkeep, first pass, of building anew", 100 * seconds["change"] / anew, "%", over=over),
        Measure("upkeep, stale lists of the second pass", int(changed.second.stale.sum()), "lists", over=over),
        Measure("upkeep, refreshing them in the background", seconds["refresh"], "s", over=over),
    ]


def _online(
    structure: LocalStructure, one_pass: Neighbourhoods, both: Neighbourhoods, queries: Tensor, index: Any
) -> list[Measure]:  # fmt: skip
    rows = torch.from_numpy(index.search(queries.numpy(), SHORTLIST)[1])
    kinds: dict[str, tuple[LocalSimilarity, Neighbourhoods, float | None, float | None]] = {
        "query expansion": (Expansion(), one_pass, None, None),
        "both-sided expansion": (Expansion(both=True), one_pass, None, None),
        "CSLS": (CSLS(), one_pass, None, None),
        **({"k-reciprocal": (KReciprocal(), one_pass, None, None)} if len(both) <= LARGE else {}),
        "unit, first pass": (structure, one_pass, None, None),
        "unit, both passes": (structure, both, 2, 6),
    }
    works: dict[str, Callable[[], object]] = {"search": lambda: index.search(queries.numpy(), SHORTLIST)}
    for name, (similarity, reference, _, _) in kinds.items():
        count = len(queries) if name != "k-reciprocal" else SINGLE  # it puts one query after another into the pool
        works[name] = _scoring(similarity, reference, queries[:count], rows[:count])
    seconds = _least(works, rounds=3)
    over = f"{len(queries)} queries at once, best of 3"
    measures = [Measure("search with FAISS", 1000 * seconds["search"] / len(queries), "ms", over=over)]
    for name, (_, _, target, _) in kinds.items():
        count = len(queries) if name != "k-reciprocal" else SINGLE
        spent = 1000 * seconds[name] / count
        over = f"{count} queries at once, best of 3"
        measures.append(Measure(f"{name}, a query beyond the search", spent, "ms", target, over))
    for name in ("unit, first pass", "unit, both passes"):
        similarity, reference, _, target = kinds[name]
        each: list[float] = []
        for at in range(min(SINGLE, len(queries))):
            start = time.process_time()
            similarity.candidates(reference, queries[at : at + 1], rows[at : at + 1])
            each.append(time.process_time() - start)
        median = 1000 * float(np.median(each))
        measures.append(Measure(f"{name}, a single query", median, "ms", target, f"median of {len(each)}"))
    return measures


def _least(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least processor seconds of each work; the works take turns."""
    seconds = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            start = time.process_time()
            work()
            seconds[name] = min(seconds[name], time.process_time() - start)
    return seconds


def _scoring(
    similarity: LocalSimilarity, reference: Neighbourhoods, queries: Tensor, rows: Tensor
) -> Callable[[], object]:
    return lambda: similarity.candidates(reference, queries, rows)


def _bytes(reference: Neighbourhoods) -> int:
    """Of all that is stored beside the features."""
    own = sum(
        value.nbytes for name, value in vars(reference).items() if isinstance(value, Tensor) and name != "features"
    )
    return own + (_bytes(reference.second) if reference.second is not None else 0)
