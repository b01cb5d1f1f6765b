"""Cached calls into pddm_lab that several pages share.

torch and faiss are imported by the calls that need them, so that the first page shows without them.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from shared.cache import GALLERIES, LOCAL, MODEL, cached

from pddm_lab.analysis.pairs import Pairs
from pddm_lab.data.images import open_image
from pddm_lab.errors import BusyError, DataError, LabError, RunError
from pddm_lab.gallery.files import THUMB_SIDE
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.pictures import file_in
from pddm_lab.gallery.pictures import file_of as in_data_set
from pddm_lab.runs.run import Run

if TYPE_CHECKING:
    from PIL import Image

    from pddm_lab.local.unit import LocalStructure
    from pddm_lab.model.embedding import MetricModel
    from pddm_lab.model.similarity import Similarity
    from pddm_lab.runs.local import RunLocal

LARGE_SIDE = 360
"""Longer side of a query's picture, in pixels."""
SAMPLED = 150_000
"""Pairs of a gallery that are scored one by one, positive and negative ones together."""


@cached("metrics.parquet", max_entries=16)
def metrics(run: Run) -> pd.DataFrame:
    """The run's metrics log; shared, not to be changed."""
    return run.metrics()


@cached(*GALLERIES)
def gallery(run: Run, protocol: str) -> Gallery:
    """A gallery of the run, memory-mapped. When items were added or removed, it reuses the index of the one before.

    Raises:
        RunError: the gallery is missing or damaged.
    """
    opened, before = run.gallery(protocol), _last_opened(run, protocol)
    if before:
        opened.take_index(before[0])
    before[:] = [opened]
    return opened


@cached()
def _last_opened(run: Run, protocol: str) -> list[Gallery]:
    return []


@cached(*GALLERIES)
def pairs(run: Run, protocol: str) -> Pairs:
    """The pairs of a protocol, counted. Raises RunError as `gallery` does."""
    return Pairs.of(gallery(run, protocol))


@cached(*GALLERIES, show_spinner="Measuring how densely the items lie")
def radius(run: Run, protocol: str) -> np.ndarray:
    """Local radius of every item of a gallery, (items,): small where items lie densely."""
    from pddm_lab.metrics.density import local_radius

    opened = gallery(run, protocol)
    try:
        stored = opened.map
    except RunError:
        stored = None  # the Map page reports the error
    if stored is not None and "radius" in stored and len(stored) == len(opened):
        radii = stored["radius"].to_numpy(np.float32)
        if np.isfinite(radii).all():
            return radii
    return local_radius(opened.features)


@cached(MODEL, show_spinner="Loading the similarities")
def similarities(run: Run) -> dict[str, Similarity]:
    """The run's similarities, on the CPU, without its trunk: quick to load. Raises RunError if there is no model."""
    import torch

    from pddm_lab.runs.model import load_similarities

    torch.set_num_threads(1)  # sessions share the cores
    return load_similarities(run)


@cached("run.json", LOCAL)
def local(run: Run) -> RunLocal | None:
    """The run's similarity on local structure; None if it has none. Raises RunError if its file is damaged."""
    from pddm_lab.runs.local import load_local

    return load_local(run)


def stale_note(run: Run, protocol: str) -> str:
    """That neighbourhoods are from before a change of the gallery, in a sentence; empty if none is.

    Then, and where none are stored, they are brought up to date in the background. Raises RunError as `gallery` does.
    """
    note, waiting = _stale(run, protocol)
    with suppress(IndexError):  # nothing waits, or a thread is at it
        threading.Thread(target=_keep_up, args=(*waiting.pop(), waiting), daemon=True).start()
    return note


@cached(*GALLERIES, LOCAL, max_entries=16)
def _stale(run: Run, protocol: str) -> tuple[str, list[tuple[Gallery, LocalStructure]]]:
    """The note, and the gallery if its neighbourhoods are to be brought up to date."""
    by_neighbours = local(run)
    if by_neighbours is None:
        return "", []
    from pddm_lab.gallery.upkeep import needs_upkeep

    opened, structure = gallery(run, protocol), by_neighbours.structure
    reference = opened.reference(structure)
    is_needed = reference.is_built and needs_upkeep(opened, structure)
    return reference.stale_note, [(opened, structure)] if is_needed else []


def _keep_up(of: Gallery, structure: LocalStructure, waiting: list[tuple[Gallery, LocalStructure]]) -> None:
    from pddm_lab.gallery.upkeep import keep_up

    try:
        keep_up(of, structure)
    except BusyError:  # another process changes the gallery: again when a page next asks
        waiting.append((of, structure))
    except RunError:  # nothing can be written: this one serves as it is
        pass


@cached(*GALLERIES, MODEL, LOCAL, show_spinner="Scoring pairs")
def scored_pairs(run: Run, protocol: str) -> pd.DataFrame:
    """Up to `SAMPLED` pairs of a protocol, the same for every run on its items; shared, not to be changed.

    Columns: a, b (gallery rows), positive, label_a, label_b, and one per similarity; positive pairs first, each kind in
    random order. Raises RunError as `gallery` and `similarities` do.
    """
    from pddm_lab.analysis.local_pairs import score_local_pairs
    from pddm_lab.analysis.pairs import sample_pairs, score_pairs

    opened, by_neighbours = gallery(run, protocol), local(run)
    scored = score_pairs(opened.features, sample_pairs(opened, SAMPLED), similarities(run))
    if by_neighbours is not None:
        ends = scored["a"].to_numpy(), scored["b"].to_numpy()
        scored["local"] = score_local_pairs(opened, by_neighbours.structure, *ends)
    labels = opened.items["label"].to_numpy()
    return scored.assign(label_a=labels[scored["a"]], label_b=labels[scored["b"]])


@cached(*GALLERIES, MODEL, LOCAL)
def sampled_pairs(run: Run, protocol: str) -> pd.DataFrame:
    """`scored_pairs` with density: the third, as an index into `DENSITIES`, of the mean local radius of both items."""
    from pddm_lab.metrics.density import density_of

    radii, scored = radius(run, protocol), scored_pairs(run, protocol)
    return scored.assign(density=density_of((radii[scored["a"]] + radii[scored["b"]]) / 2))


@cached(MODEL, max_entries=2, show_spinner="Loading the model")
def model(run: Run) -> MetricModel:
    """The run's model, on the CPU. Raises RunError if there is none."""
    import torch

    from pddm_lab.runs.model import load_model

    torch.set_num_threads(1)  # a query is small work, and sessions share the cores
    return load_model(run)


def thumbs(of: Gallery, rows: Iterable[int]) -> dict[str, bytes]:
    """Thumbnails of gallery rows by item id."""
    ids = of.items["id"]
    return {str(ids.iloc[row]): of.thumb(row) for row in map(int, rows)}


def row_of(of: Gallery, item: str) -> int | None:
    """The gallery row of an item id; None if the gallery has no such item."""
    try:
        return of.index_of(item)
    except RunError:
        return None


def pictures(run: Run, ids: Iterable[str]) -> dict[str, bytes | None]:
    """Thumbnails by item id, from a gallery of the run or from its data set; None if neither has the item."""
    galleries = []
    for protocol in run.galleries():
        try:
            galleries.append(gallery(run, protocol))
        except RunError:
            continue  # other pages report the error
    images: dict[str, bytes | None] = {}
    for item in ids:
        images[item] = next((one.thumb(row) for one in galleries if (row := row_of(one, item)) is not None), None)
        if images[item] is None:
            images[item] = picture(run, item, side=THUMB_SIDE)
    return images


def picture(run: Run, item: str, of: Gallery | None = None, side: int = LARGE_SIDE) -> bytes | None:
    """An item's picture from the file that `file_of` names, large by default; None if it isn't on this machine."""
    file = file_of(run, item, of)
    return _scaled(file, side) if file else None


def file_of(run: Run, item: str, of: Gallery | None = None) -> Path | None:
    """The file of an item as a gallery has it, or as the data set has it; None if it isn't on this machine."""
    root, row = run.info["dataset"].get("root") or "", None if of is None else row_of(of, item)
    file = in_data_set(root, item, None) if of is None or row is None else file_in(of, row, root)
    return file if file and os.path.isfile(file) else None


@cached(copied=True, max_entries=4096)
def _scaled(path: Path, side: int) -> bytes | None:
    try:
        return jpeg(open_image(path), side)
    except DataError:
        return None


def jpeg(image: Image.Image, side: int) -> bytes:
    """An image scaled down to a longer side of `side` pixels, as JPEG."""
    image.thumbnail((side, side), reducing_gap=2)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


@cached()
def warm_up() -> None:
    """Once per server: import what a search needs, soon after the first page."""

    def load() -> None:
        import faiss  # noqa: F401

        import pddm_lab.training.finish  # noqa: F401

    timer = threading.Timer(3.0, load)  # by then the first page has loaded its files from this server
    timer.daemon = True
    timer.start()


def protocol_size(run: Run, protocol: str) -> str:
    """The number of queries and searched items of a protocol, in words; empty if its gallery is missing."""
    try:
        return pairs(run, protocol).size
    except LabError:
        return ""
