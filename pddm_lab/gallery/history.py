"""What was changed in a gallery, when and why, with the list of items before each change, from which it is undone.

gallery/<protocol>/history/  N.json: change N of the gallery; N.parquet: the items before it

Features and pictures are only ever appended, so a list of items with their places is all that a state needs. A change
writes its history first and then becomes the gallery's; what a broken change left is ignored, and replaced by the next.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from pddm_lab.errors import RunError
from pddm_lab.files import Content, Count, Text, read_json, read_table, replacing, write_file, writing
from pddm_lab.gallery.files import ROLES
from pddm_lab.gallery.schema import ITEMS, METADATA

FOLDER = "history"
_HINT = "The gallery itself is whole; this change can't be undone."


class _ChangeContent(Content):
    """N.json."""

    change: Count
    time: Text
    what: Text
    reason: Text
    items: Count


@dataclass(frozen=True)
class Change:
    """A change of a gallery."""

    change: int
    """Its number."""
    time: str
    """UTC, as ISO 8601."""
    what: str
    reason: str
    items: int
    """Before it."""


def note(path: Path, change: int, before: pd.DataFrame, text: Mapping[str, str]) -> None:
    """Keep the items before a change, and what it does.

    Args:
        path: of the gallery.
        change: number that the change will have.
        before: id, label, class_name, role, place, picture, and metadata.
        text: what, reason.
    """
    folder = path / FOLDER
    with writing(folder):
        folder.mkdir(exist_ok=True)
    with replacing(folder / f"{change}.parquet") as file:
        before.to_parquet(file, index=False)
    content = {"change": change, "time": datetime.now(UTC).isoformat(timespec="seconds"), **text, "items": len(before)}
    write_file(folder / f"{change}.json", json.dumps(content, ensure_ascii=False))


def changes(path: Path, manifest: Mapping[str, Any]) -> list[Change]:
    """The changes that can be undone, the last one first.

    Raises:
        RunError: an entry is damaged or was not written by this lab.
    """
    entries = []
    for file in (path / FOLDER).glob("*.json"):
        content = read_json(file, _ChangeContent, f"{file} is missing. {_HINT}", _HINT)
        if content["change"] <= int(manifest.get("change", 0)):
            entries.append(Change(**{name: content[name] for name in _ChangeContent.model_fields}))
    return sorted(entries, key=lambda change: -change.change)


def file_of(path: Path, change: Change) -> Path:
    """The list of the items before a change."""
    return path / FOLDER / f"{change.change}.parquet"


def items_before(path: Path, change: Change) -> pd.DataFrame:
    """The items before a change, as `note` took them.

    Raises:
        RunError: the list is missing, damaged or was not written by this lab.
    """
    import pyarrow.parquet as pq

    file = file_of(path, change)
    items = read_table(file, ITEMS, _HINT, optional=("picture",), among={"role": ROLES}).to_pandas()
    names = [name for name in pq.read_schema(file).names if name.startswith(METADATA)]
    texts = read_table(file, dict.fromkeys(names, "string"), _HINT, optional=names).to_pandas() if names else None
    if not len(items) or items["id"].duplicated().any():
        raise RunError(f"{file} is damaged: expected items, each once. {_HINT}")
    return items if texts is None else items.join(texts)


def forget(path: Path, change: Change) -> None:
    """Remove a change that was undone."""
    for file in (path / FOLDER / f"{change.change}.json", file_of(path, change)):
        with suppress(OSError):  # it stays listed, and undoing it once more changes nothing
            file.unlink(missing_ok=True)
