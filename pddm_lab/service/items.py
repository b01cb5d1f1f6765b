"""/v1/items, /v1/item, /v1/thumbnail, /v1/classes and /v1/changes: the catalogue, listed and changed.

An id holds slashes, which a path can't, so it comes in the query.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, File, Form, Query, Response, UploadFile

from pddm_lab.gallery import history
from pddm_lab.service import answers, edits
from pddm_lab.service.document import ERRORS, NEW_CLASS, TEXT, ItemId, problem
from pddm_lab.service.pictures import Upload
from pddm_lab.service.worker import Here, Working
from pddm_lab.wording import natural

MOST_PICTURES = 100
"""Pictures of a request."""
router = APIRouter(prefix="/v1", tags=["catalogue"], responses=ERRORS)
_UNKNOWN = problem(404, "Unknown item 'apple/9.jpg': GET /v1/items lists all items.")
_UNKNOWN_CLASS = problem(404, "Unknown class 'aple': GET /v1/classes lists all classes.")
_CONFLICT = problem(409, "'apple/17.jpg' is in the catalogue already: PUT /v1/item replaces its picture.")
_Reason = Annotated[str, Query(max_length=500, pattern=TEXT, description="Why, for the history.")]
_ClassName = Annotated[str, Query(min_length=1, max_length=200, pattern=TEXT, examples=["apple"])]
_NewClass = Annotated[
    str, Query(min_length=1, max_length=200, json_schema_extra={"pattern": NEW_CLASS}, examples=["apple"])
]


@router.get("/items", summary="List items")
async def list_items(
    served: Here, page: Annotated[int, Query(ge=1, le=10**9)] = 1, size: Annotated[int, Query(ge=1, le=1000)] = 100,
    class_name: Annotated[str | None, Query(max_length=200, pattern=TEXT, description="Only of this class.")] = None,
) -> answers.Items:  # fmt: skip
    """A page of the items, all or of a class."""
    snapshot = await served.catalogue.now()
    rows = range(len(snapshot.ids))
    if class_name is not None:
        rows = [row for row in rows if snapshot.classes[row] == class_name]  # type: ignore[assignment]
    shown = rows[(page - 1) * size : page * size]
    items = [answers.Item(id=snapshot.ids[row], class_name=snapshot.classes[row]) for row in shown]
    return answers.Items(items=items, total=len(rows), page=page, size=size)


@router.get("/item", summary="Show an item", responses=_UNKNOWN)
async def show_item(served: Here, id: ItemId) -> answers.Item:
    """An item with its class."""
    snapshot = await served.catalogue.now()
    row = edits.row_of(snapshot, id)
    return answers.Item(id=snapshot.ids[row], class_name=snapshot.classes[row])


@router.get(
    "/thumbnail", summary="Thumbnail of an item", response_class=Response,
    responses=_UNKNOWN | {200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}},
)  # fmt: skip
async def thumbnail(served: Here, id: ItemId) -> Response:
    """A JPEG whose longer side has 96 pixels."""
    snapshot = await served.catalogue.now()
    return Response(snapshot.gallery.thumb(edits.row_of(snapshot, id)), media_type="image/jpeg")


@router.post("/items", status_code=201, summary="Add items", responses=_CONFLICT)
async def add_items(
    worker: Working,
    class_name: Annotated[str, Form(
        min_length=1, max_length=200, json_schema_extra={"pattern": NEW_CLASS}, examples=["apple"]
    )],
    pictures: Annotated[list[UploadFile], File(min_length=1, max_length=MOST_PICTURES)],
    reason: Annotated[str, Form(max_length=500, pattern=TEXT)] = "",
) -> answers.Changed:  # fmt: skip
    """Add pictures to a class, which may be new; the next search finds them. An item's id is <class>/<file name>."""
    uploads = [await _upload(one) for one in pictures]
    return await worker.change(lambda served: edits.add(served, class_name, uploads, reason))


@router.put("/item", summary="Replace an item's picture", responses=_UNKNOWN | _CONFLICT)
async def update_item(
    worker: Working, id: ItemId, picture: Annotated[UploadFile, File()], reason: _Reason = ""
) -> answers.Changed:
    """The item keeps its id and its class."""
    upload = await _upload(picture)
    return await worker.change(lambda served: edits.update(served, id, upload, reason))


@router.delete("/items", summary="Remove items", responses=_UNKNOWN | _CONFLICT)
async def remove_items(
    worker: Working, id: Annotated[list[ItemId], Query(min_length=1, max_length=1000)], reason: _Reason = ""
) -> answers.Changed:
    """Remove one item or many; nothing is removed if one of them is unknown."""
    return await worker.change(lambda served: edits.remove(served, id, reason))


@router.get("/classes", summary="List classes")
async def list_classes(served: Here) -> answers.Classes:
    """All classes with their numbers of items."""
    counts = Counter((await served.catalogue.now()).classes)
    return answers.Classes(
        classes=[answers.ClassCount(name=name, items=counts[name]) for name in sorted(counts, key=natural)]
    )


@router.patch("/classes", summary="Rename a class", responses=_UNKNOWN_CLASS | _CONFLICT)
async def rename_class(worker: Working, name: _ClassName, to: _NewClass, reason: _Reason = "") -> answers.Changed:
    """Rename a class, or merge it with the one that has the name."""
    return await worker.change(lambda served: edits.rename(served, name, to, reason))


@router.delete("/classes", summary="Remove a class", responses=_UNKNOWN_CLASS | _CONFLICT)
async def remove_class(worker: Working, name: _ClassName, reason: _Reason = "") -> answers.Changed:
    """Remove all items of a class."""
    return await worker.change(lambda served: edits.remove_class(served, name, reason))


@router.get("/changes", summary="List changes")
async def list_changes(served: Here) -> answers.Changes:
    """The changes that can be undone, the last one first."""
    gallery = (await served.catalogue.now()).gallery
    return answers.Changes(changes=[
        answers.Change(
            change=one.change, time=one.time, what=one.what, reason=one.reason, items_before=one.items,
            recall=one.recall,
        ) for one in history.changes(gallery.path, gallery.manifest)
    ])  # fmt: skip


@router.post("/undo", summary="Undo the last change", responses=problem(409, "There is no change to undo."))
async def undo(worker: Working) -> answers.Changed:
    """Take back the last change that isn't undone."""
    return await worker.change(edits.undo)


async def _upload(file: UploadFile) -> Upload:
    return Upload(file.filename or "", await file.read())
