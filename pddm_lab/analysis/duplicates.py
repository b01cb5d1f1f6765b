"""Duplicates and near-duplicates among the pictures of a data set, within a split and across splits.

Across splits they make metrics look better than they are. Every picture is compared with every other one and with its
mirror image, by the likeness of their prints (data/near_duplicates.py). Pictures with the same thumbnail, byte for
byte, count as identical; the files can confirm it.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Int, UInt8
from PIL import Image

from pddm_lab.data.images import open_image
from pddm_lab.data.near_duplicates import SIDE, joined_groups, likenesses, print_of
from pddm_lab.errors import DataError
from pddm_lab.progress import Progress

if TYPE_CHECKING:
    from pddm_lab.gallery.gallery import Gallery

LEAST_LIKENESS = 0.9
"""Smallest likeness of a pair that is kept."""
MOST = 200_000
"""Most pairs that are kept: the most similar ones."""
KINDS = {"identical": "Identical", "near": "Near", "mirrored": "Mirrored"}
SPLITS = {
    "train": "training items", "known": "known queries", "unseen": "unseen items", "unseen_query": "unseen queries",
    "unseen_gallery": "unseen gallery",
}  # fmt: skip
"""Splits in the order of tables. The galleries of the known classes are the training items."""
_MIRROR_GAIN = 0.01  # how much more similar a mirror image must be: a symmetric picture is its own mirror image
_ROWS = 256  # read at a time


@dataclass(frozen=True, eq=False)
class Pictures:
    """All items of a run's galleries, each once."""

    items: pd.DataFrame
    """id, label, class_name, split (a key of `SPLITS`), protocol, row (in its gallery)."""
    prints: UInt8[np.ndarray, "items side side 3"]
    """Empty if only identical pictures are searched for."""
    keys: list[bytes]
    """A digest of each thumbnail."""

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, eq=False)
class DuplicatePairs:
    """Pairs of duplicates and near-duplicates."""

    pairs: pd.DataFrame
    """a, b (rows of `Pictures`, a < b), likeness, kind (a key of `KINDS`), same_label; identical ones first, then by
    likeness."""
    least: float
    """Smallest likeness of the pairs; 1 if only identical ones were searched for."""
    left_out: int
    """Pairs of at least that likeness beyond `MOST`."""


def read_pictures(
    galleries: Mapping[str, Gallery], prints: bool = True, *, progress: Progress | None = None
) -> Pictures:
    """Read prints and digests of all items of a run's galleries from their thumbnails.

    Args:
        prints: False to find only identical thumbnails, in a fraction of the time.
        progress: called with (pictures read, pictures, "pictures").
    """
    all_prints: list[np.ndarray] = []
    keys: list[bytes] = []
    total = sum(len(gallery) for gallery in galleries.values())
    with ThreadPoolExecutor(4) as pool:  # decoders release the interpreter
        for gallery in galleries.values():
            for start in range(0, len(gallery), _ROWS):
                thumbs = [gallery.thumb(row) for row in range(start, min(start + _ROWS, len(gallery)))]
                all_prints += pool.map(print_of_thumb, thumbs) if prints else []
                keys += [hashlib.blake2b(thumb, digest_size=16).digest() for thumb in thumbs]
                if progress:
                    progress(len(keys), total, "pictures")
    return Pictures(items_of(galleries), np.array(all_prints, dtype=np.uint8).reshape(-1, SIDE, SIDE, 3), keys)


def items_of(galleries: Mapping[str, Gallery]) -> pd.DataFrame:
    """The items of a run's galleries: id, label, class_name, split (a key of `SPLITS`), protocol, row."""
    columns = ["id", "label", "class_name", "split", "protocol", "row"]
    parts = [pd.DataFrame(columns=columns)]
    for protocol, gallery in galleries.items():
        names = (
            {"query": "known", "gallery": "train", "both": "known"}
            if protocol == "known"
            else {"query": "unseen_query", "gallery": "unseen_gallery", "both": "unseen"}
        )
        split = gallery.items["role"].astype(str).map(names)
        part = gallery.items[["id", "label", "class_name"]].assign(split=split, protocol=protocol)
        parts.append(part.assign(row=np.arange(len(part))))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def print_of_thumb(thumb: bytes) -> UInt8[np.ndarray, "side side 3"]:
    """The print of a picture's JPEG."""
    with Image.open(io.BytesIO(thumb), formats=("JPEG",)) as image:
        image.draft("RGB", (3 * SIDE, 3 * SIDE))
        return print_of(image)


def find_duplicates(
    pictures: Pictures, least: float = LEAST_LIKENESS, *, most: int = MOST, progress: Progress | None = None
) -> DuplicatePairs:
    """Find every pair of pictures of at least a likeness, plain or mirrored, by comparing all pairs.

    Args:
        pictures: to compare; 10,000 take some seconds, and the time grows with the square of their number.
        least: smallest likeness; 1: search for identical thumbnails only.
        most: pairs to keep.
        progress: called with (pairs compared, pairs, "pairs").
    """
    count = len(pictures)
    keys = pd.factorize(np.array(pictures.keys, dtype=object))[0] if count else np.empty(0, np.int64)
    identical, left_out = _identical(keys, most)
    parts = [identical]
    if least < 1 and len(pictures.prints):
        for part, plain, turned in likenesses(pictures.prints, mirrors=True):
            likeness = np.maximum(plain, turned)
            row, column = np.nonzero(likeness >= least)
            above = column > row  # both count from the first of this part
            row, column = row[above], column[above]
            mirror = turned[row, column] > plain[row, column] + _MIRROR_GAIN
            pairs = pd.DataFrame(
                {"a": row + part.start, "b": column + part.start, "likeness": likeness[row, column].clip(max=1),
                 "kind": np.where(mirror, "mirrored", "near")}
            )  # fmt: skip
            parts.append(pairs[keys[pairs["a"]] != keys[pairs["b"]]])
            if sum(map(len, parts)) > 2 * most:
                parts, dropped = _strongest(parts, most)
                left_out += dropped
            if progress:
                done = part.stop * (2 * count - part.stop - 1) // 2
                progress(done, math.comb(count, 2), "pairs")
    kept, dropped = _strongest(parts, most)
    labels = pictures.items["label"].to_numpy()
    order = {"by": ["alike", "likeness", "a", "b"], "ascending": [True, False, True, True], "ignore_index": True}
    pairs = kept[0].assign(alike=kept[0]["kind"] != "identical").sort_values(**order).drop(columns="alike")
    same = labels[pairs["a"]] == labels[pairs["b"]] if count else np.empty(0, bool)
    return DuplicatePairs(pairs.assign(same_label=same), least, left_out + dropped)


def _identical(keys: np.ndarray, most: int) -> tuple[pd.DataFrame, int]:
    """Pairs of equal keys, and how many of them are beyond `most`."""
    order = np.argsort(keys, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(keys[order])) + 1) if len(keys) else []
    ends, count, total = [np.empty((0, 2), dtype=np.int64)], 0, 0
    for group in groups:
        total += math.comb(len(group), 2)
        if len(group) > 1 and count < most:
            few = group[: math.isqrt(2 * (most - count)) + 1]
            ends.append(few[np.column_stack(np.triu_indices(len(few), 1))])
            count += len(ends[-1])
    both = np.concatenate(ends)
    return pd.DataFrame({"a": both[:, 0], "b": both[:, 1], "likeness": 1.0, "kind": "identical"}), total - count


def _strongest(parts: list[pd.DataFrame], most: int) -> tuple[list[pd.DataFrame], int]:
    every = pd.concat(parts, ignore_index=True)
    if len(every) <= most:
        return [every], 0
    rank = every["likeness"] + (every["kind"] == "identical")
    return [every.loc[rank.nlargest(most).index]], len(every) - most


def across_splits(items: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs by the splits of both items: split_a, split_b, pairs, a column per kind, conflicts (labels differ), items.

    Args:
        items: with a column split.
        pairs: of `DuplicatePairs`.
    """
    splits = items["split"].to_numpy()
    rank = {name: number for number, name in enumerate(SPLITS)}
    ends = np.array([[rank[splits[a]], rank[splits[b]]] for a, b in zip(pairs["a"], pairs["b"], strict=True)])
    ends = np.sort(ends.reshape(-1, 2), axis=1)
    present, rows = sorted({rank[name] for name in splits}), []
    for first in present:
        for second in present:
            if first <= second:
                here = pairs[(ends == (first, second)).all(axis=1)]
                rows.append(
                    {"split_a": list(SPLITS)[first], "split_b": list(SPLITS)[second], "pairs": len(here)}
                    | {kind: int((here["kind"] == kind).sum()) for kind in KINDS}
                    | {"conflicts": int((~here["same_label"]).sum()), "items": len({*here["a"], *here["b"]})}
                )
    return pd.DataFrame(rows)


def groups_of(count: int, pairs: pd.DataFrame) -> Int[np.ndarray, " items"]:
    """The connected component of each item, numbered from 0; the ends of a chain of pairs may be less similar.

    Args:
        count: items.
        pairs: a, b.
    """
    return joined_groups(count, pairs[["a", "b"]].to_numpy(np.int64))


def compare_files(first: Path | None, second: Path | None) -> str:
    """Compare the files of two items whose thumbnails are identical; None: it is not known.

    Returns:
        "same file" (byte for byte), "same pixels", "same thumbnail only", or "" if a file is missing.
    """
    if first is None or second is None or not (first.is_file() and second.is_file()):
        return ""
    if first.stat().st_size == second.stat().st_size and first.read_bytes() == second.read_bytes():
        return "same file"
    try:
        first_pixels, second_pixels = (np.asarray(open_image(file)) for file in (first, second))
    except DataError:
        return ""
    return "same pixels" if np.array_equal(first_pixels, second_pixels) else "same thumbnail only"
