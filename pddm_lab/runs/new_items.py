"""Pictures of a folder as items of a run's gallery, embedded as the run embedded its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pddm_lab.data.images import SUFFIXES, open_image
from pddm_lab.errors import DataError, RunError
from pddm_lab.gallery.changes import NewItems
from pddm_lab.gallery.files import thumbnail
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.progress import Progress
from pddm_lab.runs.model import ImageEmbedder, load_model
from pddm_lab.runs.run import Run

_LAYOUT = "expected FOLDER/<class>/<image>"


@dataclass(frozen=True, eq=False)
class Newcomers:
    """What a folder has for a gallery."""

    new: NewItems
    new_classes: list[str]
    """That the gallery had no item of."""
    passed_over: list[str]
    """Why a picture couldn't be read, one sentence each."""


def to_add(run: Run, gallery: Gallery, folder: Path, progress: Progress | None = None) -> Newcomers:
    """FOLDER/<class>/<image>, each an item of the id <class>/<image>.

    They are queries too where the gallery's own items are both, else they are searched only. A class that the run's
    galleries know by its name keeps its label.

    Raises:
        DataError: no such folder, or no picture that can be read in it.
        RunError: an id is in the gallery already, or the run has no model.
    """
    files = {item: file for item, file in _pictures(folder).items() if item.count("/") == 1}
    if not files:
        raise DataError(f"{folder} has no picture in a folder of a class: {_LAYOUT}.")
    known = gallery.items["id"]
    if (there := known.isin(list(files))).any():
        raise RunError(f"{known[there].iloc[0]!r} is in the gallery {gallery.protocol!r} already: update it.")
    labels: dict[str, int] = {}
    for one in (*(run.gallery(name) for name in run.protocols() if name != gallery.protocol), gallery):
        classes = one.items.drop_duplicates("class_name")
        labels |= dict(zip(classes["class_name"].astype(str), classes["label"].astype(int), strict=True))
    named = [item.partition("/")[0] for item in files]
    for name in named:
        labels.setdefault(name, max(labels.values(), default=-1) + 1)
    role = "both" if gallery.items["role"].eq("both").any() else "gallery"
    columns = {"id": list(files), "label": [labels[name] for name in named], "class_name": named, "role": role}
    own = set(gallery.items["class_name"])
    return _embedded(run, pd.DataFrame(columns), list(files.values()), own, progress)


def to_update(run: Run, gallery: Gallery, folder: Path, progress: Progress | None = None) -> Newcomers:
    """New pictures of items: FOLDER/<id of the item>. Class and role stay.

    Raises:
        DataError: no such folder, or no picture that can be read in it.
        RunError: an id isn't in the gallery, or the run has no model.
    """
    files = _pictures(folder)
    rows = [gallery.index_of(item) for item in files]
    items = gallery.items.iloc[rows].reset_index(drop=True)
    return _embedded(run, items, list(files.values()), set(items["class_name"]), progress)


def _pictures(folder: Path) -> dict[str, Path]:
    """Picture files by their path below the folder; hidden ones are passed over."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}: {_LAYOUT}.")
    found = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*"))}
    pictures = {
        item: file
        for item, file in found.items()
        if file.suffix.lower() in SUFFIXES and file.is_file() and not any(part[0] == "." for part in item.split("/"))
    }
    if not pictures:
        raise DataError(f"{folder} holds no picture: {_LAYOUT}.")
    return pictures


def _embedded(
    run: Run, items: pd.DataFrame, files: list[Path], own_classes: set[str], progress: Progress | None
) -> Newcomers:  # fmt: skip
    embed = ImageEmbedder(run, load_model(run))
    features, thumbs, passed_over = [], [], []
    read = np.ones(len(files), bool)
    for row, file in enumerate(files):
        try:
            str(file).encode()  # a name that is no text can't be an id
            image = open_image(file)
            features.append(embed(image))
            thumbs.append(thumbnail(image))
        except (DataError, UnicodeEncodeError) as error:
            read[row] = False
            passed_over.append(str(error))
        if progress:
            progress(row + 1, len(files), "pictures")
    if not features:
        raise DataError(f"None of {len(files)} pictures can be read. The first: {passed_over[0]}")
    items = items[read].reset_index(drop=True)
    new_classes = [name for name in items["class_name"].unique() if name not in own_classes]
    return Newcomers(NewItems(items, np.stack(features), thumbs), new_classes, passed_over)
