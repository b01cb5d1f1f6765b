"""The commands `data list`, `data fetch` and `data corrections`: what people correct in a data set, beside the runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from pddm_lab import config
from pddm_lab.commands.terminal import DataRoot, RunsRoot, print_table, progress_bar
from pddm_lab.errors import DataError, unknown_name

if TYPE_CHECKING:
    from pddm_lab.data.corrections import Corrections

data = tyro.extras.SubcommandApp()
corrections = tyro.extras.SubcommandApp()
data.command(corrections, name="corrections", help="Give items of a data set another class, or leave them out.")

_Dataset = Positional[Annotated[str, arg(metavar="DATASET", help="A data set, as `--dataset` of a training names it.")]]
_Items = Positional[Annotated[tuple[str, ...], arg(metavar="ITEM [ITEM ...]", help="Ids of items, their paths.")]]
_Reason = Annotated[str, arg(help="Why, kept with the correction.")]


@data.command(name="list")
def list_data(data_root: DataRoot = "") -> None:
    """List the data sets that the lab knows, and whether they are on this machine."""
    from pddm_lab.data.dataset import SOURCES

    root = config.data_root(data_root)
    rows = [
        (source.name, "yes" if source.is_present(root) else "no", source.title, source.licence, source.size)
        for source in SOURCES.values()
    ]
    print_table(("name", "present", "contents", "licence", "size"), rows)
    print(
        f"\nFolder: {root}. To use your own images: --dataset folder:PATH with a folder per class, or with a table of"
    )
    print("paths, labels and splits: --dataset manifest:FILE.csv")


@data.command
def fetch(name: Positional[Annotated[str, arg(metavar="NAME")]], data_root: DataRoot = "") -> None:
    """Fetch a data set, unless it is already complete.

    Args:
        name: Name of the data set, as `pddm-lab data list` shows it.
    """
    from pddm_lab.data.dataset import SOURCES

    if name not in SOURCES:
        raise DataError(unknown_name("data set", name, SOURCES))
    source = SOURCES[name]
    with progress_bar() as progress:
        folder = source.fetch(config.data_root(data_root), progress)
    print(f"{source.title}: {folder}\nLicence: {source.licence}. {source.attribution}")


def fetch_if_missing(dataset: str, data_root: str) -> None:
    """Fetch a data set that has to be downloaded and isn't there yet."""
    from pddm_lab.data.dataset import SOURCES

    source, root = SOURCES.get(dataset), config.data_root(data_root)
    if source and not source.automatic and not source.is_present(root):
        if not source.by_hand:
            print(f"{root} has no {dataset} yet. Fetching it first: {source.size}", flush=True)
        fetch(dataset, data_root)


@corrections.command(name="list")
def list_corrections(dataset: _Dataset, runs_root: RunsRoot = "") -> None:
    """List the corrections of a data set; the last one of an item counts."""
    from pddm_lab.data.corrections import read_corrections

    file = _file(dataset, runs_root)
    of = read_corrections(file)
    if not of.lines:
        print(f"{file} has no corrections.")
        return
    rows = [
        (one.id, one.new_class or "excluded", one.time.astimezone().strftime("%Y-%m-%d %H:%M"), one.reason)
        for one in of.by_item.values()
    ]
    print_table(("item", "class", "when", "why"), rows)
    _print_corrections(file, of, dataset)


@corrections.command
def relabel(
    dataset: _Dataset, new_class: Positional[Annotated[str, arg(metavar="CLASS")]], items: _Items,
    reason: _Reason = "", data_root: DataRoot = "", runs_root: RunsRoot = "",
) -> None:  # fmt: skip
    """Give items another class of their data set. Its files stay as they are.

    Args:
        new_class: The class that they are of.
    """
    from pddm_lab.data import corrections as kept

    file, classes = _file(dataset, runs_root), _classes(dataset, items, data_root, runs_root)
    if new_class not in classes:
        raise DataError(unknown_name("class", new_class, classes))
    _print_corrections(file, kept.relabel(file, items, new_class, reason), dataset)


@corrections.command
def exclude(
    dataset: _Dataset, items: _Items, reason: _Reason = "", data_root: DataRoot = "", runs_root: RunsRoot = ""
) -> None:
    """Leave items out of trainings and measurements. Their files stay where they are."""
    from pddm_lab.data import corrections as kept

    file = _file(dataset, runs_root)
    _classes(dataset, items, data_root, runs_root)
    _print_corrections(file, kept.exclude(file, items, reason), dataset)


@corrections.command
def undo(dataset: _Dataset, items: _Items = (), runs_root: RunsRoot = "") -> None:
    """Take back the corrections of some items; without any, the last one that was made."""
    from pddm_lab.data import corrections as kept

    file = _file(dataset, runs_root)
    after, gone = kept.undo(file, items)
    print(f"Undone for {', '.join(gone[:5])}{', ...' if len(gone) > 5 else ''}.")
    _print_corrections(file, after, dataset)


def _file(dataset: str, runs_root: str) -> Path:
    """Where the corrections of a data set are kept; raises DataError if there is no such data set."""
    from pddm_lab.data.corrections import corrections_file
    from pddm_lab.data.dataset import source_of

    if dataset.partition(":")[0] != config.IMPORTED:
        source_of(dataset)
    return corrections_file(config.runs_root(runs_root), dataset)


def _classes(dataset: str, items: tuple[str, ...], data_root: str, runs_root: str) -> list[str]:
    """The classes of a data set that has these items.

    Raises:
        DataError: no item is named, or the data set is missing or lacks one.
    """
    from pddm_lab.data.dataset import source_of
    from pddm_lab.data.imported import read_imported

    if not items:
        raise DataError("Name the items to correct: their ids are their paths in the data set.")
    prefix, _, name = dataset.partition(":")
    if prefix == config.IMPORTED:
        of = read_imported(config.runs_root(runs_root) / name).dataset
        ids, classes = of.ids, of.class_names
    else:
        fetch_if_missing(dataset, data_root)
        listing = source_of(dataset).list_items(config.data_root(data_root), 0)
        ids, classes = listing.ids, listing.class_names
    known = set(ids)
    if unknown := [item for item in items if item not in known]:
        near = unknown_name("item", unknown[0], ids).partition(" Known")[0]
        raise DataError(f"{near} Expected ids of {dataset}, such as {ids[0]}.")
    return classes


def _print_corrections(file: Path, of: Corrections, dataset: str) -> None:
    print(f"{file}: {of.summary}.")
    if of.lines:
        print(f"To train with them: pddm-lab train quick --dataset {dataset} --corrections")
