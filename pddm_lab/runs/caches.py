"""What the lab keeps only to be faster: all of it is made again where it is missing.

<runs>/.features/   features of frozen trunks, and small pictures that find near-duplicates, by the files' content
<runs>/.checked/    which pictures can be read, by id, size and time
compiled.*.nbc      machine code of local structure, beside its source or where numba keeps it

Nothing else is kept beside runs and data sets: thumbnails and neighbourhoods belong to a gallery, and OpenVINO and ONNX
Runtime compile their networks anew in each process.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_DAY = 86_400.0


@dataclass(frozen=True)
class CacheFile:
    """A file of a cache."""

    kind: str
    """One of `KINDS`."""
    path: Path
    bytes: int
    used: float
    """When it was last written or read, as far as the file system notes it, in seconds since the epoch."""


KINDS = {
    "features": "features of frozen trunks; computing them again takes a training some minutes",
    "prints": "small pictures that find near-duplicates; made again in seconds",
    "checks": "which pictures can be read; reading all of them again takes seconds",
    "compiled": "machine code of local structure; compiling it again takes a minute",
}
"""Kind of cache -> what it holds, and what it costs to make it again."""


def caches(root: Path) -> list[CacheFile]:
    """The files of all caches.

    Args:
        root: folder that holds the runs.
    """
    features = [file for file in (root / ".features").glob("*.safetensors") if not file.name.startswith(".")]
    listed = [("prints" if file.name.startswith("prints-") else "features", file) for file in features]
    listed += [("checks", file) for file in (root / ".checked").glob("*.json") if not file.name.startswith(".")]
    listed += [("compiled", file) for file in _compiled()]
    entries = []
    for kind, file in listed:
        with suppress(OSError):  # deleted at this moment
            stat = file.stat()
            entries.append(CacheFile(kind, file, stat.st_size, max(stat.st_mtime, stat.st_atime)))
    return entries


def prune(root: Path, kinds: Collection[str] = (), days: float = 0.0) -> list[CacheFile]:
    """Delete files of caches; trainings that run meanwhile have read theirs, or make them again.

    Args:
        root: folder that holds the runs.
        kinds: of `KINDS`; none: all.
        days: only files that were not used for so long.

    Returns:
        What was deleted.
    """
    before, deleted = time.time() - days * _DAY, []
    for file in caches(root):
        if (not kinds or file.kind in kinds) and file.used <= before:
            with suppress(OSError):  # not ours to delete
                file.path.unlink()
                deleted.append(file)
    return deleted


def _compiled() -> Iterator[Path]:
    from pddm_lab.local.compiled import collect

    if folder := collect.stats.cache_path:  # None where numba could keep nothing
        for ending in ("nbi", "nbc"):
            yield from Path(folder).glob(f"compiled.*.{ending}")
