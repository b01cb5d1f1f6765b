"""Remove runs from a folder of runs, and count what they take on disk.

A run's folder is renamed to a hidden temporary name and then deleted. A break before the rename leaves the run as it
was, and a break after it leaves nothing that is listed; the next command that removes or begins a run deletes the rest.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import ExitStack, suppress
from pathlib import Path

from pydantic_core import from_json

from pddm_lab.errors import RunError
from pddm_lab.files import temporary_beside, writing
from pddm_lab.gallery.files import changing
from pddm_lab.gallery.milvus import collection_of
from pddm_lab.gallery.store import IndexChoice
from pddm_lab.runs.process import is_alive, locked, sweep_folders
from pddm_lab.runs.run import Run


def disk_use(path: Path) -> int:
    """Bytes of the files in a folder; those of links aren't counted."""
    total = 0
    for folder, _, files in os.walk(path):
        for file in files:
            with suppress(OSError):  # replaced at this moment by a training
                entry = os.lstat(os.path.join(folder, file))
                total += entry.st_size if stat.S_ISREG(entry.st_mode) else 0
    return total


def remove(path: Path) -> bool:
    """Remove a run, or what is left of a damaged one.

    Args:
        path: its folder.

    Returns:
        Whether everything could be deleted. If not, the run is gone from the list all the same.

    Raises:
        RunError: it is being trained, its galleries are being changed, or the folder of runs can't be written.
    """
    sweep_folders(path.parent)
    aside = temporary_beside(path)
    shutil.rmtree(aside, ignore_errors=True)  # of an earlier try of this process
    with ExitStack() as held:
        held.enter_context(locked(path))
        for gallery in (path / "gallery").glob("[!.]*/"):
            held.enter_context(changing(gallery))
        check_ended(path)
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
