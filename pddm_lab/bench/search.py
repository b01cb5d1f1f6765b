"""How fast a large gallery opens, is searched, re-ranked and changed, and what its index misses.

The gallery is a real one on disk. Its features are random, but distributed like embeddings: items around classes of 8,
some dense and some wide, and classes around ranges of about 1000 items.
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from PIL import Image

from pddm_lab.analysis.shortlist import ceiling
from pddm_lab.bench.report import Log, Measure
from pddm_lab.bench.timing import DIM, extra_memory, trained_unit
from pddm_lab.gallery.changes import NewItems, add, remove, update
from pddm_lab.gallery.gallery import Gallery

SHORTLIST = 100
QUERIES = 300
BATCH = 1000
"""Queries in one call."""
CHANGED = 1000
"""Items to add, update and remove."""
SIZES = (1, 10, 20, 50, 100, 200, 500, 1000)
"""Sizes of the shortlists whose ceiling is shown."""
CEILING_QUERIES = 500
ITEMS_OF_A_CLASS, ITEMS_OF_A_RANGE = 8, 1000
_PART = 100_000


def measure(folder: Path, items: int, log: Log) -> list[Measure]:
    """Measure on a generated gallery.

    Args:
        folder: to write the gallery to.
        items: in the gallery.
    """
    log(f"a gallery of {items:,} items")
    features = Features(items)
    path = write_gallery(folder, features, items)
    log("opening it")
    measures = _opening(path)
    log("its index")
    gallery = Gallery.open(path)
    queries = features.sample(np.random.default_rng(1).integers(0, features.classes, QUERIES), 2)
    seconds: list[float] = []
    spent = time.process_time()
    memory = extra_memory(lambda: seconds.append(_time(lambda: gallery.search(queries[:1], 1))))
    measures += [
        Measure("building its index", seconds[0], "s", over="at the first search"),
        Measure("building its index, processor time", time.process_time() - spent, "s", over="of all cores"),
        Measure("peak memory of its index while it is built", memory, "MB"),
    ]
    log("recall of its index")
    exact, _ = Gallery.open(path, index="flat").search(queries, SHORTLIST)
    near, _ = gallery.search(queries, SHORTLIST)
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(exact, near, strict=True)])
    over = f"{QUERIES} queries, {SHORTLIST} nearest"
    measures.append(Measure("recall of the index against flat", float(recall), "", 0.95, over, True))
    log("searching and re-ranking")
    measures += _searching(gallery, queries, features)
    log("the ceilings of shortlists")
    measures += _ceilings(gallery)
    log("adding, updating and removing items")
    return measures + _changes(gallery, features)


class Features:
    """Random features: classes around ranges, items around classes; R@1 is about 80 %."""

    def __init__(self, items: int, dim: int = DIM) -> None:
        rng = np.random.default_rng(0)
        self._dim = dim
        self.classes = -(-items // ITEMS_OF_A_CLASS)
        ranges = _unit(_noise(rng, max(items // ITEMS_OF_A_RANGE, 1), dim))
        of = rng.integers(0, len(ranges), self.classes)
        self._centres = _unit(ranges[of] + 0.8 * _noise(rng, self.classes, dim))
        self._widths = rng.uniform(0.4, 1.2, (self.classes, 1)).astype(np.float32)

    def sample(self, labels: Int[np.ndarray, " items"], seed: int) -> Float[np.ndarray, "items dim"]:
        """Features of items of classes."""
        noise = _noise(np.random.default_rng(seed), len(labels), self._dim)
        return _unit(self._centres[labels] + self._widths[labels] * noise)


def _noise(rng: np.random.Generator, count: int, dim: int) -> Float[np.ndarray, "count dim"]:
    return rng.standard_normal((count, dim), dtype=np.float32) / np.float32(dim**0.5)


def _unit(vectors: Float[np.ndarray, "count dim"]) -> Float[np.ndarray, "count dim"]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_items(features: Features, labels: Int[np.ndarray, " items"], first: int, seed: int) -> NewItems:
    """New items of classes, with numbers from the first on."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "JPEG")
    items = pd.DataFrame({
        "id": [f"class {label:06d}/{number:07d}.jpg" for number, label in enumerate(labels, first)], "label": labels,
        "class_name": [f"class {label:06d}" for label in labels], "role": "both",
    })  # fmt: skip
    return NewItems(items, features.sample(labels, seed), [buffer.getvalue()] * len(labels))


def write_gallery(folder: Path, features: Features, items: int) -> Path:
    """Write a gallery of the classes' items; returns its folder."""
    # Start empty and add items, because writing a gallery of a million items at once would draw a million pictures.
    empty = pd.DataFrame({"id": pd.Series(dtype="str"), "label": 0, "class_name": "", "role": ""})
    empty = empty.astype({"label": np.int64})
    blank = Image.new("L", (1, 1))
    gallery = Gallery.write(folder / "unseen", "unseen", np.empty((0, DIM)), empty, lambda _: blank, {})
    labels = np.arange(items) // ITEMS_OF_A_CLASS
    for start in range(0, items, _PART):
        gallery = add(gallery, make_items(features, labels[start : start + _PART], start, start + 10))
    return gallery.path


def _opening(path: Path) -> list[Measure]:
    """Measured in a separate process, the best of three, so that other processes don't matter."""
    command = [sys.executable, "-m", "pddm_lab.bench.search", str(path)]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(3)]
    seconds, megabytes = (min(float(run[place]) for run in runs) for place in (0, 1))
    over = "best of 3 processes"
    return [
        Measure("opening the gallery", seconds, "s", 2, over),
        Measure("memory for opening the gallery", megabytes, "MB", 1000, over),
    ]


def _searching(gallery: Gallery, queries: Float[np.ndarray, "queries dim"], features: Features) -> list[Measure]:
    import faiss

    unit = trained_unit()
    cores = joblib.cpu_count()
    threads = torch.get_num_threads()
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    seconds: list[tuple[float, float]] = []
    for query in queries:
        start = time.perf_counter()
        rows, _ = gallery.search(query[None], SHORTLIST)
        between = time.perf_counter()
        gallery.rerank(query[None], rows, unit)  # type: ignore[arg-type]
        seconds.append((between - start, time.perf_counter() - between))
    alone, added = np.median(np.array(seconds[QUERIES // 10 :]), axis=0) * 1000
    faiss.omp_set_num_threads(cores)
    torch.set_num_threads(threads)
    many = features.sample(np.random.default_rng(3).integers(0, features.classes, BATCH), 4)
    rows, _ = gallery.search(many, SHORTLIST)
    search = min(_time(lambda: gallery.search(many, SHORTLIST)) for _ in range(3))
    rerank = min(_time(lambda: gallery.rerank(many, rows, unit)) for _ in range(3))  # type: ignore[arg-type]
    one, at_once = "median, one core", f"{BATCH:,} queries at once, {cores} cores, best of 3"
    return [
        Measure("searching", float(alone), "ms", over=one),
        Measure(f"re-ranking {SHORTLIST} adds", float(added), "ms", 1.5, one),
        Measure("searching, queries a second", BATCH / search, "", over=at_once),
        Measure("searching and re-ranking, queries a second", BATCH / (search + rerank), "", over=at_once),
    ]


def _ceilings(gallery: Gallery) -> list[Measure]:
    curve = ceiling(gallery, SIZES[-1], CEILING_QUERIES)
    over = f"{curve.queries} queries, {ITEMS_OF_A_CLASS - 1} right items each"
    return [Measure(f"right items in a shortlist of {size}", 100 * curve.at(size)[0], "%", over=over) for size in SIZES]


def _changes(gallery: Gallery, features: Features) -> list[Measure]:
    before = len(gallery)
    rng = np.random.default_rng(5)
    new = make_items(features, rng.integers(0, features.classes, CHANGED), before, 6)
    ids = new.items["id"].tolist()
    steps: list[Gallery] = [gallery]
    over = f"{CHANGED:,} items, on disk and in the index"
    measures = [Measure("adding", _time(lambda: steps.append(add(steps[-1], new))), "s", over=over)]
    share = 100 * float(np.mean(_first(steps[-1], new) == np.array(ids)))
    measures.append(Measure("added items that are their own nearest", share, "%", 95, "", True))
    other = NewItems(new.items, features.sample(new.items["label"].to_numpy()[::-1], 7), new.thumbs)
    measures.append(Measure("updating", _time(lambda: steps.append(update(steps[-1], other))), "s", over=over))
    share = 100 * float(np.mean(_first(steps[-1], other) == np.array(ids)))
    measures.append(Measure("updated items that are their own nearest", share, "%", 95, "", True))
    measures.append(Measure("removing", _time(lambda: steps.append(remove(steps[-1], ids))), "s", over=over))
    rows, _ = steps[-1].search(other.features, SHORTLIST)
    still = int(np.isin(steps[-1].items["id"].to_numpy()[np.unique(rows)], ids).sum())
    measures.append(Measure("removed items that still appear in results", still, "", 0, f"{CHANGED:,} queries"))
    kept = (steps[-1].items["id"].to_numpy() == gallery.items["id"].to_numpy()).all()
    assert kept and len(steps[-1]) == before, "all other items are still there, under their ids"
    return measures


def _first(gallery: Gallery, of: NewItems) -> np.ndarray:
    """The id of each item's nearest neighbour."""
    rows, _ = gallery.search(of.features, 1)
    return gallery.items["id"].to_numpy()[rows[:, 0]]


def _time(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    opened: list[float] = []
    megabytes = extra_memory(lambda: opened.append(_time(lambda: Gallery.open(sys.argv[1]))))
    print(opened[0], megabytes)
