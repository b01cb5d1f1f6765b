"""Fail or kill an operation at each of its file operations, and see that it leaves the old state or the new one.

    ADD = Operation("add", prepare, work, state, go_on)

`prepare` makes the old state in an empty folder; it runs once, then the folder is copied for each point. `work` is the
operation that is broken off. `state` is what a reader sees: two states are compared by ==, and it raises an error if
the folder can't be read. `go_on` is other work that must succeed afterwards.
If the old state was left, `work` runs once more and must make the new one; then `go_on` runs.

    sweep(ADD, "kill", tmp_path, faults_size)    # faults_size: a fixture, None with --all-faults

A point is one call that changes a file below the folder: create (open to write, touch), write, truncate, fsync, rename,
unlink, mkdir, rmdir or link. There are three ways to break off at point n:

* fail: this call raises OSError, a full disk; a write has written its first half. Later calls work again.
* full: this call and all later ones that need space raise OSError; deleting and renaming work.
* kill: this call raises Killed, which is no Exception, and so does every later call. Nothing that cleans up changes a
  file, and what the process holds in its buffers is lost, as if the process were killed there. Locks are released.

Libraries that write by native code (pyarrow, torch, safetensors, copyfile) write elsewhere first, and then here in a
few parts, so that such a file is torn at several points.
"""

from __future__ import annotations

import builtins
import errno
import importlib
import io
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from pddm_lab.errors import LabError

MODES = ("fail", "full", "kill")
NATIVE = (("pyarrow.parquet", "write_table", 1), ("torch", "save", 1), ("safetensors.torch", "save_file", 1),
          ("shutil", "copyfile", 1))  # fmt: skip
"""Functions that write a file by native code: module, name, place of the path among the arguments. Code that imported
one by name before is not seen."""
_BY_PATH = {"replace": "rename", "rename": "rename", "unlink": "unlink", "remove": "unlink", "mkdir": "mkdir",
            "rmdir": "rmdir", "link": "link", "symlink": "link", "truncate": "truncate"}  # fmt: skip
_NEED_SPACE = ("create", "write", "fsync", "mkdir", "link")
_PARTS = 3
"""Parts in which a natively written file is written."""


class Killed(BaseException):
    """The process ends here."""


@dataclass(frozen=True)
class Operation:
    """Work that changes files, and how to see whether it left the old state or the new one."""

    name: str
    prepare: Callable[[Path], None]
    work: Callable[[Path], None]
    state: Callable[[Path], Any]
    go_on: Callable[[Path], None] = lambda folder: None


@dataclass
class Points:
    """File operations below a folder, counted; the one with the number `at` is where the mode breaks them off."""

    root: str
    """Its path, with a separator at the end."""
    at: int | None = None
    mode: str = "fail"
    names: list[str] = field(default_factory=list)
    """What each operation was, such as "write manifest.json"."""
    dead: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def reach(self, kind: str, name: str, half: Callable[[], object] = lambda: None) -> None:
        """Count an operation on a file, and break it off if this is the point; `half` is what it has done by then."""
        with self.lock:
            if not os.path.abspath(name).startswith(self.root):
                return
            if self.dead:
                if name.endswith(".lock"):
                    return  # the system releases the locks of a process that has ended
                raise Killed
            number = len(self.names)
            self.names.append(f"{kind} {os.path.relpath(name, self.root)}")
            later = self.mode == "full" and self.at is not None and number > self.at and kind in _NEED_SPACE
            if number != self.at and not later:
                return
            half()
            if self.mode == "kill":
                self.dead = True
                raise Killed
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)


class _File:
    """A file that is open to write, without a buffer of its own, whose calls are points."""

    def __init__(self, raw: io.FileIO, path: str, points: Points, text: bool, encoding: str | None) -> None:
        self._raw, self._path, self._points = raw, path, points
        self._encoding = ("utf-8" if encoding in (None, "locale") else encoding) if text else None
        self.name, self.mode = path, raw.mode
        _PATHS[raw.fileno()] = path

    def write(self, data: Any) -> int:
        content = data.encode(self._encoding) if self._encoding else memoryview(data).cast("B")
        if len(content):
            self._points.reach("write", self._path, lambda: self._raw.write(content[: len(content) // 2]))
            self._raw.write(content)
        return len(data) if self._encoding else len(content)

    def writelines(self, lines: Iterable[Any]) -> None:
        for line in lines:
            self.write(line)

    def truncate(self, size: int | None = None) -> int:
        self._points.reach("truncate", self._path)
        return self._raw.truncate(size)

    def writable(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()


_PATHS: dict[int, str] = {}
"""Path of each open file descriptor, for fsync."""


@contextmanager
def faults(root: Path, at: int | None = None, mode: str = "fail") -> Iterator[Points]:
    """Count the file operations below a folder meanwhile, and break off the one with the number `at`.

    `Killed` ends here, and any other error goes on.
    """
    assert mode in MODES
    points = Points(os.path.abspath(root) + os.sep, at, mode)
    with ExitStack() as patches:
        for target, name, instead in _instead(points):
            patches.enter_context(patch.object(target, name, instead))
        with suppress(Killed):
            yield points


def _instead(points: Points) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    real_open, os_open, os_fsync = builtins.open, os.open, os.fsync

    def opened(
        file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, *more: Any, **named: Any
    ) -> Any:  # fmt: skip
        writes = set(mode) & set("wax+")
        path = _PATHS.get(file, "") if isinstance(file, int) else os.fsdecode(file)
        if not writes or not os.path.abspath(path).startswith(points.root):
            file = real_open(file, mode, buffering, encoding, *more, **named)
            _PATHS[file.fileno()] = path
            return file
        if not isinstance(file, int):
            points.reach("create", path)
        plain = mode.replace("b", "").replace("t", "")
        return _File(io.FileIO(file, plain), path, points, "b" not in mode, encoding)

    def os_opened(path: Any, flags: int, *more: Any, **named: Any) -> int:
        whole = _whole(path, named.get("dir_fd"))
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            points.reach("create", whole)
        descriptor = os_open(path, flags, *more, **named)
        _PATHS[descriptor] = whole
        return descriptor

    def synced(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        points.reach("fsync", _PATHS.get(number, ""))
        os_fsync(descriptor)

    def by_path(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def changed(path: Any, *more: Any, **named: Any) -> Any:
            points.reach(kind, _whole(path, named.get("dir_fd")))
            return real(path, *more, **named)

        return changed

    def native(real: Callable[..., Any], place: int) -> Callable[..., Any]:
        def written(*arguments: Any, **named: Any) -> Any:
            target = arguments[place]
            with tempfile.TemporaryDirectory() as elsewhere:
                scratch = os.path.join(elsewhere, "file")
                result = real(*arguments[:place], scratch, *arguments[place + 1 :], **named)
                with real_open(scratch, "rb") as file:
                    data = file.read()
            size = len(data) // _PARTS + 1
            parts = [data[start : start + size] for start in range(0, len(data), size)]
            if isinstance(target, (str, os.PathLike)):
                with builtins.open(target, "wb") as file:
                    file.writelines(parts)
            else:
                for part in parts:
                    target.write(part)
            return target if real is copyfile else result

        return written

    copyfile, arrow_file = shutil.copyfile, pa.OSFile

    def arrow_opened(path: Any, mode: str = "r", *more: Any, **named: Any) -> Any:
        return opened(path, "wb") if "w" in mode else arrow_file(path, mode, *more, **named)

    yield pa, "OSFile", arrow_opened  # pandas writes parquet files so
    yield builtins, "open", opened
    yield io, "open", opened
    yield os, "open", os_opened
    yield os, "fsync", synced
    for name, kind in _BY_PATH.items():
        yield os, name, by_path(kind, getattr(os, name))
    for module, name, place in NATIVE:
        loaded = importlib.import_module(module)
        yield loaded, name, native(getattr(loaded, name), place)


def _whole(path: Any, folder: int | None) -> str:
    """A path that may be relative to an open folder."""
    name = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else _PATHS.get(path, "")
    return name if folder is None else os.path.join(_PATHS.get(folder, ""), name)


def sample(count: int, size: int, seed: int = 0) -> list[int]:
    """Some of `count` points: the first, the last, and one by chance from each of equal parts between them."""
    if count <= size:
        return list(range(count))
    edges = np.linspace(1, count - 1, size - 1).astype(int)
    picks = np.random.default_rng(seed).integers(edges[:-1], edges[1:])
    return [0, *picks.tolist(), count - 1]


def sweep(operation: Operation, mode: str, folder: Path, size: int | None = None) -> int:
    """Break off an operation at `size` of its points (`sample`), or at all, and check what it leaves.

    Args:
        operation: the work, and how to judge it.
        mode: fail, full or kill.
        folder: an empty folder to work in.
        size: number of points; None for all.

    Returns:
        The number of points.

    Raises:
        AssertionError: for all points that left neither the old state nor the new one, or where no work goes on.
    """
    first, place = folder / "first", folder / "place"
    first.mkdir()
    operation.prepare(first)

    def copied() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(first, place, symlinks=True)

    copied()
    old = operation.state(place)
    with faults(place) as counted:
        operation.work(place)
    assert counted.names, f"{operation.name} changes no file"
    new = operation.state(place)
    points = sample(len(counted.names), size or len(counted.names))
    wrong = []
    for at in points:
        copied()
        outcome = ""
        try:
            with faults(place, at, mode) as now:
                operation.work(place)
        except Exception as error:
            outcome = f" ({type(error).__name__}: {error})"
            if not isinstance(error, (LabError, OSError)):
                wrong.append(f"{operation.name}, {mode} at {at}: an error of a kind that no one expects{outcome}")
        where = (
            f"{operation.name}, {mode} at {at}, {now.names[at] if at < len(now.names) else 'after its end'}{outcome}"
        )
        try:
            state = operation.state(place)
            if state != old and state != new:
                wrong.append(f"{where}: neither the old state nor the new one, but {state!r}")
                continue
            if state == old:
                operation.work(place)
                assert operation.state(place) == new, "the second try ended in another state"
            operation.go_on(place)
        except Exception as error:
            wrong.append(f"{where}: then {type(error).__name__}: {error}")
    assert not wrong, f"{len(wrong)} of {len(points)} points:\n" + "\n".join(wrong)
    return len(points)
