"""`manifest:FILE.csv`: images with a split of one's own.

FILE.csv: path (relative to the file's folder), label, split (train or test), role (query, gallery or both; may be left
out), and any other columns, which are kept as metadata. Columns are separated by commas, semicolons or tabs.

A class with a row of split train is a training class; its test rows are the queries of the known classes. If no
training class has test rows, the lab holds queries out. The other classes are the unseen classes; without roles, each
of their items is searched among all the others.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, StringConstraints, ValidationError

from pddm_lab.config import typed_path
from pddm_lab.data.source import Listing, Source, Use
from pddm_lab.errors import DataError
from pddm_lab.progress import Progress

NEEDED = ("path", "label", "split")
_DELIMITERS = ",;\t"
_MOST_BYTES = 500_000_000
_Name = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00-\x1f]*$")]
_EXPECTED = {
    "path": "the path of an image", "label": "the name of a class", "split": "train or test",
    "role": "query, gallery, both or nothing",
}  # fmt: skip


class _Kind(NamedTuple):
    """A kind of line: the roles it may have, and why."""

    uses: dict[str, Use]
    why: str


_TRAIN = _Kind(dict.fromkeys(("", "gallery"), Use.TRAIN | Use.GALLERY), "an image to train on")
_KNOWN = _Kind(
    {"": Use.QUERY, "query": Use.QUERY, "gallery": Use.GALLERY}, "a test image of a class that has images to train on"
)
_EACH_AMONG_ALL = _Kind(dict.fromkeys(("", "both"), Use.QUERY | Use.GALLERY), "an image of an unseen class")
_QUERIES_AND_GALLERY = _Kind(
    {"query": Use.QUERY, "gallery": Use.GALLERY}, "an image of an unseen class, and others have one of these roles"
)


class _Row(BaseModel):
    """What the lab reads of a line."""

    path: _Name
    label: _Name
    split: Literal["train", "test"]
    role: Literal["", "query", "gallery", "both"] = ""


@dataclass(frozen=True)
class _Line:
    """A line of the table."""

    number: int
    row: _Row
    metadata: list[str]


def source(path: str) -> Source:
    """A table of images as a source; there is nothing to fetch.

    Raises:
        DataError: no path.
    """
    if not path.strip():
        raise DataError("manifest: needs the path of a table, as in manifest:photos/split.csv.")
    file = typed_path(path)

    def fetch(_data_root: Path, _progress: Progress | None = None) -> Path:
        _text(file)
        return file.parent

    return Source(
        name="manifest", title=file.stem, folder_name=str(file.parent), size="your own table", licence="your own",
        attribution="", list_items=lambda _data_root, _split_seed: list_manifest(file),
        is_present=lambda _data_root: file.is_file(), fetch=fetch,
    )  # fmt: skip


def list_manifest(file: Path) -> Listing:
    """Items in the order of the table, classes in alphabetical order.

    Raises:
        DataError: no such table, or the first line that is wrong, with its column.
    """
    reader = _Reader(file)
    lines: dict[str, _Line] = {}
    for line in reader.lines():
        item = reader.item(line)
        if item in lines:
            raise reader.wrong(line, "path", f"another image than line {lines[item].number}", line.row.path)
        lines[item] = line
    if not lines:
        raise DataError(f"{file} has no lines below its header: expected one for each image.")
    names, labels = np.unique([line.row.label for line in lines.values()], return_inverse=True)
    trains = np.zeros(len(names), dtype=bool)
    trains[labels[[line.row.split == "train" for line in lines.values()]]] = True
    uses = np.array(_uses(reader, list(lines.values()), trains[labels]), dtype=np.uint8)
    notes = []
    if not (uses[trains[labels]] & Use.QUERY).any():
        notes.append("No training class has test rows: the lab holds out queries of the known classes.")
    if trains.all():
        notes.append(f"All {len(names)} classes are used for training: none is unseen.")
    columns = zip(*(line.metadata for line in lines.values()), strict=True)
    return Listing(
        root=file.parent, ids=list(lines), labels=labels.astype(np.int64), class_names=names.tolist(), trains=trains,
        uses=uses, stamp=hashlib.sha256(uses.tobytes()).hexdigest(), notes=notes,
        metadata=dict(zip(reader.metadata, map(list, columns), strict=True)),
    )  # fmt: skip


class _Reader:
    """Reads a table line by line."""

    def __init__(self, file: Path) -> None:
        self.file, self.root = file, file.parent.resolve()
        self._folder = functools.cache(lambda name: os.path.realpath(self.root / name))
        text = _text(file)
        head = io.StringIO(text, newline=None).readline()
        delimiter = max(_DELIMITERS, key=head.count)
        self._rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        names = [name.strip() for name in self._next() or []]
        self._columns = [name.lower() if name.lower() in _EXPECTED else name for name in names]
        self.metadata = [name for name in self._columns if name and name not in _EXPECTED]
        named = [name for name in self._columns if name]
        missing = [name for name in NEEDED if name not in named]
        if missing or len({*named}) < len(named):
            raise DataError(
                f"{file}, line 1: expected columns {', '.join(NEEDED)}, perhaps role, and others, each once and "
                f"separated by commas, semicolons or tabs, got {head.strip()[:200]!r}."
            )

    def lines(self) -> Iterator[_Line]:
        """The lines below the header, checked one by one; empty ones are skipped."""
        while (cells := self._next()) is not None:
            number, cells = self._rows.line_num, [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if len(cells) != len(self._columns):
                raise DataError(
                    f"{self.file}, line {number}: expected {len(self._columns)} cells, one for each column of the "
                    f"header, got {len(cells)}. Put a text that holds a separator into quotes."
                )
            row = dict(zip(self._columns, cells, strict=True))
            for name in {"split", "role"} & row.keys():
                row[name] = row[name].lower()
            try:
                yield _Line(number, _Row.model_validate(row), [row[name] for name in self.metadata])
            except ValidationError as error:
                column = str(error.errors()[0]["loc"][0])
                raise self.wrong(number, column, _EXPECTED[column], row[column]) from None

    def item(self, line: _Line) -> str:
        """The id of a line's image: its path relative to the table's folder."""
        item = posixpath.normpath(line.row.path)
        place = os.path.join(self._folder(posixpath.dirname(item)), posixpath.basename(item))
        real = Path(os.path.realpath(place) if os.path.islink(place) else place)
        if posixpath.isabs(item) or not real.is_relative_to(self.root):
            raise self.wrong(line, "path", f"a path inside of {self.file.parent}, relative to it", line.row.path)
        if not os.path.isfile(place):
            raise self.wrong(line, "path", "an image", f"{item}, which is missing in {self.root}")
        return item

    def wrong(self, line: _Line | int, column: str, expected: str, got: str) -> DataError:
        """The error of a cell."""
        number = line if isinstance(line, int) else line.number
        return DataError(
            f"{self.file}, line {number}, column {column}: expected {expected}, got {got[:200] or 'nothing'}."
        )

    def _next(self) -> list[str] | None:
        try:
            return next(self._rows, None)
        except csv.Error as error:
            raise DataError(f"{self.file}, line {self._rows.line_num}: expected a table in CSV, got {error}.") from None


def _uses(reader: _Reader, lines: list[_Line], of_training_class: np.ndarray) -> list[Use]:
    """The use of each line's image."""
    tests = [line.row.role for line, trained in zip(lines, of_training_class, strict=True) if not trained]
    unseen = _QUERIES_AND_GALLERY if {"query", "gallery"} & {*tests} else _EACH_AMONG_ALL
    uses = []
    for line, trained in zip(lines, of_training_class, strict=True):
        kind = (_TRAIN if line.row.split == "train" else _KNOWN) if trained else unseen
        if line.row.role not in kind.uses:
            expected = " or ".join(name or "nothing" for name in kind.uses)
            raise reader.wrong(line, "role", f"{expected} ({kind.why})", line.row.role)
        uses.append(kind.uses[line.row.role])
    if tests and unseen is _QUERIES_AND_GALLERY and len({*tests}) < 2:
        raise DataError(
            f"{reader.file}: expected queries and a gallery of the unseen classes, got only role {tests[0]}."
        )
    return uses


def _text(file: Path) -> str:
    if not file.is_file():
        raise DataError(f"The table {file} does not exist: expected FILE.csv with columns {', '.join(NEEDED)}.")
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise DataError(f"{file} has more than {_MOST_BYTES / 1e6:.0f} MB: expected a table of paths and labels.")
        return file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Cannot read {file} ({error}). Expected a table in CSV, as UTF-8 text.") from error
