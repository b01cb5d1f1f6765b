"""Cached calls of the Robustness page into pddm_lab."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from shared import loaders
from shared.cache import GALLERIES, LOCAL, MODEL, cached

from pddm_lab.data.images import open_image
from pddm_lab.data.prepare import side_to_read
from pddm_lab.gallery.gallery import SearchResult
from pddm_lab.robustness.cells import FOLDER, VIEWPOINT, Measurement, measurements, read_viewpoint
from pddm_lab.robustness.corruptions import SIDE, corrupt, square_of
from pddm_lab.robustness.products import why_no_background
from pddm_lab.runs.run import Run

if TYPE_CHECKING:
    from pddm_lab.gallery.reference import Reference
    from pddm_lab.runs.model import Embeds

SHORTLIST = 200
FIRST = 6
"""Results that are shown of each ranking."""
OPENING = "occlusion", 3
"""The corruption and the strength that the page opens with. It needs nothing but what the dashboard needs."""
_TRIED, _LOOKED_AT = 12, 24


class Seen(NamedTuple):
    """A corrupted picture as a run sees it."""

    feature: np.ndarray
    pretrained: np.ndarray | None


@cached(max_entries=256)
def picture(file: Path, item: str, name: str, strength: int) -> bytes:
    """An item's picture, corrupted, as JPEG. Raises DataError if it can't be read."""
    return loaders.jpeg(Image.fromarray(_square(file, item, name, strength)), loaders.LARGE_SIDE)


@cached(MODEL, LOCAL, max_entries=64, show_spinner="Corrupting the picture")
def embedded(run: Run, file: Path, item: str, name: str, strength: int) -> Seen:
    """The same as the run sees it."""
    network = _network(run)
    image = network.prepare(Image.fromarray(_square(file, item, name, strength)))
    features, pretrained = network.embed_all([image])
    return Seen(features[0], None if pretrained is None else pretrained[0])


@cached(*GALLERIES, MODEL, LOCAL, max_entries=16, show_spinner="Looking for a query to begin with")
def first_query(run: Run, protocol: str) -> int:
    """The row of a query whose first results by D suffer from the opening corruption: the middle one of those that do
    among a few that are tried and whose first result is right as they are, so that it is no extreme.

    Raises DataError if a picture can't be read, RunError as `loaders.gallery` does.
    """
    gallery, network = loaders.gallery(run, protocol), _network(run)
    queries, labels, ids = gallery.rows("query"), gallery.items["label"].to_numpy(), gallery.items["id"].astype(str)
    rows = queries[np.linspace(0, len(queries) - 1, min(_TRIED, len(queries))).astype(int)]
    squares = {int(row): _square(file, ids.iloc[row], *OPENING)
               for row in rows if (file := loaders.file_of(run, ids.iloc[row], gallery))}  # fmt: skip
    features, _ = network.embed_all([network.prepare(Image.fromarray(square)) for square in squares.values()])

    def right(feature: np.ndarray, row: int) -> np.ndarray:
        return labels[gallery.search(feature[None], FIRST, row)[0][0]] == labels[row]

    lost = {}
    for row, feature in zip(squares, features, strict=True):
        before = right(np.array(gallery.features[row]), row)
        lost[row] = int(before.sum() - right(feature, row).sum()) if before[:1].all() else 0
    losing = sorted((row for row in lost if lost[row] > 0), key=lost.__getitem__)
    return losing[len(losing) // 2] if losing else next(iter(lost))


def _square(file: Path, item: str, name: str, strength: int) -> np.ndarray:
    return corrupt(square_of(open_image(file, side_to_read(SIDE))), item, name, strength)


@cached(MODEL, LOCAL, max_entries=2, show_spinner="Loading the network")
def _network(run: Run) -> Embeds:
    from pddm_lab.runs.model import ImageEmbedder, embedder

    return embedder(run) if run.config.is_imported else ImageEmbedder(run, loaders.model(run))


def search(run: Run, protocol: str, seen: Seen | None, row: int) -> SearchResult:
    """Search a gallery with the corrupted picture of one of its items; None: with the item as it is."""
    known, local, gallery = loaders.similarities(run), loaders.local(run), loaders.gallery(run, protocol)
    structure = local and local.structure
    if seen is None:
        return gallery.search_by(
            np.array(gallery.features[row]), [known[name] for name in run.learned], SHORTLIST, row, structure
        )
    result = gallery.search_by(seen.feature, [known[name] for name in run.learned], SHORTLIST, row)
    if structure is None:
        return result
    # In the gallery is the picture as it is. Its neighbourhood would help, so it is taken out of the gallery first.
    reference = _without(run, protocol, row)
    table = result.table.assign(local=reference.scores(seen.feature, seen.pretrained, result.table["row"].to_numpy()))
    table["local_rank"] = (-table["local"]).rank(method="first").astype(int)
    return SearchResult(table, (*result.similarities, "local"), result.seconds, reference.note)


@cached(*GALLERIES, LOCAL, max_entries=8, show_spinner="Listing neighbourhoods")
def _without(run: Run, protocol: str, row: int) -> Reference:
    """The neighbourhoods of a gallery without one of its items."""
    local, gallery = loaders.local(run), loaders.gallery(run, protocol)
    assert local is not None
    reference = gallery.reference(local.structure)
    kept = reference.rows[reference.rows != row]
    if len(kept) == len(reference.rows):
        return reference
    return reference.changed(kept, kept, np.empty((0, gallery.features.shape[1]), np.float32), None).refreshed()


@cached(*GALLERIES, show_spinner="Looking at the pictures")
def no_background(run: Run, protocol: str) -> str:
    """Why the background of a gallery's pictures can't be exchanged, in a sentence; empty if it can."""
    gallery = loaders.gallery(run, protocol)
    ids = gallery.items["id"]
    rows = np.linspace(0, len(ids) - 1, min(_LOOKED_AT, len(ids))).astype(int)
    files = [file for row in rows if (file := loaders.file_of(run, str(ids.iloc[row]), gallery))]
    return why_no_background([square_of(open_image(file)) for file in files]) if files else "There are no pictures."


def kept(run: Run, protocol: str) -> Measurement | None:
    """The measurement of a protocol with most cells; None if there is none. Raises RunError if one is damaged."""
    return next((one for one in measurements(run) if one.settings["protocol"] == protocol), None)


@cached("settings.json", "cells", max_entries=8, show_spinner="Reading the cells")
def cells(path: Path) -> pd.DataFrame:
    """The cells of a measurement; shared, not to be changed. Raises RunError if one is damaged."""
    return Measurement.open(path).table()


@cached(f"{FOLDER}/{VIEWPOINT}")
def viewpoint(run: Run) -> pd.DataFrame | None:
    """R@1 by the angle to the nearest view; None if it isn't measured. Raises RunError if the file is damaged."""
    from pddm_lab.robustness.findings import by_angle

    outcomes = read_viewpoint(run)
    return None if outcomes is None else by_angle(outcomes)


@cached("settings.json", "cells", max_entries=8, show_spinner="Drawing intervals")
def summary(path: Path, metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`summarise` and `leads` of a measurement."""
    from pddm_lab.robustness.findings import leads, summarise

    opened = Measurement.open(path)
    return summarise(opened, metric), leads(opened, metric=metric)
