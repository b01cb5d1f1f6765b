"""The files of a gallery. manifest.json names them, so renaming a new manifest into its place is all that a change does
at once: whatever fails or is killed before leaves the old gallery, whatever comes later the new one.

gallery/<protocol>/
  features.npy           (items, dim) float32, memory-mapped
  pretrained.npy         (items, pretrained dim) float32: of the pretrained trunk, if a similarity of the run uses them
  items.parquet          id, label, class_name, role: query, gallery or both; place and picture after a change;
                         metadata.<name>: texts of the data set
  thumbs.bin thumbs.npy  JPEGs end to end, and where each begins, (items + 1,) int64
  distributions.parquet  similarity, left, right, positive, negative: the histograms of the evaluation
  neighbourhoods.safetensors  of the searched items, for the run's similarity on local structure (reference.py)
  map.parquet            id, x, y, radius, overlap: drawn later (umap_layout.py); older versions wrote only id, x, y
  manifest.json          counts, and size and SHA-256 of every file: if it exists, the gallery is complete

A file that a change writes again gets the number of the change: items-3.parquet. What the manifest doesn't name is left
from a change that was broken off; the next one deletes it.

A row is an item's place in all of them. New items (changes.py) are appended to features.npy, thumbs.bin and thumbs.npy,
and each item's place in these is listed. Nothing in these is ever overwritten, so a reader's memory-mapped files stay
the same. Their headers count the items at first writing, and the manifest's sizes those there are now; bytes beyond
belong to a change that was broken off.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout
from jaxtyping import Float, Int, UInt8
from PIL import Image
from pydantic_core import to_json

from pddm_lab.errors import BusyError, RunError
from pddm_lab.files import WRITER, fingerprint, read_json, read_table, replacing, write_file
from pddm_lab.gallery.schema import DISTRIBUTIONS, ITEMS, METADATA, MOST_CLASSES, ManifestContent
from pddm_lab.metrics.separation import Distribution
from pddm_lab.progress import Progress

FORMAT = 1
CHANGED_FORMAT = 2
"""Format of a gallery that was changed since it was written."""
ROLES = ("query", "gallery", "both")
THUMB_SIDE = 96
"""Longer side of a thumbnail, in pixels."""
COLUMNS = ["id", "label", "class_name", "role"]
GROWING = ("features.npy", "thumbs.bin", "thumbs.npy")
PRETRAINED = "pretrained.npy"
"""Grows too, where it is."""
NEIGHBOURHOODS = "neighbourhoods.safetensors"
HISTORY = "history"
"""Folder of what undoing changes takes (history.py)."""
_FILES = (*GROWING, "items.parquet", "distributions.parquet")
_DATA = r"(features|pretrained|items|thumbs|distributions|map|neighbourhoods)(-\d+)?\.(npy|bin|parquet|safetensors)"
_WRITTEN = re.compile(rf"{_DATA}|\.({_DATA}|manifest\.json){WRITER}")
"""What only changes write; other files and their temporary ones are written at any moment."""


def repair(path: Path) -> str:
    """What to do about the damaged gallery in a run's folder."""
    return (
        f"Restore it, or write the gallery again: `pddm-lab gallery rebuild {quote(path.absolute().parents[1].name)}`"
    )


def neighbourhoods_command(path: Path) -> str:
    """What builds the neighbourhoods of a gallery in a run's folder."""
    return f"pddm-lab gallery neighbourhoods {quote(path.absolute().parents[1].name)} --protocol {path.name}"


def write_files(
    path: Path, protocol: str, features: Float[np.ndarray, "items dim"], items: pd.DataFrame,
    thumb: Callable[[int], bytes], distributions: Mapping[str, Distribution], progress: Progress | None,
    changed: Mapping[str, int] | None = None, pretrained: Float[np.ndarray, "items pretrained"] | None = None,
    model: str = "",
) -> None:  # fmt: skip
    """Write a gallery's folder; it replaces one that is there.

    Args:
        path, protocol, features, items, distributions, progress, pretrained, model: as for `Gallery.write`; items may
            have `picture` and metadata.
        thumb: row -> JPEG.
        changed: how many items were added and removed since the gallery was measured.
    """
    kept = [name for name in items if name in (*COLUMNS, "picture") or name.startswith(METADATA)]
    items = items[kept].reset_index(drop=True)
    features = np.ascontiguousarray(features, dtype=np.float32)
    if features.ndim != 2 or len(features) != len(items) or not np.isfinite(features).all():
        raise ValueError(f"expected finite features of shape ({len(items)}, dim), got {features.shape}")
    if pretrained is not None and (len(pretrained) != len(items) or not np.isfinite(pretrained).all()):
        raise ValueError(f"expected finite pretrained features of {len(items)} items, got {pretrained.shape}")
    if not items["id"].is_unique or not items["role"].isin(ROLES).all():
        raise ValueError(f"expected unique ids, and roles among {', '.join(ROLES)}")
    with changing(path):
        path.mkdir(parents=True, exist_ok=True)
        try:
            change = int(read_manifest(path).get("change", 0)) + 1
        except RunError:
            change = 0  # there is none that could be read
        manifest: dict[str, Any] = {
            "format": CHANGED_FORMAT if change else FORMAT, "protocol": protocol, "items": len(items),
            "dim": features.shape[1], "roles": count_roles(items), "map": None, "change": change, "files": {},
            "pairs": {name: {"scored": d.pairs_scored, "total": d.pairs_total} for name, d in distributions.items()},
            **({"changed": dict(changed)} if changed else {}), **({"model": model} if model else {}),
        }  # fmt: skip
        with new_file(path, manifest, "features.npy") as file, open(file, "wb") as opened:
            np.save(opened, features)
        if pretrained is not None:
            with new_file(path, manifest, PRETRAINED) as file, open(file, "wb") as opened:
                np.save(opened, np.ascontiguousarray(pretrained, dtype=np.float32))
        with new_file(path, manifest, "items.parquet") as file:
            items.to_parquet(file, index=False)
        with new_file(path, manifest, "thumbs.bin") as file:
            offsets = _write_thumbs(file, len(items), thumb, progress)
        with new_file(path, manifest, "thumbs.npy") as file, open(file, "wb") as opened:
            np.save(opened, offsets)
        with new_file(path, manifest, "distributions.parquet") as file:
            _distribution_frame(distributions).to_parquet(file, index=False)
        commit(path, manifest)
        shutil.rmtree(path / HISTORY, ignore_errors=True)  # its items have other places (history.py)


@contextmanager
def changing(path: Path, wait: float = 0.5) -> Iterator[None]:
    """Keep other processes from changing the same gallery; readers are not affected.

    Args:
        path: of the gallery.
        wait: seconds to wait for another process; a new map is written in less than the default.

    Raises:
        BusyError: another process is changing it.
        RunError: its files can't be written.
    """
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=wait):
            yield
    except Timeout:
        raise BusyError(f"{path} is being changed by another process: try again when that has finished.") from None
    except OSError as error:
        raise RunError(f"{path} can't be changed: {error.strerror or error}.") from error


def require_writable(path: Path) -> None:
    """Raise RunError as `changing` does, before much is computed for a change."""
    try:
        with TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise RunError(f"{path} can't be changed: {error.strerror or error}.") from error


@contextmanager
def new_file(path: Path, manifest: dict[str, Any], name: str) -> Iterator[Path]:
    """A temporary path to write to; it becomes the gallery's file of that name in a manifest that is then committed."""
    change = int(manifest.get("change", 0))
    manifest["files"].pop(file_name(manifest, name), None)
    stored = path / (f"-{change}.".join(name.split(".")) if change else name)
    with replacing(stored) as temporary:
        yield temporary
    manifest["files"][stored.name] = fingerprint(stored)


def append(file: Path, files: dict[str, dict[str, Any]], data: bytes) -> None:
    """Append to a file after the bytes that its entry in the manifest counts, and update the entry."""
    entry = files[file.name]
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


def as_next(path: Path, manifest: dict[str, Any]) -> None:
    """Give a manifest the number of the next change, and delete what a change of this number noted that broke off."""
    manifest["change"] = change = int(manifest.get("change", 0)) + 1
    for file in (path / HISTORY).glob(f"{change}[.-]*"):
        file.unlink()


def written_at(manifest: Mapping[str, Any]) -> int:
    """The number of the change with which a gallery was written anew; 0: it never was. Older places mean nothing."""
    return int(file_name(manifest, "features.npy").removeprefix("features").removesuffix(".npy").lstrip("-") or 0)


def commit(path: Path, manifest: Mapping[str, Any]) -> None:
    """Make a manifest the gallery's, and delete the files that it doesn't name."""
    write_file(path / "manifest.json", to_json(dict(manifest), indent=1))
    for file in path.iterdir():
        if _WRITTEN.fullmatch(file.name) and file.name not in manifest["files"]:
            with suppress(OSError):  # some systems don't delete open files: the next change tries again
                file.unlink(missing_ok=True)


def read_manifest(path: Path) -> dict[str, Any]:
    """manifest.json of a gallery's folder.

    Raises:
        RunError: missing, damaged, not written by this lab, or of a newer version.
    """
    file = path / "manifest.json"
    missing = f"{path} has no complete gallery: expected {file.name} in it. {repair(path)}."
    manifest = read_json(file, ManifestContent, missing, f"{repair(path)}.")
    if not all(file_name(manifest, name) for name in _FILES):
        raise RunError(
            f"{file} was not written by this lab: expected {', '.join(_FILES)} in its files. {repair(path)}."
        )
    return manifest


def file_name(manifest: Mapping[str, Any], name: str) -> str:
    """The file that a manifest names as the gallery's file of that name; empty if it names none."""
    stem, ending = name.split(".")
    return next((file for file in manifest["files"] if re.fullmatch(rf"{stem}(-\d+)?\.{ending}", file)), "")


def read_items(path: Path, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """The items, with `place` and `picture` if they are listed.

    Without `place` the places are the rows. `picture` is null for an item of the data set, else the file that the item
    was embedded from, empty if it is not known.

    Raises:
        RunError: the file is damaged or was not written by this lab.
    """
    file, hint, listed = path / file_name(manifest, "items.parquet"), f"{repair(path)}.", ("place", "picture")
    table = read_table(file, ITEMS, hint, optional=listed, among={"role": ROLES}, finite=True)
    items = table.drop_columns([name for name in listed if table[name].null_count == len(table)]).to_pandas()
    if not items["label"].between(0, MOST_CLASSES).all() or items.get("place", items["label"]).isna().any():
        raise RunError(f"{file} is damaged: expected places, and labels from 0 to {MOST_CLASSES}. {hint}")
    return items


def read_metadata(path: Path, manifest: Mapping[str, Any]) -> pd.DataFrame:
    """What the data set says of each item beside its class, a column of texts for each name.

    Raises:
        RunError: the file is damaged.
    """
    import pyarrow.parquet as pq

    file, hint = path / file_name(manifest, "items.parquet"), f"{repair(path)}."
    try:
        stored = pq.read_metadata(file)
    except (OSError, ValueError) as error:
        raise RunError(f"{file} is damaged: {error}. {hint}") from error
    names = [name for name in stored.schema.names if name.startswith(METADATA)]
    if not names:
        return pd.DataFrame(index=range(stored.num_rows))
    table = read_table(file, {"id": "string"} | dict.fromkeys(names, "string"), hint, optional=names)
    return table.to_pandas()[names].fillna("").rename(columns=lambda name: name.removeprefix(METADATA))


def read_distributions(path: Path, manifest: Mapping[str, Any]) -> dict[str, Distribution]:
    """Similarity -> distribution of its pairs; raises RunError as `read_items` does."""
    file, pairs = path / file_name(manifest, "distributions.parquet"), manifest["pairs"]
    hint = f"{repair(path)}."
    frame = read_table(file, DISTRIBUTIONS, hint, among={"similarity": pairs}, finite=True).to_pandas()
    return {
        str(name): Distribution(
            np.append(bins["left"], bins["right"].iloc[-1]), bins["positive"].to_numpy(),
            bins["negative"].to_numpy(), pairs[name]["scored"], pairs[name]["total"],
        )
        for name, bins in frame.groupby("similarity", sort=False)
    }  # fmt: skip


def map_array(file: Path, size: int) -> np.ndarray:
    """The array in the first `size` bytes of an .npy file, memory-mapped, with what was appended to it.

    Raises:
        ValueError: the file holds something else.
    """
    with open(file, "rb") as opened:
        np.lib.format.read_magic(opened)
        shape, by_columns, kind = np.lib.format.read_array_header_1_0(opened)
        start = opened.tell()
    row = kind.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    if kind.hasobject or by_columns or not shape or not row or (size - start) % row:
        raise ValueError("expected rows of numbers, got Python objects, columns or part of a row")
    return np.memmap(file, kind, "r", start, ((size - start) // row, *shape[1:]))


def map_bytes(file: Path, size: int) -> UInt8[np.ndarray, " bytes"]:
    """The first bytes of a file, memory-mapped; an empty one can't be."""
    return np.memmap(file, np.uint8, "r", shape=(size,)) if size else np.empty(0, np.uint8)


def check_files(path: Path, manifest: Mapping[str, Any], verify: bool) -> None:
    """Raise RunError if the size of a file, or with `verify` its SHA-256, differs from the manifest's.

    Neighbourhoods can be computed again, so only `verify` looks at them.
    """
    growing = {file_name(manifest, name) for name in (*GROWING, PRETRAINED)}
    for name, expected in manifest["files"].items():
        if name == file_name(manifest, NEIGHBOURHOODS) and not verify:
            continue
        file = path / name
        size, wanted = file.stat().st_size if file.is_file() else -1, expected["bytes"]
        if size < wanted or (size > wanted and name not in growing):
            actual = "no file" if size < 0 else f"{size} bytes"
            raise RunError(f"{file} is damaged: expected {wanted} bytes, got {actual}. {repair(path)}.")
        if verify and not _is_unchanged(file, expected):
            raise RunError(f"{file} has changed: expected the SHA-256 in the manifest, got another. {repair(path)}.")


def items_key(manifest: Mapping[str, Any]) -> str:
    """What stands for the items of a gallery, their order, roles and features; the same as long as these are."""
    files = [manifest["files"].get(file_name(manifest, name)) for name in ("items.parquet", "features.npy", PRETRAINED)]
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def is_intact(path: Path, manifest: Mapping[str, Any], name: str) -> bool:
    """Whether a gallery's file is there, and as the manifest describes it."""
    stored = file_name(manifest, name)
    return bool(stored) and (path / stored).is_file() and _is_unchanged(path / stored, manifest["files"][stored])


def _is_unchanged(file: Path, expected: Mapping[str, Any]) -> bool:
    """Whether each part of a file, the first one and those appended later, has its SHA-256."""
    parts = expected.get("appended", [])
    parts = [{**expected, "bytes": expected["bytes"] - sum(part["bytes"] for part in parts)}, *parts]
    with open(file, "rb") as opened:
        return all(_sha256_of_next(opened, part["bytes"]) == part["sha256"] for part in parts)


def _sha256_of_next(opened: BinaryIO, size: int) -> str:
    digest = hashlib.sha256()
    while size and (data := opened.read(min(size, 1 << 20))):
        digest.update(data)
        size -= len(data)
    return digest.hexdigest()


def count_roles(items: pd.DataFrame) -> dict[str, int]:
    """How many items have each role."""
    return {role: int((items["role"] == role).sum()) for role in ROLES}


def _write_thumbs(
    file: Path, items: int, thumb: Callable[[int], bytes], progress: Progress | None
) -> Int[np.ndarray, " offsets"]:
    """Write every item's JPEG; returns where each begins and the last one ends."""
    sizes: list[int] = []
    with open(file, "wb") as out, ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        for start in range(0, items, 256):  # in parts, so that a failure stops it and results don't pile up
            for data in pool.map(thumb, range(start, min(start + 256, items))):
                sizes.append(out.write(data))
                if progress:
                    progress(len(sizes), items, "thumbnails")
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)


def thumbnail(image: Image.Image) -> bytes:
    """A picture's thumbnail as a JPEG; the picture is not changed."""
    image = image.convert("RGB")  # a copy, whatever the mode
    image.thumbnail((THUMB_SIDE, THUMB_SIDE), Image.Resampling.LANCZOS, reducing_gap=2)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _distribution_frame(distributions: Mapping[str, Distribution]) -> pd.DataFrame:
    columns = ["similarity", "left", "right", "positive", "negative"]
    parts = [
        pd.DataFrame(dict(zip(columns, (name, d.edges[:-1], d.edges[1:], d.positive, d.negative), strict=True)))
        for name, d in distributions.items()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
