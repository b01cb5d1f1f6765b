"""A frozen trunk's features of corrupted pictures: computed once for all heads on it, and cached by content and item.

Since the seed of a corruption is its item's, a copy of a picture under another id is another picture here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pddm_lab.data.by_content import HASH_BYTES, ContentCache, content_hash
from pddm_lab.model.engine import Engine
from pddm_lab.model.features import in_threads
from pddm_lab.model.trunks import weights_fingerprint
from pddm_lab.progress import Progress
from pddm_lab.robustness.cells import CLEAN
from pddm_lab.robustness.corruptions import CORRUPTIONS
from pddm_lab.robustness.measure import refused_for
from pddm_lab.robustness.pictures import Pictures
from pddm_lab.robustness.sample import Sample


class Pooled(NamedTuple):
    """Pooled features of a sample by a frozen trunk."""

    clean: Float[Tensor, "items trunk_dim"]
    corrupted: dict[tuple[str, int], Float[Tensor, "queries trunk_dim"]]
    """(corruption, strength) -> of the queries."""


def pooled_features(
    engine: Engine, sample: Sample, folder: Path, *, resize: int, corruptions: Sequence[str] = (),
    strengths: Sequence[int], processes: int = 1, progress: Progress | None = None,
) -> Pooled:  # fmt: skip
    """Features of all items of a sample as they are, and of its queries in each corruption and strength.

    Args:
        engine: of the trunk.
        folder: of the cache: a file a trunk, corruption and strength.
        resize: shorter side before the centred crop, in pixels.
        corruptions: of `CORRUPTIONS`; empty: all that the pictures allow.
        strengths: 1 to 5.
        processes: as for `Pictures.read`.
        progress: called with (pictures done, pictures, what); if it raises, what is done is kept.

    Raises:
        DataError: a picture can't be read.
    """
    engine.start()  # its name is final now
    refused = refused_for(sample)
    names = [name for name in corruptions or CORRUPTIONS if name not in refused]
    keys = [_key(path, item) for path, item in zip(sample.paths, sample.ids, strict=True)]
    every = np.arange(len(keys))
    cells = {CLEAN[1:]: every} | {(name, strength): sample.query for name in names for strength in strengths}
    caches = {cell: _cache(folder, engine, resize, *cell) for cell in cells}
    missing = {cell: np.array([row for row in rows if keys[row] not in caches[cell]], int)
               for cell, rows in cells.items()}  # fmt: skip
    todo, done = sum(map(len, missing.values())), 0
    if todo:
        with Pictures.read(sample.paths, sample.ids, (resize, engine.size), processes, progress) as pictures:
            for cell, rows in missing.items():
                made = in_threads(engine, pictures.corrupted(rows, *cell), engine.threads)
                for key, row in zip((keys[row] for row in rows), (row for part in made for row in part), strict=True):
                    caches[cell].add(key, row)
                caches[cell].write()
                done += len(rows)
                if progress and len(rows):
                    progress(done, todo, " ".join(map(str, cell)))
    features = {cell: torch.from_numpy(caches[cell].of([keys[row] for row in rows])) for cell, rows in cells.items()}
    return Pooled(features.pop(CLEAN[1:]), features)


def _key(path: Path, item: str) -> bytes:
    """Of a picture and of what seeds its corruptions."""
    text = item.encode(errors="surrogateescape")
    return hashlib.blake2b(content_hash(path) + text, digest_size=HASH_BYTES).digest()


def _cache(folder: Path, engine: Engine, resize: int, corruption: str, strength: int) -> ContentCache:
    name = f"{weights_fingerprint(engine.trunk)}-{resize}-{engine.size}-{engine.name}-{engine.precision}"
    file = folder / f"{name}-{corruption}-{strength}.safetensors"
    return ContentCache(file, "features", (engine.trunk.dim,), np.float32)
