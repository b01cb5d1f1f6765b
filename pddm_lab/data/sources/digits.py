"""`digits`: 1797 handwritten digits of 8 x 8 pixels from scikit-learn, for tests and machines without a network."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from pddm_lab.data.source import Listing, Source, how_to_get, staged_folder
from pddm_lab.data.splits import halves_by_hash
from pddm_lab.errors import DataError
from pddm_lab.progress import Progress

FOLDER = "digits"
ITEMS = 1797


def fetch(data_root: Path, progress: Progress | None = None) -> Path:
    """Write each digit as `digits/<digit>/<number>.png`, unless the folder is complete.

    Raises:
        DataError: the data root cannot be written.
    """
    target = data_root / FOLDER
    if is_present(data_root):
        return target
    from sklearn.datasets import load_digits

    digits = load_digits()
    with staged_folder(target, owns=re.compile(r"\d/\d{4}\.png").fullmatch) as folder:
        for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
            image = Image.fromarray((pixels * (255 / 16)).round().astype(np.uint8))
            (folder / str(digit)).mkdir(exist_ok=True)
            image.save(folder / str(digit) / f"{number:04}.png")
            if progress:
                progress(number + 1, ITEMS, "writing digits")
    return target


def is_present(data_root: Path) -> bool:
    """Whether all digits are there."""
    return sum(1 for _ in (data_root / FOLDER).glob("*/*.png")) == ITEMS


def list_items(data_root: Path, split_seed: int = 0) -> Listing:
    """Items in the order of scikit-learn's array, classes "0" to "9"."""
    root = data_root / FOLDER
    paths = sorted(root.glob("*/*.png"), key=lambda path: path.name)
    if not paths:
        raise DataError(f"{root} has no digits: expected <digit>/<number>.png. {how_to_get('digits', data_root)}")
    names = [str(digit) for digit in range(10)]
    ids = [f"{path.parent.name}/{path.name}" for path in paths]
    labels = np.array([int(path.parent.name) for path in paths], dtype=np.int64)
    return Listing(root, ids, labels, names, halves_by_hash(names, split_seed))


SOURCE = Source(
    name="digits", title="Handwritten digits", folder_name=FOLDER, licence="CC-BY-4.0",
    size="no download; 1797 images of 8 x 8 pixels, ships with scikit-learn",
    attribution="E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI; via scikit-learn.",
    list_items=list_items, is_present=is_present, fetch=fetch, automatic=True,
)  # fmt: skip
