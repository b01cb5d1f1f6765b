"""The commands `data list` and `data fetch`."""

from __future__ import annotations

from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from pddm_lab import config
from pddm_lab.commands.terminal import DataRoot, print_table, progress_bar
from pddm_lab.errors import DataError, unknown_name

data = tyro.extras.SubcommandApp()


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
