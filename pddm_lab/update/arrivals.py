"""What arrives: pictures of new classes, and new pictures of old ones, from a folder or a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pddm_lab.data.dataset import check_images, read_dataset
from pddm_lab.data.pictures import find_pictures
from pddm_lab.errors import DataError, RunError
from pddm_lab.progress import Progress
from pddm_lab.wording import counted


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Pictures that can be read, with their classes."""

    root: Path
    ids: list[str]
    """Paths relative to the root, which become the items' ids."""
    classes: list[str]
    """Name of each one's class."""
    notes: list[str] = field(default_factory=list)
    """What was passed over, a sentence each."""

    @property
    def paths(self) -> list[Path]:
        """The files."""
        return [self.root / item for item in self.ids]

    def without(self, known: Sequence[str]) -> Arrivals:
        """Those whose ids aren't known yet.

        Raises:
            RunError: all are known.
        """
        there = set(known)
        kept = [at for at, item in enumerate(self.ids) if item not in there]
        if not kept:
            raise RunError(f"All {counted(len(self.ids), 'picture')} of {self.root} are in the catalogue already.")
        notes = list(self.notes)
        if left := len(self.ids) - len(kept):
            notes.append(f"Left out {counted(left, 'picture')} whose ids the catalogue has.")
        return Arrivals(self.root, [self.ids[at] for at in kept], [self.classes[at] for at in kept], notes)


def listed_in(folder: Path) -> dict[str, str]:
    """The pictures FOLDER/<class>/<image>, without reading them: id -> name of the class; a class may be a path.

    Raises:
        DataError: the folder does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"The folder {folder} does not exist: expected FOLDER/<class>/<image>.")
    return {item: item.rpartition("/")[0] for item in find_pictures(folder).ids if "/" in item}


def from_folder(folder: Path, progress: Progress | None = None) -> Arrivals:
    """The pictures of a folder with a folder for each class.

    Raises:
        DataError: the folder does not exist, or has no picture in a class folder that can be read.
    """
    pictures = listed_in(folder)
    root, ids = folder.resolve(), list(pictures)
    if not ids:
        raise DataError(f"{folder} has no pictures in class folders: expected FOLDER/<class>/<image>.")
    reasons, _ = check_images(root, ids, progress=progress)
    kept = [item for item, reason in zip(ids, reasons, strict=True) if not reason]
    bad = [(item, reason) for item, reason in zip(ids, reasons, strict=True) if reason]
    if not kept:
        raise DataError(f"None of {len(ids)} pictures of {folder} can be read. The first error: {bad[0][1]}")
    notes = [f"Skipped {counted(len(bad), 'picture')}; the first is {bad[0][0]}: {bad[0][1]}"] if bad else []
    return Arrivals(root, kept, [pictures[item] for item in kept], notes)


def from_dataset(name: str, data_root: Path, progress: Progress | None = None) -> Arrivals:
    """All items of a data set; raises DataError as `read_dataset` does."""
    read = read_dataset(name, data_root, progress=progress)
    names = [read.class_names[label] for label in read.labels]
    return Arrivals(read.root.resolve(), list(read.ids), names, list(read.notes))
