"""Changes of the catalogue that the service makes, by the functions that the command line uses too."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from starlette.exceptions import HTTPException

from pddm_lab.errors import BusyError, DataError, RunError
from pddm_lab.gallery import changes
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.runs.new_items import Picture, item_rows
from pddm_lab.service.answers import Changed, Skipped
from pddm_lab.service.catalogue import Snapshot
from pddm_lab.service.document import NEW_CLASS
from pddm_lab.service.pictures import Upload
from pddm_lab.service.worker import Served
from pddm_lab.wording import counted

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def row_of(snapshot: Snapshot, item: str) -> int:
    """The row of an item; 404 if there is none."""
    try:
        return snapshot.gallery.index_of(item)
    except RunError:
        raise HTTPException(404, f"Unknown item {item!r}: GET /v1/items lists all items.") from None


def check_new_class(field: str, name: str) -> None:
    """422 if a class can't be given a name; a class that has one already can still be renamed and removed."""
    if not re.fullmatch(NEW_CLASS, name):
        raise HTTPException(
            422, f"{field}: expected a name without control characters whose parts, between slashes, are more than "
            f"dots and blanks, got {name!r}.",
        )  # fmt: skip


def check_pictures(served: Served) -> None:
    """409 if there is no model that embeds pictures."""
    if served.pictures.reason:
        raise HTTPException(409, served.pictures.reason)


async def add(served: Served, class_name: str, uploads: Sequence[Upload], reason: str) -> Changed:
    """Add pictures as items <class>/<name of the file>; what can't be read is skipped, unless it is all."""
    check_new_class("class_name", class_name)
    class_name = class_name.strip()
    named = [(f"{class_name}/{file_name(upload)}", upload) for upload in uploads]
    snapshot = await served.catalogue.now()
    known = set(snapshot.ids)
    if taken := [item for item, _ in named if item in known]:
        raise HTTPException(409, f"{taken[0]!r} is in the catalogue already: PUT /v1/item replaces its picture.")
    if len({item for item, _ in named}) < len(named):
        raise HTTPException(409, "Two of the pictures have the same file name: rename one.")
    made = await asyncio.gather(*(_stored(served, upload) for upload in uploads))
    skipped = [
        Skipped(file=upload.name, reason=one) for upload, one in zip(uploads, made, strict=True) if isinstance(one, str)
    ]
    good = [(item, upload, one) for (item, upload), one in zip(named, made, strict=True) if isinstance(one, Picture)]
    if not good:
        raise HTTPException(422, skipped[0].reason)
    ids, files, pictures = (list(part) for part in zip(*good, strict=True))

    def work(gallery: Gallery) -> Gallery:
        rows = item_rows(served.run, gallery, ids, [class_name] * len(ids))
        new = _new(served, rows, files, pictures)
        return changes.add(gallery, new, served.structure, reason)

    return await _change(served, work, f"added {counted(len(ids), 'item')}", ids, skipped)


async def update(served: Served, item: str, upload: Upload, reason: str) -> Changed:
    """Replace the picture of an item."""
    row_of(await served.catalogue.now(), item)
    made = await _stored(served, upload)
    if isinstance(made, str):
        raise HTTPException(422, made)

    def work(gallery: Gallery) -> Gallery:
        rows = gallery.items.iloc[[gallery.index_of(item)]].reset_index(drop=True)
        return changes.update(gallery, _new(served, rows, [upload], [made]), served.structure, reason)

    return await _change(served, work, "updated 1 item", [item])


async def remove(served: Served, ids: Sequence[str], reason: str) -> Changed:
    """Remove items."""
    snapshot, ids = await served.catalogue.now(), list(dict.fromkeys(ids))
    for item in ids:
        row_of(snapshot, item)
    return await _change(
        served, lambda gallery: changes.remove(gallery, ids, served.structure, reason),
        f"removed {counted(len(ids), 'item')}", ids,
    )  # fmt: skip


async def remove_class(served: Served, name: str, reason: str) -> Changed:
    """Remove the items of a class."""
    return await remove(served, await members(served, name), reason)


async def members(served: Served, name: str) -> list[str]:
    """The items of a class; 404 if there is none."""
    snapshot = await served.catalogue.now()
    ids = [item for item, of in zip(snapshot.ids, snapshot.classes, strict=True) if of == name]
    if not ids:
        raise HTTPException(404, f"Unknown class {name!r}: GET /v1/classes lists all classes.")
    return ids


async def rename(served: Served, old: str, name: str, reason: str) -> Changed:
    """Rename a class, or merge it with the one that has the name."""
    check_new_class("to", name)
    ids = await members(served, old)
    return await _change(
        served, lambda gallery: changes.rename_class(gallery, old, name, served.structure, reason),
        f"{counted(len(ids), 'item')} of {old!r} now of {name!r}", ids,
    )  # fmt: skip


async def undo(served: Served) -> Changed:
    """Take back the last change."""
    undone = []

    def work(gallery: Gallery) -> Gallery:
        after, change = changes.undo(gallery, served.structure)
        undone.append(change.what)
        return after

    changed = await _change(served, work, "", [])
    return changed.model_copy(update={"what": f"undone: {undone[-1]}"})


def file_name(upload: Upload) -> str:
    """The name of an uploaded file as the end of an item's id; by its content where it has none."""
    name = _CONTROL.sub("", upload.name.replace("\\", "/").rpartition("/")[2]).strip()[-150:]
    return hashlib.sha256(upload.data).hexdigest()[:16] if name in ("", ".", "..") else name


async def _stored(served: Served, upload: Upload) -> Picture | str:
    """What the gallery stores of a picture, or why it can't be read."""
    check_pictures(served)
    try:
        return await served.pictures.stored(upload.data)
    except DataError as error:
        return str(error)


def _new(
    served: Served, rows: pd.DataFrame, files: Sequence[Upload], pictures: Sequence[Picture]
) -> changes.NewItems:  # fmt: skip
    pretrained = [one.pretrained for one in pictures]
    further = None if pretrained[0] is None else np.stack([one for one in pretrained if one is not None])
    kept = [served.pictures.keep(upload) for upload in files]
    features = np.stack([one.feature for one in pictures])
    thumbs, models = [one.thumb for one in pictures], served.run.models()
    return changes.NewItems(rows, features, thumbs, kept, further, models)


async def _change(
    served: Served, work: Callable[[Gallery], Gallery], what: str, ids: list[str], skipped: Sequence[Skipped] = ()
) -> Changed:  # fmt: skip
    try:
        snapshot = await asyncio.to_thread(served.catalogue.change, work)
    except BusyError:
        raise
    except RunError as error:  # it was changed since it was looked at, or can't be changed so
        raise HTTPException(409, str(error)) from error
    served.decisions.follow(snapshot.gallery)
    return Changed(
        what=what, ids=ids, skipped=list(skipped), items=len(snapshot.gallery), change=snapshot.change
    )  # fmt: skip
