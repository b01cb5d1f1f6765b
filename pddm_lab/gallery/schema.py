"""What a gallery's manifest.json must hold, and the columns of its tables."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pddm_lab.files import Content, Count, Text

MOST_CLASSES = 10_000_000
ITEMS = {
    **dict.fromkeys(("id", "class_name", "role", "picture"), "string"),
    **dict.fromkeys(("label", "place"), "int64"),
}
"""place and picture only after a change. Columns named `METADATA` and a name hold the data set's own metadata."""
METADATA = "metadata."
DISTRIBUTIONS = {
    "similarity": "string",
    "left": "float64",
    "right": "float64",
    "positive": "int64",
    "negative": "int64",
}
MAP = {"id": "string", **dict.fromkeys(("x", "y", "radius", "overlap"), "float32")}
"""Maps of older versions have no radius and no overlap."""


class PartContent(Content):
    """Size and hash of a part of a file."""

    bytes: Count
    sha256: Text


class FileContent(PartContent):
    """Size and hash of a file, and of the parts that were appended to it."""

    appended: list[PartContent] = Field(default_factory=list)


class PairsContent(Content):
    """How many pairs a distribution counts."""

    scored: Count
    total: Count


class MapContent(Content):
    """How the map was drawn."""

    method: Text = "umap"
    reason: Text = ""
    placed: Count = 0
    """Items that were put between their neighbours since it was drawn."""


class ChangedContent(Content):
    """Items added and removed since the gallery was measured."""

    added: Count
    removed: Count


class ManifestContent(Content):
    """manifest.json."""

    format: Literal[1, 2]
    protocol: Text
    items: Count
    dim: Annotated[int, Field(ge=1, le=2**20)]
    pairs: dict[Text, PairsContent]
    map: MapContent | None
    files: dict[Annotated[str, Field(pattern=r"^\w[\w.-]*$")], FileContent]
    change: Count = 0
    changed: ChangedContent | None = None
    model: Text = ""
    """Stamp of the model that made its vectors (runs/versions.py); galleries of earlier versions don't say."""
