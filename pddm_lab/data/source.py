"""What every source of images provides: its folder, its items, and how to fetch it. The sources are in sources/."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntFlag
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pddm_lab.errors import DataError
from pddm_lab.progress import Progress

_STALE_SECONDS = 24 * 3600
"""A temporary folder that has not changed for this long is left over from a download that was interrupted."""


class Use(IntFlag):
    """What an item is for, if the data set says so. Only items of training classes train."""

    TRAIN = 1
    QUERY = 2
    GALLERY = 4


@dataclass(frozen=True, eq=False)
class Listing:
    """Items of a source on disk, before any image is opened."""

    root: Path
    ids: list[str]
    """Path of each item relative to root, "/" separated."""
    labels: np.ndarray
    """(items,) int64 class indices."""
    class_names: list[str]
    trains: np.ndarray
    """(classes,) bool: the training classes; the others are the unseen classes."""
    uses: np.ndarray | None = None
    """(items,) uint8 of `Use`. None: the lab holds out queries of the training classes and trains on their other items;
    each item of the unseen classes is searched among all the others."""
    metadata: dict[str, list[str]] = field(default_factory=dict)
    """What else the data set says of its items: name -> a text for each."""
    stamp: str = ""
    """What identifies the split, if it can change while items and labels stay; part of the fingerprint."""
    notes: list[str] = field(default_factory=list)
    sha256: dict[str, str] = field(default_factory=dict)
    """Checksums of items by id, if the source keeps them; an item with another content is skipped."""


class Credit(NamedTuple):
    """Where an item comes from."""

    source: str
    author: str
    licence: str
    url: str


@dataclass(frozen=True)
class Source:
    """A data set known by name."""

    name: str
    title: str
    folder_name: str
    """Usual name of its folder in the data root."""
    size: str
    """Size of the download and of the data set, as text."""
    licence: str
    attribution: str
    list_items: Callable[[Path, int], Listing]
    """(data root, split seed) -> Listing; raises DataError if the data set is missing or has another layout."""
    is_present: Callable[[Path], bool]
    """data root -> whether the data set is there."""
    fetch: Callable[[Path, Progress | None], Path]
    """(data root, progress) -> folder of the data set; keeps a complete one, raises DataError if it cannot fetch."""
    automatic: bool = False
    """Needs no network: it is fetched when it is read."""
    by_hand: str = ""
    """What to get and copy, if the lab can't download it: "Get ..., and copy ..."."""
    credit: Callable[[str], Credit | None] | None = None
    """Item id -> where it comes from, None if unknown; only for a data set whose items differ in author or licence."""


def how_to_get(name: str, data_root: Path) -> str:
    """How to get a data set: the last sentence of every error about missing data."""
    return f"Run `pddm-lab data fetch {name}`, or point PDDM_LAB_DATA (now {data_root}) at the folder that holds it."


def how_to_get_by_hand(by_hand: str, folder: Path) -> str:
    """As `how_to_get`, for a data set that the lab can't download.

    Args:
        by_hand: what to get and copy, as `Source.by_hand`.
        folder: of the data set in the data root.
    """
    return (
        f"{by_hand} to {folder}, or point PDDM_LAB_DATA (now {folder.parent}) at the folder that holds {folder.name}."
    )


@contextmanager
def staged_folder(target: Path, owns: Callable[[str], object] = lambda _name: False) -> Iterator[Path]:
    """A temporary folder beside `target` that replaces it if the block succeeds: no reader sees half a data set.

    Args:
        target: folder to write or replace.
        owns: whether a file in `target` (relative path, "/" separated) was written by the lab and may be replaced.

    Raises:
        DataError: the folder cannot be written, or holds files that the lab did not write.
    """
    foreign = (path.relative_to(target).as_posix() for path in sorted(target.rglob("*")) if not path.is_dir())
    if (name := next((name for name in foreign if not owns(name)), None)) is not None:
        raise DataError(
            f"{target} is not a complete copy, and it holds files that the lab did not write, such as {name}. They "
            "would be lost: move the folder away, or choose another data root."
        )
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for stale in target.parent.glob(f".{target.name}.partial-*"):
            if stale == partial or time.time() - stale.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(stale, ignore_errors=True)
        partial.mkdir()
        yield partial
        _replace_folder(partial, target)
    except OSError as error:
        raise DataError(
            f"Cannot write {target} ({error.strerror or error}). Expected a writable data root with enough space: "
            "pass --data-root or set PDDM_LAB_DATA."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _replace_folder(new: Path, target: Path) -> None:
    if target.exists():  # a folder cannot be renamed over one that has files
        old = new.with_name(new.name + "-old")
        target.rename(old)
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        new.rename(target)


def check_layout(root: Path, needed: Sequence[str], title: str, advice: str) -> None:
    """Raise a DataError unless every file or folder of an official layout exists.

    Args:
        root: folder of the data set.
        needed: paths relative to root.
        title: the data set's name, for the message.
        advice: how to get it.
    """
    missing = [name for name in needed if not (root / name).exists()]
    if not missing:
        return
    if not root.is_dir():
        raise DataError(f"{title} is not at {root}: expected a folder with {', '.join(needed)}. {advice}")
    raise DataError(
        f"{root} does not have the layout of {title}: expected {', '.join(needed)}, but {', '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} missing. {advice}"
    )


def check_counts(listing: Listing, items: int, classes: int, title: str, advice: str) -> Listing:
    """The listing itself, if it has the published number of items and classes.

    Raises:
        DataError: it has other numbers.
    """
    counts = len(listing.ids), len(listing.class_names)
    if counts != (items, classes):
        raise DataError(
            f"{listing.root} lists {counts[0]} images of {counts[1]} classes; {title} has {items} of {classes}. "
            f"The copy is incomplete or a different data set. {advice}"
        )
    return listing


def read_rows(path: Path, columns: int, *, separator: str | None = None, header: bool = False) -> list[list[str]]:
    """Rows of a small text table; blank lines are skipped.

    Args:
        path: a text file.
        columns: columns of every row; the last one keeps any further separators.
        separator: between columns; None: white space.
        header: whether the first line names the columns.

    Raises:
        DataError: a line with fewer columns, or a file that is not text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read {path} ({error}). Expected a text file of {columns} columns.") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or (header and number == 1):
            continue
        row = [cell.strip() for cell in line.split(separator, columns - 1)]
        if len(row) != columns:
            raise DataError(f"{path}, line {number}: expected {columns} columns, got {line!r}.")
        rows.append(row)
    return rows


def as_ints(cells: Sequence[str], path: Path) -> np.ndarray:
    """A column of whole numbers, int64; raises a DataError that names the file if a cell is something else."""
    try:
        return np.array([int(cell) for cell in cells], dtype=np.int64)
    except ValueError as error:
        raise DataError(f"{path}: expected whole numbers in the id columns ({error}).") from error
