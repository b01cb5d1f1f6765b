"""What was done with each file whose picture became an item or not, and which pictures are there already."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np

from pddm_lab.data.by_content import content_hash
from pddm_lab.data.images import open_image
from pddm_lab.data.imported import read_imported
from pddm_lab.errors import DataError
from pddm_lab.files import write_file
from pddm_lab.gallery.changes import NewItems, with_sources
from pddm_lab.gallery.files import THUMB_SIDE
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.pictures import file_of
from pddm_lab.progress import Progress
from pddm_lab.runs.run import Run

NEAR = 0.02
"""Features of one picture differ by less, also where they were computed in other batches and with 16 bits."""
_CANDIDATES = 3
Done = Literal["added", "replaced", "skipped", "imported"]


@dataclass(frozen=True)
class FileReport:
    """What was done with a file."""

    file: str
    """Its path in the folder."""
    item: str
    """Id that its item has or would have."""
    done: Done
    why: str = ""
    """Why it was skipped, or what is to be known of it; a sentence without its end."""


def write_reports(reports: Iterable[FileReport], file: Path) -> None:
    """Write a table of files, in CSV.

    Raises:
        RunError: the file can't be written.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([field.name for field in fields(FileReport)])
    writer.writerows(map(astuple, reports))
    write_file(file, out.getvalue())


def reports_of_import(run: Run, progress: Progress | None = None) -> list[FileReport]:
    """What became of each row that a run imported: whose picture can't be read, and whose features an earlier row has.

    Raises:
        RunError: the run doesn't keep what it imported, or it is damaged.
    """
    imported = read_imported(run.path)
    first: dict[bytes, str] = {}
    reports = [FileReport(one["id"], "", "skipped", one["reason"]) for one in run.info["dataset"].get("skipped") or ()]
    for row, item in enumerate(imported.dataset.ids):
        why = []
        try:
            open_image(imported.dataset.path(row), THUMB_SIDE)
        except (DataError, MemoryError) as error:
            why.append(f"without its picture: {error}")
        if (other := first.setdefault(imported.features[row].tobytes(), item)) != item:
            why.append(f"the same features as {other}")
        reports.append(FileReport(item, item, "imported", "; ".join(why)))
        if progress:
            progress(row + 1, len(imported.features), "pictures")
    return reports


def same_pictures(gallery: Gallery, new: NewItems, root: str) -> list[str]:
    """Which item shows the same picture as each new one, by its bytes or its pixels.

    Args:
        gallery: where the new items are to come.
        new: the items.
        root: of the data set, where the pictures of items lie that were not added; empty if it is not known.

    Returns:
        For each new item the id of one that the gallery searches, else of a new one before it, else "".
    """
    if not len(new.items):
        return []
    rows, distances = gallery.search(new.features, _CANDIDATES)
    sources = with_sources(gallery.path, gallery.manifest)["picture"] if (distances < NEAR).any() else None
    ids, same = new.items["id"].tolist(), []
    first: dict[bytes, int] = {}
    for at, item in enumerate(ids):
        itself = new.pictures[at] if new.pictures else None
        equal = ""
        for row in rows[at][distances[at] < NEAR]:
            other = str(gallery.items["id"].iloc[row])
            assert sources is not None
            file = file_of(root, other, sources.iloc[row])
            if other != item and (gallery.thumb(row) == new.thumbs[at] or _are_equal(itself, file)):
                equal = other
                break
        earlier = first.setdefault(new.thumbs[at], at)
        if not equal and earlier < at and np.linalg.norm(new.features[at] - new.features[earlier]) < NEAR:
            equal = ids[earlier]
        same.append(equal)
    return same


def without(new: NewItems, rows: Sequence[int]) -> NewItems:
    """New items without some of them."""
    keep = np.setdiff1d(np.arange(len(new.items)), rows)
    return NewItems(
        new.items.iloc[keep].reset_index(drop=True), new.features[keep], [new.thumbs[row] for row in keep],
        [new.pictures[row] for row in keep] if new.pictures else [],
        None if new.pretrained is None else new.pretrained[keep], new.models,
    )  # fmt: skip


def _are_equal(one: Path | None, other: Path | None) -> bool:
    """Whether two picture files have the same bytes or the same pixels."""
    if one is None or other is None or not other.is_file():
        return False
    if content_hash(one) == content_hash(other):
        return True
    try:
        return np.array_equal(np.asarray(open_image(one)), np.asarray(open_image(other)))
    except (DataError, MemoryError):
        return False
