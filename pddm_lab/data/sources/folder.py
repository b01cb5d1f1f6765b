"""`folder:PATH`: any `root/<class>/<image>`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pddm_lab.data.images import SUFFIXES
from pddm_lab.data.source import Listing, Source
from pddm_lab.data.splits import halves_by_hash
from pddm_lab.errors import DataError
from pddm_lab.progress import Progress

_LAYOUT = "expected FOLDER/<class>/<image>, a folder per class with at least two images each"


def source(path: str) -> Source:
    """A folder of pictures as a source; there is nothing to fetch."""
    root = Path(path).expanduser()

    def fetch(_data_root: Path, _progress: Progress | None = None) -> Path:
        if not root.is_dir():
            raise DataError(f"The folder {root} does not exist: {_LAYOUT}.")
        return root

    return Source(
        name="folder", title=root.name, folder_name=str(root), size="your own folder", licence="your own",
        attribution="", list_items=lambda _data_root, split_seed: list_folder(root, split_seed),
        is_present=lambda _data_root: root.is_dir(), fetch=fetch,
    )  # fmt: skip


def list_folder(root: Path, split_seed: int = 0) -> Listing:
    """Items and classes in alphabetical order; hidden folders, other files and empty classes are skipped.

    With fewer than four classes all of them are training classes, since half of them would be too few to train on.

    Raises:
        DataError: the folder does not exist, or has fewer than two classes.
    """
    if not root.is_dir():
        raise DataError(f"The folder {root} does not exist: {_LAYOUT}.")
    ids: list[str] = []
    labels: list[int] = []
    names: list[str] = []
    empty: list[str] = []
    for class_name in sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != "."):
        files = image_names(root / class_name)
        if not files:
            empty.append(class_name)
            continue
        ids += [f"{class_name}/{name}" for name in files]
        labels += [len(names)] * len(files)
        names.append(class_name)
    if len(names) < 2:
        raise DataError(f"{root} has {_contents(root, names, empty)}: {_LAYOUT}, and at least two classes.")
    notes = [f"{len(empty)} folders without images are skipped; the first is {empty[0]}."] if empty else []
    trains = halves_by_hash(names, split_seed)
    if len(names) < 4:
        trains[:] = True
        notes.append(f"All {len(names)} classes are used for training; with four or more, half would be unseen.")
    return Listing(root, ids, np.array(labels, dtype=np.int64), names, trains, notes=notes)


def image_names(folder: Path) -> list[str]:
    """Names of the images in a folder, in alphabetical order; hidden and other files are skipped."""
    names = (entry.name for entry in os.scandir(folder) if entry.is_file() and entry.name[0] != ".")
    return sorted(name for name in names if os.path.splitext(name)[1].lower() in SUFFIXES)


def _contents(root: Path, names: list[str], empty: list[str]) -> str:
    if names:
        return f"only one class with images ({names[0]})"
    if loose := image_names(root):
        return f"{len(loose)} images outside of class folders"
    return f"{len(empty)} folders, all without images" if empty else "no folders"
