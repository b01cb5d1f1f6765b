"""What was changed in a gallery, when and why, with the items that each change took away, from which it is undone.

gallery/<protocol>/history/
  N.json          change N of the gallery, and which places it appended
  N-rows.parquet  the items that it removed, replaced or renamed, as they were
  N.parquet       instead of both, from older versions: all items before the change

Features and pictures are only ever appended, so items with their places are all that a state needs. A change writes its
history first and then becomes the gallery's; what a broken change left is ignored, and deleted by the next. So is the
history of a gallery that was written anew since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from pddm_lab.errors import RunError
from pddm_lab.files import Content, Count, Text, read_json, read_table, replacing, write_file, writing
from pddm_lab.gallery.files import HISTORY, ROLES, changing, read_manifest, written_at
from pddm_lab.gallery.schema import ITEMS, METADATA

_HINT = "The gallery itself is whole; this change can't be undone."


class _ChangeContent(Content):
    """N.json."""

    change: Count
    time: Text
    what: Text
    reason: Text
    items: Count
    first: Count = 0
    appended: Count | None = None
    recall: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]] = Field(default_factory=dict)


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
    first: int = 0
    """The first place that it appended."""
    appended: int | None = None
    """How many places; None: all items before it were kept."""
    recall: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Similarity -> R@1 of the saved queries before and after it; empty where none were saved."""


def note(path: Path, change: int, items: int, rows: pd.DataFrame, appended: range, text: Mapping[str, str]) -> None:
    """Keep what undoing a change takes.

    Args:
        path: of the gallery.
        change: number that the change will have.
        items: in the gallery before it.
        rows: those of them that it removes, replaces or renames: id, label, class_name, role, place, picture, metadata.
        appended: places that it appends.
        text: what, reason.
    """
    folder = path / HISTORY
    with writing(folder):
        folder.mkdir(exist_ok=True)
    with replacing(folder / f"{change}-rows.parquet") as file:
        rows.to_parquet(file, index=False)
    content = {
        "change": change, "time": datetime.now(UTC).isoformat(timespec="seconds"), **text, "items": items,
        "first": appended.start, "appended": len(appended),
    }  # fmt: skip
    write_file(folder / f"{change}.json", json.dumps(content, ensure_ascii=False))


def changes(path: Path, manifest: Mapping[str, Any]) -> list[Change]:
    """The changes that can be undone, the last one first.

    Raises:
        RunError: an entry is damaged or was not written by this lab.
    """
    entries = []
    for file in (path / HISTORY).glob("*.json"):
        content = read_json(file, _ChangeContent, f"{file} is missing. {_HINT}", _HINT)
        if written_at(manifest) < content["change"] <= int(manifest.get("change", 0)):
            fields = {name: content[name] for name in _ChangeContent.model_fields if name in content}
            recall = {name: (before, after) for name, (before, after) in content.get("recall", {}).items()}
            entries.append(Change(**fields | {"recall": recall}))
    return sorted(entries, key=lambda change: -change.change)


def keep_recall(path: Path, number: int, recall: Mapping[str, tuple[float, float]]) -> None:
    """Add to the change of a number what it did to the saved queries, unless it is undone by now or was an undo.

    Raises:
        BusyError: another process is changing the gallery.
        RunError: the history is damaged, or can't be written.
    """
    with changing(path):
        for change in changes(path, read_manifest(path)):
            if change.change == number:
                content = asdict(change) | {"recall": dict(recall)}
                write_file(path / HISTORY / f"{number}.json", json.dumps(content, ensure_ascii=False))


def file_of(path: Path, change: Change) -> Path:
    """The items that a change took away, or all items before it."""
    return path / HISTORY / f"{change.change}{'.parquet' if change.appended is None else '-rows.parquet'}"


def items_before(path: Path, change: Change, after: pd.DataFrame) -> pd.DataFrame:
    """The items before a change.

    Args:
        path: of the gallery.
        change: the last one.
        after: the items after it: id, label, class_name, role, place, picture, and metadata.

    Raises:
        RunError: what was kept of them is missing, damaged or was not written by this lab.
    """
    import pyarrow.parquet as pq

    file = file_of(path, change)
    items = read_table(file, ITEMS, _HINT, optional=("picture",), among={"role": ROLES}).to_pandas()
    names = [name for name in pq.read_schema(file).names if name.startswith(METADATA)]
    if names:
        items = items.join(read_table(file, dict.fromkeys(names, "string"), _HINT, optional=names).to_pandas())
    if change.appended is not None:
        goes = after["place"].between(change.first, change.first + change.appended - 1)
        stays = after[~goes & ~after["place"].isin(items["place"])]
        items = pd.concat([stays, items]).sort_values("place", ignore_index=True) if len(items) else stays
    if not len(items) or items["id"].duplicated().any() or items["place"].duplicated().any():
        raise RunError(f"{file} is damaged: expected items, each once. {_HINT}")
    return items.reset_index(drop=True)


def forget(path: Path, change: Change) -> None:
    """Remove a change that was undone."""
    for file in (path / HISTORY / f"{change.change}.json", file_of(path, change)):
        with suppress(OSError):  # it stays listed, and undoing it once more changes nothing
            file.unlink(missing_ok=True)
