"""The versions that a run notes, and the stamp of its model."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
from pathlib import Path

_VERSIONS = ("pddm-lab", "torch", "torchvision", "lightning-fabric", "numpy", "faiss-cpu", "umap-learn")


def versions() -> dict[str, str]:
    """Of Python and of the packages that a training's result depends on."""
    installed = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed[name] = "not installed"
    return installed


def model_stamp(path: Path) -> str:
    """SHA-256 of the weights that make vectors, by which these are told apart.

    Args:
        path: folder of a run, whose model.safetensors has these weights beside those of its similarities.

    Returns:
        Empty if there is no such file, it can't be read, or the features came from elsewhere.
    """
    file = path / "model.safetensors"
    try:
        stat = file.stat()
    except OSError:
        return ""
    return _stamp_of(file, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _stamp_of(file: Path, size: int, time: int) -> str:
    """Of a file, whose size and time are those that it has now; without torch, since pages wait for it."""
    digest, begin = hashlib.sha256(), 8
    try:
        with open(file, "rb") as opened:
            begin += int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(begin - 8)) if begin <= size else {}
            names = sorted(name for name in header if name.startswith("embedding."))
            for name in names:
                first, last = header[name]["data_offsets"]
                opened.seek(begin + first)
                digest.update(name.encode() + opened.read(last - first))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return ""  # whoever needs the model says what is wrong with it
    return digest.hexdigest() if names else ""
