"""What a source of images offers: where it lies, what is in it, how to fetch it. One file per source lies beside."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pddm_lab.errors import DataError

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is being done)."""

_STALE_SECONDS = 3600


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
def staged_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place when the block succeeds: nobody meets half a data set.

    Raises:
        DataError: the folder cannot be written.
    """
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for stale in target.parent.glob(f".{target.name}.partial-*"):
            if stale == partial or time.time() - stale.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(stale, ignore_errors=True)
        partial.mkdir()
    except OSError as error:
        raise DataError(
            f"Cannot write {target} ({error.strerror or error}). Expected a writable data root: pass --data-root "
            "or set PDDM_LAB_DATA."
        ) from error
    try:
        yield partial
        _replace_folder(partial, target)
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
