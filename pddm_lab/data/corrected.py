"""A data set with its corrections: relabelled items are of their new class, excluded ones are gone.

The split stays that of the data as they came: which items train and which are queries doesn't change with a label, so
that runs before and after can be compared on the same queries. Only an item that moves between training and unseen
classes changes sides: it is searched there, and trains, or is a query where all items are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from pddm_lab.data.corrections import Corrections, read_corrections
from pddm_lab.data.dataset import Dataset, Protocol
from pddm_lab.data.splits import without_lone_items
from pddm_lab.errors import DataError, unknown_name

_NAMED = 5
"""Unknown items that a note names."""


def with_corrections(dataset: Dataset, file: Path) -> Dataset:
    """A data set with the corrections in a file.

    Raises:
        DataError: the file is damaged or has none, or as `corrected`.
    """
    corrections = read_corrections(file)
    if not corrections.lines:
        raise DataError(
            f"{file} has no corrections: make some with `pddm-lab data corrections`, or train without --corrections."
        )
    return corrected(dataset, corrections)


def corrected(dataset: Dataset, corrections: Corrections) -> Dataset:
    """A data set with corrections. Items that it doesn't have are named in its notes, and change nothing.

    Raises:
        DataError: a class that it doesn't have, or fewer than two classes to train on remain.
    """
    number = {item: at for at, item in enumerate(dataset.ids)}
    code = {name: at for at, name in enumerate(dataset.class_names)}
    labels, keep = dataset.labels.copy(), np.ones(len(dataset), dtype=bool)
    for item, line in corrections.by_item.items():
        if line.action == "relabel" and line.new_class not in code:
            what = unknown_name("class", line.new_class, dataset.class_names[:20])
            raise DataError(f"The correction of {item} can't be applied: {what}")
        if item in number:
            labels[number[item]] = code.get(line.new_class, labels[number[item]])
            keep[number[item]] = line.action == "relabel"
    roles = _moved(dataset, labels)
    classes, new_labels = np.unique(labels[keep], return_inverse=True)
    place = np.cumsum(keep) - 1
    train, *sides = (place[np.flatnonzero(role & keep)] for role in roles)
    train = without_lone_items(new_labels, train)
    if len(np.unique(new_labels[train])) < 2:
        raise DataError(f"With its corrections {dataset.name} has fewer than two classes to train on: undo some.")
    kept = np.flatnonzero(keep)
    return replace(
        dataset, ids=[dataset.ids[at] for at in kept], labels=new_labels.astype(np.int64),
        class_names=[dataset.class_names[at] for at in classes], train=train,
        unseen=_protocol("unseen", *sides[:2]), known=_protocol("known", *sides[2:]), sizes=dataset.sizes[kept],
        metadata={name: [texts[at] for at in kept] for name, texts in dataset.metadata.items()},
        stamp=f"{dataset.stamp} {corrections.digest}".strip(), corrections=corrections,
        notes=[*dataset.notes, f"Corrected: {corrections.summary}.", *_unknown(corrections.by_item, number)],
    )  # fmt: skip


def _moved(dataset: Dataset, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """Which items train, and which are queries and searched of the unseen and of the known classes, as bools."""
    unseen, known = dataset.unseen, dataset.known
    nothing = np.empty(0, dtype=np.int64)
    parts = [dataset.train]
    parts += [part for one in (unseen, known) for part in ((one.query, one.gallery) if one else (nothing, nothing))]
    train, unseen_query, unseen_gallery, known_query, known_gallery = roles = tuple(
        _among(len(labels), p) for p in parts
    )
    # A class is on the side of its items as they came.
    trained = np.unique(dataset.labels[train | known_query | known_gallery])
    measured = np.unique(dataset.labels[unseen_query | unseen_gallery])
    before, after = dataset.labels, labels
    to_trained = np.isin(after, trained) & ~np.isin(before, trained)
    to_unseen = np.isin(after, measured) & ~np.isin(before, measured)
    for role in roles:
        role[to_trained | to_unseen] = False
    train[to_trained] = True
    known_gallery[to_trained] = known is not None
    unseen_gallery[to_unseen] = True
    unseen_query[to_unseen] = unseen is not None and unseen.leave_one_out
    return roles


def _among(count: int, items: np.ndarray) -> np.ndarray:
    inside = np.zeros(count, dtype=bool)
    inside[items] = True
    return inside


def _protocol(name: str, query: np.ndarray, gallery: np.ndarray) -> Protocol | None:
    return Protocol(name, query.astype(np.int64), gallery.astype(np.int64)) if len(query) and len(gallery) else None


def _unknown(items: Iterable[str], number: dict[str, int]) -> list[str]:
    """A note that names corrected items which the data set doesn't have."""
    missing = [item for item in items if item not in number]
    if not missing:
        return []
    named = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
    return [f"{len(missing):,} corrected items aren't in the data, and change nothing: {named}."]
