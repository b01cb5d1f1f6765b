"""Pictures of a folder as new items of a run's gallery, embedded as the run's own items were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from pddm_lab.data.images import open_image
from pddm_lab.data.pictures import counted, find_pictures
from pddm_lab.errors import DataError, RunError
from pddm_lab.gallery.changes import NewItems
from pddm_lab.gallery.files import thumbnail
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.model.features import in_threads, parts_of
from pddm_lab.progress import Progress
from pddm_lab.runs.model import embedder
from pddm_lab.runs.run import Run

_LAYOUT = "expected FOLDER/<class>/<image>"


@dataclass(frozen=True, eq=False)
class FolderItems:
    """Items from the pictures of a folder."""

    new: NewItems
    new_classes: list[str]
    """Classes that are new in the gallery."""
    skipped: list[str]
    """Why a picture couldn't be read, one sentence each."""
    notes: list[str]
    """What else of the folder was passed over."""


def to_add(
    run: Run, gallery: Gallery, folder: Path, progress: Progress | None = None, model: str = ""
) -> FolderItems:  # fmt: skip
    """The pictures FOLDER/<class>/<image> as items with the id <class>/<image>; a class may be a path, as in training.

    If the gallery's own items are queries too, so are these; else they are only searched. A class name that occurs in
    one of the run's galleries keeps its label. `model` is as for `embedder`.

    Raises:
        DataError: the folder does not exist, or has no readable picture.
        RunError: an id is already in the gallery, or the run has no model.
    """
    pictures, notes = _pictures(folder)
    files = {item: file for item, file in pictures.items() if "/" in item}
    if loose := len(pictures) - len(files):
        notes.append(f"Skipped {counted(loose, 'picture')} outside of class folders.")
    if not files:
        raise DataError(f"{folder} has no pictures in class folders: {_LAYOUT}.")
    known = gallery.items["id"]
    if (there := known.isin(list(files))).any():
        raise RunError(f"{known[there].iloc[0]!r} is already in the {gallery.protocol} gallery: update it.")
    labels: dict[str, int] = {}
    for one in (*(run.gallery(name) for name in run.galleries() if name != gallery.protocol), gallery):
        classes = one.items.drop_duplicates("class_name")
        labels |= dict(zip(classes["class_name"].astype(str), classes["label"].astype(int), strict=True))
    named = [item.rpartition("/")[0] for item in files]
    for name in named:
        labels.setdefault(name, max(labels.values(), default=-1) + 1)
    role = "both" if gallery.items["role"].eq("both").any() else "gallery"
    columns = {"id": list(files), "label": [labels[name] for name in named], "class_name": named, "role": role}
    own = set(gallery.items["class_name"])
    return _embedded(run, pd.DataFrame(columns), list(files.values()), own, notes, progress, model)


def to_update(
    run: Run, gallery: Gallery, folder: Path, progress: Progress | None = None, model: str = ""
) -> FolderItems:  # fmt: skip
    """New pictures FOLDER/<id of the item> of items that are in the gallery; they keep their class and role.

    Raises:
        DataError: the folder does not exist, or has no readable picture.
        RunError: an id isn't in the gallery, or the run has no model.
    """
    files, notes = _pictures(folder)
    rows = [gallery.index_of(item) for item in files]
    items = gallery.items.iloc[rows].reset_index(drop=True)
    return _embedded(run, items, list(files.values()), set(items["class_name"]), notes, progress, model)


def _pictures(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """(picture files by their path relative to the folder, what was passed over)."""
    if not folder.is_dir():
        raise DataError(f"The folder {folder} does not exist: {_LAYOUT}.")
    pictures = find_pictures(folder)
    if not pictures.ids:
        raise DataError(" ".join([f"{folder} has no pictures: {_LAYOUT}.", *pictures.notes()]))
    return {item: folder / item for item in pictures.ids}, pictures.notes()


def _embedded(
    run: Run, items: pd.DataFrame, files: list[Path], own_classes: set[str], notes: list[str],
    progress: Progress | None, model: str,
) -> FolderItems:  # fmt: skip
    pictures, skipped = [], []
    read = np.ones(len(files), bool)
    for row, made in enumerate(embed_pictures(run, files, model)):
        if isinstance(made, str):
            read[row] = False
            skipped.append(made)
        else:
            pictures.append(made)
        if progress:
            progress(row + 1, len(files), "pictures")
    if not pictures:
        raise DataError(f"None of {len(files)} pictures can be read. The first error: {skipped[0]}")
    items = items[read].reset_index(drop=True)
    new_classes = [name for name in items["class_name"].unique() if name not in own_classes]
    sources = [file for file, one in zip(files, read, strict=True) if one]
    features, thumbs, pretrained = zip(*pictures, strict=True)
    further = None if pretrained[0] is None else np.stack(pretrained)
    return FolderItems(NewItems(items, np.stack(features), thumbs, sources, further), new_classes, skipped, notes)


class Picture(NamedTuple):
    """What a gallery stores of a picture."""

    feature: Float[np.ndarray, " dim"]
    thumb: bytes
    pretrained: Float[np.ndarray, " pretrained"] | None = None
    """None if no similarity of the run uses it."""


def embed_pictures(run: Run, files: Sequence[Path | None], model: str = "") -> Iterator[Picture | str]:
    """What is stored of each picture, or a sentence that says why it can't be read; None is no file.

    `model` is as for `embedder`.
    """
    embed = embedder(run, model)

    def read(file: Path | None) -> tuple[Any, bytes] | str:
        try:
            if file is None:
                raise DataError("It is not in the data set, and the file it was added from is not known.")
            image = open_image(file, embed.shorter)
            return embed.prepare(image), thumbnail(image)
        except (DataError, MemoryError) as error:
            return str(error) or f"{file} needs more memory than is free."

    def work(part: slice) -> list[Picture | str]:
        made = [read(file) for file in files[part]]
        pictures = [one[0] for one in made if not isinstance(one, str)]
        features, pretrained = embed.embed_all(pictures) if pictures else ((), None)
        rows = iter(zip(features, [None] * len(features) if pretrained is None else pretrained, strict=True))
        stored: list[Picture | str] = []
        for one in made:
            if isinstance(one, str):
                stored.append(one)
            else:
                feature, further = next(rows)
                stored.append(Picture(feature, one[1], further))
        return stored

    for part in in_threads(work, parts_of(len(files), embed.threads), embed.threads):
        yield from part
