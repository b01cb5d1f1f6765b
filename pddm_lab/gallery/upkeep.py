"""Keep the stored neighbourhoods of a gallery in step with it.

A change of the gallery stores the first pass exactly and marks what it leaves stale of the second (changes.py). Here
these are listed anew, or all are where none are stored that fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pddm_lab.gallery.files import NEIGHBOURHOODS, changing, commit, file_name, items_key, read_manifest
from pddm_lab.gallery.gallery import Gallery

if TYPE_CHECKING:
    from pddm_lab.local.unit import LocalStructure


def needs_upkeep(gallery: Gallery, structure: LocalStructure) -> bool:
    """Whether neighbourhoods are missing, don't fit or are stale."""
    reference = gallery.reference(structure)
    return not reference.is_stored or reference.stale > 0


def keep_up(gallery: Gallery, structure: LocalStructure) -> Gallery:
    """Store the neighbourhoods of a gallery, none of them stale.

    Args:
        gallery: of a run.
        structure: the run's similarity on local structure.

    Returns:
        The gallery as it is then; what was read of it before stays as it is. If another process changes it meanwhile,
        nothing is stored: that change keeps what it needs.

    Raises:
        RunError: another process is changing it at the end, or its files can't be written.
    """
    if not needs_upkeep(gallery, structure):
        return gallery
    reference = gallery.reference(structure)
    reference = reference.refreshed() if reference.stale else reference
    with changing(gallery.path):
        manifest = read_manifest(gallery.path)
        if items_key(manifest) != items_key(gallery.manifest):
            return gallery.reopened()
        if file_name(manifest, NEIGHBOURHOODS):  # the one that readers may have open keeps its name
            manifest["change"] = int(manifest.get("change", 0)) + 1
        reference.write(gallery.path, manifest)
        commit(gallery.path, manifest)
    return gallery.reopened()
