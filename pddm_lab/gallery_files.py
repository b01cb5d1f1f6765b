"""The files of a gallery: written one by one under temporary names, the manifest last.

gallery/<protocol>/
  features.npy           (items, dim) float32, memory-mapped
  items.parquet          id, label, class_name, role: query, gallery or both
  thumbs.bin thumbs.npy  JPEGs end to end, and where each begins, (items + 1,) int64
  distributions.parquet  similarity, left, right, positive, negative: the histograms of the evaluation
  map.parquet            id, x, y, radius, overlap: drawn later, by maps.py; one of an older lab has id, x, y alone
  manifest.json          counts, and size and SHA-256 of every file: its presence means complete

A row is an item's place in all of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from PIL import Image

from pddm_lab.errors import RunError
from pddm_lab.runfiles import replacing
from pddm_lab.separation import Distribution

FORMAT = 1
ROLES = ("query", "gallery", "both")
THUMB_SIDE = 96
"""Longer side of a thumbnail, in pixels."""
WRITE_ANEW = "`pddm-lab resume` writes a run's galleries anew"

Progress = Callable[[int, int, str], None]
"""Called with how many are done, of how many, and what they are."""

_COLUMNS = ["id", "label", "class_name", "role"]
_FILES = ("features.npy", "items.parquet", "thumbs.bin", "thumbs.npy", "distributions.parquet")


def write_files(
    path: Path,
    protocol: str,
    features: Float[np.ndarray, "items dim"],
    items: pd.DataFrame,
    load_image: Callable[[int], Image.Image],
    distributions: Mapping[str, Distribution],
    progress: Progress | None,
) -> None:
    """Write a gallery's folder; arguments as for `Gallery.write`."""
    items = items[_COLUMNS].reset_index(drop=True)
    features = np.ascontiguousarray(features, dtype=np.float32)
    if features.ndim != 2 or len(features) != len(items) or not np.isfinite(features).all():
        raise ValueError(f"expected finite features of shape ({len(items)}, dim), got {features.shape}")
    if not items["id"].is_unique or not items["role"].isin(ROLES).all():
        raise ValueError(f"expected unique ids, and roles among {', '.join(ROLES)}")
    path.mkdir(parents=True, exist_ok=True)
    for stale in ("manifest.json", "map.parquet"):
        (path / stale).unlink(missing_ok=True)
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
    write_manifest(
        path,
        {
            "format": FORMAT,
            "protocol": protocol,
            "items": len(items),
            "dim": features.shape[1],
            "roles": {role: int((items["role"] == role).sum()) for role in ROLES},
            "pairs": {name: {"scored": d.pairs_scored, "total": d.pairs_total} for name, d in distributions.items()},
            "map": None,
            "files": {name: fingerprint(path / name) for name in _FILES},
        },
    )


def read_manifest(path: Path) -> dict[str, Any]:
    """manifest.json of a gallery's folder.

    Raises:
        RunError: missing, torn, foreign, or of a newer lab.
    """
    file = path / "manifest.json"
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} holds no complete gallery: expected {file.name} in it. {WRITE_ANEW}.") from None
    except (ValueError, OSError) as error:
        raise RunError(f"{file} is torn: expected JSON, {error}. {WRITE_ANEW}.") from error
    needed = {"format", "protocol", "items", "dim", "pairs", "map", "files"}
    if not isinstance(manifest, dict) or not needed <= manifest.keys() or not set(_FILES) <= manifest["files"].keys():
        raise RunError(f"{file} is foreign: expected {', '.join(sorted(needed))} in it. {WRITE_ANEW}.")
    if manifest["format"] != FORMAT:
        raise RunError(f"{file} has format {manifest['format']!r}, expected {FORMAT}: update this lab to read it.")
    return manifest


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write manifest.json of a gallery's folder: what makes it complete."""
    with replacing(path / "manifest.json") as temporary:
        temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def fingerprint(file: Path) -> dict[str, Any]:
    with open(file, "rb") as opened:
        return {"bytes": file.stat().st_size, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def _write_thumbs(
    file: Path, items: int, load_image: Callable[[int], Image.Image], progress: Progress | None
) -> Int[np.ndarray, " offsets"]:
    """Write every item's JPEG, and return where each begins and the last one ends."""

    def make(row: int) -> bytes:
        image = load_image(row).convert("RGB")  # a copy, whatever the mode
        image.thumbnail((THUMB_SIDE, THUMB_SIDE), Image.Resampling.LANCZOS, reducing_gap=2)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        return buffer.getvalue()

    sizes: list[int] = []
    with open(file, "wb") as out, ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        for start in range(0, items, 256):  # in parts, so that a failure ends it and results don't pile up
            for data in pool.map(make, range(start, min(start + 256, items))):
                sizes.append(out.write(data))
                if progress:
                    progress(len(sizes), items, "thumbnails")
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)


def _distribution_frame(distributions: Mapping[str, Distribution]) -> pd.DataFrame:
    columns = ["similarity", "left", "right", "positive", "negative"]
    parts = [
        pd.DataFrame(dict(zip(columns, (name, d.edges[:-1], d.edges[1:], d.positive, d.negative), strict=True)))
        for name, d in distributions.items()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
