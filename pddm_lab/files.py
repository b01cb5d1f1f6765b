"""Files of a run, each written under a temporary name and renamed, so that a reader sees the old one or the new one.

Tensors are stored as safetensors, a checkpoint in torch's own format, read as tensors and plain values only. torch is
imported where it is used, so that reading the rest of a run doesn't wait for it.

A file may come from anywhere. Its content is checked once, where it is read: JSON by a pydantic model (`Content`), a
table by its columns. Anything else is a RunError that names the file, the field, what was expected and what to run.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import reprlib
import socket
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from pddm_lab.errors import RunError

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

Count = Annotated[int, Field(ge=0, le=2**53)]
"""A number of things: as large as a float can hold exactly."""
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Text without a null character, which no path may have."""


class Content(BaseModel):
    """What a file must hold; it may hold more, since a later version of this format may add to it."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


def check(kind: type[Content], content: Any, file: Path, hint: str) -> None:
    """Raise RunError unless the content of a file is of a kind; `hint` says what to do."""
    try:
        kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])).encode("unicode_escape").decode() or "its content"
        expected = (
            first["msg"].replace("Input should be", "expected").replace("Field required", "expected, but missing")
        )
        came = "" if first["type"] == "missing" else f", got {reprlib.repr(first['input'])}"
        if first["loc"] == ("format",) and came:  # the first of all fields
            raise RunError(f"{file} has another format, {expected}{came}: update this lab to read it.") from None
        raise RunError(f"{file} was not written by this lab: {field}: {expected}{came}. {hint}") from None


def read_json(file: Path, kind: type[Content], missing: str, hint: str) -> dict[str, Any]:
    """The content of a JSON file of a kind.

    Raises:
        RunError: it is missing (the message is `missing`), can't be read, is damaged, or was not written by this lab;
            `hint` says what to do.
    """
    try:
        content = from_json(file.read_bytes(), allow_inf_nan=False)
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(missing) from None
    except OSError as error:
        raise RunError(f"{file} can't be read: {error.strerror}. Check its permissions.") from error
    except ValueError as error:
        raise RunError(f"{file} is damaged: expected JSON, got {error}. {hint}") from error
    check(kind, content, file, hint)
    return plain(content)


def read_table(
    file: Path, columns: Mapping[str, str], hint: str, *, optional: Collection[str] = (), coded: bool = False,
    among: Mapping[str, Collection[str]] | None = None, finite: bool = False,
) -> pa.Table:  # fmt: skip
    """The columns of a parquet file.

    Args:
        file: its path.
        columns: name -> arrow type. The others in the file are left out.
        hint: what to do if it is damaged.
        optional: columns that may lack or hold nulls; a column that lacks is read as nulls.
        coded: texts as dictionaries.
        among: column -> the values it may have.
        finite: whether numbers must be finite.

    Raises:
        RunError: it is missing, damaged or was not written by this lab.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    schema = arrow_schema(columns, coded)
    texts = {name for name, kind in columns.items() if kind == "string"}
    try:
        metadata = pq.read_metadata(file)
        coded_here = sorted(texts.intersection(metadata.schema.names)) if coded else []
        with pq.ParquetFile(file, metadata=metadata, read_dictionary=coded_here) as opened:
            table = opened.read(columns=list(columns), use_threads=coded)
        for name in optional:
            if name in columns and name not in table.column_names:
                table = table.append_column(name, pa.nulls(len(table), schema.field(name).type))
        table = table.select(list(columns)).cast(schema)
        table.validate(full=True)
        for name in columns.keys() - set(optional):
            if table[name].null_count:
                raise ValueError(f"no value in some rows of {name}")
            if finite and name not in texts and not pc.all(pc.is_finite(table[name]), min_count=0).as_py():
                raise ValueError(f"a number in {name} that is not finite")
            if name in texts and not coded and pc.any(pc.match_substring(table[name], "\0")).as_py():
                raise ValueError(f"a null character in {name}")
        for name, values in (among or {}).items():
            if name in columns and (others := set(table[name].unique().to_pylist()) - set(values)):
                raise ValueError(f"{reprlib.repr(others.pop())} in {name} instead of one of {', '.join(values)}")
        return table
    except Exception as error:  # pyarrow raises many kinds for a damaged file; all mean the same here
        reason = str(error).partition("\n")[0].rstrip(".")
        message = f"{file} is damaged or was not written by this lab: expected columns {', '.join(columns)}"
        raise RunError(f"{message}, got {reason}. {hint}") from error


def arrow_schema(columns: Mapping[str, str], coded: bool = False) -> pa.Schema:
    """The schema of columns name -> arrow type; `coded`: texts as dictionaries."""
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string()) if coded else pa.string()
    return pa.schema([(name, text if kind == "string" else getattr(pa, kind)()) for name, kind in columns.items()])


WRITER = r"\.(\d+)-\d+(?:-([0-9a-f]{8}))?\.tmp"
"""Ends the names of `temporary_beside`: the number of the process that writes there, and the mark of its machine.

Earlier versions gave no mark.
"""
TEMPORARY = re.compile(rf"\..+{WRITER}")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system reports while `path` is written into one sentence.

    Raises:
        RunError: a full disk, a read-only folder, a limit of the file system.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RunError(f"{path} can't be written: {reason}. Free space, or check the folder's permissions.") from error


def temporary_beside(path: Path) -> Path:
    """The temporary name of a file or folder until it is whole, or while it is deleted."""
    # The dot hides it from readers of a parquet folder; the numbers separate processes, sessions of a server, machines.
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}-{machine_mark()}.tmp")


def machine_mark() -> str:
    """Eight characters that stand for this machine, or this container, by its host name."""
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed to `path` at the end, deleted after an error.

    Raises:
        RunError: `path` can't be written.
    """
    temporary = temporary_beside(path)
    with writing(path):
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):  # the disk's error is the one to report
                temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise RunError as `replacing` does, before anything is done whose result goes into the file `path`."""
    temporary = temporary_beside(path)
    with writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        temporary.touch()
        temporary.unlink()


@contextmanager
def holding(lock: Path, limit: float = 60.0) -> Iterator[None]:
    """Hold a lock file; the system releases it when the process ends, however it ends.

    Args:
        lock: its path, in an existing folder.
        limit: seconds to wait for it.

    Raises:
        RunError: another process holds it for longer, or the folder can't be written.
    """
    from filelock import FileLock, Timeout

    file = FileLock(lock, timeout=limit)
    with writing(lock):
        try:
            file.acquire()
        except Timeout:  # an OSError, too
            raise RunError(f"Another process has locked {lock.parent} for {limit:.0f} s: try again.") from None
    try:
        yield
    finally:
        file.release()


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits. Raises OSError if it can't be read."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def fingerprint(file: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, as manifests have them. Raises OSError if it can't be read."""
    return {"bytes": file.stat().st_size, "sha256": sha256_of(file)}


def write_file(path: Path, content: str | bytes | memoryview) -> None:
    """Write a whole file, or replace it; text as UTF-8. Raises as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a safetensors file with tensors and, as JSON, metadata."""
    write_file(path, tensors_as_bytes(tensors, metadata))


def tensors_as_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """The content of a safetensors file with tensors and, as JSON, metadata.

    Its own writer makes files that only their owner can read, and hides what the system reports.
    """
    from safetensors.torch import save

    # Cloned: channels_last weights are not contiguous and tied ones share memory; safetensors takes neither.
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    return save(copies, {key: json.dumps(plain(value)) for key, value in metadata.items()})


_KINDS = {"float64": "F64", "int64": "I64", "float32": "F32", "int32": "I32", "uint8": "U8", "bool": "BOOL"}
"""Kinds of numbers by the names of numpy and of safetensors, larger ones first."""


def map_tensors(
    path: Path, shapes: Mapping[str, tuple[tuple[int, ...], str]], metadata: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, memory-mapped to be filled in, so that they needn't fit into memory.

    Args:
        path: a file that has these tensors and metadata stays as it is; any other is written anew, with zeros.
        shapes: name -> shape and kind of number, one of `_KINDS`.
        metadata: written as JSON.

    Raises:
        OSError: the file can't be written; a full disk is reported here, not when the tensors are filled in.
    """
    names = sorted(shapes, key=lambda name: (list(_KINDS).index(shapes[name][1]), name))  # so each begins aligned
    sizes = [int(np.prod(shapes[name][0])) * np.dtype(shapes[name][1]).itemsize for name in names]
    ends = np.cumsum(sizes).tolist()
    entries = {
        name: {"dtype": _KINDS[shapes[name][1]], "shape": shapes[name][0], "data_offsets": [end - size, end]}
        for name, size, end in zip(names, sizes, ends, strict=True)
    }  # fmt: skip
    texts = {key: json.dumps(plain(value)) for key, value in metadata.items()}
    header = json.dumps({"__metadata__": texts, **entries}).encode()
    header += b" " * (-len(header) % 8)
    start = len(header).to_bytes(8, "little") + header
    size = len(start) + ends[-1]
    if not (path.is_file() and path.stat().st_size == size and _starts_with(path, start)):
        with open(path, "wb") as file:
            file.write(start)
            if hasattr(os, "posix_fallocate"):
                file.flush()
                os.posix_fallocate(file.fileno(), 0, size)
            file.truncate(size)
    return {
        name: np.memmap(path, shapes[name][1], "r+", len(start) + end - size, shapes[name][0])
        if size else np.empty(shapes[name][0], shapes[name][1])
        for name, size, end in zip(names, sizes, ends, strict=True)
    }  # fmt: skip


def _starts_with(path: Path, start: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(start)) == start


def read_tensors(path: Path, hint: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file, memory-mapped and copied where they are written to, and its metadata.

    Raises:
        RunError: missing, damaged or not written by this lab; `hint` says what to run.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise RunError(f"{path} is missing. {hint}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path} is damaged or was not written by this lab: {error}. {hint}") from error


def write_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings, lists and dicts in torch's format."""
    import torch

    buffer = BytesIO()
    torch.save(dict(checkpoint), buffer)
    write_file(path, buffer.getbuffer())


def read_checkpoint(path: Path, hint: str) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; runs no code from the file.

    Raises:
        RunError: missing, damaged, or with other content than plain values; `hint` says what to run.
    """
    import torch

    if not path.is_file():
        raise RunError(f"{path} is missing, so the run can't be resumed. {hint}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file; all mean the same here
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise RunError(f"{path} is damaged or was not written by this lab: {reason}. {hint}") from error


def plain(value: Any) -> Any:
    """A value as JSON takes it: numpy and paths become plain values, NaN and infinities None."""
    if type(value) in (str, int, bool):  # most values are, and the rest takes ten times as long
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shipped(name: str) -> Path:
    """A file that lies beside the package: in the repository, or where installing the wheel put it.

    Args:
        name: path relative to the repository, such as "notebooks/train.ipynb".

    Raises:
        RunError: neither has it.
    """
    places = (Path(__file__).parents[1], Path(sys.prefix) / "share" / "pddm-lab")
    for place in places:
        if (place / name).is_file():
            return place / name
    raise RunError(f"{name} is missing: expected it in {' or '.join(map(str, places))}. Install the lab again.")
