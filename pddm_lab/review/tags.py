"""Named sets of a data set's items, kept beside the runs: <runs>/tags/<data set>.json. All runs on the data share them.

A tag says nothing of a class and changes no training: pages filter by it, and `slices.py` measures by it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pddm_lab.data.corrections import name_of
from pddm_lab.errors import DataError, unknown_name
from pddm_lab.files import Content, Text, holding, read_json, write_file, writing

FOLDER = "tags"
LONGEST = 60
_TagName = Annotated[str, Field(min_length=1, max_length=LONGEST, pattern=r"^[^\x00-\x1f]+$")]


class _TagsContent(Content):
    """The file."""

    format: Literal[1]
    tags: dict[_TagName, list[Text]]
    """Name -> ids of items."""


def tags_file(root: Path, dataset: str) -> Path:
    """Where the tags of a data set are kept.

    Args:
        root: folder that holds the runs.
        dataset: as `TrainConfig.dataset` names it.
    """
    return root / FOLDER / f"{name_of(dataset)}.json"


def read_tags(file: Path) -> dict[str, list[str]]:
    """Name -> ids of items, names in order; none where the file is missing.

    Raises:
        RunError: it is damaged or was not written by this lab.
    """
    if not file.exists():
        return {}
    hint = "Correct it, or move the file away to begin anew."
    content = read_json(file, _TagsContent, f"{file} is missing. {hint}", hint)
    return {name: list(map(str, content["tags"][name])) for name in sorted(content["tags"], key=str.casefold)}


def tag(file: Path, name: str, items: Iterable[str]) -> list[str]:
    """Add items to a tag, which begins with them if it is new. Returns all its items.

    Raises:
        DataError: the name is empty, too long, or has characters that can't be shown.
        RunError: the file is damaged or can't be written.
    """
    name = _checked(name)
    with _changing(file) as tags:
        tags[name] = list(dict.fromkeys([*tags.get(name, []), *items]))
    return tags[name]


def untag(file: Path, name: str, items: Iterable[str]) -> list[str]:
    """Take items out of a tag; an empty one is gone. Returns its items; raises as `remove` does."""
    gone = set(items)
    with _changing(file) as tags:
        _known(tags, name)
        tags[name] = [item for item in tags[name] if item not in gone]
        left = tags[name]
        if not left:
            del tags[name]
    return left


def rename(file: Path, name: str, new: str) -> None:
    """Give a tag another name.

    Raises:
        DataError: no such tag, or the new name is taken or can't be one.
        RunError: as `tag`.
    """
    new = _checked(new)
    with _changing(file) as tags:
        _known(tags, name)
        if new in tags:
            raise DataError(f"There is a tag {new!r} already: choose another name, or remove it first.")
        tags[new] = tags.pop(name)


def remove(file: Path, name: str) -> None:
    """Remove a tag; its items stay. Raises DataError if there is no such tag, and RunError as `tag` does."""
    with _changing(file) as tags:
        _known(tags, name)
        del tags[name]


def _checked(name: str) -> str:
    name = name.strip()
    if not name or len(name) > LONGEST or any(character < " " for character in name):
        raise DataError(f"A tag needs a name of 1 to {LONGEST} characters, got {name[: LONGEST + 1]!r}.")
    return name


def _known(tags: dict[str, list[str]], name: str) -> None:
    if name not in tags:
        raise DataError(unknown_name("tag", name, tags))


@contextmanager
def _changing(file: Path) -> Iterator[dict[str, list[str]]]:
    """The tags in a file, to change; they are written at the end, and no other process changes them meanwhile."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    with holding(file.with_name(f".{file.name}.lock")):
        tags = read_tags(file)
        yield tags
        write_file(file, json.dumps({"format": 1, "tags": tags}, ensure_ascii=False, indent=1))
