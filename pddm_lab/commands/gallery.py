"""The commands of `gallery`: keep a run's gallery in step with a changing catalogue, and write a damaged one again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import tyro
from tyro.conf import Positional, arg

from pddm_lab.commands.terminal import RunName, RunsRoot, print_table, progress_bar, reporting, write_report
from pddm_lab.config import Count, CountOrNone, typed_path
from pddm_lab.errors import LabError, RunError
from pddm_lab.similarities import EVERY
from pddm_lab.validation import checked
from pddm_lab.wording import counted, natural

if TYPE_CHECKING:
    from pathlib import Path

    from pddm_lab.gallery.gallery import Gallery
    from pddm_lab.gallery.history import Change
    from pddm_lab.local.unit import LocalStructure
    from pddm_lab.runs.new_items import FolderItems
    from pddm_lab.runs.run import Run

gallery = tyro.extras.SubcommandApp()
_Protocol = Annotated[str, arg(help="Which gallery: catalogue, unseen or known; empty: the catalogue if there is one.")]
_Model = Annotated[
    str, arg(help="Model that made imported features: package.module:callable, a file or torchvision:NAME.")
]
_Map = Annotated[bool, arg(help="Draw the map anew in the background.")]
_Report = Annotated[str, arg(help="Table of what was done with each file, .csv; empty: none is written.")]
_Reason = Annotated[str, arg(help="Why, for the gallery's history.")]
_Folder = Positional[Annotated[str, arg(metavar="FOLDER")]]
_Ids = Positional[Annotated[tuple[str, ...], arg(metavar="ID [ID ...]")]]
_Class = Positional[Annotated[str, arg(metavar="CLASS")]]
_Result = TypeVar("_Result")
_CHANGES = 10
"""Last changes that `gallery list` names."""
_NAMED = 3
"""Skipped pictures that a message names."""


@gallery.command
def add(
    run: RunName, folder: _Folder, protocol: _Protocol = "", model: _Model = "", reason: _Reason = "",
    skip_duplicates: bool = False, report: _Report = "", map: _Map = True, runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Add the pictures FOLDER/<class>/<image> as items <class>/<image>, embedded by the run's model.

    Args:
        folder: Folder that holds a folder of pictures per class.
        skip_duplicates: Leave out pictures that the gallery has under another id; else they are added and named.
    """
    from pddm_lab.gallery import changes
    from pddm_lab.runs import new_items

    def prepare(of: _Place) -> Callable[[], tuple[FolderItems, Gallery]]:
        with progress_bar() as progress:
            pictures = new_items.to_add(of.run, of.before, typed_path(folder), progress, model, skip_duplicates)
        return lambda: (pictures, changes.add(of.before, pictures.new, of.structure, reason))

    with reporting(report):
        place, (pictures, after) = _changed(run, runs_root, protocol, prepare)
        classes, new = pictures.new.items["class_name"].nunique(), len(pictures.new_classes)
        what = f"{counted(classes, 'class', 'classes')}, {new or 'none'} of them new"
        added = f"Added {counted(len(pictures.new.items), 'item')} of {what}."
        _print_change(added, place, after, pictures, report, redraw=map)


@gallery.command
def update(
    run: RunName, folder: _Folder, protocol: _Protocol = "", model: _Model = "", reason: _Reason = "",
    report: _Report = "", map: _Map = True, runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Replace the pictures of items by FOLDER/<item id>, embedded by the run's model.

    Args:
        folder: Folder that holds the new pictures under their items' ids.
    """
    from pddm_lab.gallery import changes
    from pddm_lab.runs import new_items

    def prepare(of: _Place) -> Callable[[], tuple[FolderItems, Gallery]]:
        with progress_bar() as progress:
            pictures = new_items.to_update(of.run, of.before, typed_path(folder), progress, model)
        return lambda: (pictures, changes.update(of.before, pictures.new, of.structure, reason))

    with reporting(report):
        place, (pictures, after) = _changed(run, runs_root, protocol, prepare)
        updated = f"Updated {counted(len(pictures.new.items), 'item')}."
        _print_change(updated, place, after, pictures, report, redraw=map)


@gallery.command
def remove(
    run: RunName, ids: _Ids = (), of_class: str = "", items: str = "", protocol: _Protocol = "", reason: _Reason = "",
    map: _Map = True, runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Remove items by their ids, or all items of a class.

    Args:
        ids: Ids of the items to remove.
        of_class: Name of a class whose items are removed, too.
        items: Table with a column id, .csv or .parquet, such as a selection exported on the page Map: its items are
            removed, too.
    """
    from pddm_lab.gallery import changes

    if not ids and not of_class and not items:
        raise RunError("Name the items to remove by their ids, a class with --of-class, or a table with --items.")
    ids = (*ids, *(_ids_in(typed_path(items)) if items else ()))

    def prepare(of: _Place) -> Callable[[], tuple[int, Gallery]]:
        leave, listed = list(ids), of.before.items
        if of_class:
            members = listed["id"][listed["class_name"] == of_class].tolist()
            if not members:
                gallery = f"The {of.before.protocol} gallery"
                raise RunError(f"{gallery} has no class {of_class!r}: `pddm-lab gallery list {run}`.")
            leave += members
        return lambda: (len(set(leave)), changes.remove(of.before, leave, of.structure, reason))

    place, (count, after) = _changed(run, runs_root, protocol, prepare)
    _print_change(f"Removed {counted(count, 'item')}.", place, after, redraw=map)


@gallery.command
def rename(
    run: RunName, old: _Class, name: _Class, protocol: _Protocol = "", reason: _Reason = "", runs_root: RunsRoot = ""
) -> None:  # fmt: skip
    """Rename a class, or merge it with another one that has the name.

    Args:
        old: The class.
        name: Its new name.
    """
    from pddm_lab.gallery import changes

    place, after = _changed(
        run, runs_root, protocol, lambda of: lambda: changes.rename_class(of.before, old, name, of.structure, reason)
    )
    count = int((place.before.items["class_name"] == old).sum())
    _print_change(
        f"{counted(count, 'item')} of {old} now {'has' if count == 1 else 'have'} the class {name}.", place, after
    )


@gallery.command
def undo(run: RunName, protocol: _Protocol = "", map: _Map = True, runs_root: RunsRoot = "") -> None:
    """Take back the last change of a gallery that isn't undone."""
    from pddm_lab.gallery import changes

    place, (after, change) = _changed(
        run, runs_root, protocol, lambda of: lambda: changes.undo(of.before, of.structure)
    )
    _print_change(f"Undone: {_of(change)}.", place, after, redraw=map)


@gallery.command
@checked
def queries(
    run: RunName, count: Count = 500, protocol: _Protocol = "", seed: CountOrNone = 0, runs_root: RunsRoot = ""
) -> None:  # fmt: skip
    """Keep a sample of a gallery's items as queries: each later change says how many are still found.

    Args:
        count: Number of queries, at most the items that have another one of their class.
        seed: Seed of the sample.
    """
    from pddm_lab.analysis.saved_queries import recall_of, save

    changed = _serving(_run_at_rest(run, runs_root))
    if not changed.is_labelled:
        raise RunError(f"The items of {changed.name} have no labels: nothing says which results are right.")
    of = _chosen(changed, protocol)
    kept, structure = save(of, count, seed), _structure(changed)
    recall = recall_of(of, kept, structure)
    shown = ", ".join(f"{100 * value:.1f} % by {EVERY[name].letter}" for name, value in recall.items())
    print(f"Kept {counted(len(kept), 'query', 'queries')} of the {of.protocol} gallery: R@1 {shown}.")


@gallery.command(name="list")
def list_items(run: RunName, of_class: str = "", protocol: _Protocol = "", runs_root: RunsRoot = "") -> None:
    """List the classes of a gallery with their numbers of items, or the items of a class, and the last changes.

    Args:
        of_class: Name of a class whose items are listed.
    """
    from pddm_lab.gallery.history import changes
    from pddm_lab.runs.compare import find_run

    listed = _chosen(_serving(find_run(run, runs_root)), protocol)
    items = listed.items
    if of_class:
        items = items[items["class_name"] == of_class]
        if items.empty:
            raise RunError(f"The {listed.protocol} gallery has no class {of_class!r}.")
        print_table(("item", "role"), items[["id", "role"]].to_numpy().tolist())
        return
    counts = items.groupby("class_name").size()
    print_table(("class", "items"), [(name, counts[name]) for name in sorted(counts.index, key=natural)])
    print(f"\n{counted(len(items), 'item')} of {counted(len(counts), 'class', 'classes')} in {listed.protocol}.")
    for change in changes(listed.path, listed.manifest)[:_CHANGES]:
        print(f"{change.time}: {_of(change)}" + (f"; R@1 {_in_words(change.recall)}" if change.recall else ""))


def _of(change: Change) -> str:
    return change.what + (f" ({change.reason})" if change.reason else "")


@gallery.command(name="map")
def redraw_map(run: RunName, protocol: _Protocol = "", runs_root: RunsRoot = "") -> None:
    """Redraw a gallery's map, for example after a change."""
    from pddm_lab.gallery.umap_layout import write_map

    drawn = _chosen(_run_at_rest(run, runs_root), protocol)
    method = write_map(drawn.path)
    print(f"Drew the map of {counted(len(drawn), 'item')} of {drawn.protocol} ({method.upper()}).")


@gallery.command
def neighbourhoods(run: RunName, protocol: _Protocol = "", runs_root: RunsRoot = "") -> None:
    """Build the neighbourhoods of a large gallery, which its run's local structure compares.

    Ctrl-C stops it, and the same command resumes. Those of up to 50,000 items are built when they are first needed.
    """
    from pddm_lab.gallery.upkeep import keep_up

    chosen_run = _run_at_rest(run, runs_root)
    chosen, structure = _chosen(chosen_run, protocol), _structure(chosen_run)
    if structure is None:
        raise RunError(f"{run} has no local structure. Train a run that has: `pddm-lab train lab`.")
    with progress_bar() as report:
        built = keep_up(chosen, structure, report)
    print(
        f"The neighbourhoods of {counted(len(built.rows('gallery')), 'searched item')} of {built.protocol} are stored."
    )


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
    dataset = dataset_of(repaired.config, repaired.path.parent, repaired.name)
    for one in protocols_to_rebuild(repaired, dataset, protocol):
        with progress_bar() as report:
            rebuilt = write_again(repaired, dataset, one, report)
        method = write_map(rebuilt.gallery.path)
        print(f"Wrote the {one.name} gallery again: {counted(len(rebuilt.gallery), 'item')}, map by {method.upper()}.")
        for reason in rebuilt.lost:
            print(f"Not kept: {reason}")


def _ids_in(table: Path) -> list[str]:
    """The ids in a table.

    Raises:
        LabError: it is missing, can't be read, or has no column id.
    """
    from pddm_lab.data.imported import read_texts

    if not table.is_file():
        raise RunError(f"The table {table} does not exist: expected a file with a column id.")
    texts = read_texts(table)
    if "id" not in texts:
        raise RunError(f"{table} has no column id: expected the ids of the items to remove in it.")
    return texts["id"].tolist()


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


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a change is made."""

    run: Run
    before: Gallery
    structure: LocalStructure | None
    """The run's similarity on local structure, if it has one."""


def _changed(
    name: str, runs_root: str, protocol: str, prepare: Callable[[_Place], Callable[[], _Result]]
) -> tuple[_Place, _Result]:  # fmt: skip
    """Change a gallery of the run that serves; if another one takes over meanwhile, the change is made there.

    Args:
        name, runs_root, protocol: as they were typed.
        prepare: does what may take long, and returns what makes the change; it is called again for another run.

    Returns:
        Where the change was made, and what making it returned.

    Raises:
        LabError: as `_run_at_rest` and the change do.
    """
    from pddm_lab.update.serving import SupersededError, while_it_serves

    named = _run_at_rest(name, runs_root)
    while True:
        run = _serving(named)
        place = _Place(run, _chosen(run, protocol), _structure(run))
        make = prepare(place)
        with suppress(SupersededError), while_it_serves(run, named):
            return place, make()


def _serving(named: Run) -> Run:
    """A run, or the update of it that serves: its catalogue is the one that is searched."""
    from pddm_lab.update.serving import served

    run = served(named)
    if run.path != named.path:
        print(f"Of {named.name}, the update {run.name} serves: this is its gallery.")
    return run


def _chosen(run: Run, name: str) -> Gallery:
    """The gallery of a name; of none the catalogue, or the first there is. Raises RunError as `Run.gallery` does."""
    return run.gallery(name or next(iter(run.galleries()), "catalogue"))


def _structure(run: Run) -> LocalStructure | None:
    """The run's similarity on local structure, if it has one."""
    from pddm_lab.runs.local import load_local

    local = load_local(run)
    return None if local is None else local.structure


def _in_words(recall: Mapping[str, tuple[float, float]]) -> str:
    return ", ".join(
        f"{100 * earlier:.1f} % before and {100 * now:.1f} % now by {EVERY[name].letter}"
        for name, (earlier, now) in recall.items()
    )


def _print_change(
    done: str, place: _Place, after: Gallery, of: FolderItems | None = None, report: str = "", redraw: bool = False
) -> None:  # fmt: skip
    """Say what was done, list stale neighbourhoods anew, and have the map drawn anew in the background."""
    from pddm_lab.analysis.saved_queries import effect_of, read
    from pddm_lab.gallery.redraw import start_redrawing
    from pddm_lab.runs.run import PROTOCOLS

    print(f"{done} The {after.protocol} gallery has {counted(len(after), 'item')}.")
    if of and of.skipped:
        more = f" and {len(of.skipped) - _NAMED} more" if len(of.skipped) > _NAMED else ""
        print(f"Skipped {counted(len(of.skipped), 'picture')}: {' '.join(of.skipped[:_NAMED])}{more}")
    print("".join(f"{note}\n" for note in of.notes) if of else "", end="")
    try:
        effect = effect_of(place.before, after, place.structure)
        if effect.listed_anew:
            print(f"Listed {counted(effect.listed_anew, 'neighbourhood')} near the change anew.")
        if effect.recall and (kept := read(after)) is not None:
            print(f"R@1 of the {counted(len(kept), 'saved query', 'saved queries')}: {_in_words(effect.recall)}.")
    except LabError as error:  # the change is made, whatever fails here
        print(f"What it did to the saved queries is not known: {error}")
    if after.protocol in PROTOCOLS:
        print("Its metrics and distributions still describe the items it was measured with.")
    if redraw and start_redrawing(after.path):
        print("A new map is being drawn in the background. The Map page takes it when it is there.")
    elif after.manifest["map"] and (placed := int(after.manifest["map"].get("placed", 0))):
        command = f"pddm-lab gallery map {place.run.name} --protocol {after.protocol}"
        print(f"On its map {counted(placed, 'item')} lie between their neighbours. Redraw it with `{command}`.")
    if of:
        write_report(of.reports, report)
