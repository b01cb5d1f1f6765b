"""The only cached calls into pddm_lab. Each is keyed on a path and on when the file behind it changed, not on content.

torch and faiss are imported by the calls that need them: the first page shows without them.
"""

from __future__ import annotations

import copy
import io
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import streamlit as st
from pairs import Pairs
from tables import distinct

from pddm_lab import runs
from pddm_lab.data.images import open_image, verify
from pddm_lab.errors import DataError, LabError, RunError
from pddm_lab.gallery import Gallery, SearchResult
from pddm_lab.gallery_files import THUMB_SIDE
from pddm_lab.runs import BrokenRun, Run

if TYPE_CHECKING:
    from PIL import Image

    from pddm_lab.model import EmbeddingNet, MetricModel
    from pddm_lab.similarity import Similarity

Stamp = tuple[tuple[str, int], ...]
LARGE_SIDE = 360
"""Longer side of a query's picture, in pixels."""
SAMPLED = 150_000
"""Pairs of a gallery that are scored one by one, positive and negative ones together."""


def list_runs() -> list[Run | BrokenRun]:
    """All runs, newest first. Read anew each time: it takes milliseconds, and a training changes them."""
    return runs.list_runs()


def _stamp(path: Path) -> Stamp:
    """When a file, or each file of a folder, last changed."""
    found = []
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        try:
            found.append((file.name, file.stat().st_mtime_ns))
        except OSError:
            continue  # replaced or dropped this moment
    return tuple(found)


def metrics(run: Run) -> pd.DataFrame:
    """The run's metrics log; shared, not to be changed."""
    return _metrics(str(run.path), _stamp(run.path / "metrics.parquet"))


@st.cache_resource(max_entries=16, show_spinner=False)
def _metrics(path: str, stamp: Stamp) -> pd.DataFrame:
    return Run.open(path).metrics()


def quadruplets(run: Run) -> pd.DataFrame:
    """The quadruplets that the run mined so far, mirror images left out; shared, not to be changed."""
    return _quadruplets(str(run.path), _stamp(run.path / "quadruplets.parquet"))


@st.cache_resource(max_entries=4, show_spinner="Reading the quadruplets")
def _quadruplets(path: str, stamp: Stamp) -> pd.DataFrame:
    return distinct(Run.open(path).quadruplets())


def gallery(run: Run, protocol: str) -> Gallery:
    """A gallery of the run, memory-mapped.

    Raises:
        RunError: there is none, or it is torn.
    """
    return _gallery(str(run.path), protocol, _stamp(run.path / "gallery" / protocol))


@st.cache_resource(max_entries=8, show_spinner=False)
def _gallery(path: str, protocol: str, stamp: Stamp) -> Gallery:
    return Run.open(path).gallery(protocol)


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
    from pddm_lab.neighbourhoods import local_radius

    return local_radius(_gallery(path, protocol, stamp).features)


def similarities(run: Run) -> dict[str, Similarity]:
    """The run's similarities, on the CPU, without its trunk: quick to load. Raises RunError where there is no model."""
    return _similarities(str(run.path), _stamp(run.path / "model.safetensors"))


@st.cache_resource(max_entries=8, show_spinner="Loading the similarities")
def _similarities(path: str, stamp: Stamp) -> dict[str, Similarity]:
    import torch

    from pddm_lab.measure import load_similarities

    torch.set_num_threads(1)  # sessions share the cores
    return load_similarities(Run.open(path))


def sampled_pairs(run: Run, protocol: str) -> pd.DataFrame:
    """Up to `SAMPLED` pairs of a protocol, the same for every run on its items; shared, not to be changed.

    a, b (gallery rows), positive, label_a, label_b, a similarity in each of euclidean, cosine, mahalanobis, pddm, and
    density: the third, as an index into `DENSITIES`, of the mean local radius of both items. Raises RunError as
    `gallery` and `similarities` do.
    """
    of, weights = run.path / "gallery" / protocol, run.path / "model.safetensors"
    return _sampled(str(run.path), protocol, _stamp(of), _stamp(weights))


@st.cache_resource(max_entries=8, show_spinner="Scoring pairs")
def _sampled(path: str, protocol: str, stamp: Stamp, weights: Stamp) -> pd.DataFrame:
    from pddm_lab.neighbourhoods import density_of
    from pddm_lab.pairs import sample_pairs, score_pairs

    of, radii = _gallery(path, protocol, stamp), _radius(path, protocol, stamp)
    found = score_pairs(of.features, sample_pairs(of, SAMPLED), _similarities(path, weights))
    labels, rows = of.items["label"].to_numpy(), [found[end].to_numpy() for end in ("a", "b")]
    density = density_of((radii[rows[0]] + radii[rows[1]]) / 2)
    return found.assign(label_a=labels[rows[0]], label_b=labels[rows[1]], density=density)


def model(run: Run) -> MetricModel:
    """The run's model, on the CPU. Raises RunError where there is none."""
    return _model(str(run.path), _stamp(run.path / "model.safetensors"))


@st.cache_resource(max_entries=2, show_spinner="Loading the model")
def _model(path: str, stamp: Stamp) -> MetricModel:
    import torch

    from pddm_lab.measure import load_model

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
    root = Path(str(run.info["dataset"].get("root") or ".")).resolve()
    file = (root / item).resolve()
    # An id comes from a file: it must not lead out of the data set's folder.
    return _scaled(str(file), _stamp(file), side) if file.is_relative_to(root) and file.is_file() else None


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


@dataclass(frozen=True)
class Found:
    """What a query found."""

    result: SearchResult
    images: dict[str, bytes]
    seconds: dict[str, float]
    """By stage: embed (of an upload), search, rerank."""


def search(run: Run, protocol: str, row: int, by: str, count: int, shortlist: int) -> Found:
    """Search a gallery with one of its own items, itself left out. Raises LabError where a file is missing or torn."""
    of = gallery(run, protocol)
    return _found(of, run, np.array(of.features[row]), by, count, shortlist, row, {})


def search_upload(run: Run, protocol: str, data: bytes, by: str, count: int, shortlist: int) -> tuple[Found, bytes]:
    """Search a gallery with an uploaded picture; also returns the picture as it was understood, upright and in RGB.

    Raises:
        DataError: the bytes are no readable picture, or too large a one; one sentence for the person.
    """
    feature, shown, seconds = _embedded(str(run.path), _stamp(run.path / "model.safetensors"), data)
    of = gallery(run, protocol)
    return _found(of, run, feature, by, count, shortlist, None, {"embed": seconds}), shown


def _found(
    of: Gallery,
    run: Run,
    feature: np.ndarray,
    by: str,
    count: int,
    shortlist: int,
    row: int | None,
    seconds: dict[str, float],
) -> Found:
    similarity = model(run).similarity(by)
    _warmed(str(of.path), _stamp(of.path), by, of, similarity)
    result = of.search_both(feature, similarity, k=count, shortlist=shortlist, exclude=row)
    images = thumbs(of, {*result.euclidean["row"], *result.reranked["row"]})
    return Found(result, images, seconds | result.seconds)


@st.cache_resource(max_entries=32, show_spinner="Building the index")
def _warmed(path: str, stamp: Stamp, by: str, _of: Gallery, _similarity: Similarity) -> None:
    """Build the index and run each stage once, so that the seconds shown are those of a search alone."""
    _of.search_both(np.array(_of.features[0]), _similarity)


@st.cache_resource(show_spinner=False)
def warm_up() -> None:
    """Once a server: import, soon after the first page, what a search needs."""

    def load() -> None:
        import faiss  # noqa: F401

        import pddm_lab.measure  # noqa: F401

    timer = threading.Timer(3.0, load)  # after the first page has drawn itself, whose files this server sends too
    timer.daemon = True
    timer.start()


@st.cache_data(max_entries=16, show_spinner="Looking at the image")
def _embedded(path: str, stamp: Stamp, data: bytes) -> tuple[np.ndarray, bytes, float]:
    """An uploaded picture's feature, the picture itself as JPEG, and the seconds that embedding it took."""
    image = verify(data)
    import torch

    from pddm_lab.features import AUTOCAST, prepare

    network, run = _network(path, stamp), Run.open(path)
    precision = AUTOCAST.get(run.info["precision"] if run.info["device"] == "cpu" else "32")
    start = time.perf_counter()
    with torch.inference_mode(), torch.autocast("cpu", precision, enabled=precision is not None):
        feature = network(prepare(image, run.config.resize, run.config.image_size)[None])[0].float().numpy()
    return feature, _jpeg(image, LARGE_SIDE), time.perf_counter() - start


@st.cache_resource(max_entries=2, show_spinner=False)
def _network(path: str, stamp: Stamp) -> EmbeddingNet:
    """Images to features as the gallery's were made, so that an item that is uploaded lies on itself."""
    from pddm_lab.backbones import fuse_batch_norms

    network = copy.copy(_model(path, stamp).embedding)
    network._modules = dict(network._modules)
    if Run.open(path).config.freeze_trunk:
        network.trunk = fuse_batch_norms(network.trunk)
    return network


def protocol_size(run: Run, protocol: str) -> str:
    """Queries and searched items of a protocol in words; empty where its gallery isn't there."""
    try:
        return pairs(run, protocol).size
    except LabError:
        return ""
