"""What a source of images offers: where it lies, what is in it, how to fetch it. One file per source lies beside."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pddm_lab.errors import DataError
from pddm_lab.progress import Progress

_STALE_SECONDS = 24 * 3600
"""A temporary folder untouched for so long belongs to no running download."""


@dataclass(frozen=True, eq=False)
class Listing:
    """What a source finds on disk, before any image is opened."""

    root: Path
    ids: list[str]
    """Path of each item relative to root, "/" separated."""
    labels: np.ndarray
    """(items,) int64 class indices."""
    class_names: list[str]
    trains: np.ndarray
    """(classes,) bool: the classes that train; the others are the unseen classes."""
    queries: np.ndarray | None = None
    """(items,) bool: the data set's own query photos; None where it names none."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Source:
    """A data set the lab knows by name."""

    name: str
    title: str
    folder_name: str
    """Usual name of its folder inside the data root."""
    size: str
    """What fetching costs, in words."""
    licence: str
    attribution: str
    list_items: Callable[[Path, int], Listing]
    """(data root, split seed) -> Listing; DataError when the data set is missing or laid out otherwise."""
    is_present: Callable[[Path], bool]
    """data root -> whether the data set lies there."""
    fetch: Callable[[Path, Progress | None], Path]
    """(data root, progress) -> folder of the data set; does nothing where it is complete; DataError when it cannot."""
    automatic: bool = False
    """Needs no network: reading fetches it."""


def how_to_get(name: str, data_root: Path) -> str:
    """The sentence that ends every error about missing data."""
    return f"Run `pddm-lab data fetch {name}`, or point PDDM_LAB_DATA (now {data_root}) at the folder that holds it."


@contextmanager
def staged_folder(target: Path, owns: Callable[[str], object] = lambda _name: False) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block succeeds: nobody meets half a data set.

    Args:
        target: folder to write, or to write anew.
        owns: whether a file found in `target` (path relative to it, "/" separated) is one the lab writes there, which
            may be replaced.

    Raises:
        DataError: the folder cannot be written, or holds files of somebody else's.
    """
    foreign = (path.relative_to(target).as_posix() for path in sorted(target.rglob("*")) if not path.is_dir())
    if (name := next((name for name in foreign if not owns(name)), None)) is not None:
        raise DataError(
            f"{target} is not a complete copy, and holds files that were not fetched, such as {name}. Expected nothing "
            "there, so that nothing is lost: move the folder away, or choose another data root."
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
            f"Cannot write {target} ({error.strerror or error}). Expected a writable data root with room: pass "
            "--data-root or set PDDM_LAB_DATA."
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
    """Raise one DataError unless every file or folder of an official layout is there.

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
        raise DataError(f"There is no {title} at {root}: expected a folder with {', '.join(needed)}. {advice}")
    raise DataError(
        f"{root} is not laid out as {title}: expected {', '.join(needed)}, and {', '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} missing. {advice}"
    )


def check_counts(listing: Listing, items: int, classes: int, title: str, advice: str) -> Listing:
    """The listing itself, when it has the published number of items and classes.

    Raises:
        DataError: it has others.
    """
    found = len(listing.ids), len(listing.class_names)
    if found != (items, classes):
        raise DataError(
            f"{listing.root} lists {found[0]} images of {found[1]} classes; {title} has {items} of {classes}. The copy "
            f"is incomplete or another data set. {advice}"
        )
    return listing


def read_rows(path: Path, columns: int, *, separator: str | None = None, header: bool = False) -> list[list[str]]:
    """Rows of a small text table; blank lines are passed over.

    Args:
        path: a text file.
        columns: columns of every row; the last one keeps any further separators.
        separator: between columns; None: white space.
        header: whether the first line names the columns.

    Raises:
        DataError: a line with fewer columns, or a file that is no text.
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
    """A column of whole numbers, int64; DataError naming the file when one is none."""
    try:
        return np.array([int(cell) for cell in cells], dtype=np.int64)
    except ValueError as error:
        raise DataError(f"{path}: expected whole numbers in its columns of ids ({error}).") from error
