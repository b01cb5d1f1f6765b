"""The pictures that are to be embedded, listed without opening any: a path each, its class, and what a table says else.

Nothing is asked of classes and splits here: a folder may hold loose pictures, a table may have the column `path` alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from pddm_lab.config import typed_path
from pddm_lab.data.dataset import source_of
from pddm_lab.data.imported import read_texts, refuse
from pddm_lab.data.pictures import find_pictures
from pddm_lab.errors import DataError
from pddm_lab.wording import counted


@dataclass(frozen=True, eq=False)
class Listed:
    """Pictures to embed."""

    root: Path
    table: pd.DataFrame
    """Texts: path (relative to the root, each once), label where there are classes, and others."""
    notes: list[str] = field(default_factory=list)
    """What was passed over, a sentence each."""


def list_pictures(dataset: str, data_root: Path) -> Listed:
    """The pictures of a data set.

    Args:
        dataset: folder:PATH, manifest:FILE (a table with the column path, as CSV or parquet), or a data set's name.
        data_root: folder that holds the data sets.

    Raises:
        DataError: there is no such folder, table or data set, it has no pictures, or a line of the table is wrong.
    """
    prefix, _, place = dataset.partition(":")
    if prefix == "folder" and place:
        return _of_folder(typed_path(place))
    if prefix == "manifest" and place:
        return _of_table(typed_path(place))
    source = source_of(dataset)
    if source.automatic and not source.is_present(data_root):
        source.fetch(data_root, None)
    listing = source.list_items(data_root, 0)
    names = np.array(listing.class_names, dtype=object)[listing.labels]
    others = {name: texts for name, texts in listing.metadata.items() if name not in ("path", "label")}
    return Listed(listing.root, pd.DataFrame({"path": listing.ids, "label": names, **others}), list(listing.notes))


def _of_folder(root: Path) -> Listed:
    """Pictures with their folders as classes. Beside class folders loose pictures have none, and are left out."""
    if not root.is_dir():
        raise DataError(f"The folder {root} does not exist: expected one with pictures.")
    pictures = find_pictures(root)
    notes = pictures.notes()
    if not pictures.ids:
        raise DataError(" ".join([f"{root} has no pictures.", *notes]))
    table = pd.DataFrame({"path": pictures.ids})
    labels = table["path"].str.rpartition("/")[0]
    loose = labels.eq("")
    if loose.all():
        return Listed(root, table, notes)
    if loose.any():
        notes.append(f"Left out {counted(int(loose.sum()), 'picture')} outside of class folders.")
    return Listed(root, table.assign(label=labels)[~loose].reset_index(drop=True), notes)


def _of_table(file: Path) -> Listed:
    table = read_texts(file)
    if "path" not in table or not len(table):
        raise DataError(f"{file}: expected a column path and a line for each picture, got {', '.join(table)}.")
    paths = table["path"]
    parts = paths.map(PurePosixPath)
    leaves = parts.map(lambda path: path.is_absolute() or ".." in path.parts)
    refuse(file, "path", paths.eq("") | paths.str.contains("\0", regex=False), paths, "the path of a picture")
    refuse(file, "path", leaves, paths, f"a path inside of {file.parent}, relative to it")
    refuse(file, "path", paths.duplicated(), paths, "each picture once")
    if "label" in table:
        refuse(file, "label", table["label"].eq(""), table["label"], "the name of a class")
    return Listed(file.parent, table)
