"""Remove runs from a folder of runs, and count what they take on disk.

A run's folder is renamed to a hidden temporary name and then deleted. A break before the rename leaves the run as it
was, and a break after it leaves nothing that is listed; the next command that removes or begins a run deletes the rest.

Uploaded pictures lie in the folder of the run that they came to. An update gets its own (data/uploads.py); one of an
earlier version needs those of the run before it, which stays as long as the update is there.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection
from contextlib import ExitStack, suppress
from pathlib import Path

from pydantic_core import from_json

from pddm_lab.data.uploads import FOLDER
from pddm_lab.errors import RunError
from pddm_lab.files import read_table, temporary_beside, writing
from pddm_lab.gallery.files import HISTORY, changing
from pddm_lab.gallery.milvus import collection_of
from pddm_lab.gallery.store import IndexChoice
from pddm_lab.runs.process import is_alive, is_served, locked, sweep_folders
from pddm_lab.runs.run import Run
from pddm_lab.wording import counted


def disk_use(path: Path) -> int:
    """Bytes of the files in a folder; those of links aren't counted."""
    total = 0
    for folder, _, files in os.walk(path):
        for file in files:
            with suppress(OSError):  # replaced at this moment by a training
                entry = os.lstat(os.path.join(folder, file))
                total += entry.st_size if stat.S_ISREG(entry.st_mode) else 0
    return total


def remove(path: Path, leaving: Collection[Path] = ()) -> bool:
    """Remove a run, or what is left of a damaged one.

    Args:
        path: its folder.
        leaving: folders of runs that are removed too, so that what they need doesn't count.

    Returns:
        Whether everything could be deleted. If not, the run is gone from the list all the same.

    Raises:
        RunError: it is being trained or served, its galleries are being changed, another run needs its pictures, or the
            folder of runs can't be written.
    """
    sweep_folders(path.parent)
    aside = temporary_beside(path)
    shutil.rmtree(aside, ignore_errors=True)  # of an earlier try of this process
    with ExitStack() as held:
        held.enter_context(locked(path))
        for gallery in (path / "gallery").glob("[!.]*/"):
            held.enter_context(changing(gallery))
        check_ended(path)
        check_unserved(path)
        check_uploads(path, leaving)
        with writing(path):
            os.rename(path, aside)
    if aside.is_symlink():  # what it points to is not the lab's
        aside.unlink()
    else:
        shutil.rmtree(aside, ignore_errors=True)
    return not aside.exists()


def collections_of(path: Path) -> list[str]:
    """The collections of a run's galleries in Milvus, if $PDDM_LAB_INDEX names its server; else none."""
    choice = IndexChoice.of()
    if not choice.uri:
        return []
    return [name for gallery in (path / "gallery").glob("[!.]*/") if (name := collection_of(gallery, choice))]


def check_uploads(path: Path, leaving: Collection[Path] = ()) -> None:
    """Raise RunError if a gallery of another run has uploaded pictures that lie in a run's folder; see `remove`."""
    folder = os.path.join((path / FOLDER).resolve(), "")
    if path.is_symlink() or not os.path.isdir(folder):
        return
    for gallery in sorted(path.parent.glob("[!.]*/gallery/[!.]*/")):
        other = gallery.parents[1]
        if other in (path, *leaving):
            continue
        needed = {file for file in _pictures(gallery) if file.startswith(folder) and os.path.exists(file)}
        if needed:
            raise RunError(
                f"{path.name} stays: {other.name} needs {counted(len(needed), 'uploaded picture')} in its folder, such "
                f"as {min(needed)}. Remove {other.name} first, or both at once."
            )


def _pictures(gallery: Path) -> set[str]:
    """The files of a gallery's added pictures, also of items that undoing a change brings back."""
    files = [*gallery.glob("items*.parquet"), *(gallery / HISTORY).glob("*.parquet")]
    pictures: set[str] = set()
    for file in files:
        with suppress(RunError):  # what is damaged can't be embedded again
            table = read_table(file, {"picture": "string"}, "", optional=["picture"])
            pictures.update(picture for picture in table["picture"].unique().to_pylist() if picture)
    return pictures


def check_unserved(path: Path) -> None:
    """Raise RunError if a process is serving the run in a folder."""
    if is_served(path):
        raise RunError(f"{path.name} is being served: end its service, `pddm-lab serve`, before you remove it.")


def check_ended(path: Path) -> None:
    """Raise RunError if a process is training the run in a folder, also if the rest of its run.json can't be read."""
    try:
        run = Run.open(path)
        is_running, info = run.status == "running", run.info
    except RunError:
        is_running = False
        with suppress(OSError, ValueError, TypeError, AttributeError):
            info = from_json((path / "run.json").read_bytes())
            is_running = info.get("status") == "running" and is_alive(info)
    if is_running:
        owner = f"process {info.get('pid')} on {info.get('host')}"
        raise RunError(f"{path.name} is being trained by {owner}: stop that first, or wait until it has ended.")
