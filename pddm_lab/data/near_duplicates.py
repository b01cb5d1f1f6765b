"""Near-duplicates by pixels alone: the likeness of two pictures, and the groups that a split must not separate.

A print is a picture at 16 x 16 in RGB. The likeness of two prints a, b is Lin's concordance,
1 - |a - b|^2 / (|a - m_a|^2 + |b - m_b|^2 + n (m_a - m_b)^2) with the means m: 1 for the same pixels, 0 for unrelated
ones. Unlike a correlation it also decreases if brightness, contrast or colour differ. Features aren't used: a network's
mistakes would hide duplicates.

Measured on copies of 400 emoji and 400 photos of groceries: 0.95 finds all copies that were re-encoded, halved in size,
cropped by 1 % on each side or reduced in contrast by 15 %, 93 % and 99 % of those 10 % brighter, 80 % of those cropped
by 3 %, and few cropped by 5 %. Among the grocery photos it finds 21 pairs, each of one class and taken moments apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from pddm_lab.data.by_content import ContentCache, content_hash
from pddm_lab.data.dataset import Dataset
from pddm_lab.data.images import open_image
from pddm_lab.data.splits import by_class
from pddm_lab.progress import Progress

SIDE = 16
"""Width and height of a print in pixels."""
NEAR_DUPLICATE = 0.95
"""Smallest likeness of near-duplicates."""
_CELLS = 4_000_000  # pairs compared at a time: some arrays of 16 MB
_FILES = 256  # read at a time


def near_duplicate_groups(
    dataset: Dataset, items: Int[np.ndarray, " items"], cache: Path, *, least: float = NEAR_DUPLICATE,
    progress: Progress | None = None,
) -> Int[np.ndarray, " items"]:  # fmt: skip
    """Groups of near-duplicates: a split holds out all items of a group or none.

    Two items of one class are in a group if their likeness reaches `least`, or if a chain of such pairs joins them.
    Mirror images don't count.

    Args:
        dataset: holds the items.
        items: to compare.
        cache: folder where prints are kept by the files' content, such as that of the features.
        least: smallest likeness of a pair. A burst of photos from a moving hand needs less than near-duplicates: see
            notebooks/results/experiments.md.
        progress: called as files are read; if it raises, the prints made so far are kept.

    Returns:
        The number of each item's group, from 0, in the order of `items`.

    Raises:
        DataError: a file can no longer be read.
    """
    prints = read_prints([dataset.path(item) for item in items], cache, progress)
    pairs = [np.empty((0, 2), np.int64)]
    for rows in by_class(dataset.labels[items], np.arange(len(items))).values():
        for part, likeness, _ in likenesses(prints[rows]):
            a, b = np.nonzero(likeness >= least)
            pairs.append(rows[np.column_stack((a, b)) + part.start])
    return joined_groups(len(items), np.concatenate(pairs))


def print_of(image: Image.Image) -> UInt8[np.ndarray, "side side 3"]:
    """The print of a picture."""
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))


def read_prints(
    paths: Sequence[Path], cache: Path, progress: Progress | None = None
) -> UInt8[np.ndarray, "files side side 3"]:
    """The prints of image files, kept by the files' content."""
    kept = ContentCache(cache / f"prints-{SIDE}.safetensors", "prints", (SIDE, SIDE, 3), np.uint8)
    with ThreadPoolExecutor() as pool:
        contents = list(pool.map(content_hash, paths))
        path_of = dict(zip(contents, paths, strict=True))
        missing = [content for content in path_of if content not in kept]
        try:
            for start in range(0, len(missing), _FILES):
                part = missing[start : start + _FILES]
                for content, made in zip(part, pool.map(_read_print, map(path_of.__getitem__, part)), strict=True):
                    kept.add(content, made)
                if progress:
                    progress(start + len(part), len(missing), "prints")
        finally:
            kept.write()
    return kept.of(contents)


def _read_print(path: Path) -> UInt8[np.ndarray, "side side 3"]:
    return print_of(open_image(path, 3 * SIDE))


def likenesses(
    prints: UInt8[np.ndarray, "items side side 3"], mirrors: bool = False
) -> Iterator[tuple[slice, Float[np.ndarray, "rows later"], Float[np.ndarray, "rows later"]]]:
    """The likeness of prints to each other, some rows at a time.

    Args:
        prints: to compare; 10,000 take some seconds, and the time grows with the square of their number.
        mirrors: compare the mirror images, too.

    Yields:
        The rows, their likeness to all prints from the first of these rows on, and that of their mirror images (the
        same array without `mirrors`).
    """
    count = len(prints)
    points = prints.reshape(count, 3 * SIDE * SIDE).astype(np.float32) / 255
    means, squares = points.mean(axis=1), (points * points).mean(axis=1)
    spreads, width = squares - means * means, 2 / points.shape[1]
    step = max(_CELLS // max(count, 1), 1)
    for start in range(0, count, step):
        part, later = slice(start, min(start + step, count)), slice(start, None)
        base = spreads[part, None] + spreads[None, later] + (means[part, None] - means[None, later]) ** 2
        base += 1e-6  # a picture of one colour has no spread
        separate = squares[part, None] + squares[None, later]
        plain = turned = 1 - (separate - points[part] @ points[later].T * width) / base
        if mirrors:
            mirrored = points[part].reshape(-1, SIDE, SIDE, 3)[:, :, ::-1].reshape(-1, points.shape[1])
            turned = 1 - (separate - mirrored @ points[later].T * width) / base
        yield part, plain, turned


def joined_groups(count: int, pairs: Int[np.ndarray, "pairs 2"]) -> Int[np.ndarray, " items"]:
    """The connected component of each of `count` items, numbered from 0; the ends of a chain may be less similar."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(links, directed=False)[1].astype(np.int64)
