"""`cars196`: Stanford Cars; the first 98 classes are for training, the last 98 unseen. There are three layouts:

cars_annos.mat + car_ims/                                          one list (metric learning's usual copy)
devkit/ + cars_train/ + cars_test/                                 the official kit, with cars_test_annos_withlabels.mat
names.csv + anno_train.csv + anno_test.csv + car_data/car_data/    what pytorch-metric-learning downloads
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pddm_lab.data.download import Archive, download
from pddm_lab.data.source import Listing, Source, as_ints, check_counts, how_to_get, read_rows
from pddm_lab.errors import DataError
from pddm_lab.progress import Progress

FOLDER = "cars196"
FOLDERS = (FOLDER, "stanford_cars")
"""Usual folder names, the first one preferred."""
COUNTS = (16_185, 196)
"""Published (items, classes)."""
ARCHIVE = Archive(
    "https://www.kaggle.com/api/v1/datasets/download/jutrera/stanford-car-dataset-by-classes-folder", 2_500_000_000
)
"""A user's copy of the data set, without a published checksum."""
_TITLE = "Cars196"
_LAYOUTS = (
    "cars_annos.mat and car_ims; or devkit (with cars_test_annos_withlabels.mat), cars_train and cars_test; or "
    "names.csv, anno_train.csv, anno_test.csv and car_data"
)

_Items = tuple[list[str], list[int], list[str]]
"""(ids, class of each item from 1, class names)."""


def fetch(data_root: Path, progress: Progress | None = None) -> Path:
    """Download the copy that pytorch-metric-learning uses, unless there is one.

    Raises:
        DataError: no network, or a data root that cannot be written.
    """
    if not is_present(data_root):
        by_hand = f"Or copy it so that {data_root / FOLDER} holds one of: {_LAYOUTS}."
        download(ARCHIVE, data_root / FOLDER, by_hand, progress)
    return _root(data_root)


def is_present(data_root: Path) -> bool:
    """Whether there is a copy in one of the three layouts."""
    return _layout(_root(data_root)) is not None


def list_items(data_root: Path, split_seed: int = 0, counts: tuple[int, int] | None = None) -> Listing:
    """Items in the order of the copy's lists; the split is the published one, whatever the seed.

    Args:
        data_root: folder that holds cars196 (or stanford_cars).
        split_seed: unused.
        counts: expected (items, classes); None: the published ones.

    Raises:
        DataError: the data set is missing, incomplete, or has another layout.
    """
    root, advice = _root(data_root), how_to_get("cars196", data_root)
    read = _layout(root)
    if read is None:
        state = f"{root} does not have a layout of {_TITLE}" if root.is_dir() else f"{_TITLE} is not at {root}"
        raise DataError(f"{state}: expected {_LAYOUTS}. {advice}")
    ids, classes, names = read(root)
    labels = np.array(classes, dtype=np.int64) - 1
    if len(labels) and not (labels.min() >= 0 and labels.max() < len(names)):
        raise DataError(f"{root}: the lists use a class outside 1 to {len(names)}. {advice}")
    listing = Listing(root, ids, labels, names, trains=np.arange(len(names)) < len(names) // 2)
    return check_counts(listing, *(counts or COUNTS), _TITLE, advice)


def _root(data_root: Path) -> Path:
    return next((data_root / name for name in FOLDERS if (data_root / name).is_dir()), data_root / FOLDER)


def _layout(root: Path) -> Any:
    layouts = (
        (_read_one_list, ("cars_annos.mat", "car_ims")),
        (_read_devkit, ("devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "cars_train", "cars_test")),
        (_read_csv, ("names.csv", "anno_train.csv", "anno_test.csv", "car_data")),
    )
    for read, needed in layouts:
        if all((root / name).exists() for name in needed) and (read is not _read_devkit or _test_labels(root)):
            return read
    return None


def _test_labels(root: Path) -> Path | None:
    name = "cars_test_annos_withlabels.mat"
    return next((path for path in (root / name, root / "devkit" / name) if path.is_file()), None)


def _read_one_list(root: Path) -> _Items:
    content = _load_mat(root / "cars_annos.mat", "annotations", "class_names")
    rows = content["annotations"]
    ids, classes = [str(row["relative_im_path"]) for row in rows], [int(row["class"]) for row in rows]
    return ids, classes, [*map(str, content["class_names"])]


def _read_devkit(root: Path) -> _Items:
    names = [*map(str, _load_mat(root / "devkit" / "cars_meta.mat", "class_names")["class_names"])]
    ids: list[str] = []
    classes: list[int] = []
    for folder, path in (("cars_train", root / "devkit" / "cars_train_annos.mat"), ("cars_test", _test_labels(root))):
        assert path is not None
        rows = _load_mat(path, "annotations")["annotations"]
        ids += [f"{folder}/{row['fname']}" for row in rows]
        classes += [int(row["class"]) for row in rows]
    return ids, classes, names


def _read_csv(root: Path) -> _Items:
    names = [row[0].replace("/", "-") for row in read_rows(root / "names.csv", 1, separator="\n")]
    ids: list[str] = []
    classes: list[int] = []
    for split in ("train", "test"):
        path = root / f"anno_{split}.csv"
        rows = read_rows(path, 6, separator=",")
        labels = as_ints([row[5] for row in rows], path).tolist()
        if labels and not 1 <= min(labels) <= max(labels) <= len(names):
            raise DataError(f"{path}: expected classes from 1 to {len(names)}, as in names.csv.")
        ids += [
            f"car_data/car_data/{split}/{names[label - 1]}/{row[0]}" for row, label in zip(rows, labels, strict=True)
        ]
        classes += labels
    return ids, classes, names


def _load_mat(path: Path, *needed: str) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        content = loadmat(str(path), squeeze_me=True)
    except Exception as error:  # scipy raises nearly anything on a damaged file
        raise DataError(f"Cannot read {path} ({error}). Expected a MATLAB file with {', '.join(needed)}.") from error
    if missing := [name for name in needed if name not in content]:
        raise DataError(
            f"{path} has no {', '.join(missing)}. Expected Stanford's MATLAB file with {', '.join(needed)}."
        )
    return {name: np.atleast_1d(content[name]) for name in needed}


SOURCE = Source(
    name="cars196", title="Stanford Cars 196", folder_name=FOLDER,
    size="1.9 GB to download; 16 185 photos of 196 car models", licence="non-commercial research",
    attribution="J. Krause, M. Stark, J. Deng, L. Fei-Fei, 3D Object Representations for Fine-Grained Categorization.",
    list_items=list_items, is_present=is_present, fetch=fetch,
)  # fmt: skip
