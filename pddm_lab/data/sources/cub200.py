"""`cub200`: Caltech-UCSD Birds-200-2011 in its official layout; the first 100 classes are for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pddm_lab.data.download import Archive, download
from pddm_lab.data.source import Listing, Source, as_ints, check_counts, check_layout, how_to_get, read_rows
from pddm_lab.errors import DataError
from pddm_lab.progress import Progress

FOLDER = "CUB_200_2011"
COUNTS = (11_788, 200)
"""Published (items, classes)."""
ARCHIVE = Archive(
    "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz", 1_150_585_339,
    "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081", inner=FOLDER,
)  # fmt: skip
_TITLE = "CUB-200-2011"
_NEEDED = ("images.txt", "image_class_labels.txt", "classes.txt", "images")


def fetch(data_root: Path, progress: Progress | None = None) -> Path:
    """Download the official archive, unless it is there.

    Raises:
        DataError: no network, or a data root that cannot be written.
    """
    target = data_root / FOLDER
    if not is_present(data_root):
        by_hand = f"Or unpack CUB_200_2011.tgz (data.caltech.edu) so that {target / 'images.txt'} exists."
        download(ARCHIVE, target, by_hand, progress)
    return target


def is_present(data_root: Path) -> bool:
    """Whether the lists and the folder of images are there."""
    return all((data_root / FOLDER / name).exists() for name in _NEEDED)


def list_items(data_root: Path, split_seed: int = 0, counts: tuple[int, int] | None = None) -> Listing:
    """Items in the order of images.txt; the split is the published one, whatever the seed.

    Args:
        data_root: folder that holds CUB_200_2011.
        split_seed: unused.
        counts: expected (items, classes); None: the published ones.

    Raises:
        DataError: the data set is missing, incomplete, or has another layout.
    """
    root, advice = data_root / FOLDER, how_to_get("cub200", data_root)
    check_layout(root, _NEEDED, _TITLE, advice)
    images = dict(read_rows(root / "images.txt", 2))
    label_rows = read_rows(root / "image_class_labels.txt", 2)
    classes = read_rows(root / "classes.txt", 2)
    class_ids = as_ints([row[0] for row in classes], root / "classes.txt")
    image_classes = as_ints([row[1] for row in label_rows], root / "image_class_labels.txt")
    if [row[0] for row in label_rows] != list(images) or not np.isin(image_classes, class_ids).all():
        raise DataError(f"{root}: image_class_labels.txt does not match images.txt and classes.txt. {advice}")
    labels = np.searchsorted(class_ids, image_classes).astype(np.int64)
    names = [name.partition(".")[2] or name for _, name in classes]
    listing = Listing(
        root, [f"images/{path}" for path in images.values()], labels, names, np.arange(len(names)) < len(names) // 2
    )
    return check_counts(listing, *(counts or COUNTS), _TITLE, advice)


SOURCE = Source(
    name="cub200", title="CUB-200-2011 birds", folder_name=FOLDER,
    size="1.1 GB to download; 11 788 photos of 200 birds",
    licence="non-commercial research and education; the photos belong to their photographers",
    attribution="C. Wah, S. Branson, P. Welinder, P. Perona, S. Belongie, The CUB-200-2011 Dataset, Caltech, 2011.",
    list_items=list_items, is_present=is_present, fetch=fetch,
)  # fmt: skip
