"""`products`: Stanford Online Products in its official layout; Ebay_train.txt lists the training classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pddm_lab.data.download import Archive, download
from pddm_lab.data.source import Listing, Source, as_ints, check_counts, check_layout, how_to_get, read_rows
from pddm_lab.errors import DataError
from pddm_lab.progress import Progress

FOLDER = "Stanford_Online_Products"
COUNTS = (120_053, 22_634)
"""Published (items, classes)."""
ARCHIVE = Archive(
    "https://drive.usercontent.google.com/download"
    "?id=1TclrpQOF_ullUP99wk_gjGN8pKvtErG8&export=download&authuser=0&confirm=t", 3_083_860_082,
    "b04fa78210e69fab050ce73939550e1cd0f96890bdd98ec9fee732c3b756ef48", inner=FOLDER,
)  # fmt: skip
_TITLE = "Stanford Online Products"
_LISTS = ("Ebay_train.txt", "Ebay_test.txt")


def fetch(data_root: Path, progress: Progress | None = None) -> Path:
    """Download the official archive, unless it is there.

    Raises:
        DataError: no network, or a data root that cannot be written.
    """
    target = data_root / FOLDER
    if not is_present(data_root):
        by_hand = f"Or unpack Stanford_Online_Products.zip (cvgl.stanford.edu) so that {target / _LISTS[0]} exists."
        download(ARCHIVE, target, by_hand, progress)
    return target


def is_present(data_root: Path) -> bool:
    """Whether both lists are there."""
    return all((data_root / FOLDER / name).is_file() for name in _LISTS)


def list_items(data_root: Path, split_seed: int = 0, counts: tuple[int, int] | None = None) -> Listing:
    """Items in the order of the lists; a class name is a kind of product and a number.

    Args:
        data_root: folder that holds Stanford_Online_Products.
        split_seed: unused: the split is the published one.
        counts: expected (items, classes); None: the published ones.

    Raises:
        DataError: the data set is missing, incomplete, or has another layout.
    """
    root, advice = data_root / FOLDER, how_to_get("products", data_root)
    check_layout(root, _LISTS, _TITLE, advice)
    ids: list[str] = []
    class_ids: list[np.ndarray] = []
    for name in _LISTS:
        rows = read_rows(root / name, 4, header=True)
        ids += [row[3] for row in rows]
        class_ids.append(as_ints([row[1] for row in rows], root / name))
    train, test = (np.unique(column) for column in class_ids)
    if shared := np.intersect1d(train, test).tolist():
        raise DataError(f"{root}: {_LISTS[0]} and {_LISTS[1]} share the classes {shared[:5]}; expected none. {advice}")
    classes, first, labels = np.unique(np.concatenate(class_ids), return_index=True, return_inverse=True)
    kinds = [ids[item].partition("_final/")[0] for item in first]
    class_names = [f"{kind} {class_id}" for kind, class_id in zip(kinds, classes.tolist(), strict=True)]
    listing = Listing(root, ids, labels.astype(np.int64), class_names, np.isin(classes, train))
    return check_counts(listing, *(counts or COUNTS), _TITLE, advice)


SOURCE = Source(
    name="products", title=_TITLE, folder_name=FOLDER,
    size="2.9 GB to download; 120 053 photos of 22 634 products",
    licence="research; the photos belong to their sellers",
    attribution=(
        "H. O. Song, Y. Xiang, S. Jegelka, S. Savarese, Deep Metric Learning via Lifted Structured Feature Embedding, "
        "CVPR 2016."
    ),
    list_items=list_items, is_present=is_present, fetch=fetch,
)  # fmt: skip
