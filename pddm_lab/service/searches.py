"""/v1/search: by a picture or by an item of the catalogue."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from fastapi import APIRouter, File, Query, Request, UploadFile
from starlette.exceptions import HTTPException

from pddm_lab.errors import unknown_name
from pddm_lab.service import search
from pddm_lab.service.answers import SearchAnswer
from pddm_lab.service.document import ERRORS, ItemId, problem
from pddm_lab.service.edits import check_pictures, row_of
from pddm_lab.service.pictures import Feature
from pddm_lab.service.worker import Here, Served

MOST = 1000
"""Hits of an answer."""
router = APIRouter(prefix="/v1", tags=["search"], responses=ERRORS)
_Count = Annotated[int, Query(ge=1, le=MOST, description="Number of hits.", examples=[5])]
_Similarity = Annotated[str, Query(description="That ranks the hits, and decides.", examples=[search.EUCLIDEAN])]
_Threshold = Annotated[
    float | None,
    Query(allow_inf_nan=False, description="Least similarity of a hit; larger = more similar.", examples=[-1.5]),
]


@router.get("/search", summary="Search with an item", responses=problem(404, "Unknown item 'apple/9.jpg'."))
async def by_item(
    served: Here, item: ItemId, k: _Count = 10, similarity: _Similarity = search.EUCLIDEAN, threshold: _Threshold = None
) -> SearchAnswer:
    """The items most similar to one of the catalogue, without itself."""
    _check_similarity(served, similarity)
    snapshot = await served.catalogue.now()
    served.decisions.follow(snapshot.gallery)
    row, gallery = row_of(snapshot, item), snapshot.gallery
    pretrained = None if gallery.pretrained is None else np.array(gallery.pretrained[row])
    of = Feature(np.array(gallery.features[row]), pretrained)
    own = None if gallery.items["role"].iloc[row] == "query" else row  # a query alone isn't searched
    return (await served.search(search.Query(snapshot, of, own, k, similarity, threshold))).answer


@router.post("/search", summary="Search with a picture", responses=problem(409, "The run has no model for pictures."))
async def by_picture(
    request: Request, served: Here,
    picture: Annotated[UploadFile, File(description="JPEG, PNG, WebP, ...: it is searched with and not kept.")],
    k: _Count = 10, similarity: _Similarity = search.EUCLIDEAN, threshold: _Threshold = None,
) -> SearchAnswer:  # fmt: skip
    """The items most similar to a picture, and the class it shows, if any."""
    _check_similarity(served, similarity)
    check_pictures(served)
    of = await served.pictures.feature(await picture.read())
    snapshot = await served.catalogue.now()
    served.decisions.follow(snapshot.gallery)
    answered = await served.search(search.Query(snapshot, of, None, k, similarity, threshold))
    request.state.scores = answered.scores
    return answered.answer


def _check_similarity(served: Served, name: str) -> None:
    if name not in served.similarities:
        raise HTTPException(422, unknown_name("similarity", name, served.similarities))
