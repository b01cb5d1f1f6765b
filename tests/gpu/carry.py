"""Copy a part of Caltech-101 that is small enough to carry to a machine without a network: carry.py FOLDER."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from pddm_lab.config import data_root

LIMIT = 48 * 2**20
"""Bytes of all copies."""


def main(target: Path) -> None:
    """Copy the same number of photos of every class, as many as the limit allows, as FOLDER/<class>/<photo>."""
    source = data_root() / "Caltech101" / "101_ObjectCategories"
    classes = [sorted(folder.glob("*.jpg")) for folder in sorted(source.iterdir()) if folder.is_dir()]
    rounds = [[photos[at] for photos in classes if at < len(photos)] for at in range(max(map(len, classes)))]
    copied = 0
    for photos in rounds:
        size = sum(photo.stat().st_size for photo in photos)
        if copied + size > LIMIT:
            break
        for photo in photos:
            (target / photo.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, target / photo.parent.name)
        copied += size
    print(f"{len(classes)} classes, {copied / 2**20:.0f} MB in {target}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
