"""`caltech101`: Caltech 101 in its official layout; by name, the first half of the classes is for training.

Caltech101/101_ObjectCategories/<class>/image_0001.jpg. 95 classes are used, in any copy; the others are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pddm_lab.data.pictures import find_pictures
from pddm_lab.data.source import Listing, Source, check_counts, check_layout, how_to_get_by_hand
from pddm_lab.progress import Progress

FOLDER = "Caltech101"
INNER = "101_ObjectCategories"
COUNTS = (6868, 95)
"""(items, classes) without those left out."""
LEFT_OUT = ("BACKGROUND_Google", "Faces", "Faces_easy", "accordion", "airplanes", "anchor", "ant")
"""No class; people's faces, twice; and four classes of which a widespread copy holds edge maps in place of photos."""
BY_HAND = f"Get caltech-101.zip from CaltechDATA (doi:10.22002/D1.20086), and copy its folder {INNER}"
_TITLE = "Caltech 101"


def fetch(data_root: Path, _progress: Progress | None = None) -> Path:
    """The folder of the data set, which the lab doesn't download.

    Raises:
        DataError: it isn't there.
    """
    _check(data_root)
    return data_root / FOLDER


def is_present(data_root: Path) -> bool:
    """Whether the folder of classes is there."""
    return (data_root / FOLDER / INNER).is_dir()


def list_items(data_root: Path, split_seed: int = 0, counts: tuple[int, int] | None = None) -> Listing:
    """Items class by class, by name; the split is by name, whatever the seed.

    Args:
        data_root: folder that holds Caltech101.
        split_seed: unused; it chooses the queries that are held out later.
        counts: expected (items, classes); None: the published ones.

    Raises:
        DataError: the data set is missing, incomplete, or has another layout.
    """
    _check(data_root)
    root = data_root / FOLDER / INNER
    pictures = find_pictures(root)
    ids = [item for item in pictures.ids if item.count("/") == 1 and item.partition("/")[0] not in LEFT_OUT]
    names, labels = np.unique([item.partition("/")[0] for item in ids], return_inverse=True)
    trains = np.arange(len(names)) < (len(names) + 1) // 2
    listing = Listing(root, ids, labels.astype(np.int64), names.tolist(), trains, notes=pictures.notes())
    return check_counts(listing, *(counts or COUNTS), _TITLE, _advice(data_root))


def _check(data_root: Path) -> None:
    check_layout(data_root / FOLDER, (INNER,), _TITLE, _advice(data_root))


def _advice(data_root: Path) -> str:
    return how_to_get_by_hand(BY_HAND, data_root / FOLDER)


SOURCE = Source(
    name="caltech101", title=_TITLE, folder_name=FOLDER, size="by hand, about 140 MB; 6868 photos of 95 things",
    licence="CC-BY-4.0",
    attribution="Fei-Fei Li, M. Andreeto, M. Ranzato, P. Perona, Caltech 101 (1.0), CaltechDATA, 2022.",
    list_items=list_items, is_present=is_present, fetch=fetch, by_hand=BY_HAND,
)  # fmt: skip
