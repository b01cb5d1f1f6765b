"""What local similarities cost for each query beyond the search itself, on one core, and what a gallery takes offline.

Times are processor time of one thread, so that other work on the machine hardly changes them; only a large gallery is
built by all threads. The features are random, but distributed like embeddings: items around centres of classes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor

from pddm_lab.bench.report import Log, Measure
from pddm_lab.bench.search import Features
from pddm_lab.bench.timing import clustered
from pddm_lab.gallery.nearest import searching
from pddm_lab.gallery.store import FLAT_ITEMS
from pddm_lab.local import fit
from pddm_lab.local.fit import fit_local_structure
from pddm_lab.local.large import Source, build
from pddm_lab.local.neighbourhoods import Neighbourhoods, Search, exact_search, nearest_items
from pddm_lab.local.reciprocal import KReciprocal
from pddm_lab.local.similarity import CSLS, Expansion, LocalSimilarity
from pddm_lab.local.sizes import LENGTH
from pddm_lab.local.store import load, save
from pddm_lab.local.unit import LocalStructure
from pddm_lab.local.upkeep import change, refresh

SHORTLIST = 200
BATCH = 256
"""Queries in one call."""
SINGLE = 30
"""Queries one by one."""
TRAINING_ITEMS = 1200
ROUNDS = 2
SMALL = 20_000
"""Up to so many items the time offline has a target, and k-reciprocal is measured."""
ADDED = 10
"""Items that come into the gallery."""
EACH = 8
"""Items of a class."""
MOST, MINUTES = 1_000_000, 45
"""So many items are to be built in so many minutes on two cores."""
COMPARED = 300
"""Items whose lists are compared with exact ones."""


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
    with tempfile.TemporaryDirectory() as folder:
        how = _built_in_file if items > FLAT_ITEMS else _built
        both, queries, taken = how(structure, items, BATCH, Path(folder), log)
        log("queries")
        return measures + taken + _online(structure, replace(both, second=None), both, queries)


def _built(
    structure: LocalStructure, items: int, queries: int, folder: Path, log: Log
) -> tuple[Neighbourhoods, Tensor, list[Measure]]:
    """The neighbourhoods of both passes; z of queries that are not among the items; and what it took."""
    gallery, others = (
        structure.space(clustered(count, EACH, 1.5, seed)[0], clustered(count, EACH, 1.5, seed + 1)[0])
        for count, seed in ((items, 1), (queries, 3))
    )  # fmt: skip

    def first() -> tuple[Neighbourhoods, Tensor]:
        return Neighbourhoods.with_nearest(gallery, first_part=structure.first_part)

    works: dict[str, Callable[[], object]] = {"first": first, "both": lambda: structure.with_second(*first())}
    offline = _least(works, ROUNDS)
    both = structure.with_second(*first())
    over = f"{items:,} items of {gallery.shape[1]} dimensions, best of {ROUNDS}"
    measures = [
        Measure("offline, first pass", offline["first"], "s", over=over),
        Measure("offline, both passes", offline["both"], "s", 3 if items <= SMALL else None, over),
        Measure("memory an item beside the features", _bytes(both) / 1024 / items, "KB", 4.5),
    ]
    log(f"adding {ADDED} items")
    measures += _upkeep(structure, both, offline["first"])
    save(both, folder / "neighbourhoods.safetensors")
    return load(folder / "neighbourhoods.safetensors"), others, measures


def _built_in_file(
    structure: LocalStructure, items: int, queries: int, folder: Path, log: Log
) -> tuple[Neighbourhoods, Tensor, list[Measure]]:
    """As `_built`, of a large gallery."""
    features = Features(items)

    def z(labels: np.ndarray, seed: int) -> Tensor:
        return structure.space(features.sample(labels, 2 * seed), features.sample(labels, 2 * seed + 1))

    before = ""

    def report(_: int, __: int, what: str) -> None:
        nonlocal before
        if what != before:
            log(what)
        before = what

    dim = z(np.zeros(1, int), 0).shape[1]
    source = Source(items, dim, lambda rows: z(rows // EACH, int(rows[0])), searching, "bench")
    with _all_threads():
        wall, spent = time.perf_counter(), time.process_time()
        file = build(structure, source, folder, report)
        wall, spent = time.perf_counter() - wall, time.process_time() - spent
        log("its lists beside exact ones")
        start = time.process_time()
        whole = load(file, source.key, searching)
        opening = time.process_time() - start
        rows = torch.from_numpy(np.random.default_rng(0).choice(items, min(COMPARED, items), replace=False))
        exact, _ = nearest_items(whole.features[rows], items, LENGTH, rows, exact_search(whole.features))
    lists = whole.neighbours[rows, :LENGTH]
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(exact.numpy(), lists.numpy(), strict=True)])
    over = f"{items:,} items of {dim} dimensions"
    target = 60.0 * MINUTES if items <= MOST else None
    return whole, z(np.random.default_rng(1).integers(0, features.classes, queries), items), [
        Measure("offline, both passes, half of the processor time", spent / 2, "s", target, over),
        Measure("offline, both passes, wall time", wall, "s", over=f"{joblib.cpu_count()} cores"),
        Measure("recall of the lists", float(recall), "", 0.95, f"{len(rows)} items, {LENGTH} nearest", True),
        Measure("opening the file, which checks it", opening, "s", over="processor time"),
        Measure("disk an item beside the features", file.stat().st_size / 1024 / items - dim / 256, "KB", 4.5),
    ]  # fmt: skip


@contextmanager
def _all_threads() -> Iterator[None]:
    import faiss

    before, cores = (torch.get_num_threads(), faiss.omp_get_max_threads()), joblib.cpu_count()
    torch.set_num_threads(cores)
    faiss.omp_set_num_threads(cores)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        faiss.omp_set_num_threads(before[1])


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
    structure: LocalStructure, one_pass: Neighbourhoods, both: Neighbourhoods, queries: Tensor
) -> list[Measure]:  # fmt: skip
    search = both.search or _flat(both.features)
    rows = search(queries, SHORTLIST)[1]
    kinds: dict[str, tuple[LocalSimilarity, Neighbourhoods, float | None, float | None]] = {
        "query expansion": (Expansion(), one_pass, None, None),
        "both-sided expansion": (Expansion(both=True), one_pass, None, None),
        "CSLS": (CSLS(), one_pass, None, None),
        **({"k-reciprocal": (KReciprocal(), one_pass, None, None)} if len(both) <= SMALL else {}),
        "unit, first pass": (structure, one_pass, None, None),
        "unit, both passes": (structure, both, 2, 6),
    }
    works: dict[str, Callable[[], object]] = {"search": lambda: search(queries, SHORTLIST)}
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


def _flat(features: Tensor) -> Search:
    """The exact index of FAISS."""
    import faiss

    index: Any = faiss.IndexFlatIP(features.shape[1])
    index.add(features.numpy())

    def search(queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        cosines, rows = index.search(queries.numpy(), k)
        return torch.from_numpy(cosines), torch.from_numpy(rows)

    return search


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
