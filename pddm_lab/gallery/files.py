"""The files of a gallery, each written under a temporary name and renamed, the manifest last.

gallery/<protocol>/
  features.npy           (items, dim) float32, memory-mapped
  items.parquet          id, label, class_name, role: query, gallery or both
  thumbs.bin thumbs.npy  JPEGs end to end, and where each begins, (items + 1,) int64
  distributions.parquet  similarity, left, right, positive, negative: the histograms of the evaluation
  map.parquet            id, x, y, radius, overlap: drawn later (umap_layout.py); older versions wrote only id, x, y
  manifest.json          counts, and size and SHA-256 of every file: if it exists, the gallery is complete

A row is an item's place in all of them. New items (changes.py) are appended to features.npy, thumbs.bin and thumbs.npy.
Nothing in these is ever overwritten, so a reader's memory-mapped files stay the same. Their headers count the items at
first writing, and the manifest's sizes those there are now; bytes beyond belong to a change that was interrupted.
After a change, items-<change>.parquet replaces items.parquet: the current items, each with its place in the files that
grow.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, UInt8
from PIL import Image

from pddm_lab.errors import RunError
from pddm_lab.files import replacing
from pddm_lab.metrics.separation import Distribution
from pddm_lab.progress import Progress

FORMAT = 1
CHANGED_FORMAT = 2
"""Format of a gallery that was changed since it was written."""
ROLES = ("query", "gallery", "both")
THUMB_SIDE = 96
"""Longer side of a thumbnail, in pixels."""
REWRITE = "Restore it, or resume the run with `pddm-lab resume RUN`; if it is finished, train it again"
COLUMNS = ["id", "label", "class_name", "role"]
GROWING = ("features.npy", "thumbs.bin", "thumbs.npy")
_FILES = (*GROWING, "items.parquet", "distributions.parquet")


def write_files(
    path: Path, protocol: str, features: Float[np.ndarray, "items dim"], items: pd.DataFrame,
    load_image: Callable[[int], Image.Image], distributions: Mapping[str, Distribution], progress: Progress | None,
) -> None:  # fmt: skip
    """Write a gallery's folder; arguments as for `Gallery.write`."""
    items = items[COLUMNS].reset_index(drop=True)
    features = np.ascontiguousarray(features, dtype=np.float32)
    if features.ndim != 2 or len(features) != len(items) or not np.isfinite(features).all():
        raise ValueError(f"expected finite features of shape ({len(items)}, dim), got {features.shape}")
    if not items["id"].is_unique or not items["role"].isin(ROLES).all():
        raise ValueError(f"expected unique ids, and roles among {', '.join(ROLES)}")
    path.mkdir(parents=True, exist_ok=True)
    for stale in (path / "manifest.json", path / "map.parquet", *path.glob("items-*.parquet")):
        stale.unlink(missing_ok=True)
    with replacing(path / "features.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, features)
    with replacing(path / "items.parquet") as temporary:
        items.to_parquet(temporary, index=False)
    with replacing(path / "thumbs.bin") as temporary:
        offsets = _write_thumbs(temporary, len(items), load_image, progress)
    with replacing(path / "thumbs.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, offsets)
    with replacing(path / "distributions.parquet") as temporary:
        _distribution_frame(distributions).to_parquet(temporary, index=False)
    manifest = {
        "format": FORMAT, "protocol": protocol, "items": len(items), "dim": features.shape[1],
        "roles": count_roles(items),
        "pairs": {name: {"scored": d.pairs_scored, "total": d.pairs_total} for name, d in distributions.items()},
        "map": None, "files": {name: fingerprint(path / name) for name in _FILES},
    }  # fmt: skip
    write_manifest(path, manifest)


def read_manifest(path: Path) -> dict[str, Any]:
    """manifest.json of a gallery's folder.

    Raises:
        RunError: missing, damaged, not written by this lab, or of a newer version.
    """
    file = path / "manifest.json"
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} has no complete gallery: expected {file.name} in it. {REWRITE}.") from None
    except (ValueError, OSError) as error:
        raise RunError(f"{file} is damaged: expected JSON, got {error}. {REWRITE}.") from error
    needed = {"format", "protocol", "items", "dim", "pairs", "map", "files"}
    if not isinstance(manifest, dict) or not needed <= manifest.keys():
        raise RunError(f"{file} was not written by this lab: expected {', '.join(sorted(needed))} in it. {REWRITE}.")
    if manifest["format"] not in (FORMAT, CHANGED_FORMAT):
        expected = f"expected {FORMAT} or {CHANGED_FORMAT}"
        raise RunError(f"{file} has format {manifest['format']!r}, {expected}: update this lab to read it.")
    if not {*_FILES, items_name(manifest)} - {"items.parquet"} <= manifest["files"].keys():
        raise RunError(f"{file} was not written by this lab: expected {', '.join(_FILES)} in its files. {REWRITE}.")
    return manifest


def items_name(manifest: Mapping[str, Any]) -> str:
    """The file that holds the items."""
    change = int(manifest.get("change", 0))
    return f"items-{change}.parquet" if change else "items.parquet"


def read_items(path: Path, manifest: Mapping[str, Any]) -> tuple[pd.DataFrame, Int[np.ndarray, " items"] | None]:
    """The items, and the place of each in the files that grow; None if the places are the rows."""
    items = pd.read_parquet(path / items_name(manifest))
    return (items[COLUMNS], items["place"].to_numpy()) if "place" in items else (items, None)


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
    """Raise RunError if the size of a file, or with `verify` its SHA-256, differs from the manifest's."""
    for name, expected in manifest["files"].items():
        file = path / name
        size, wanted = file.stat().st_size if file.is_file() else -1, expected["bytes"]
        if size < wanted or (size > wanted and name not in GROWING):
            actual = "no file" if size < 0 else f"{size} bytes"
            raise RunError(f"{file} is damaged: expected {wanted} bytes, got {actual}. {REWRITE}.")
        if verify and not _is_unchanged(file, expected):
            raise RunError(f"{file} has changed: expected the SHA-256 in the manifest, got another. {REWRITE}.")


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


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write manifest.json, which makes a gallery complete."""
    with replacing(path / "manifest.json") as temporary:
        temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def fingerprint(file: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, as in the manifest."""
    with open(file, "rb") as opened:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def _write_thumbs(
    file: Path, items: int, load_image: Callable[[int], Image.Image], progress: Progress | None
) -> Int[np.ndarray, " offsets"]:
    """Write every item's JPEG; returns where each begins and the last one ends."""
    sizes: list[int] = []
    with open(file, "wb") as out, ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        for start in range(0, items, 256):  # in parts, so that a failure stops it and results don't pile up
            for data in pool.map(lambda row: thumbnail(load_image(row)), range(start, min(start + 256, items))):
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
