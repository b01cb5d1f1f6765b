"""`folder:PATH`: any `root/<class>/<image>`; the path of a deeper folder is its class, such as "fruit/apple"."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np

from pddm_lab.config import typed_path
from pddm_lab.data.pictures import Pictures, find_pictures
from pddm_lab.data.source import Listing, Source
from pddm_lab.data.splits import halves_by_hash
from pddm_lab.errors import DataError
from pddm_lab.progress import Progress
from pddm_lab.wording import counted

_LAYOUT = "expected FOLDER/<class>/<image>, a folder per class with at least two images each"
_SPLITS = ("train", "val", "test")


def source(path: str) -> Source:
    """A folder of pictures as a source; there is nothing to fetch.

    Raises:
        DataError: no path.
    """
    if not path.strip():
        raise DataError("folder: needs a path, as in folder:photos. For the current folder: folder:.")
    root = typed_path(path)

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
    """Items and classes in alphabetical order; hidden files and what is no picture are skipped.

    With fewer than four classes all of them are training classes, since half of them would be too few to train on.

    Raises:
        DataError: the folder does not exist, has fewer than two classes, or is split into train, val and test.
    """
    if not root.is_dir():
        raise DataError(f"The folder {root} does not exist: {_LAYOUT}.")
    pictures = find_pictures(root)
    by_class = {name: list(ids) for name, ids in groupby(pictures.ids, lambda item: item.rpartition("/")[0])}
    loose, names = by_class.pop("", []), sorted(by_class)
    tops = {name.partition("/")[0] for name in names}
    splits = sorted(tops & {*_SPLITS}, key=_SPLITS.index)
    if len(splits) > 1 or any(name.startswith(f"{split}/") for split in splits for name in names):
        raise DataError(
            f"{root} is split into {', '.join(splits)}, which would become classes or parts of their names. Name one "
            f"of them, and the lab splits its classes: folder:{root / splits[0]}"
        )
    empty = _without_pictures(pictures, names)
    if len(names) < 2:
        error = f"{root} has {_contents(names, empty, loose)}: {_LAYOUT}, and at least two classes."
        raise DataError(" ".join([error, *pictures.notes()]))
    notes = pictures.notes()
    for what, skipped in (("folder without images", empty), ("image outside of class folders", loose)):
        if skipped:
            noun, _, rest = what.partition(" ")
            notes.append(f"Skipped {counted(len(skipped), noun)} {rest}, such as {skipped[0]}.")
    trains = halves_by_hash(names, split_seed)
    if len(names) < 4:
        trains[:] = True
        notes.append(f"All {len(names)} classes are used for training; with four or more, half would be unseen.")
    labels = np.repeat(np.arange(len(names), dtype=np.int64), [len(by_class[name]) for name in names])
    return Listing(root, [item for name in names for item in by_class[name]], labels, names, trains, notes=notes)


def _without_pictures(pictures: Pictures, classes: list[str]) -> list[str]:
    """The folders without a picture in them or below, except those inside of another one."""
    needed = {str(folder) for name in classes for folder in (PurePosixPath(name), *PurePosixPath(name).parents)}
    return [f for f in pictures.folders if f not in needed and (f.rpartition("/")[0] or ".") in needed | {"."}]


def _contents(names: list[str], empty: list[str], loose: list[str]) -> str:
    if names:
        return f"only one class with images ({names[0]})"
    if loose:
        return f"{counted(len(loose), 'image')} outside of class folders"
    return f"{len(empty)} folders, all without images" if empty else "no folders"
