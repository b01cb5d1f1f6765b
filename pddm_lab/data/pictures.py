"""The pictures below a folder. What is passed over is counted and named, except what is no picture or is hidden."""

from __future__ import annotations

import mimetypes
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from pddm_lab.data.images import FORMATS, SUFFIXES
from pddm_lab.wording import counted

_UNREAD = frozenset((
    ".avif", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".psd", ".xcf", ".svg", ".ico", ".eps", ".tga", ".dng",
    ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf",
))  # fmt: skip
"""Endings of pictures that the lab doesn't read, beside those that `mimetypes` knows as pictures."""
_HEIC = frozenset({".HEIC", ".HEIF"})


@dataclass
class Pictures:
    """The pictures below a folder, by their paths relative to it, "/" separated."""

    ids: list[str] = field(default_factory=list)
    """Folder by folder, both in alphabetical order."""
    folders: list[str] = field(default_factory=list)
    """All folders, with pictures or without."""
    _links: list[str] = field(default_factory=list)
    _locked: list[str] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _formats: Counter[str] = field(default_factory=Counter)

    def notes(self) -> list[str]:
        """What is passed over, a sentence for each kind."""
        kinds = (
            (self._links, "link", "in a circle or to nowhere", ""),
            (self._locked, "folder", "without permission to read", ""),
            (
                [*map(readable_name, self._names)],
                "file",
                "named in another encoding than UTF-8",
                ": rename what you need",
            ),
        )
        notes = [
            f"Skipped {counted(len(names), what)} {why}, such as {names[0]}{advice}."
            for names, what, why, advice in kinds
            if names
        ]
        if count := self._formats.total():
            by_ending = ", ".join(f"{ending} {number}" for ending, number in sorted(self._formats.items()))
            advice = " To read HEIC: pip install 'pddm-lab[heic]'." if _HEIC & {*self._formats} else ""
            pictures = counted(count, "picture in a format that isn't", "pictures in formats that aren't")
            notes.append(f"{pictures} read: {by_ending}.{advice}")
        return notes


def find_pictures(root: Path) -> Pictures:
    """Search a folder and all folders in it. Links are followed, except to a folder that they are in."""
    pictures = Pictures()
    _walk(root, "", frozenset(), pictures)
    pictures.ids.sort(key=lambda item: item.rpartition("/")[::2])
    return pictures


def _walk(root: Path, inner: str, above: frozenset[tuple[int, int]], pictures: Pictures) -> None:
    try:
        stat = os.stat(root / inner)
        entries = sorted(os.scandir(root / inner), key=lambda entry: entry.name)
    except OSError:
        pictures._locked.append(readable_name(inner or str(root)))
        return
    here = stat.st_dev, stat.st_ino
    if here in above:
        pictures._links.append(readable_name(inner))
        return
    if inner:
        pictures.folders.append(inner)
    for entry in entries:
        item, ending = f"{inner}/{entry.name}" if inner else entry.name, os.path.splitext(entry.name)[1].lower()
        kind = "" if entry.name[0] == "." else _kind(entry)
        if kind == "folder":
            _walk(root, item, above | {here}, pictures)
        elif kind == "link":
            pictures._links.append(readable_name(item))
        elif kind == "file" and ending in SUFFIXES:
            (pictures.ids if item.isascii() or readable_name(item) == item else pictures._names).append(item)
        elif kind == "file" and _is_picture(entry.path, ending):
            pictures._formats[ending.upper() or "no ending"] += 1


def _kind(entry: os.DirEntry[str]) -> str:
    """folder, file, link (in a circle or to nowhere), or "" for what else there is, such as a pipe."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "link" if entry.is_symlink() else ""
    except OSError:  # a circle
        return "link"


def readable_name(name: str) -> str:
    """A name that can be printed: bytes that aren't UTF-8 become \\xe9."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _is_picture(path: str, ending: str) -> bool:
    """Whether a file with another ending than `SUFFIXES` is a picture."""
    kind = mimetypes.guess_type("name" + ending)[0] or ""
    if ending in _UNREAD or kind:
        return ending in _UNREAD or kind.startswith("image/")
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Exception:  # decoders raise nearly anything on what is no picture
        return False
