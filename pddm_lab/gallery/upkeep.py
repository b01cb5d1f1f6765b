"""Keep the stored neighbourhoods of a gallery in step with it.

A change of the gallery stores the first pass exactly and marks what it leaves stale of the second (changes.py). Here
these are listed anew, or all are where none are stored that fit. Those of a large gallery are built in its folder, in
neighbourhoods.building/, which a later call goes on with if this one is broken off.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pddm_lab.gallery.files import (
    NEIGHBOURHOODS,
    as_next,
    changing,
    commit,
    file_name,
    items_key,
    new_file,
    read_manifest,
)
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.nearest import searching
from pddm_lab.gallery.reference import Reference, key_of
from pddm_lab.local.large import Source, build
from pddm_lab.progress import Progress

if TYPE_CHECKING:
    from pddm_lab.local.unit import LocalStructure

_BUILDING = "neighbourhoods.building"


def needs_upkeep(gallery: Gallery, structure: LocalStructure) -> bool:
    """Whether neighbourhoods are missing, don't fit or are stale."""
    reference = gallery.reference(structure)
    return not reference.is_stored or reference.stale > 0


def keep_up(gallery: Gallery, structure: LocalStructure, progress: Progress | None = None) -> Gallery:
    """Store the neighbourhoods of a gallery, none of them stale.

    Args:
        gallery: of a run.
        structure: the run's similarity on local structure.
        progress: called with (done, total, what) while those of a large gallery are built.

    Returns:
        The gallery as it is then; what was read of it before stays as it is. If another process changes it meanwhile,
        nothing is stored: that change keeps what it needs.

    Raises:
        RunError: another process is changing it at the end or is building the same, or its files can't be written.
    """
    if not needs_upkeep(gallery, structure):
        return gallery
    reference = gallery.reference(structure)
    reference = reference.refreshed() if reference.stale else reference
    large = nullcontext() if reference.is_built else _built(gallery, reference, progress)
    with large as file, changing(gallery.path):
        manifest = read_manifest(gallery.path)
        if items_key(manifest) != items_key(gallery.manifest):
            return gallery.reopened()
        if file_name(manifest, NEIGHBOURHOODS):  # the one that readers may have open keeps its name
            as_next(gallery.path, manifest)
        reference.write(gallery.path, manifest)
        if file is not None:
            with new_file(gallery.path, manifest, NEIGHBOURHOODS) as temporary:
                os.replace(file, temporary)
        commit(gallery.path, manifest)
    return gallery.reopened()


@contextmanager
def _built(gallery: Gallery, reference: Reference, progress: Progress | None) -> Iterator[Path]:
    """The file of a large gallery's neighbourhoods, built in a folder of its own, which is deleted at the end."""
    z, folder = reference.neighbourhoods.features, gallery.path / _BUILDING
    key = key_of(reference.structure, gallery.manifest)
    with changing(folder):
        source = Source(z.shape[0], z.shape[1], z.__getitem__, searching, key)
        yield build(reference.structure, source, folder, progress)
        shutil.rmtree(folder, ignore_errors=True)
