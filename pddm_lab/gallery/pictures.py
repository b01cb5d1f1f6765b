"""Where the pictures of a gallery's items are: in the data set, or where they were added from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pddm_lab.gallery.gallery import Gallery


def file_of(root: str | Path, item: str, picture: object) -> Path | None:
    """The file that an item's picture is in; it need not exist.

    Args:
        root: of the data set; empty if it is not known.
        item: its id.
        picture: of the item, as `read_items` in files.py has it: null for one of the data set, else the file that it
            was embedded from, or empty.

    Returns:
        None if it is not known, or if the id would lead out of the data set's folder: an id comes from a file.
    """
    if isinstance(picture, str):
        return Path(picture) if picture else None
    top = os.path.abspath(root)  # links are kept: a data set may be made of them
    file = Path(os.path.abspath(os.path.join(top, item)))
    return file if root and file.is_relative_to(top) else None


def file_in(gallery: Gallery, row: int, root: str | Path) -> Path | None:
    """As `file_of`, of the item in a row of a gallery."""
    picture = None if gallery.pictures is None else gallery.pictures.iloc[row]
    return file_of(root, str(gallery.items["id"].iloc[row]), picture)
