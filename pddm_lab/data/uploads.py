"""Uploaded pictures, kept in a run's folder, so that its galleries can be written again from them.

runs/<name>/uploads/
  <time>/<class>/<picture>  of the dashboard, the layout of a folder that `new_items.to_add` takes
  <sha256>.<ending>         of the service (service/pictures.py), which embeds a picture before it keeps it

A run that takes over items of another one gets their pictures, too, so that it needs nothing of the other's folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from pddm_lab.errors import DataError
from pddm_lab.files import replacing, write_file, writing

FOLDER = "uploads"
_LONGEST = 100
"""Characters of a class or a picture's name: together they stay below what file systems allow."""


@contextmanager
def kept(run: Path, class_name: str, pictures: Sequence[tuple[str, bytes]]) -> Iterator[Path]:
    """Keep pictures of a class. If the block fails, they are removed again.

    Args:
        run: folder of the run.
        class_name: of all of them; "/" separates the parts of a deeper class.
        pictures: (name, content of the file). A name that comes twice gets a number.

    Yields:
        The folder that holds the class's folder.

    Raises:
        DataError: the class or a picture has a name that can't be a folder or file.
        RunError: the files can't be written.
    """
    inner = PurePosixPath(checked_name(class_name, "class"))
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    folder = run / FOLDER / stamp
    used: set[str] = set()
    try:
        with writing(folder):
            (folder / inner).mkdir(parents=True)
        for name, content in pictures:
            write_file(folder / inner / _free(checked_name(os.path.basename(name), "picture"), used), content)
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def taken_over(picture: Path, folder: Path, run: Path) -> Path:
    """Where a run has a picture: one that was uploaded to another run beside it gets a place in its own folder.

    Args:
        picture: its file.
        folder: of the run, which may have a hidden name until it is whole.
        run: the folder's name then.

    Returns:
        The file, as the run has it when its folder has its name; any other picture, or one that is gone, stays.

    Raises:
        RunError: the folder can't be written.
    """
    root = run.parent.resolve()
    inner = picture.relative_to(root).parts if picture.is_relative_to(root) else ()
    if len(inner) < 3 or inner[0] == run.name or inner[1] != FOLDER or not picture.is_file():
        return picture
    own = folder.joinpath(*inner[1:])
    if not own.exists():
        with writing(own):
            own.parent.mkdir(parents=True, exist_ok=True)
        with replacing(own) as temporary:
            try:
                os.link(picture, temporary)
            except OSError:  # the file system has no hard links
                shutil.copyfile(picture, temporary)
    return root.joinpath(run.name, *inner[1:])


def checked_name(name: str, of: str) -> str:
    """A name without spaces around it.

    Raises:
        DataError: it is empty or too long, or a part of it is hidden or leads elsewhere.
    """
    name = name.strip()
    parts = name.split("/")
    fits = 0 < len(name) <= _LONGEST and name.isprintable() and "\\" not in name
    if not fits or any(not part.strip() or part.startswith(".") for part in parts):
        raise DataError(
            f"{name[:_LONGEST]!r} can't be the name of a {of}: expected 1 to {_LONGEST} printable characters, and no "
            "part that is empty or begins with a dot."
        )
    return name


def _free(name: str, used: set[str]) -> str:
    stem, ending = os.path.splitext(name)
    number = 1
    while name.casefold() in used:
        number += 1
        name = f"{stem}-{number}{ending}"
    used.add(name.casefold())
    return name
