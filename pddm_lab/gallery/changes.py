"""Add, replace and remove items of a gallery, without writing or indexing the other items again.

New data is appended to the files that grow (files.py), the list of current items is written under a new name, and the
manifest, written last, names it. A change that is interrupted leaves the gallery as it was; the next one cuts off what
it appended. The bytes of removed items stay in these files until the gallery is written again.

The id identifies an item: rows move up when items before them are removed. The metrics and the distributions describe
the items that were measured. The map is deleted, since it must have a place for each item; the manifest counts under
`changed` how many items were added and removed since.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from pddm_lab.errors import RunError
from pddm_lab.files import replacing
from pddm_lab.gallery.files import (
    CHANGED_FORMAT,
    COLUMNS,
    ROLES,
    count_roles,
    fingerprint,
    items_name,
    map_array,
    read_items,
    write_manifest,
)
from pddm_lab.gallery.gallery import Gallery


@dataclass(frozen=True, eq=False)
class NewItems:
    """Items for a gallery."""

    items: pd.DataFrame
    """id, label, class_name, role, a row per item."""
    features: Float[np.ndarray, "items dim"]
    thumbs: Sequence[bytes]
    """A JPEG per item (`thumbnail` in files.py)."""


def add(gallery: Gallery, new: NewItems) -> Gallery:
    """Add items.

    Returns:
        The changed gallery. If the index of the given gallery is built, a changed copy of it is used.

    Raises:
        RunError: an id is already in the gallery or twice among the new ones, another process is changing the gallery,
            or its files can't be written.
        ValueError: the features have the wrong shape, or an item has no id or an unknown role.
    """
    return _change(gallery, new)


def update(gallery: Gallery, new: NewItems) -> Gallery:
    """Replace items by others with the same ids; as `add`, but raises RunError if an id isn't in the gallery."""
    return _change(gallery, new, new.items["id"].tolist())


def remove(gallery: Gallery, ids: Sequence[str]) -> Gallery:
    """Remove items; as `add`, but raises RunError if an id isn't in the gallery or no item to search would remain."""
    return _change(gallery, None, ids)


def _change(gallery: Gallery, new: NewItems | None, removed: Sequence[str] = ()) -> Gallery:
    try:
        with _locked(gallery.path):
            current = gallery.reopened()
            leaves = current.items["id"].isin(list(removed)).to_numpy()
            if leaves.sum() < len(set(removed)):
                there = set(current.items["id"][leaves])
                current.index_of(next(item for item in removed if item not in there))  # raises: there is no such item
            if new is not None:
                _check(new, current, leaves)
            if not (leaves.any() or (new is not None and len(new.items))):
                return current
            parts = [current.items[~leaves], *([new.items[COLUMNS]] if new is not None else [])]
            items = pd.concat(parts, ignore_index=True).astype(current.items.dtypes)
            if not items["role"].isin(["gallery", "both"]).any():
                raise RunError(
                    f"Nothing was removed: no item to search would be left in the {current.protocol} gallery. Keep one "
                    "item or more."
                )
            _write(current, items, ~leaves, new)
            return current.reopened()
    except OSError as error:
        raise RunError(f"{gallery.path} can't be changed: {error.strerror or error}.") from error


def _check(new: NewItems, current: Gallery, leaves: Bool[np.ndarray, " items"]) -> None:
    ids, shape = new.items["id"], (len(new.items), current.manifest["dim"])
    if new.features.shape != shape or not np.isfinite(new.features).all() or len(new.thumbs) != len(ids):
        raise ValueError(f"expected finite features of shape {shape} and as many thumbnails, got {new.features.shape}")
    if not new.items["role"].isin(ROLES).all() or not ids.astype(bool).all():
        raise ValueError(f"expected an id for each item, and roles among {', '.join(ROLES)}")
    if not ids.is_unique:
        raise RunError(f"{ids[ids.duplicated()].iloc[0]!r} occurs twice among the new items. Expected unique ids.")
    stay = current.items["id"][~leaves]
    if (known := stay.isin(ids.tolist())).any():
        raise RunError(
            f"{stay[known].iloc[0]!r} is already in the {current.protocol} gallery: update it, or remove it first."
        )


def _write(current: Gallery, items: pd.DataFrame, stay: Bool[np.ndarray, " items"], new: NewItems | None) -> None:
    path, before = current.path, current.manifest
    files = {name: dict(entry) for name, entry in before["files"].items() if name != "map.parquet"}
    _, places = read_items(path, before)
    places = (np.arange(len(stay)) if places is None else places)[stay]
    if new is not None and len(new.items):
        first = len(map_array(path / "features.npy", files["features.npy"]["bytes"]))
        places = np.concatenate([places, first + np.arange(len(new.items))])
        ends = files["thumbs.bin"]["bytes"] + np.cumsum([len(thumb) for thumb in new.thumbs], dtype=np.int64)
        for name, data in (
            ("features.npy", np.ascontiguousarray(new.features, dtype=np.float32).tobytes()),
            ("thumbs.bin", b"".join(new.thumbs)),
            ("thumbs.npy", ends.tobytes()),
        ):
            _append(path / name, files[name], data)
    change = int(before.get("change", 0)) + 1
    counts = before.get("changed", {"added": 0, "removed": 0})
    added, removed = len(new.items) if new is not None else 0, int((~stay).sum())
    after = before | {
        "format": CHANGED_FORMAT, "items": len(items), "roles": count_roles(items), "map": None, "change": change,
        "changed": {"added": counts["added"] + added, "removed": counts["removed"] + removed},
    }  # fmt: skip
    old, name = items_name(before), items_name(after)
    with replacing(path / name) as temporary:
        items.assign(place=places).to_parquet(temporary, index=False)
    if "map.parquet" in before["files"]:  # first, so that a map never stands beside other items than its own
        write_manifest(path, before | {"map": None, "files": files})
        (path / "map.parquet").unlink(missing_ok=True)
    del files[old]
    write_manifest(path, after | {"files": files | {name: fingerprint(path / name)}})
    with suppress(OSError):  # some systems don't delete open files: it stays unused
        (path / old).unlink(missing_ok=True)


def _append(file: Path, entry: dict[str, Any], data: bytes) -> None:
    """Append to a file after the bytes that its entry in the manifest counts, and update the entry."""
    if file.stat().st_nlink > 1:  # a hard-linked copy of the run shares the file
        with replacing(file) as temporary:
            shutil.copyfile(file, temporary)
    with open(file, "r+b") as opened:
        opened.truncate(entry["bytes"])
        opened.seek(0, os.SEEK_END)
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
    part = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    entry.update(bytes=entry["bytes"] + len(data), appended=[*entry.get("appended", []), part])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from changing the same gallery, if the system supports it; readers are not affected."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise RunError(f"{path} is being changed by another process: try again when that has finished.") from None
    finally:
        os.close(folder)
