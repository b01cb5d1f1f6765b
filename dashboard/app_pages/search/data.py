"""The cached calls of the Search page into pddm_lab, keyed as those of loaders.py are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st
from app_pages.search.own_picture import Box
from shared import loaders
from shared.loaders import LARGE_SIDE, Stamp, _jpeg, _stamp

from pddm_lab.cards import Dimension
from pddm_lab.data.images import open_image, verify
from pddm_lab.gallery.gallery import Gallery, SearchResult
from pddm_lab.runs.run import Run

if TYPE_CHECKING:
    from pddm_lab.analysis.explain import Explanation
    from pddm_lab.analysis.shortlist import Ceiling
    from pddm_lab.model.similarity import Similarity
    from pddm_lab.runs.model import ImageEmbedder

RERANKERS = ("mahalanobis", "pddm")
"""What the shortlist is ordered by beside Euclidean distance. Cosine is left out: on unit-length features it ranks as
Euclidean does."""
PLACES = 500
"""Places of a gallery, a seeded sample, at which a pair's difference is scored again."""
COMPARISONS = 40_000_000
"""Of queries with items, to measure a shortlist's ceiling: some seconds; of a large gallery fewer queries are taken."""
DIMENSIONS, ENDS = 10, 3
"""Dimensions that are shown of a pair, and items at either end of each."""


@dataclass(frozen=True)
class Embedded:
    """A picture that is no item of a gallery, or a part of one that is."""

    feature: np.ndarray
    picture: bytes
    """The whole picture as it was understood: upright, RGB, as JPEG."""
    seconds: dict[str, float]
    """By stage: read, embed."""


def embedded(run: Run, source: bytes | Path, box: Box | None) -> Embedded:
    """A picture as the run's network sees it.

    Args:
        source: a person's bytes, or the file of an item.
        box: the part to look at; None for all of it.

    Raises:
        DataError: no readable picture, or too large a one; one sentence for the person.
    """
    model_stamp = _stamp(run.path / "model.safetensors")
    if isinstance(source, bytes):
        return _embedded(str(run.path), model_stamp, source, (), box)
    return _embedded(str(run.path), model_stamp, str(source), _stamp(source), box)


@st.cache_data(max_entries=32, show_spinner="Looking at the picture")
def _embedded(path: str, stamp: Stamp, source: bytes | str, source_stamp: Stamp, box: Box | None) -> Embedded:
    network = _network(path, stamp)
    start = time.perf_counter()
    image = verify(source) if isinstance(source, bytes) else open_image(source)
    part = image
    if box:
        (left, right), (top, bottom) = (
            (min(round(low * side), side - 1), max(round(high * side), round(low * side) + 1))
            for low, high, side in ((box[0], box[2], image.width), (box[1], box[3], image.height))
        )
        part = image.crop((left, top, right, bottom))
    read = time.perf_counter()
    feature = network(part)
    seconds = {"read": read - start, "embed": time.perf_counter() - read}
    return Embedded(feature, _jpeg(image, LARGE_SIDE), seconds)


@st.cache_resource(max_entries=2, show_spinner="Loading the network")
def _network(path: str, stamp: Stamp) -> ImageEmbedder:
    from PIL import Image

    from pddm_lab.runs.model import ImageEmbedder

    embed = ImageEmbedder(Run.open(path), loaders._model(path, stamp))
    embed(Image.new("RGB", (64, 64)))  # so that the seconds shown are those of a picture alone
    return embed


def search(run: Run, protocol: str, feature: np.ndarray, shortlist: int, exclude: int | None) -> SearchResult:
    """Search a gallery and order what was found by each of `RERANKERS`. Raises LabError where a file is missing."""
    of, known = loaders.gallery(run, protocol), loaders.similarities(run)
    similarities = [known[name] for name in RERANKERS]
    _warmed(str(of.path), _stamp(of.path), of, similarities)
    return of.search_by(feature, similarities, shortlist, exclude)


@st.cache_resource(max_entries=32, show_spinner="Building the index")
def _warmed(path: str, stamp: Stamp, _of: Gallery, _similarities: Sequence[Similarity]) -> None:
    """Build the index and run each stage once, so that the seconds shown are those of a search alone."""
    _of.search_by(np.array(_of.features[0]), _similarities)


def ceiling(run: Run, protocol: str) -> Ceiling:
    """What shortlists of each size can hold, measured with the gallery's own queries."""
    of = loaders.gallery(run, protocol)
    return _ceiling(str(of.path), _stamp(of.path), of)


@st.cache_resource(max_entries=8, show_spinner="Searching with the gallery's queries")
def _ceiling(path: str, stamp: Stamp, _of: Gallery) -> Ceiling:
    from pddm_lab.analysis.shortlist import MOST_QUERIES, ceiling

    return ceiling(_of, most_queries=max(min(MOST_QUERIES, COMPARISONS // max(len(_of), 1)), 100))


@dataclass(frozen=True)
class Why:
    """A pair taken apart, with what shows its dimensions."""

    explanation: Explanation
    dimensions: list[Dimension]
    images: dict[str, bytes]


def why(run: Run, protocol: str, query: np.ndarray, row: int) -> Why:
    """Why a query and an item of the gallery are as similar as they are."""
    of = loaders.gallery(run, protocol)
    return _why(
        str(run.path),
        _stamp(run.path / "model.safetensors"),
        str(of.path),
        _stamp(of.path),
        query.tobytes(),
        row,
        run,
        of,
    )


@st.cache_data(max_entries=64, show_spinner="Taking the pair apart")
def _why(path: str, model: Stamp, gallery: str, stamp: Stamp, query: bytes, row: int, _run: Run, _of: Gallery) -> Why:
    from pddm_lab.analysis.explain import explain_by

    known = loaders.similarities(_run)
    others = np.random.default_rng(0).permutation(len(_of))[:PLACES]
    places = np.array(_of.features[np.sort(others)])
    asked, result = np.frombuffer(query, dtype=np.float32), np.array(_of.features[row])
    found = explain_by(known["pddm"], known["mahalanobis"], asked, result, places)  # type: ignore[arg-type]
    dimensions, rows = [], set()
    for at in map(int, found.strongest(DIMENSIONS)):
        least, most, low, high = _ends(gallery, stamp, at, _of)
        rows |= {*least, *most}
        named = [[(str(_of.items["id"].iloc[n]), str(_of.items["class_name"].iloc[n])) for n in end]
                 for end in (least, most)]  # fmt: skip
        dimensions.append(Dimension(at, low, high, float(asked[at]), float(result[at]), *named))
    return Why(found, dimensions, loaders.thumbs(_of, rows))


@st.cache_data(max_entries=2048, show_spinner=False)
def _ends(gallery: str, stamp: Stamp, dimension: int, _of: Gallery) -> tuple[list[int], list[int], float, float]:
    from pddm_lab.analysis.explain import extremes

    least, most = extremes(_of.features, dimension, ENDS)
    low, high = (float(_of.features[end[0], dimension]) for end in (least, most))
    return least.tolist(), most.tolist(), low, high
