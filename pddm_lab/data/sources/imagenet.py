"""`imagenet:zero-shot` and `imagenet:transfer`: protocols like the paper's, on any ImageNet in the data root.

imagenet/[train/]<wnid>/<image>      a folder per class, as the archives unpack (ILSVRC also: Data/CLS-LOC/train)
imagenet/train_classes.txt           optional: a wnid per line, the classes to train on
imagenet/test_classes.txt            optional: the classes to measure on; none of them may be a training class
imagenet/words.txt                   optional, official: wnid and names

Zero-shot (ImageNet-2010 style): measures on classes of the same ImageNet that are not used for training; without lists
a seeded hash of the wnid chooses 200 of 1000. Transfer (ImageNet-10K style): trains on one list of classes, such as
ILSVRC's 1000, and measures on all others. The paper's own lists are not available, so its numbers do not compare.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from pddm_lab.data.pictures import find_pictures
from pddm_lab.data.source import Listing, Source, read_rows
from pddm_lab.data.splits import halves_by_hash
from pddm_lab.errors import DataError
from pddm_lab.progress import Progress

PREFIX = "imagenet:"
PROTOCOLS = ("zero-shot", "transfer")
FOLDERS = ("imagenet", "ImageNet", "ILSVRC2010", "ILSVRC2012", "ILSVRC")
"""Usual folder names inside the data root, the first one preferred."""
UNSEEN_SHARE = 0.2
"""Share of the classes for zero-shot without lists: the usual 200 of 1000."""
LISTS = ("train_classes.txt", "test_classes.txt")
_INNER = ("", "train", "Data/CLS-LOC/train")
_LEAK = (
    "Weights pretrained on ImageNet were trained on the unseen classes too: pass --weights none, or weights that were "
    "trained on the training classes only."
)


def source(protocol: str) -> Source:
    """An ImageNet protocol as a source; there is nothing to fetch, since ImageNet needs a registration.

    Raises:
        DataError: no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise DataError(
            f"Unknown ImageNet protocol {protocol!r}. Expected {' or '.join(PREFIX + name for name in PROTOCOLS)}."
        )

    def fetch(data_root: Path, _progress: Progress | None = None) -> Path:
        return find(data_root)[0]

    return Source(
        name=f"imagenet-{protocol}", title=f"ImageNet, {protocol}", folder_name=FOLDERS[0],
        size="about 150 GB; image-net.org, after registration", licence="non-commercial research and education",
        attribution="J. Deng et al., ImageNet: A Large-Scale Hierarchical Image Database, CVPR 2009.",
        list_items=lambda data_root, split_seed: list_items(data_root, protocol, split_seed),
        is_present=is_present, fetch=fetch,
    )  # fmt: skip


def is_present(data_root: Path) -> bool:
    """Whether there is a folder with classes."""
    try:
        find(data_root)
    except DataError:
        return False
    return True


def find(data_root: Path) -> tuple[Path, Path]:
    """(the folder of the data set, the folder that holds a folder per wnid).

    Raises:
        DataError: there is none.
    """
    for name in FOLDERS:
        for inner in _INNER:
            if _wnids(data_root / name / inner):
                return data_root / name, data_root / name / inner
    raise DataError(
        f"ImageNet is not in {data_root}: expected {FOLDERS[0]}/<wnid>/<image> or {FOLDERS[0]}/train/<wnid>/<image>, "
        "with wnids such as n01440764. Get it from image-net.org, and point PDDM_LAB_DATA at the folder that holds it."
    )


def list_items(data_root: Path, protocol: str, split_seed: int = 0) -> Listing:
    """Items of all classes that the protocol uses, in the order of wnids.

    Args:
        data_root: folder that holds imagenet.
        protocol: zero-shot or transfer.
        split_seed: of the split for zero-shot without lists.

    Raises:
        DataError: no ImageNet, a list is missing, or the lists share classes or name none of the classes here.
    """
    top, root = find(data_root)
    wnids = _wnids(root)
    train, test = (_read_list(top / name) for name in LISTS)
    notes = [_LEAK]
    if train is None and protocol == "transfer":
        raise DataError(
            f"{PREFIX}transfer trains on a list of classes, but {top / LISTS[0]} is missing: expected a wnid per line, "
            "such as the 1000 of ILSVRC. All other classes, or those of test_classes.txt, are then measured."
        )
    if train is None and test is None:
        trains = halves_by_hash(wnids, split_seed, 1 - UNSEEN_SHARE)
        train = {wnid for wnid, is_trained in zip(wnids, trains, strict=True) if is_trained}
        notes.append(
            f"Without lists of classes, a seeded hash of the wnid chooses {len(train)} of {len(wnids)} to train."
        )
    train = set(wnids) - (test or set()) if train is None else train
    test = set(wnids) - train if test is None else test
    if both := train & test:
        raise DataError(
            f"{top}: {LISTS[0]} and {LISTS[1]} share {len(both)} classes, such as {min(both)}. Expected none."
        )
    used = [wnid for wnid in wnids if wnid in train or wnid in test]
    if not (train & set(used) and test & set(used)):
        raise DataError(
            f"{root} has none of the classes to train on, or none to measure on. Check {' and '.join(LISTS)}."
        )
    if missing := (train | test) - set(used):
        notes.append(f"{len(missing)} classes of the lists are missing here, such as {min(missing)}.")
    names = _names(top / "words.txt")
    pictures = [find_pictures(root / wnid) for wnid in used]
    files = [each.ids for each in pictures]
    notes += [f"{wnid}: {note}" for wnid, each in zip(used, pictures, strict=True) for note in each.notes()]
    inner = root.relative_to(top).as_posix()
    return Listing(
        root=top,
        ids=[f"{inner}/{wnid}/{name}".removeprefix("./") for wnid, of in zip(used, files, strict=True) for name in of],
        labels=np.repeat(np.arange(len(used)), [len(of) for of in files]),
        class_names=[names.get(wnid, wnid) for wnid in used],
        trains=np.array([wnid in train for wnid in used]),
        notes=notes,
    )


def _wnids(root: Path) -> list[str]:
    """Names of the folders that are wnids: n and eight digits."""
    if not root.is_dir():
        return []
    names = (name for name in os.listdir(root) if len(name) == 9 and name[0] == "n" and name[1:].isdigit())
    return sorted(name for name in names if (root / name).is_dir())


def _read_list(path: Path) -> set[str] | None:
    return {row[0].split()[0] for row in read_rows(path, 1, separator="\n")} if path.is_file() else None


def _names(path: Path) -> dict[str, str]:
    """Wnid -> its first name with the wnid, since two classes can have the same name ("crane")."""
    rows = read_rows(path, 2, separator="\t") if path.is_file() else []
    return {wnid: f"{names.split(',')[0]} ({wnid})" for wnid, names in rows}
