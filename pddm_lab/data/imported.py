"""Items whose features come from elsewhere: the table that names them, and how a run keeps both.

ITEMS.csv has a line for each row of the features: `path` of its image, or `id`; and, if you like, `label`, `split`
(train or test) and other columns, which are kept as metadata. Without labels the items can be searched, not measured.

A similarity learns on training classes alone. A class with a line of split train is one, and its test lines are the
queries of the known classes; without that column a seeded hash of the names chooses half of the classes. Where nothing
is to learn, all items are one gallery, and each is searched among all the others.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from pddm_lab.data.dataset import Dataset, Protocol, split_items
from pddm_lab.data.source import Use
from pddm_lab.data.splits import halves_by_hash, without_lone_items
from pddm_lab.errors import DataError, RunError
from pddm_lab.files import Content, Text, read_json, read_table, replacing, write_file

FOLDER = "imported"
"""In a run's folder: features.npy, items.parquet, about.json."""
NO_LABEL = "no label"
MOST_DIMS = 2**16
_OWN = ("id", "path", "label", "split")
_USES = ("train", "unseen_query", "unseen_gallery", "known_query", "known_gallery")
_METADATA = "metadata."
_DELIMITERS = ",;\t"
_COLUMNS = {"id": "string", "label": "int64", "class_name": "string"} | dict.fromkeys(_USES, "bool_")


class _AboutContent(Content):
    """about.json."""

    name: Text
    root: Text
    licence: Text
    attribution: Text
    stamp: Text
    labelled: bool


@dataclass(frozen=True, eq=False)
class Imported:
    """Items and the features that come with them."""

    dataset: Dataset
    features: Float[np.ndarray, "items dim"]
    """As they came, float32; the lab scales them to unit length."""


def read_features(file: Path) -> Float[np.ndarray, "items dim"]:
    """Features from an .npy file, memory-mapped where they are float32.

    Raises:
        DataError: no such file, or something else than finite numbers, a row an item, none of them all zero.
    """
    if not file.is_file():
        raise DataError(f"{file} does not exist: expected features as numpy.save writes them, a row an item.")
    try:
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        # numpy's own message of a file that is none advises to load it unsafely
        reason = getattr(error, "strerror", None) or "it is damaged, or holds no numbers"
        raise DataError(f"{file} can't be read ({reason}): expected an .npy file of numbers.") from error
    if not isinstance(values, np.ndarray):
        raise DataError(f"{file} holds several arrays: expected one, written by numpy.save.")
    return check_features(values, str(file))


def check_features(values: np.ndarray, what: str) -> Float[np.ndarray, "items dim"]:
    """The features as float32.

    Raises:
        DataError: something else than finite numbers, a row an item, none of them all zero; `what` names them.
    """
    if values.ndim != 2 or not 1 <= values.shape[1] <= MOST_DIMS or values.dtype.kind not in "fiu":
        shape = " x ".join(map(str, values.shape)) or "no"
        raise DataError(
            f"{what}: expected a row of 1 to {MOST_DIMS:,} numbers an item, got {shape} values of {values.dtype}."
        )
    if not len(values):
        raise DataError(f"{what} has no rows: expected one an item.")
    features = values if values.dtype == np.float32 else values.astype(np.float32)
    for start in range(0, len(features), 1 << 14):
        part = np.asarray(features[start : start + (1 << 14)])
        wrong = ~(np.abs(part) < 1e9).all(1)
        if wrong.any():
            raise DataError(f"{what}, row {start + int(wrong.argmax())}: expected finite numbers, got NaN or infinity.")
        if (zero := ~part.any(1)).any():
            raise DataError(f"{what}, row {start + int(zero.argmax())}: expected a feature, got only zeros.")
    return features


def read_items(file: Path, rows: int, images: Path | None = None, learns: bool = False, seed: int = 0) -> Dataset:
    """The items of a table.

    Args:
        file: ITEMS.csv, or a parquet file with the same columns.
        rows: how many features there are.
        images: folder that the paths are relative to; None: the table's.
        learns: whether a similarity is to be trained on some classes, so that these can't be unseen ones.
        seed: of the split by classes and of the held-out queries, where the table has no split.

    Raises:
        DataError: no such table, another number of lines, a missing column, or a value that can't be.
    """
    table = read_texts(file)
    if len(table) != rows:
        raise DataError(f"{file} has {len(table):,} items and the features have {rows:,} rows: expected one for each.")
    name = "path" if "path" in table else "id"
    ids = table[name]
    refuse(file, name, ids.eq("") | ids.str.contains("\0", regex=False), ids, "a name")
    refuse(file, name, ids.duplicated(), ids, "a name of its own for each item")
    labelled = "label" in table
    if not labelled and learns:
        raise DataError(f"{file} has no column label: a similarity can't learn without classes.")
    names = table["label"] if labelled else pd.Series(NO_LABEL, table.index)
    refuse(file, "label", names.eq(""), names, "the name of a class")
    classes, labels = np.unique(names.to_numpy(dtype=object).astype(str), return_inverse=True)
    labels = labels.astype(np.int64)
    train, unseen, known, uses = _split(file, table, classes, labels, labelled, learns, seed)
    root = images or file.parent
    if not root.is_dir():
        raise DataError(f"The folder of images {root} does not exist. Leave out --images if there are none.")
    return Dataset(
        name=file.name, root=root, ids=ids.tolist(), labels=labels, class_names=classes.tolist(), train=train,
        unseen=unseen, known=known, skipped=[], licence="your own", attribution="", labelled=labelled,
        sizes=np.zeros(rows, np.int64), stamp=hashlib.sha256(uses.tobytes()).hexdigest(),
        metadata={column: table[column].tolist() for column in table if column not in _OWN},
    )  # fmt: skip


def _split(
    file: Path, table: pd.DataFrame, classes: np.ndarray, labels: np.ndarray, labelled: bool, learns: bool, seed: int
) -> tuple[np.ndarray, Protocol | None, Protocol | None, np.ndarray]:
    """(training items, unseen, known, what stands for the split)."""
    everything, uses = np.arange(len(labels)), None
    if not learns:
        train = without_lone_items(labels, everything) if labelled else everything[:0]
        return train, Protocol("unseen", everything, everything), None, train
    if "split" in table:
        split = table["split"].str.lower()
        refuse(file, "split", ~split.isin(["train", "test"]), table["split"], "train or test")
        of_train = split.eq("train").to_numpy()
        trains = np.isin(np.arange(len(classes)), labels[of_train])
        tested = np.where(trains[labels], Use.QUERY, Use.QUERY | Use.GALLERY)
        uses = np.where(of_train, Use.TRAIN | Use.GALLERY, tested).astype(np.uint8)
    else:
        trains = halves_by_hash(classes.tolist(), seed)
    train, unseen, known = split_items(labels, trains, uses, 0.2, seed)
    if (trained := len(np.unique(labels[train]))) < 2:
        raise DataError(
            f"{file} has {trained} {'class' if trained == 1 else 'classes'} to train on: expected at least two with "
            "two items each."
        )
    if unseen is None and known is None:
        raise DataError(f"{file} has no item to test on: expected some of split test, or classes with more items.")
    return train, unseen, known, np.concatenate([train, *(one.query for one in (unseen, known) if one)])


def read_texts(file: Path) -> pd.DataFrame:
    """A table's cells as texts, the columns that the lab knows in lower case; CSV or parquet.

    Raises:
        DataError: no such table, it can't be read, or it has no column path or id.
    """
    if not file.is_file():
        raise DataError(f"The table {file} does not exist: expected a line for each row of the features.")
    try:
        if file.suffix == ".parquet":
            table = pd.read_parquet(file)
            names, cells = [str(name) for name in table.columns], table.astype("string").fillna("").astype(object)
        else:
            with open(file, encoding="utf-8-sig", newline="") as opened:
                head = opened.readline()
            cells = pd.read_csv(
                file, sep=max(_DELIMITERS, key=head.count), dtype=str, keep_default_na=False, encoding="utf-8-sig",
                skipinitialspace=True, header=None,
            )  # fmt: skip
            names, cells = cells.iloc[0].tolist(), cells.iloc[1:].reset_index(drop=True)
    except (ValueError, OSError, csv.Error) as error:  # pandas' own errors are ValueErrors
        raise DataError(f"{file} can't be read ({str(error).strip()}): expected a table in CSV, as UTF-8.") from error
    names = [name.strip() for name in names]
    cells.columns = pd.Index([name.lower() if name.lower() in _OWN else name for name in names])
    table = cells.loc[:, [bool(name) for name in names]]  # an index that was written has no name
    if not {"id", "path"} & set(table.columns) or table.columns.has_duplicates:
        raise DataError(
            f"{file}: expected columns path or id, perhaps label and split, and others, each once and separated by "
            f"commas, semicolons or tabs, got {', '.join(names)[:200] or 'none'}."
        )
    return table


def refuse(file: Path, column: str, wrong: pd.Series, values: pd.Series, expected: str) -> None:
    """Raise DataError for the first item whose value can't be."""
    if wrong.any():
        at = int(wrong.to_numpy().argmax())
        got = values.iloc[at][:200] or "nothing"
        raise DataError(f"{file}, item {at + 1}, column {column}: expected {expected}, got {got}.")


def keep(imported: Imported, run: Path) -> None:
    """Write items and features into a run's folder, so that it needs the files they came from no more."""
    dataset, folder = imported.dataset, run / FOLDER
    folder.mkdir(exist_ok=True)
    rows = np.arange(len(dataset))
    uses: dict[str, Any] = {"train": np.isin(rows, dataset.train)}
    for protocol in (dataset.unseen, dataset.known):
        if protocol:
            uses[f"{protocol.name}_query"] = np.isin(rows, protocol.query)
            uses[f"{protocol.name}_gallery"] = np.isin(rows, protocol.gallery)
    columns = {
        "id": dataset.ids, "label": dataset.labels,
        "class_name": np.array(dataset.class_names, dtype=object)[dataset.labels],
        **{name: uses.get(name, np.zeros(len(dataset), bool)) for name in _USES},
        **{_METADATA + name: texts for name, texts in dataset.metadata.items()},
    }  # fmt: skip
    with replacing(folder / "features.npy") as file, open(file, "wb") as opened:
        np.save(opened, np.ascontiguousarray(imported.features, dtype=np.float32))
    with replacing(folder / "items.parquet") as file:
        pd.DataFrame(columns).to_parquet(file, index=False)
    about = {name: getattr(dataset, name) for name in ("name", "licence", "attribution", "stamp", "labelled")}
    write_file(folder / "about.json", json.dumps({**about, "root": str(dataset.root.resolve())}, ensure_ascii=False))


def read_imported(run: Path) -> Imported:
    """The items and features that a run keeps.

    Raises:
        RunError: a file is missing, damaged or was not written by this lab.
    """
    folder, hint = run / FOLDER, "Import them again: `pddm-lab import`."
    about = read_json(
        folder / "about.json", _AboutContent, f"{folder} is missing: expected imported features. {hint}", hint
    )
    file = folder / "items.parquet"
    table = read_table(file, _COLUMNS, hint).to_pandas()
    labels = table["label"].to_numpy()
    if not len(table) or labels.min() < 0 or labels.max() >= len(table) or table["id"].duplicated().any():
        raise RunError(f"{file} was not written by this lab: expected items, each once, with their classes. {hint}")
    names = table.drop_duplicates("label").set_index("label")["class_name"]
    if len(names) != labels.max() + 1:
        raise RunError(f"{file} was not written by this lab: expected classes without gaps. {hint}")
    try:
        features = read_features(folder / "features.npy")
    except DataError as error:
        raise RunError(f"{error} {hint}") from error
    if len(features) != len(table):
        raise RunError(f"{folder} is damaged: {len(table)} items, {len(features)} features. {hint}")
    protocols = [_protocol(table, name) for name in ("unseen", "known")]
    dataset = Dataset(
        name=about["name"], root=Path(about["root"]), ids=table["id"].tolist(), labels=labels,
        class_names=names.sort_index().tolist(), train=np.flatnonzero(table["train"]), unseen=protocols[0],
        known=protocols[1], skipped=[], licence=about["licence"], attribution=about["attribution"],
        sizes=np.zeros(len(table), np.int64), stamp=about["stamp"], labelled=about["labelled"],
        metadata=_metadata(file),
    )  # fmt: skip
    return Imported(dataset, features)


def _protocol(table: pd.DataFrame, name: str) -> Protocol | None:
    query, gallery = (np.flatnonzero(table[f"{name}_{use}"]) for use in ("query", "gallery"))
    return Protocol(name, query, gallery) if len(query) and len(gallery) else None


def _metadata(file: Path) -> dict[str, list[str]]:
    every: Collection[str] = pd.read_parquet(file).columns
    table = pd.read_parquet(file, columns=[name for name in every if name.startswith(_METADATA)])
    return {name.removeprefix(_METADATA): table[name].astype(str).tolist() for name in table}
