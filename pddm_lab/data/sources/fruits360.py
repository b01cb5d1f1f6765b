"""`fruits360`: views of apples, cherries and tomatoes on a turntable, from the "3-body problem" branch of Fruits-360.

Fruits-360-varieties/Training/<variety>/ and Test/<variety>/: no variety is in both, so those of Test are the unseen
classes. A view is named [axis_]number_100.jpg: the fruit turns about up to three axes in turn (r_, r0_, r2_, ...; none
is an axis too), and the number counts the frames. Neighbouring views are nearly equal. Queries of the training
varieties are therefore an arc of each turn, and the views next to it are left out. Each view of the other varieties is
searched among all of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import compress, groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from pddm_lab.data.pictures import find_pictures
from pddm_lab.data.source import Listing, Source, Use, check_counts, check_layout, how_to_get_by_hand
from pddm_lab.progress import Progress

FOLDER = "Fruits-360-varieties"
COUNTS = (4680, 65)
"""(views, varieties)."""
VIEWS = 72
"""Views of each variety, evenly spaced; a full copy has hundreds."""
TWINS = ("Test/Apple 21", "Test/Apple 22")
"""The same files as Training/Apple Rotten 1 and Apple worm 1."""
QUERY_SHARE = 0.2
"""The arc's share of a turn."""
GAP = 3
"""Views on either side of the arc that are left out."""
BY_HAND = "Get github.com/fruits-360/fruits-360-3-body-problem, and copy its folders Training and Test"
_TITLE = "Fruits-360 varieties"
_SPLITS = ("Training", "Test")
_TRAINS = "Training/"
_VIEW = re.compile(r"(?:(r\d?)_)?(\d+)_100\.jpg")


def fetch(data_root: Path, _progress: Progress | None = None) -> Path:
    """The folder of the data set, which the lab doesn't download.

    Raises:
        DataError: it isn't there.
    """
    check_layout(data_root / FOLDER, _SPLITS, _TITLE, _advice(data_root))
    return data_root / FOLDER


def is_present(data_root: Path) -> bool:
    """Whether both folders of varieties are there."""
    return all((data_root / FOLDER / split).is_dir() for split in _SPLITS)


def list_items(data_root: Path, split_seed: int = 0, counts: tuple[int, int] | None = None) -> Listing:
    """Views variety by variety, in the order of the turn.

    Args:
        data_root: folder that holds Fruits-360-varieties.
        split_seed: of the place of each arc.
        counts: expected (views, varieties), those left out counted; None: the published ones.

    Raises:
        DataError: the data set is missing, incomplete, or has another layout.
    """
    root = fetch(data_root)
    varieties: dict[str, list[str]] = {}
    for split in _SPLITS:
        for item in find_pictures(root / split).ids:
            variety, _, view = f"{split}/{item}".rpartition("/")
            varieties.setdefault(variety, []).append(view)
    names = [name for name in varieties if name not in TWINS]
    ids, labels, uses = [], [], []
    for label, name in enumerate(names):
        for axis, views in _turns(varieties[name]):
            ids += [f"{name}/{view}" for view in views]
            labels += [label] * len(views)
            if name.startswith(_TRAINS):
                uses += arc(len(views), f"{split_seed}:{name}:{axis}").tolist()
            else:
                uses += [Use.QUERY | Use.GALLERY] * len(views)
    listing = Listing(
        root, ids, np.array(labels, dtype=np.int64), [name.partition("/")[2] for name in names],
        np.array([name.startswith(_TRAINS) for name in names], dtype=bool),
    )  # fmt: skip
    check_counts(listing, *(counts or COUNTS), _TITLE, _advice(data_root))
    kept = np.array(uses, dtype=np.uint8)
    note = f"{(kept == 0).sum()} views beside the queries are left out, because they are nearly equal to them."
    return replace(
        listing, ids=list(compress(ids, uses)), labels=listing.labels[kept > 0], uses=kept[kept > 0], notes=[note]
    )


def arc(views: int, seed: str) -> np.ndarray:
    """Uses of the views of one turn, (views,) uint8: an arc of queries, a gap on either side, the rest in the gallery.

    A turn is taken as closed: its last view is next to its first one.

    Args:
        views: their number.
        seed: of the arc's place, any text.
    """
    start = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") % views
    queries = round(QUERY_SHARE * views)
    place = (np.arange(views) - start) % views
    gap = (place < queries + GAP) | (place >= views - GAP)
    return np.select([place < queries, gap], [Use.QUERY, 0], Use.TRAIN | Use.GALLERY).astype(np.uint8)


def turn_of(item: str) -> str:
    """The variety and the axis of an item's turn; the items of a turn are listed in its order."""
    variety, _, view = item.rpartition("/")
    match = _VIEW.fullmatch(view)
    return f"{variety}/{match[1] or ''}" if match else variety


def _turns(files: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """(axis, its views in the order of the turn) of `VIEWS` evenly spaced views of a variety."""
    views = sorted((m[1] or "", int(m[2]), m[0]) for m in map(_VIEW.fullmatch, files) if m)
    if len(views) > VIEWS:
        views = [views[number * len(views) // VIEWS] for number in range(VIEWS)]
    for axis, turn in groupby(views, key=itemgetter(0)):
        yield axis, [name for _, _, name in turn]


def _advice(data_root: Path) -> str:
    return how_to_get_by_hand(BY_HAND, data_root / FOLDER)


SOURCE = Source(
    name="fruits360", title=_TITLE, folder_name=FOLDER, size="by hand; 4680 views of 65 varieties",
    licence="CC-BY-SA-4.0", attribution="M. Oltean, Fruits-360, 2017-, branch 3-body problem, version 2025.06.18.",
    list_items=list_items, is_present=is_present, fetch=fetch, by_hand=BY_HAND,
)  # fmt: skip
