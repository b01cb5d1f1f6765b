"""What people correct in a data set: items with another class, and items to leave out.

<runs>/corrections/<data set>.csv   id, action (relabel or exclude), new_class, time, reason

The file lies beside the runs, so that nobody's data change. A line is a decision, and the last one of an item counts.
A training takes them where it is started with `corrections` (corrected.py), and keeps a copy in its run.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from pddm_lab.config import typed_path
from pddm_lab.errors import DataError
from pddm_lab.files import holding, write_file, writing

FOLDER = "corrections"
COPY = "corrections.csv"
"""In a run's folder: the corrections that it was trained with."""
COLUMNS = ("id", "action", "new_class", "time", "reason")
_Name = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00-\x1f]*$")]
_OWN = ("folder", "manifest")


class Correction(BaseModel):
    """A line of the file: what is decided about an item."""

    model_config = ConfigDict(frozen=True)

    id: _Name
    action: Literal["relabel", "exclude"]
    new_class: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]*$")] = ""
    """Of a relabelled item."""
    time: AwareDatetime
    reason: Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")] = ""

    @model_validator(mode="after")
    def _has_a_class(self) -> Correction:
        if bool(self.new_class) != (self.action == "relabel"):
            raise ValueError("expected a new_class for relabel, and none for exclude")
        return self


@dataclass(frozen=True)
class Corrections:
    """The decisions about the items of a data set, in the order they were made."""

    lines: tuple[Correction, ...] = ()

    @cached_property
    def by_item(self) -> dict[str, Correction]:
        """Item id -> the decision that counts."""
        return {line.id: line for line in self.lines}

    @property
    def text(self) -> str:
        """The content of the file."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((one.id, one.action, one.new_class, one.time.isoformat(), one.reason) for one in self.lines)
        return buffer.getvalue()

    @property
    def digest(self) -> str:
        """SHA-256 of what they change: ids, actions and classes, without times and reasons."""
        changes = sorted((one.id, one.action, one.new_class) for one in self.by_item.values())
        return hashlib.sha256(repr(changes).encode()).hexdigest()

    @property
    def summary(self) -> str:
        """How many items they change, in words."""
        relabelled = sum(one.action == "relabel" for one in self.by_item.values())
        return f"{relabelled:,} relabelled, {len(self.by_item) - relabelled:,} excluded"


def name_of(dataset: str) -> str:
    """What the files about a data set are called: its name, or for one's own images their folder's and a short hash."""
    prefix, colon, path = dataset.partition(":")
    if colon and prefix in _OWN:
        place = typed_path(path).resolve()
        digest = hashlib.sha256(str(place).encode(errors="replace")).hexdigest()[:8]
        return f"{prefix}-{_in_a_name(place.stem)}-{digest}"
    return _in_a_name(dataset)


def _in_a_name(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.")[:80]


def corrections_file(root: Path, dataset: str) -> Path:
    """Where the corrections of a data set are kept.

    Args:
        root: folder that holds the runs.
        dataset: as `TrainConfig.dataset` names it.
    """
    return root / FOLDER / f"{name_of(dataset)}.csv"


def read_corrections(file: Path) -> Corrections:
    """The corrections in a file; none where it is missing.

    Raises:
        DataError: it can't be read, or a line is not one of this lab.
    """
    hint = "Correct it there, or move the file away to begin anew."
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Corrections()
    except (OSError, ValueError) as error:
        raise DataError(f"{file} can't be read ({error}): expected a CSV in UTF-8. {hint}") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: list[Correction] = []
    try:
        if tuple(head := next(reader, [])) != COLUMNS:
            raise DataError(f"{file}, line 1: expected {','.join(COLUMNS)}, got {','.join(head)[:200]!r}. {hint}")
        for cells in reader:
            if len(cells) != len(COLUMNS):
                came = f"expected {len(COLUMNS)} columns, got {len(cells)}"
                raise DataError(f"{file}, line {reader.line_num}: {came}. {hint}")
            lines.append(Correction.model_validate(dict(zip(COLUMNS, cells, strict=True))))
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: expected a CSV ({error}). {hint}") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the line"
        raise DataError(f"{file}, line {reader.line_num}: {field}: {first['msg']}. {hint}") from error
    return Corrections(tuple(lines))


def relabel(file: Path, items: Iterable[str], new_class: str, reason: str = "") -> Corrections:
    """Give items another class. Returns all corrections; raises as `read_corrections`, RunError if it can't write."""
    return _add(file, items, "relabel", new_class, reason)


def exclude(file: Path, items: Iterable[str], reason: str = "") -> Corrections:
    """Leave items out. Returns and raises as `relabel` does."""
    return _add(file, items, "exclude", "", reason)


def undo(file: Path, items: Collection[str] = ()) -> tuple[Corrections, list[str]]:
    """Take back all decisions about some items; without any, the last decision, with all items that it was made for.

    Returns:
        The corrections that remain, and the items concerned.

    Raises:
        DataError: there is nothing to take back, or an item has no correction.
    """
    with _changing(file) as before:
        if unknown := [item for item in items if item not in before.by_item]:
            raise DataError(f"{file} corrects no item {unknown[0]!r}: `pddm-lab data corrections list` shows which.")
        if not before.lines:
            raise DataError(f"{file} has no correction to undo.")
        last, named = before.lines[-1].time, set(items)
        goes = [line.id in named if named else line.time == last for line in before.lines]
        after = Corrections(tuple(line for line, gone in zip(before.lines, goes, strict=True) if not gone))
        write_file(file, after.text)
    return after, list(dict.fromkeys(line.id for line, gone in zip(before.lines, goes, strict=True) if gone))


def _add(file: Path, items: Iterable[str], action: str, new_class: str, reason: str) -> Corrections:
    shared = {"action": action, "new_class": new_class, "time": datetime.now(UTC), "reason": reason.strip()}
    try:
        lines = [Correction.model_validate({"id": item, **shared}) for item in dict.fromkeys(items)]
    except ValidationError as error:
        raise DataError(f"This correction can't be kept: {error.errors()[0]['msg']}.") from error
    with _changing(file) as before:
        after = Corrections((*before.lines, *lines))
        write_file(file, after.text)
    return after


@contextmanager
def _changing(file: Path) -> Iterator[Corrections]:
    """The corrections in a file, which no other process changes meanwhile."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    with holding(file.with_name(f".{file.name}.lock")):
        yield read_corrections(file)
