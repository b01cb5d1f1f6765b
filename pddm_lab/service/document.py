"""What the OpenAPI document says beyond the handlers' signatures: errors, pictures, keys, the run's similarities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.openapi.utils import get_openapi

from pddm_lab.service.answers import Problem
from pddm_lab.service.refusals import HEADER, ONLY_HERE, OPEN

TEXT = r"^[^\x00-\x1f\x7f]*$"
"""Names and reasons hold no control characters."""
_PART = r"[^\x00-\x1f\x7f/]*[^\s.\x00-\x1f\x7f/][^\x00-\x1f\x7f/]*"
NEW_CLASS = f"^{_PART}(/{_PART})*$"
"""A class that is named anew, whose items' ids begin with it: no part of it is empty, or dots and blanks alone."""
ItemId = Annotated[
    str, Query(min_length=1, max_length=500, pattern=TEXT, description="Id of an item.", examples=["apple/17.jpg"])
]
PICTURES = "image/jpeg, image/png, image/webp"
"""Kinds of pictures that are named; more are read."""


def problem(status: int, example: str) -> dict[int | str, dict[str, Any]]:
    """The documentation of an error."""
    shown = {"application/json": {"example": {"error": example}}}
    return {status: {"model": Problem, "description": example, "content": shown}}


ERRORS: dict[int | str, dict[str, Any]] = (
    problem(400, "There was an error parsing the body.")
    | problem(401, f"Expected one of the service's API keys in the header {HEADER}, got none.")
    | problem(403, ONLY_HERE)
    | problem(408, "The request did not arrive within 30 s: send it again, or a smaller one.")
    | problem(413, "The request is too large: expected at most 20 MB. Send fewer or smaller pictures.")
    | problem(422, "The uploaded file is not a picture the lab can read. Expected JPEG, PNG, WEBP, ...")
    | problem(429, "Too many requests: try again in 1 s.")
    | problem(500, "The service failed on this request; its log has the details: 8e1f0c2ab34d5e6f.")
    | problem(503, "The service is busy: try again in a second.")
    | problem(504, "No answer within 30 s: try again later, or with fewer pictures.")
)
"""Of every path under /v1."""


def document(app: FastAPI, similarities: Sequence[str], has_keys: bool) -> dict[str, Any]:
    """The OpenAPI document of a service.

    Args:
        app: with all its paths.
        similarities: of the run.
        has_keys: whether it expects a key.
    """
    made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    for path, methods in made["paths"].items():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] == "similarity":
                    parameter["schema"]["enum"] = list(similarities)
            content = operation.get("requestBody", {}).get("content", {})
            if form := content.get("multipart/form-data"):
                schema = made["components"]["schemas"][form["schema"]["$ref"].rpartition("/")[2]]
                form["encoding"] = {
                    name: {"contentType": PICTURES} for name in schema["properties"] if name.startswith("picture")
                }
            if has_keys and path not in OPEN:
                operation["security"] = [{"key": []}]
    if has_keys:
        made["components"]["securitySchemes"] = {"key": {"type": "apiKey", "in": "header", "name": HEADER}}
    return made
