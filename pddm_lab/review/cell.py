"""A notebook cell that opens a selection of items as a data frame, to be copied from a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

MOST_LISTED = 40
"""Items that a cell lists one by one; more need a tag."""


def items_cell(run: Path, gallery: str, items: Sequence[str] = (), tag: str = "") -> str:
    """Code whose last line is a data frame of a gallery's items: id, label, class_name, role and metadata.

    Args:
        run: its folder.
        gallery: catalogue, unseen or known.
        items: their ids.
        tag: whose items are shown instead.
    """
    lines = ["import pddm_lab"]
    if tag:
        lines += ["from pddm_lab.review.tags import read_tags, tags_file"]
    lines += ["", f"run = pddm_lab.Run.open({str(run.resolve())!r})", f"items = run.gallery({gallery!r}).items"]
    if tag:
        lines += [
            f"tagged = read_tags(tags_file(run.path.parent, run.config.dataset))[{tag!r}]",
            'items[items["id"].isin(tagged)]',
        ]
    else:
        listed = "".join(f"    {item!r},\n" for item in items)
        lines += [f'items[items["id"].isin([\n{listed}])]']
    return "\n".join(lines)
