"""The only cached calls into pddm_lab. Each is keyed on a path and on when the file behind it changed, not on content.

torch and faiss are imported by the calls that need them: the first page shows without them.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import streamlit as st

from pddm_lab.analysis.pairs import Pairs
from pddm_lab.data.images import open_image
from pddm_lab.errors import DataError, LabError, RunError
from pddm_lab.gallery.files import THUMB_SIDE
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.runs import compare
from pddm_lab.runs.compare import BrokenRun
from pddm_lab.runs.run import Run

if TYPE_CHECKING:
    from PIL import Image

    from pddm_lab.model.embedding import MetricModel
    from pddm_lab.model.similarity import Similarity

Stamp = tuple[tuple[str, int], ...]
LARGE_SIDE = 360
"""Longer side of a query's picture, in pixels."""
SAMPLED = 150_000
"""Pairs of a gallery that are scored one by one, positive and negative ones together."""


def list_runs() -> list[Run | BrokenRun]:
    """All runs, newest first. Read anew each time: it takes milliseconds, and a training changes them."""
    return compare.list_runs()


def _stamp(path: Path) -> Stamp:
    """When a file, or each file of a folder, last changed; of many a digest, for a key is hashed at every call."""
    found = []
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        try:
            found.append((file.name, file.stat().st_mtime_ns))
        except OSError:
            continue  # replaced or dropped this moment
    if len(found) > 8:
        return ((hashlib.blake2b(repr(found).encode(), digest_size=16).hexdigest(), len(found)),)
    return tuple(found)


def metrics(run: Run) -> pd.DataFrame:
    """The run's metrics log; shared, not to be changed."""
    return _metrics(str(run.path), _stamp(run.path / "metrics.parquet"))


@st.cache_resource(max_entries=16, show_spinner=False)
def _metrics(path: str, stamp: Stamp) -> pd.DataFrame:
    return Run.open(path).metrics()


def gallery(run: Run, protocol: str) -> Gallery:
    """A gallery of the run, memory-mapped.

    Raises:
        RunError: there is none, or it is torn.
    """
    return _gallery(str(run.path), protocol, _stamp(run.path / "gallery" / protocol))


@st.cache_resource(max_entries=8, show_spinner=False)
def _gallery(path: str, protocol: str, stamp: Stamp) -> Gallery:
    found, before = Run.open(path).gallery(protocol), _latest(path, protocol)
    if before:
        found.take_index(before[0])
    before[:] = [found]
    return found


@st.cache_resource(max_entries=8, show_spinner=False)
def _latest(path: str, protocol: str) -> list[Gallery]:
    """Holds the gallery that was opened last: when items come and go, its index needn't be built anew."""
    return []


def pairs(run: Run, protocol: str) -> Pairs:
    """The pairs of a protocol, counted. Raises RunError as `gallery` does."""
    return _pairs(str(run.path), protocol, _stamp(run.path / "gallery" / protocol))


@st.cache_resource(max_entries=8, show_spinner=False)
def _pairs(path: str, protocol: str, stamp: Stamp) -> Pairs:
    return Pairs.of(_gallery(path, protocol, stamp))


def radius(run: Run, protocol: str) -> np.ndarray:
    """Local radius of every item of a gallery, (items,): small where items lie densely."""
    return _radius(str(run.path), protocol, _stamp(run.path / "gallery" / protocol))


@st.cache_resource(max_entries=8, show_spinner="Measuring how densely the items lie")
def _radius(path: str, protocol: str, stamp: Stamp) -> np.ndarray:
    from pddm_lab.metrics.density import local_radius

    of = _gallery(path, protocol, stamp)
    try:
        kept = of.map
    except RunError:
        kept = None  # the Map page says what is wrong with it
    if kept is not None and "radius" in kept and len(kept) == len(of) and np.isfinite(kept["radius"]).all():
        return kept["radius"].to_numpy(np.float32)
    return local_radius(of.features)


def similarities(run: Run) -> dict[str, Similarity]:
    """The run's similarities, on the CPU, without its trunk: quick to load. Raises RunError where there is no model."""
    return _similarities(str(run.path), _stamp(run.path / "model.safetensors"))


@st.cache_resource(max_entries=8, show_spinner="Loading the similarities")
def _similarities(path: str, stamp: Stamp) -> dict[str, Similarity]:
    import torch

    from pddm_lab.runs.model import load_similarities

    torch.set_num_threads(1)  # sessions share the cores
    return load_similarities(Run.open(path))


def scored_pairs(run: Run, protocol: str) -> pd.DataFrame:
    """Up to `SAMPLED` pairs of a protocol, the same for every run on its items; shared, not to be changed.

    a, b (gallery rows), positive, label_a, label_b, and each of euclidean, cosine, mahalanobis, pddm; positive pairs
    first, each kind in random order. Raises RunError as `gallery` and `similarities` do.
    """
    return _scored(str(run.path), protocol, *pair_stamps(run, protocol))


def sampled_pairs(run: Run, protocol: str) -> pd.DataFrame:
    """`scored_pairs` with density: the third, as an index into `DENSITIES`, of the mean local radius of both items."""
    return _sampled(str(run.path), protocol, *pair_stamps(run, protocol))


def pair_stamps(run: Run, protocol: str) -> tuple[Stamp, Stamp]:
    """What the scores of a protocol's pairs hang on."""
    return _stamp(run.path / "gallery" / protocol), _stamp(run.path / "model.safetensors")


@st.cache_resource(max_entries=8, show_spinner="Scoring pairs")
def _scored(path: str, protocol: str, stamp: Stamp, weights: Stamp) -> pd.DataFrame:
    from pddm_lab.analysis.pairs import sample_pairs, score_pairs

    of = _gallery(path, protocol, stamp)
    found = score_pairs(of.features, sample_pairs(of, SAMPLED), _similarities(path, weights))
    labels = of.items["label"].to_numpy()
    return found.assign(label_a=labels[found["a"]], label_b=labels[found["b"]])


@st.cache_resource(max_entries=8, show_spinner=False)
def _sampled(path: str, protocol: str, stamp: Stamp, weights: Stamp) -> pd.DataFrame:
    from pddm_lab.metrics.density import density_of

    radii, found = _radius(path, protocol, stamp), _scored(path, protocol, stamp, weights)
    return found.assign(density=density_of((radii[found["a"]] + radii[found["b"]]) / 2))


def model(run: Run) -> MetricModel:
    """The run's model, on the CPU. Raises RunError where there is none."""
    return _model(str(run.path), _stamp(run.path / "model.safetensors"))


@st.cache_resource(max_entries=2, show_spinner="Loading the model")
def _model(path: str, stamp: Stamp) -> MetricModel:
    import torch

    from pddm_lab.runs.model import load_model

    torch.set_num_threads(1)  # a query is small work, and sessions share the cores
    return load_model(Run.open(path))


def thumbs(of: Gallery, rows: Iterable[int]) -> dict[str, bytes]:
    """Thumbnails of gallery rows by item id."""
    ids = of.items["id"]
    return {str(ids.iloc[row]): of.thumb(row) for row in map(int, rows)}


def row_of(of: Gallery, item: str) -> int | None:
    """The gallery row of an id; None where it holds no such item."""
    try:
        return of.index_of(item)
    except RunError:
        return None


def pictures(run: Run, ids: Iterable[str]) -> dict[str, bytes | None]:
    """Thumbnails by item id: from a gallery of the run, else from its data set; None where neither has the item."""
    galleries = []
    for protocol in run.protocols():
        try:
            galleries.append(gallery(run, protocol))
        except RunError:
            continue  # its own page says what is wrong with it
    found: dict[str, bytes | None] = {}
    for item in ids:
        found[item] = next((one.thumb(row) for one in galleries if (row := row_of(one, item)) is not None), None)
        if found[item] is None:
            found[item] = _from_data(run, item, THUMB_SIDE)
    return found


def picture(run: Run, item: str) -> bytes | None:
    """One item's picture, large, from its data set; None where that isn't on this machine."""
    return _from_data(run, item, LARGE_SIDE)


def _from_data(run: Run, item: str, side: int) -> bytes | None:
    file = file_of(run, item)
    return _scaled(str(file), _stamp(file), side) if file else None


def file_of(run: Run, item: str) -> Path | None:
    """The file of an item; None where its data set isn't on this machine."""
    root = Path(str(run.info["dataset"].get("root") or ".")).resolve()
    file = (root / item).resolve()
    # An id comes from a file: it must not lead out of the data set's folder.
    return file if file.is_relative_to(root) and file.is_file() else None


@st.cache_data(max_entries=4096, show_spinner=False)
def _scaled(path: str, stamp: Stamp, side: int) -> bytes | None:
    try:
        return _jpeg(open_image(path), side)
    except DataError:
        return None


def _jpeg(image: Image.Image, side: int) -> bytes:
    image.thumbnail((side, side), reducing_gap=2)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


@st.cache_resource(show_spinner=False)
def warm_up() -> None:
    """Once a server: import, soon after the first page, what a search needs."""

    def load() -> None:
        import faiss  # noqa: F401

        import pddm_lab.training.finish  # noqa: F401

    timer = threading.Timer(3.0, load)  # after the first page has drawn itself, whose files this server sends too
    timer.daemon = True
    timer.start()


def protocol_size(run: Run, protocol: str) -> str:
    """Queries and searched items of a protocol in words; empty where its gallery isn't there."""
    try:
        return pairs(run, protocol).size
    except LabError:
        return ""
