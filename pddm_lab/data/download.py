"""Download the official archives."""

from __future__ import annotations

import shutil
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from pddm_lab.data.source import staged_folder
from pddm_lab.errors import DataError
from pddm_lab.progress import Progress

Reader = Callable[..., object]
"""A pytorch-metric-learning data set class: `Reader(root=..., download=True)` downloads and unpacks into root."""

_TIMEOUT_SECONDS = 60


def download_with_reader(
    reader: Callable[[], Reader], target: Path, by_hand: str, progress: Progress | None, inner: str = ""
) -> None:
    """Let a library's reader download a data set into a temporary folder, which then becomes `target`.

    Args:
        reader: returns the data set class; only called for a download, since importing it is slow.
        target: folder of the data set.
        by_hand: how to get the data set by hand, one sentence.
        progress: called at the start and at the end.
        inner: folder of the data set inside the archive.

    Raises:
        DataError: no network, a moved or damaged archive, or a folder that cannot be written.
    """
    with staged_folder(target) as folder:
        if progress:
            progress(0, 1, f"downloading {target.name}")
        try:
            reader()(root=str(folder), download=True)
        except Exception as error:  # the reader passes on whatever the network, the archive or the disk raises
            raise _cannot_download(target, error, by_hand) from error
        if inner:
            _lift(folder / inner, folder)
        if progress:
            progress(1, 1, f"downloading {target.name}")


def download_zip(url: str, target: Path, by_hand: str, progress: Progress | None) -> None:
    """Download a zip file; the folder in it becomes `target`. Raises as `download_with_reader` does."""
    with staged_folder(target) as folder:
        try:
            with tempfile.TemporaryFile(dir=folder) as archive:
                with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
                    total = int(response.headers.get("Content-Length") or 0)
                    while block := response.read(1 << 20):
                        archive.write(block)
                        if progress:
                            progress(archive.tell(), max(total, archive.tell()), f"downloading {target.name}, bytes")
                zipfile.ZipFile(archive).extractall(folder)
            inner = next((path for path in folder.iterdir() if path.is_dir()), None)
            if inner is None:
                raise zipfile.BadZipFile("the archive has no folder")
        except (OSError, zipfile.BadZipFile) as error:
            raise _cannot_download(target, error, by_hand) from error
        _lift(inner, folder)


def _lift(inner: Path, folder: Path) -> None:
    """Move everything in `inner` up into `folder`; `inner` may contain a folder of its own name."""
    aside = inner.rename(inner.with_name(f".{inner.name}-inner"))
    for entry in list(aside.iterdir()):
        shutil.move(entry, folder / entry.name)
    aside.rmdir()


def _cannot_download(target: Path, error: Exception, by_hand: str) -> DataError:
    reason = f"{type(error).__name__}: {error}"
    return DataError(f"Cannot download {target.name} ({reason}). Expected a network connection to its host. {by_hand}")
