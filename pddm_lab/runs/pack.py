"""A run as one file, to keep it or to open it elsewhere.

A packed run is a zip file: `pack.json` names the run and lists its files with sizes and SHA-256, and each of them lies
under `run/`. Hidden files, such as locks, stay behind, and so does the checkpoint of a finished run, which nothing
resumes. Paths that the run notes, such as that of its data set, stay as they are: where the data set is missing, the
run opens as every run without its pictures.

A packed run may come from anywhere. It is read into a hidden folder, file by file: only plain files, only at plain
relative paths, no more bytes than were announced, each with its SHA-256. Then the run is opened and all of it checked,
and only then the folder gets the run's name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Literal

from pydantic import Field
from pydantic_core import from_json

from pddm_lab.data.imported import read_imported
from pddm_lab.errors import RunError
from pddm_lab.files import Content, Count, Text, check, replacing, temporary_beside, write_file, writing
from pddm_lab.gallery import history
from pddm_lab.gallery.changes import with_sources
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.progress import Progress
from pddm_lab.runs.folder_name import is_valid_name
from pddm_lab.runs.local import load_local
from pddm_lab.runs.process import sweep_folders
from pddm_lab.runs.removal import check_ended
from pddm_lab.runs.run import Run

FORMAT = 1
LIST, INSIDE = "pack.json", "run/"
CHECKPOINT = "last.ckpt"
MOST_FILES = 20_000
"""Files of a packed run; a run of a day's training has some hundreds."""
MOST_GIGABYTES = 16
"""A packed run unpacks to no more, unless somebody allows it."""
_MOST_DEEP, _LONGEST = 8, 200
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, KeyError)
_ODD = frozenset('\\:*?"<>|')
_LIST_BYTES = 1 << 23
_PIECE = 1 << 20
_AGAIN = "Nothing was unpacked. Get the file again."


class _FileContent(Content):
    bytes: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _PackContent(Content):
    """pack.json."""

    format: Literal[1]
    name: Text
    files: dict[Text, _FileContent]


def pack(run: Run, out: Path, progress: Progress | None = None) -> None:
    """Write a run into one file.

    Args:
        run: not one that is being trained.
        out: the file; it must not exist.
        progress: called as bytes are packed.

    Raises:
        RunError: the run is being trained, damaged or changed meanwhile, or the file exists or can't be written.
    """
    check_ended(run.path)
    if out.exists():
        raise RunError(f"{out} exists already: name another file with --out.")
    before = _state(run)
    examine(run)
    files = sorted(file for file in _files(run.path) if file.name != CHECKPOINT or run.status != "finished")
    total, done, listed = sum(file.stat().st_size for file in files), 0, {}
    with replacing(out) as temporary, _new_zip(temporary) as packed:
        for file in files:
            digest, size = hashlib.sha256(), 0
            name = file.relative_to(run.path).as_posix()
            with _reading(file) as source, packed.open(INSIDE + name, "w", force_zip64=True) as target:
                while piece := source.read(_PIECE):
                    target.write(piece)
                    digest.update(piece)
                    size += len(piece)
                    if progress:
                        progress(min(done + size, total), total, "bytes")
            done += size
            listed[name] = {"bytes": size, "sha256": digest.hexdigest()}
        content = {"format": FORMAT, "name": run.name, "files": listed}
        packed.writestr(LIST, json.dumps(content, indent=1, ensure_ascii=False))
        if _state(run) != before:
            raise RunError(f"{run.name} was changed while it was packed: pack it again.")


def unpack(
    file: Path, root: Path, name: str = "", most_gigabytes: int = MOST_GIGABYTES, progress: Progress | None = None
) -> Run:  # fmt: skip
    """Make a run of a packed one.

    Args:
        file: that `pack` wrote, or somebody else.
        root: folder that holds the runs.
        name: of the run; empty: the one that it was packed with.
        most_gigabytes: how much it may unpack to.
        progress: called as bytes are unpacked.

    Raises:
        RunError: the file is damaged, too large or no packed run, the run in it can't be read, or its name is taken.
    """
    with _opened(file) as packed:
        content = _listed(file, packed, most_gigabytes)
        target = root / _free_name(file, root, name or content["name"])
        with writing(root):
            root.mkdir(parents=True, exist_ok=True)
        sweep_folders(root)
        needed, free = sum(entry["bytes"] for entry in content["files"].values()), shutil.disk_usage(root).free
        if needed > free:
            raise RunError(f"{file} unpacks to {needed:,} bytes, and {root} has {free:,} free. Free space first.")
        staged = temporary_beside(target)
        shutil.rmtree(staged, ignore_errors=True)  # of an earlier try of this process
        try:
            with writing(target):
                staged.mkdir()
                _extract(packed, content["files"], staged, file, needed, progress)
            _check_run(staged, target.name, file)
            with writing(target):
                os.rename(staged, target)  # fails where another process has made a run of that name meanwhile
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return Run.open(target)


def examine(run: Run) -> None:
    """Read every file of a run that the lab reads, the galleries by the SHA-256 in their manifests: is it whole?

    Raises:
        RunError: one is missing, damaged or was not written by this lab.
    """
    run.metrics()
    run.quadruplets()
    for name in run.galleries():
        gallery = Gallery.open(run.gallery(name).path, verify=True)
        _ = gallery.map, gallery.distributions, gallery.metadata()
        items = with_sources(gallery.path, gallery.manifest)
        for change in history.changes(gallery.path, gallery.manifest):
            items = history.items_before(gallery.path, change, items)
    if run.config.is_imported:
        read_imported(run.path)
    if (run.path / "model.safetensors").exists():
        run.model_state()
        run.model_metadata()
    if (run.path / "last.ckpt").exists():
        run.load_checkpoint()
    load_local(run)


def _new_zip(file: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1)  # weights and pictures hardly get smaller


def _files(folder: Path) -> Iterator[Path]:
    """The files of a run that are packed. Raises RunError for what is neither a file nor a folder."""
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        kind = entry.lstat().st_mode
        if stat.S_ISDIR(kind):
            yield from _files(entry)
        elif stat.S_ISREG(kind):
            yield entry
        else:
            raise RunError(f"{entry} is a link or no file: put what it stands for in its place, or remove it.")


def _state(run: Run) -> list[bytes]:
    """What changes with the run: its entry, and the manifests of its galleries."""
    manifests = [run.path / "gallery" / name / "manifest.json" for name in run.galleries()]
    return [file.read_bytes() for file in (run.path / "run.json", *manifests)]


def _reading(file: Path) -> IO[bytes]:
    try:
        return open(file, "rb")  # the caller closes it
    except FileNotFoundError:
        raise RunError(f"{file} was removed while its run was packed: pack it again.") from None
    except OSError as error:
        raise RunError(f"{file} can't be read: {error.strerror}. Check its permissions.") from error


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file; what is wrong with it, also later, is one sentence."""
    if not file.is_file():
        raise RunError(f"{file} does not exist: expected a file that `pddm-lab runs pack` wrote.")
    try:
        packed = zipfile.ZipFile(file)
    except (*_DAMAGED, OSError) as error:
        raise RunError(f"{file} can't be read or is no packed run: {error}. {_AGAIN}") from error
    with packed:
        try:
            yield packed
        except _DAMAGED as error:
            raise RunError(f"{file} is damaged: {error}. {_AGAIN}") from error


def _listed(file: Path, packed: zipfile.ZipFile, most_gigabytes: int) -> dict:
    """pack.json, which must name exactly the files that are there, all of them plain and not too large."""
    foreign = f"{file} was not written by `pddm-lab runs pack`"
    members = packed.infolist()
    if len(members) > MOST_FILES + 1:
        raise RunError(f"{file} has {len(members):,} files: expected at most {MOST_FILES:,}. Nothing was unpacked.")
    sizes = {member.filename: member.file_size for member in members}
    if LIST not in sizes or sizes[LIST] > _LIST_BYTES or len(sizes) != len(members):
        raise RunError(f"{foreign}: expected {LIST} in it, and each file once. {_AGAIN}")
    for member in members:
        kind = stat.S_IFMT(member.external_attr >> 16)
        plain = kind in (0, stat.S_IFREG) and not member.is_dir() and not member.flag_bits & 1
        if not plain or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise RunError(f"{foreign}: {member.filename!r} is a link, a folder, a device or encrypted. {_AGAIN}")
    total = sum(sizes.values())
    if total > most_gigabytes * 10**9:
        raise RunError(
            f"{file} unpacks to {total / 1e9:,.1f} GB: expected at most {most_gigabytes}. If you trust it, allow more "
            f"with --most-gb {-(-total // 10**9)}."
        )
    try:
        content = from_json(packed.read(LIST))
    except ValueError as error:
        raise RunError(f"{foreign}: {LIST} is no JSON ({error}). {_AGAIN}") from error
    check(_PackContent, content, file / LIST, _AGAIN)
    if {INSIDE + name: entry["bytes"] for name, entry in content["files"].items()} | {LIST: sizes[LIST]} != sizes:
        raise RunError(f"{foreign}: {LIST} lists other files or sizes than there are. {_AGAIN}")
    names = list(content["files"])
    if odd := next((name for name in names if not is_plain_path(name)), None):
        raise RunError(f"{foreign}: {odd!r} is no path inside of a run. {_AGAIN}")
    if len({name.casefold() for name in names}) != len(names):
        raise RunError(f"{foreign}: two of its files differ only in upper and lower case. {_AGAIN}")
    return content


def is_plain_path(name: str) -> bool:
    """Whether a path is relative, leads nowhere else, is not hidden, and means the same on every system."""
    parts = name.split("/")
    return len(parts) <= _MOST_DEEP and all(
        part and part[0] != "." and len(part.encode()) <= _LONGEST and part.isprintable() and not _ODD & set(part)
        for part in parts
    )


def _free_name(file: Path, root: Path, name: str) -> str:
    """The name, if a run can have it and none has.

    Raises:
        RunError: it is taken or can't be a folder's.
    """
    if not is_valid_name(name):
        raise RunError(f"{name!r} can't be a run's name: name it with --name, up to 100 letters, digits, '-' and '_'.")
    if os.path.lexists(root / name):
        other = next(new for number in range(2, 10**6) if not os.path.lexists(root / (new := f"{name}-{number}")))
        raise RunError(
            f"{root / name} exists already. Unpack it under another name, `pddm-lab runs unpack {file} --name "
            f"{other}`, or remove that run first, `pddm-lab runs remove {name}`."
        )
    return name


def _extract(
    packed: zipfile.ZipFile, files: dict[str, dict], folder: Path, file: Path, total: int, progress: Progress | None
) -> None:  # fmt: skip
    done = 0
    for name, entry in files.items():
        target, digest, left = folder / name, hashlib.sha256(), entry["bytes"]
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as opened:
            for piece in _pieces(packed, INSIDE + name, left + 1):
                left -= len(piece)
                if left < 0:
                    break
                opened.write(piece)
                digest.update(piece)
                done += len(piece)
                if progress:
                    progress(done, total, "bytes")
            opened.flush()
            os.fsync(opened.fileno())
        if left or digest.hexdigest() != entry["sha256"]:
            raise RunError(f"{file} is damaged: {name} is not the file that was packed. {_AGAIN}")


def _pieces(packed: zipfile.ZipFile, name: str, most: int) -> Iterator[bytes]:
    """A member's bytes in pieces, the first so many."""
    try:
        with packed.open(name) as source:
            while most and (piece := source.read(min(_PIECE, most))):
                most -= len(piece)
                yield piece
    except OSError as error:  # places outside of the file; not to be confused with errors of the disk that is written
        raise zipfile.BadZipFile(str(error)) from error


def _check_run(folder: Path, name: str, file: Path) -> None:
    """Check all of a run before it gets its name, and note that no process trains it here.

    Raises:
        RunError: it can't be read.
    """
    try:
        run = Run.open(folder)
        if run.info["status"] == "running":
            run.info |= {"status": "stopped", "reason": "It was packed before it was finished.", "pid": 0, "host": ""}
        write_file(folder / "run.json", json.dumps(run.info | {"name": name}, indent=1, ensure_ascii=False))
        examine(Run.open(folder))
    except RunError as error:
        reason = str(error).replace(f"{folder}{os.sep}", "").partition(". ")[0]
        raise RunError(f"{file} holds a run that can't be read: {reason}. {_AGAIN}") from error
