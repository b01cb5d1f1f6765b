"""Arrays computed from files, kept on disk by the files' content: a copy or a renamed file needs no new computation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pddm_lab.files import write_file

HASH_BYTES = 16


def content_hash(path: Path) -> bytes:
    """A digest of a file's bytes."""
    return hashlib.blake2b(path.read_bytes(), digest_size=HASH_BYTES).digest()


class ContentCache:
    """One array for each content, all of one shape, in a file that is replaced by `write`.

    Args:
        file: where they are kept. If it is damaged or holds other shapes, they are computed again. One that can't be
            read for another reason stays as it is, and nothing is kept.
        name: of the arrays in the file.
        shape: of one array.
        dtype: of all.
    """

    def __init__(self, file: Path, name: str, shape: tuple[int, ...], dtype: type) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        self._file, self._name, self._shape, self._dtype = file, name, shape, dtype
        hashes: np.ndarray = np.empty((0, HASH_BYTES), np.uint8)
        arrays: np.ndarray = np.empty((0, *shape), dtype)
        self._writes = True
        try:
            with open(file, "rb"):  # safetensors says of a file that it may not read that it is missing
                kept = load_file(file)
            if kept["hashes"].shape == (len(kept[name]), HASH_BYTES) and kept[name].shape[1:] == shape:
                hashes, arrays = kept["hashes"], kept[name]
        except FileNotFoundError:
            pass
        except (OSError, MemoryError):  # it may be whole
            self._writes = False
        except (SafetensorError, ValueError, KeyError, TypeError):  # damaged
            file.unlink(missing_ok=True)
        self._hashes, self._arrays = [row.tobytes() for row in hashes], list(arrays)
        self._row_of = {content: row for row, content in enumerate(self._hashes)}
        self._added = False

    def __contains__(self, content: bytes) -> bool:
        return content in self._row_of

    def add(self, content: bytes, array: np.ndarray) -> None:
        """Add the array of a content; `write` puts it into the file."""
        self._row_of[content] = len(self._hashes)
        self._hashes.append(content)
        self._arrays.append(array)
        self._added = True

    def of(self, contents: Sequence[bytes]) -> np.ndarray:
        """(contents, *shape): the arrays of contents that are all there."""
        arrays = [self._arrays[self._row_of[content]] for content in contents]
        return np.stack(arrays) if arrays else np.empty((0, *self._shape), self._dtype)

    def write(self) -> None:
        """Write what was added, with what was there."""
        from safetensors.numpy import save

        if self._added and self._writes:
            hashes = np.frombuffer(b"".join(self._hashes), np.uint8).reshape(-1, HASH_BYTES)
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_file(self._file, save({"hashes": hashes, self._name: np.stack(self._arrays)}))
            self._added = False
