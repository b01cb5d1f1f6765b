"""Pictures of a folder as new items of a run's gallery, embedded as the run's own items were."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from pddm_lab.data.images import open_image
from pddm_lab.data.pictures import find_pictures
from pddm_lab.errors import DataError, LabError
from pddm_lab.gallery.changes import NewItems
from pddm_lab.gallery.files import require_writable, thumbnail
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.model.features import in_threads, parts_of
from pddm_lab.progress import Progress
from pddm_lab.runs.file_reports import Done, FileReport, same_pictures, without
from pddm_lab.runs.model import Embeds, embedder
from pddm_lab.runs.run import Run
from pddm_lab.wording import counted

_LAYOUT = "expected FOLDER/<class>/<image>"
_UPDATE = "pddm-lab gallery update"
_NAMED = 3
"""New classes with names like others that notes name."""


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
    reports: list[FileReport]
    """What is done with each picture."""


class NothingNewError(LabError):
    """No picture of a folder becomes an item, or the new picture of one."""

    def __init__(self, reason: str, reports: list[FileReport], notes: list[str], is_failure: bool) -> None:
        super().__init__(reason)
        self.reports, self.notes = reports, notes
        self.is_failure = is_failure
        """Whether none could be read; else the gallery has all that could be."""


def to_add(
    run: Run, gallery: Gallery, folder: Path, progress: Progress | None = None, model: str = "",
    skip_duplicates: bool = False,
) -> FolderItems:  # fmt: skip
    """The pictures FOLDER/<class>/<image> as items with the id <class>/<image>; a class may be a path, as in training.

    Their labels and roles are as `item_rows` says. A picture whose id the gallery has is left out. `model` is as for
    `embedder`; with `skip_duplicates` a picture that the gallery shows under another id is left out, too.

    Raises:
        DataError: the folder does not exist, or has no picture in a class folder.
        NothingNewError: the gallery has the ids or pictures of all that can be read.
        RunError: the gallery can't be written, or the run has no model.
    """
    pictures, notes = _pictures(folder)
    files, left = {item: file for item, file in pictures.items() if "/" in item}, []
    left += [FileReport(item, "", "skipped", "it is in no class folder") for item in pictures if item not in files]
    if loose := len(pictures) - len(files):
        notes.append(f"Skipped {counted(loose, 'picture')} outside of class folders.")
    if not files:
        raise DataError(f"{folder} has no pictures in class folders: {_LAYOUT}.")
    taken = [item for item in gallery.items["id"] if item in files]
    for item in taken:
        del files[item]
        left.append(FileReport(item, item, "skipped", f"an item has this id: {_UPDATE} replaces its picture"))
    there = ""
    if taken:
        have = f"{counted(len(taken), 'picture has an id', 'pictures have ids')} of the {gallery.protocol} gallery"
        there = f"Nothing was added: {have} already, such as {taken[0]} (`{_UPDATE}` replaces their pictures)"
    if not files:
        raise NothingNewError(f"{there}.", left, notes, is_failure=False)
    items = item_rows(run, gallery, list(files), [item.rpartition("/")[0] for item in files])
    require_writable(gallery.path)
    made = _embedded(run, items, files, set(gallery.items["class_name"]), notes, progress, model, "added", left)
    if made.new.items.empty:
        others = f"{there}; the other {counted(len(files), 'picture')} can't be read. The first error: "
        reason = f"{others}{made.skipped[0]}" if taken else _unreadable(made)
        raise NothingNewError(reason, made.reports, notes, is_failure=not taken)
    if taken:
        notes.append(f"Left out {counted(len(taken), 'picture')} whose ids the gallery has, such as {taken[0]}.")
    return _with_similar_names(run, gallery, _with_duplicates(run, gallery, made, skip_duplicates))


def item_rows(run: Run, gallery: Gallery, ids: Sequence[str], classes: Sequence[str]) -> pd.DataFrame:
    """id, label, class_name, role of new items of a gallery.

    If the gallery's own items are queries too, so are these; else they are only searched. A class name that occurs in
    one of the run's galleries keeps its label.

    Args:
        run: that the gallery is of.
        gallery: that gets the items.
        ids: of the items.
        classes: name of each item's class.
    """
    labels: dict[str, int] = {}
    for one in (*(run.gallery(name) for name in run.galleries() if name != gallery.protocol), gallery):
        known = one.items.drop_duplicates("class_name")
        labels |= dict(zip(known["class_name"].astype(str), known["label"].astype(int), strict=True))
    for name in classes:
        labels.setdefault(name, max(labels.values(), default=-1) + 1)
    role = "both" if gallery.items["role"].eq("both").any() else "gallery"
    columns = {"id": ids, "label": [labels[name] for name in classes], "class_name": classes, "role": role}
    return pd.DataFrame(columns)


def to_update(
    run: Run, gallery: Gallery, folder: Path, progress: Progress | None = None, model: str = ""
) -> FolderItems:  # fmt: skip
    """New pictures FOLDER/<id of the item> of items that are in the gallery; they keep their class and role.

    A picture whose name is no item's id is left out.

    Raises:
        DataError: the folder does not exist, or has no picture.
        NothingNewError: none of the pictures can be read.
        RunError: no picture has the id of an item in the gallery, it can't be written, or the run has no model.
    """
    files, notes = _pictures(folder)
    known = set(gallery.items["id"])
    if not known & set(files):
        gallery.index_of(next(iter(files)))  # raises: there is no such item
    unknown = [item for item in files if item not in known]
    for item in unknown:
        del files[item]
    if unknown:
        notes.append(f"Left out {counted(len(unknown), 'picture')} whose names are no item's id, such as {unknown[0]}.")
    items = gallery.items.iloc[[gallery.index_of(item) for item in files]].reset_index(drop=True)
    require_writable(gallery.path)
    left = [FileReport(item, item, "skipped", "no item has this id: pddm-lab gallery add adds it") for item in unknown]
    made = _embedded(run, items, files, set(items["class_name"]), notes, progress, model, "replaced", left)
    if made.new.items.empty:
        raise NothingNewError(_unreadable(made), made.reports, notes, is_failure=True)
    return made


def _with_duplicates(run: Run, gallery: Gallery, made: FolderItems, skipped: bool) -> FolderItems:
    """Report the pictures that are there already, and leave them out if they are to be skipped."""
    same = same_pictures(gallery, made.new, run.info["dataset"].get("root") or "")
    of_item = {item: other for item, other in zip(made.new.items["id"], same, strict=True) if other}
    if not of_item:
        return made
    done: Done = "skipped" if skipped else "added"
    elsewhere = _in_other_classes(gallery, made.new, of_item) if run.is_labelled else {}
    twins = {item: f"the same picture as {other}" for item, other in of_item.items()}
    twins |= {item: f"{twins[item]}, which is of the class {name}" for item, name in elsewhere.items()}
    reports = [replace(one, done=done, why=twins[one.item]) if one.item in twins else one for one in made.reports]
    item = next(iter(elsewhere or twins))
    some = f"{len(elsewhere):,} of them " if len(elsewhere) < len(twins) else ""
    in_others = f", {some}in another class" if elsewhere else ""
    like = f"there already{in_others}, such as {item}, {twins[item]}."
    if not skipped:
        note = f"{counted(len(of_item), 'added picture is', 'added pictures are')} {like}"
        return replace(made, notes=[*made.notes, note], reports=reports)
    new = without(made.new, [row for row, other in enumerate(same) if other])
    classes = [name for name in made.new_classes if name in set(new.items["class_name"])]
    note = f"Left out {counted(len(of_item), 'picture that is', 'pictures that are')} {like}"
    if new.items.empty:
        reason = f"Nothing was added: the {gallery.protocol} gallery has all of these pictures."
        bad = counted(len(made.skipped), "picture")
        unread = [f"{bad} can't be read. The first error: {made.skipped[0]}"] if made.skipped else []
        raise NothingNewError(reason, reports, [*unread, *made.notes, note], is_failure=False)
    return replace(made, new=new, new_classes=classes, notes=[*made.notes, note], reports=reports)


def _in_other_classes(gallery: Gallery, new: NewItems, of_item: dict[str, str]) -> dict[str, str]:
    """New item -> the class of the item with the same picture, which `of_item` names, where it isn't its own."""
    classes = dict(zip(new.items["id"], new.items["class_name"], strict=True))
    for other in set(of_item.values()) - set(classes):
        classes[other] = str(gallery.items["class_name"].iloc[gallery.index_of(other)])
    return {item: classes[other] for item, other in of_item.items() if classes[item] != classes[other]}


def _with_similar_names(run: Run, gallery: Gallery, made: FolderItems) -> FolderItems:
    """Report the new classes whose names differ from another one by case, spaces, `-` and `_` only."""
    names = dict.fromkeys([*gallery.items["class_name"].astype(str), *made.new_classes])
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(_plain(name), name)
    similar = {name: first[_plain(name)] for name in made.new_classes if first[_plain(name)] != name}
    if not similar:
        return made
    class_of = dict(zip(made.new.items["id"], made.new.items["class_name"], strict=True))
    reports = []
    for one in made.reports:
        if one.done == "added" and (name := class_of[one.item]) in similar:
            why = f"the class {name} is new, and there is also {similar[name]}"
            one = replace(one, why=f"{one.why}; {why}" if one.why else why)
        reports.append(one)
    notes = []
    for name, other in list(similar.items())[:_NAMED]:
        command = shlex.join(["pddm-lab", "gallery", "rename", run.name, name, other, "--protocol", gallery.protocol])
        notes.append(f"The class {name} is new, and there is also {other}: `{command}` merges them.")
    if len(similar) > _NAMED:
        notes.append(f"So it is with {counted(len(similar) - _NAMED, 'more new class', 'more new classes')}.")
    return replace(made, notes=[*made.notes, *notes], reports=reports)


def _plain(name: str) -> str:
    """A class name without what people write in several ways."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).casefold())


def _pictures(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """(picture files by their path relative to the folder, what was passed over)."""
    if not folder.is_dir():
        raise DataError(f"The folder {folder} does not exist: {_LAYOUT}.")
    pictures = find_pictures(folder)
    if not pictures.ids:
        raise DataError(" ".join([f"{folder} has no pictures: {_LAYOUT}.", *pictures.notes()]))
    return {item: folder / item for item in pictures.ids}, pictures.notes()


def _embedded(
    run: Run, items: pd.DataFrame, of_item: dict[str, Path], own_classes: set[str], notes: list[str],
    progress: Progress | None, model: str, done: Done, left: list[FileReport],
) -> FolderItems:  # fmt: skip
    """The pictures that can be read, which may be none; `left` reports those that are left out already."""
    pictures, skipped, reports, files = [], [], [*left], list(of_item.values())
    read = np.ones(len(files), bool)
    for row, (item, made) in enumerate(zip(of_item, embed_pictures(run, files, model), strict=True)):
        if isinstance(made, str):
            read[row] = False
            skipped.append(made)
            reports.append(FileReport(item, item, "skipped", made))
        else:
            pictures.append(made)
            reports.append(FileReport(item, item, done))
        if progress:
            progress(row + 1, len(files), "pictures")
    items = items[read].reset_index(drop=True)
    new_classes = [name for name in items["class_name"].unique() if name not in own_classes]
    sources = [file for file, one in zip(files, read, strict=True) if one]
    features, thumbs, pretrained = zip(*pictures, strict=True) if pictures else ((), (), ())
    rows = np.stack(features) if pictures else np.empty((0, run.config.dim), np.float32)
    further = None if not pictures or pretrained[0] is None else np.stack(pretrained)
    new = NewItems(items, rows, thumbs, sources, further, run.models())
    return FolderItems(new, new_classes, skipped, notes, reports)


def _unreadable(made: FolderItems) -> str:
    return f"None of {len(made.skipped)} pictures can be read. The first error: {made.skipped[0]}"


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
    return embed_each(embedder(run, model), files)


def embed_each(embed: Embeds, files: Sequence[Path | None], thumbs: bool = True) -> Iterator[Picture | str]:
    """As `embed_pictures`, with a model that is loaded already; without `thumbs` the thumbnails are empty."""

    def read(file: Path | None) -> tuple[Any, bytes] | str:
        try:
            if file is None:
                raise DataError("It is not in the data set, and the file it was added from is not known.")
            image = open_image(file, embed.shorter)
            return embed.prepare(image), thumbnail(image) if thumbs else b""
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
