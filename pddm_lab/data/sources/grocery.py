"""`grocery`: the Grocery Store data set, 81 products photographed in shops, in its official layout.

GroceryStoreDataset/[dataset/]: classes.csv, train.txt, val.txt, test.txt (path, class id, coarse class id), the photos.
Odd class ids are the unseen classes; test photos are the queries, train and val photos the gallery.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pddm_lab.data.download import Archive, download
from pddm_lab.data.source import Listing, Source, Use, as_ints, check_layout, how_to_get, read_rows
from pddm_lab.errors import DataError
from pddm_lab.progress import Progress

FOLDER = "GroceryStoreDataset"
ARCHIVE = Archive(
    "https://github.com/marcusklasson/GroceryStoreDataset/archive/refs/heads/master.zip", 500_000_000,
    inner="GroceryStoreDataset-*",
)  # fmt: skip
"""The current state of the repository, which has no published checksum."""
_TITLE = "the Grocery Store data set"
_LISTS = ("train.txt", "val.txt", "test.txt")


def fetch(data_root: Path, progress: Progress | None = None) -> Path:
    """Download the data set's repository, unless it is there.

    Raises:
        DataError: no network, or a data root that cannot be written.
    """
    if not is_present(data_root):
        by_hand = (
            f"Or clone github.com/marcusklasson/GroceryStoreDataset elsewhere and copy it to {data_root / FOLDER}."
        )
        download(ARCHIVE, data_root / FOLDER, by_hand, progress)
    return data_root / FOLDER


def is_present(data_root: Path) -> bool:
    """Whether the lists are there."""
    return all((_root(data_root) / name).is_file() for name in ("classes.csv", *_LISTS))


def list_items(data_root: Path, split_seed: int = 0) -> Listing:
    """Items of train, val and test in the order of the lists; the split is the data set's own, whatever the seed.

    Raises:
        DataError: the data set is missing or has another layout.
    """
    root = _root(data_root)
    check_layout(root, ("classes.csv", *_LISTS), _TITLE, how_to_get("grocery", data_root))
    classes = root / "classes.csv"
    table = read_rows(classes, 5, separator=",", header=True)
    names = {
        int(class_id): row[0] for row, class_id in zip(table, as_ints([row[1] for row in table], classes), strict=True)
    }
    ids: list[str] = []
    class_ids: list[np.ndarray] = []
    uses: list[Use] = []
    for name in _LISTS:
        rows = read_rows(root / name, 3, separator=",")
        ids += [row[0].lstrip("/") for row in rows]
        class_ids.append(as_ints([row[1] for row in rows], root / name))
        uses += [Use.QUERY if name == "test.txt" else Use.TRAIN | Use.GALLERY] * len(rows)
    listed, labels = np.unique(np.concatenate(class_ids), return_inverse=True)
    if unnamed := set(listed.tolist()) - set(names):
        raise DataError(
            f"{classes} does not name the class ids {sorted(unnamed)[:5]}: expected every id that the lists use."
        )
    class_names = [names[class_id] for class_id in listed.tolist()]
    return Listing(root, ids, labels.astype(np.int64), class_names, listed % 2 == 0, np.array(uses, dtype=np.uint8))


def iconic_images(data_root: Path) -> dict[str, Path]:
    """Class name -> its iconic product picture, if the copy has it."""
    root = _root(data_root)
    paths = {
        row[0]: root / row[4].split(",")[0].lstrip("/")
        for row in read_rows(root / "classes.csv", 5, separator=",", header=True)
    }
    return {name: path for name, path in paths.items() if path.is_file()}


def coarse_classes(data_root: Path) -> dict[str, str]:
    """Class name -> its official coarse class, such as Apple for Golden-Delicious.

    Raises:
        DataError: no such table, or a table with other columns.
    """
    table = _root(data_root) / "classes.csv"
    return {row[0]: row[2] for row in read_rows(table, 5, separator=",", header=True)}


def _root(data_root: Path) -> Path:
    folder = data_root / FOLDER
    return folder / "dataset" if (folder / "dataset").is_dir() else folder


SOURCE = Source(
    name="grocery", title="Grocery Store", folder_name=FOLDER,
    size="about 120 MB to download; 5421 photos of 81 products", licence="MIT",
    attribution=(
        "M. Klasson, C. Zhang, H. Kjellström, A Hierarchical Grocery Store Image Dataset with Visual and Semantic "
        "Labels, WACV 2019."
    ),
    list_items=list_items, is_present=is_present, fetch=fetch,
)  # fmt: skip
