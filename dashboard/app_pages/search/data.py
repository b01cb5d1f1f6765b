"""Cached calls of the Search page into pddm_lab."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from app_pages.search.own_picture import Crop
from shared import loaders
from shared.cache import GALLERIES, LOCAL, MODEL, cached

from pddm_lab.cards import Dimension
from pddm_lab.data.images import open_image, verify
from pddm_lab.gallery.gallery import SearchResult
from pddm_lab.runs.run import Run

if TYPE_CHECKING:
    from pddm_lab.analysis.explain import Explanation
    from pddm_lab.analysis.explain_local import LocalExplanation
    from pddm_lab.analysis.shortlist import Ceiling
    from pddm_lab.runs.model import Embeds

PLACES = 500
"""Places of a gallery, a seeded sample, at which a pair's difference is scored again."""
COMPARISONS = 40_000_000
"""Distances computed at most to measure a shortlist's ceiling, in a few seconds; a large gallery uses fewer queries."""
DIMENSIONS, ENDS = 10, 3
"""Dimensions of a pair that are shown, and items at either end of each."""


@dataclass(frozen=True)
class Embedded:
    """The feature of a picture that is not stored in a gallery, or of a crop of one that is."""

    feature: np.ndarray
    picture: bytes
    """The whole picture, upright, in RGB, as JPEG."""
    seconds: dict[str, float]
    """By stage: read, embed."""
    pretrained: np.ndarray | None
    """Further features, where the run's similarity on local structure uses them."""


@cached(MODEL, LOCAL, copied=True, max_entries=32, show_spinner="Embedding the picture")
def embedded(run: Run, source: bytes | Path, crop: Crop | None) -> Embedded:
    """Embed a picture with the run's network.

    Args:
        source: the bytes of an upload, or the file of an item.
        crop: the part to embed; None for the whole picture.

    Raises:
        DataError: the picture is unreadable or too large; one sentence for the user.
    """
    network = _network(run)
    start = time.perf_counter()
    shorter = 0 if crop else network.shorter  # a crop needs the pixels of the whole picture
    image = verify(source, shorter=shorter) if isinstance(source, bytes) else open_image(source, shorter)
    part = image
    if crop:
        (left, right), (top, bottom) = (
            (min(round(low * side), side - 1), max(round(high * side), round(low * side) + 1))
            for low, high, side in ((crop[0], crop[2], image.width), (crop[1], crop[3], image.height))
        )
        part = image.crop((left, top, right, bottom))
    read = time.perf_counter()
    features, pretrained = network.embed_all([network.prepare(part)])
    seconds = {"read": read - start, "embed": time.perf_counter() - read}
    picture = loaders.jpeg(image, loaders.LARGE_SIDE)
    return Embedded(features[0], picture, seconds, None if pretrained is None else pretrained[0])


@cached(MODEL, LOCAL, max_entries=2, show_spinner="Loading the network")
def _network(run: Run) -> Embeds:
    from PIL import Image

    from pddm_lab.runs.model import ImageEmbedder, embedder

    embed = embedder(run) if run.config.is_imported else ImageEmbedder(run, loaders.model(run))
    embed.embed_all([embed.prepare(Image.new("RGB", (64, 64)))])  # so that the seconds shown do not include loading
    return embed


def search(
    run: Run,
    protocol: str,
    feature: np.ndarray,
    shortlist: int,
    exclude: int | None,
    pretrained: np.ndarray | None = None,
) -> SearchResult:
    """Search a gallery by Euclidean distance and re-rank its shortlist by each learned similarity.

    Cosine is left out: on features of unit length it ranks as Euclidean distance does. Raises LabError if a file is
    missing.
    """
    _warm_index(run, protocol)
    known, local = loaders.similarities(run), loaders.local(run)
    return loaders.gallery(run, protocol).search_by(
        feature, [known[name] for name in run.learned], shortlist, exclude, local and local.structure, pretrained
    )


@cached(*GALLERIES, MODEL, LOCAL, max_entries=32, show_spinner="Building the index")
def _warm_index(run: Run, protocol: str) -> None:
    """Build the index and run each stage once, so that the seconds shown are those of a search alone."""
    gallery, known, local = loaders.gallery(run, protocol), loaders.similarities(run), loaders.local(run)
    gallery.search_by(
        np.array(gallery.features[0]), [known[name] for name in run.learned], exclude=0, local=local and local.structure
    )


@cached(*GALLERIES, show_spinner="Searching with the gallery's queries")
def ceiling(run: Run, protocol: str) -> Ceiling:
    """The best result that shortlists of each size allow, measured with the gallery's own queries."""
    from pddm_lab.analysis.shortlist import MOST_QUERIES, ceiling

    gallery = loaders.gallery(run, protocol)
    return ceiling(gallery, most_queries=max(min(MOST_QUERIES, COMPARISONS // max(len(gallery), 1)), 100))


@dataclass(frozen=True)
class Why:
    """The explanation of a pair, with items that illustrate its dimensions."""

    explanation: Explanation
    dimensions: list[Dimension]
    images: dict[str, bytes]


@cached(*GALLERIES, MODEL, copied=True, max_entries=64, show_spinner="Explaining the pair")
def why(run: Run, protocol: str, query: np.ndarray, row: int) -> Why:
    """Explain how similar a query and an item of the gallery are."""
    from pddm_lab.analysis.explain import explain_by

    gallery, known = loaders.gallery(run, protocol), loaders.similarities(run)
    others = np.random.default_rng(0).permutation(len(gallery))[:PLACES]
    places, result = np.array(gallery.features[np.sort(others)]), np.array(gallery.features[row])
    explanation = explain_by(known["pddm"], known["mahalanobis"], query, result, places)  # type: ignore[arg-type]
    ids, classes = (gallery.items[column] for column in ("id", "class_name"))
    dimensions, rows = [], set()
    for number in map(int, explanation.strongest(DIMENSIONS)):
        least, most = _extremes(run, protocol, number)
        rows |= {*least, *most}
        low, high = (float(gallery.features[end[0], number]) for end in (least, most))
        named = [[(str(ids.iloc[at]), str(classes.iloc[at])) for at in end] for end in (least, most)]
        dimensions.append(Dimension(number, low, high, float(query[number]), float(result[number]), *named))
    return Why(explanation, dimensions, loaders.thumbs(gallery, rows))


@dataclass(frozen=True)
class WhyLocal:
    """The explanation of a pair by its neighbourhoods, with the pictures of the neighbours that both share."""

    explanation: LocalExplanation
    shared: list[tuple[str, str]]
    """(id, class name)."""
    images: dict[str, bytes]


@cached(*GALLERIES, LOCAL, copied=True, max_entries=64, show_spinner="Comparing neighbourhoods")
def why_local(
    run: Run, protocol: str, query: np.ndarray, pretrained: np.ndarray | None, row: int, shortlist: np.ndarray,
    exclude: int | None,
) -> WhyLocal | None:  # fmt: skip
    """Explain how similar a query and an item are by local structure; None if the run has no such similarity."""
    from pddm_lab.analysis.explain_local import explain_local

    gallery, local = loaders.gallery(run, protocol), loaders.local(run)
    if local is None:
        return None
    if pretrained is None and exclude is not None and gallery.pretrained is not None:
        pretrained = gallery.pretrained[exclude]
    explanation = explain_local(gallery.reference(local.structure), query, pretrained, row, shortlist, exclude)
    rows = [item for item, *_ in explanation.shared]
    shared = list(zip(*(gallery.items[column].iloc[rows].astype(str) for column in ("id", "class_name")), strict=True))
    return WhyLocal(explanation, shared, loaders.thumbs(gallery, rows))


@cached(*GALLERIES, max_entries=2048)
def _extremes(run: Run, protocol: str, dimension: int) -> tuple[list[int], list[int]]:
    from pddm_lab.analysis.explain import extremes

    least, most = extremes(loaders.gallery(run, protocol).features, dimension, ENDS)
    return least.tolist(), most.tolist()
