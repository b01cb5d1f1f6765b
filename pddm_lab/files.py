"""Files of a run, each written under a temporary name and renamed, so that a reader sees the old one or the new one.

Tensors are stored as safetensors, a checkpoint in torch's own format, read as tensors and plain values only. torch is
imported where it is used, so that reading the rest of a run doesn't wait for it.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pddm_lab.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor


TEMPORARY = re.compile(r"\..+\.(\d+)-\d+\.tmp")
"""Names of the temporary files of `replacing`, with the number of the process that writes there."""


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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed to `path` at the end, deleted after an error.

    Raises:
        RunError: `path` can't be written.
    """
    # The dot hides it from readers of a parquet folder; the numbers separate processes, and sessions of a server.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    with writing(path):
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):  # the disk's error is the one to report
                temporary.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a safetensors file with tensors and, as JSON, metadata."""
    from safetensors.torch import save

    # Cloned: channels_last weights are not contiguous and tied ones share memory; safetensors takes neither.
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    with replacing(path) as temporary:
        # As bytes: its own writer makes files that only their owner can read, and hides what the system reports.
        temporary.write_bytes(save(copies, {key: json.dumps(plain(value)) for key, value in metadata.items()}))


def read_tensors(path: Path, hint: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file, on the CPU, and its metadata.

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
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


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
