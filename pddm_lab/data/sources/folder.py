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

_LAYOUT = "expected ROOT/<class>/<image>, one folder per class with at least two images each"


def source(path: str) -> Source:
    """A folder of pictures as a source; it has nothing to fetch."""
    root = Path(path).expanduser()

    def fetch(_data_root: Path, _progress: Progress | None = None) -> Path:
        if not root.is_dir():
            raise DataError(f"There is no folder {root}: {_LAYOUT}.")
        return root

    return Source(
        name="folder", title=root.name, folder_name=str(root), size="your own folder", licence="your own",
        attribution="", list_items=lambda _data_root, split_seed: list_folder(root, split_seed),
        is_present=lambda _data_root: root.is_dir(), fetch=fetch,
    )  # fmt: skip


def list_folder(root: Path, split_seed: int = 0) -> Listing:
    """Items and classes in alphabetical order; hidden folders, other files and empty classes are passed over.

    With fewer than four classes all of them train, since a half would leave nothing to confuse: none is unseen then.

    Raises:
        DataError: no such folder, no class in it, or images without a class.
    """
    if not root.is_dir():
        raise DataError(f"There is no folder {root or '(empty path)'}: {_LAYOUT}.")
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
        raise DataError(f"{root} has {_found(root, names, empty)}: {_LAYOUT}, and at least two classes.")
    notes = [f"{len(empty)} folders without an image are passed over, first {empty[0]}."] if empty else []
    trains = halves_by_hash(names, split_seed)
    if len(names) < 4:
        trains[:] = True
        notes.append(f"With {len(names)} classes all of them train; four or more would leave half of them unseen.")
    return Listing(root, ids, np.array(labels, dtype=np.int64), names, trains, notes=notes)


def image_names(folder: Path) -> list[str]:
    """Names of the images in a folder, in alphabetical order; hidden and other files are passed over."""
    names = (entry.name for entry in os.scandir(folder) if entry.is_file() and entry.name[0] != ".")
    return sorted(name for name in names if os.path.splitext(name)[1].lower() in SUFFIXES)


def _found(root: Path, names: list[str], empty: list[str]) -> str:
    if names:
        return f"only one class with images ({names[0]})"
    if loose := image_names(root):
        return f"{len(loose)} images that lie in no class folder"
    return f"{len(empty)} folders, none with images in it" if empty else "no folders in it"
