"""Download the published archives: checked by their sha256, unpacked inside their folder only, with bounded sizes."""

from __future__ import annotations

import hashlib
import http.client
import shutil
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO

from pddm_lab.data.source import staged_folder
from pddm_lab.errors import DataError
from pddm_lab.progress import Progress

_TIMEOUT_SECONDS = 60
_GROWTH = 4
"""Unpacked bytes per byte of an archive, at most: pictures hardly get smaller by packing."""
_MEMBERS = 500_000
"""Most files in an archive."""


@dataclass(frozen=True)
class Archive:
    """A published archive, .zip or .tgz."""

    url: str
    most_bytes: int
    """Its size, or more than it can have."""
    sha256: str = ""
    """Published checksum; "" if there is none: then only sizes and places are checked."""
    inner: str = ""
    """Folder of the data set inside the archive, may hold wildcards; "" for all of it."""


def download(archive: Archive, target: Path, by_hand: str, progress: Progress | None) -> None:
    """Download an archive; what it holds becomes `target`.

    Args:
        archive: what to download.
        target: folder of the data set.
        by_hand: how to get the data set by hand, one sentence.
        progress: called as bytes arrive.

    Raises:
        DataError: no network, a moved, damaged or foreign archive, or a folder that cannot be written.
    """
    with staged_folder(target) as folder:
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                _fetch(archive, file, target.name, progress)
                _unpack(file, folder, archive.most_bytes * _GROWTH)
            if archive.inner:
                inner = next((path for path in folder.glob(archive.inner) if path.is_dir()), None)
                if inner is None:
                    raise ValueError(f"it has no folder {archive.inner}")
                _lift(inner, folder)
        except (OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile,
                tarfile.TarError, http.client.HTTPException) as error:  # fmt: skip
            reason = f"{type(error).__name__}: {error}"
            raise DataError(
                f"Cannot download {target.name} ({reason}). Expected a network connection to its host. {by_hand}"
            ) from error


def _fetch(archive: Archive, file: IO[bytes], name: str, progress: Progress | None) -> None:
    digest = hashlib.sha256()
    with urllib.request.urlopen(archive.url, timeout=_TIMEOUT_SECONDS) as response:
        total = int(response.headers.get("Content-Length") or 0)
        while block := response.read(1 << 20):
            file.write(block)
            digest.update(block)
            if file.tell() > archive.most_bytes:
                raise ValueError(f"expected at most {archive.most_bytes:,} bytes, and more came")
            if progress:
                progress(file.tell(), max(total, file.tell()), f"downloading {name}, bytes")
    if archive.sha256 and digest.hexdigest() != archive.sha256:
        raise ValueError(f"expected an archive with the sha256 {archive.sha256}, got {digest.hexdigest()}")
    file.seek(0)


def _unpack(file: IO[bytes], folder: Path, most_bytes: int) -> None:
    """Unpack a zip or tar file; nothing is written outside of the folder, and at most so many bytes."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            _check_sizes((member.file_size for member in packed.infolist()), most_bytes)
            packed.extractall(folder)  # it drops ".." and drives from names, and writes links as plain files
    else:
        file.seek(0)
        with tarfile.open(fileobj=file) as packed:
            _check_sizes((member.size for member in packed), most_bytes)
            packed.extractall(folder, filter="data")


def _check_sizes(sizes: Iterable[int], most_bytes: int) -> None:
    for number, total in enumerate(accumulate(sizes), 1):
        if number > _MEMBERS or total > most_bytes:
            raise ValueError(f"it unpacks to more than {most_bytes:,} bytes or {_MEMBERS:,} files")


def _lift(inner: Path, folder: Path) -> None:
    """Move everything in `inner` up into `folder`; `inner` may contain a folder of its own name."""
    aside = inner.rename(inner.with_name(f".{inner.name}-inner"))
    for entry in list(aside.iterdir()):
        shutil.move(entry, folder / entry.name)
    aside.rmdir()
