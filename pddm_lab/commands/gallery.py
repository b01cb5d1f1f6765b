"""The commands of `gallery`: keep a run's gallery in step with a changing catalogue, and write a damaged one again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from pddm_lab.commands.terminal import RunName, RunsRoot, progress_bar
from pddm_lab.config import typed_path
from pddm_lab.errors import RunError

if TYPE_CHECKING:
    from pddm_lab.gallery.gallery import Gallery
    from pddm_lab.local.unit import LocalStructure
    from pddm_lab.runs.new_items import FolderItems
    from pddm_lab.runs.run import Run

gallery = tyro.extras.SubcommandApp()
_Protocol = Annotated[str, arg(help="Which gallery: catalogue, unseen or known; empty: the catalogue if there is one.")]
_Model = Annotated[
    str, arg(help="Model that made imported features: package.module:callable, a file or torchvision:NAME.")
]
_Folder = Positional[Annotated[str, arg(metavar="FOLDER")]]
_Ids = Positional[Annotated[tuple[str, ...], arg(metavar="ID [ID ...]")]]
_NAMED = 3
"""Skipped pictures that a message names."""


@gallery.command
def add(
    run: RunName, folder: _Folder, protocol: _Protocol = "", model: _Model = "", runs_root: RunsRoot = ""
) -> None:  # fmt: skip
    """Add the pictures FOLDER/<class>/<image> as items <class>/<image>, embedded by the run's model.

    Args:
        folder: Folder that holds a folder of pictures per class.
    """
    from pddm_lab.gallery import changes
    from pddm_lab.runs import new_items

    changed = _run_at_rest(run, runs_root)
    before = _chosen(changed, protocol)
    with progress_bar() as report:
        pictures = new_items.to_add(changed, before, typed_path(folder), report, model)
    structure = _structure(changed)
    after = changes.add(before, pictures.new, structure)
    classes, new = pictures.new.items["class_name"].nunique(), len(pictures.new_classes)
    what = f"{_count(classes, 'class', 'classes')}, {new or 'none'} of them new"
    added = f"Added {_count(len(pictures.new.items), 'item')} of {what}."
    _print_change(added, changed, before, after, structure, pictures)


@gallery.command
def update(
    run: RunName, folder: _Folder, protocol: _Protocol = "", model: _Model = "", runs_root: RunsRoot = ""
) -> None:  # fmt: skip
    """Replace the pictures of items by FOLDER/<item id>, embedded by the run's model.

    Args:
        folder: Folder that holds the new pictures under their items' ids.
    """
    from pddm_lab.gallery import changes
    from pddm_lab.runs import new_items

    changed = _run_at_rest(run, runs_root)
    before = _chosen(changed, protocol)
    with progress_bar() as report:
        pictures = new_items.to_update(changed, before, typed_path(folder), report, model)
    structure = _structure(changed)
    after = changes.update(before, pictures.new, structure)
    updated = f"Updated {_count(len(pictures.new.items), 'item')}."
    _print_change(updated, changed, before, after, structure, pictures)


@gallery.command
def remove(run: RunName, ids: _Ids, protocol: _Protocol = "", runs_root: RunsRoot = "") -> None:
    """Remove items by their ids.

    Args:
        ids: Ids of the items to remove.
    """
    from pddm_lab.gallery import changes

    if not ids:
        raise RunError("Name the items to remove by their ids.")
    changed = _run_at_rest(run, runs_root)
    before = _chosen(changed, protocol)
    structure = _structure(changed)
    after = changes.remove(before, ids, structure)
    _print_change(f"Removed {_count(len(set(ids)), 'item')}.", changed, before, after, structure)


@gallery.command(name="map")
def redraw_map(run: RunName, protocol: _Protocol = "", runs_root: RunsRoot = "") -> None:
    """Redraw a gallery's map, for example after a change."""
    from pddm_lab.gallery.umap_layout import write_map

    drawn = _chosen(_run_at_rest(run, runs_root), protocol)
    method = write_map(drawn.path)
    print(f"Drew the map of {_count(len(drawn), 'item')} of {drawn.protocol} ({method.upper()}).")


@gallery.command
def rebuild(run: RunName, protocol: str = "", runs_root: RunsRoot = "") -> None:
    """Write the galleries of a run again: embed their items with the run's model, and draw their maps.

    Added items come from the pictures that they were added from. What can't be kept is named.

    Args:
        protocol: Only this gallery: catalogue, unseen or known.
    """
    from pddm_lab.gallery.umap_layout import write_map
    from pddm_lab.training.loop import dataset_of
    from pddm_lab.training.rebuild import protocols_to_rebuild
    from pddm_lab.training.rebuild import rebuild as write_again

    repaired = _run_at_rest(run, runs_root)
    dataset = dataset_of(repaired.config, repaired.path.parent)
    for one in protocols_to_rebuild(repaired, dataset, protocol):
        with progress_bar() as report:
            rebuilt = write_again(repaired, dataset, one, report)
        method = write_map(rebuilt.gallery.path)
        print(f"Wrote the {one.name} gallery again: {_count(len(rebuilt.gallery), 'item')}, map by {method.upper()}.")
        for reason in rebuilt.lost:
            print(f"Not kept: {reason}")


def _run_at_rest(name: str, runs_root: str) -> Run:
    """The run of a name.

    Raises:
        RunError: it is missing, or still training.
    """
    from pddm_lab.runs.compare import find_run

    run = find_run(name, runs_root)
    if run.status == "running":
        raise RunError(f"{run.name} is still running: wait until it has ended before you change its galleries.")
    return run


def _chosen(run: Run, name: str) -> Gallery:
    """The gallery of a name; of none the catalogue, or the first there is. Raises RunError as `Run.gallery` does."""
    return run.gallery(name or next(iter(run.galleries()), "catalogue"))


def _structure(run: Run) -> LocalStructure | None:
    """The run's similarity on local structure, if it has one."""
    from pddm_lab.runs.local import load_local

    local = load_local(run)
    return None if local is None else local.structure


def _print_change(
    done: str, run: Run, before: Gallery, after: Gallery, structure: LocalStructure | None,
    of: FolderItems | None = None,
) -> None:  # fmt: skip
    """Say what was done, and list stale neighbourhoods anew."""
    from pddm_lab.gallery.upkeep import keep_up
    from pddm_lab.runs.run import PROTOCOLS

    print(f"{done} The {after.protocol} gallery has {_count(len(after), 'item')}.")
    if of and of.skipped:
        more = f" and {len(of.skipped) - _NAMED} more" if len(of.skipped) > _NAMED else ""
        print(f"Skipped {_count(len(of.skipped), 'picture')}: {' '.join(of.skipped[:_NAMED])}{more}")
    print("".join(f"{note}\n" for note in of.notes) if of else "", end="")
    if structure is not None and (stale := after.reference(structure).stale):
        keep_up(after, structure)
        print(f"Listed {_count(stale, 'neighbourhood')} near the change anew.")
    if after.protocol in PROTOCOLS:
        print("Its metrics and distributions still describe the items it was measured with.")
    if before.manifest["map"]:
        command = f"pddm-lab gallery map {run.name} --protocol {after.protocol}"
        print(f"Its map was deleted. Redraw it with `{command}`.")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
