"""Carry the changes of one catalogue over to another one, which holds the same items by another model.

While an update trains, items come and go in the catalogue that serves; when it is rolled back, they have come and gone
in its own. No vector is copied: pictures are embedded again, by the model of the catalogue that gets them.

served.parquet in the folder of an update: id, class_name and place of each item when it began to serve.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pddm_lab.data.uploads import taken_over
from pddm_lab.files import read_table, replacing
from pddm_lab.gallery import changes
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.upkeep import keep_up
from pddm_lab.runs.file_reports import without
from pddm_lab.runs.local import load_local
from pddm_lab.runs.new_items import Picture, embed_pictures, item_rows
from pddm_lab.runs.run import Run

SERVED = "served.parquet"
_COLUMNS = {"id": "string", "class_name": "string", "place": "int64"}


@dataclass(frozen=True, eq=False)
class Difference:
    """What happened to a list of items."""

    renamed: pd.DataFrame
    """id, class_name of items that have another class now."""
    pictures: pd.DataFrame
    """id, class_name, picture of items that were added, or whose picture was replaced."""
    removed: list[str]

    @classmethod
    def between(cls, before: pd.DataFrame, after: pd.DataFrame) -> Difference:
        """What led from one list to another; both have id, class_name and place, the later one picture, too.

        A vector keeps its place as long as its item has it, so that another place is another picture.
        """
        was = before.set_index("id").reindex(after["id"])
        is_new = (was["place"] != after["place"].to_numpy()).to_numpy()
        old, new = was["class_name"].to_numpy(object), after["class_name"].to_numpy(object)
        is_renamed = was["place"].notna().to_numpy() & (old != new)
        return cls(
            after.loc[is_renamed, ["id", "class_name"]], after.loc[is_new, ["id", "class_name", "picture"]],
            before["id"][~before["id"].isin(after["id"])].tolist(),
        )  # fmt: skip


def carry(
    source: Run, before: pd.DataFrame, target: Run, to: Path | None = None
) -> tuple[pd.DataFrame, list[str]]:  # fmt: skip
    """Make the changes of a run's catalogue again in that of another run.

    Args:
        source: whose catalogue was changed.
        before: its items before that, see `Difference`.
        target: whose catalogue gets the changes. What it doesn't have is neither renamed nor removed.
        to: the name that the target's folder will have; None: it has it.

    Returns:
        The source's items now, as the next `before`; and why pictures could not be embedded, a sentence each.

    Raises:
        RunError: a catalogue is damaged, or another process is changing the target's.
    """
    now = listed(catalogue_of(source))
    difference, reason = Difference.between(before, now), f"carried over from {source.name}"
    gallery, local = catalogue_of(target), load_local(target)
    structure = None if local is None else local.structure
    there, first = set(gallery.items["id"]), gallery
    if len(renamed := difference.renamed[difference.renamed["id"].isin(there)]):
        rows = item_rows(target, gallery, renamed["id"].tolist(), renamed["class_name"].tolist())
        gallery = changes.relabel(gallery, rows, structure, reason)
    new, left = _embedded(source, target, to or target.path, gallery, difference.pictures)
    if new is not None:
        is_known = new.items["id"].isin(there).to_numpy()
        for change, others in ((changes.update, ~is_known), (changes.add, is_known)):
            if not others.all():
                gallery = change(gallery, without(new, np.flatnonzero(others).tolist()), structure, reason)
    if removed := [item for item in difference.removed if item in there]:
        gallery = changes.remove(gallery, removed, structure, reason)
    if structure is not None and gallery is not first:
        keep_up(gallery, structure)
    return now, left


def catalogue_of(run: Run) -> Gallery:
    """The gallery of a run that serves; raises RunError as `Run.gallery` does."""
    return run.gallery(next(iter(run.galleries()), "catalogue"))


def listed(gallery: Gallery) -> pd.DataFrame:
    """The items of a gallery with place and picture."""
    return changes.with_sources(gallery.path, gallery.manifest)


def write_served(run: Run) -> None:
    """Note the items with which an update begins to serve."""
    with replacing(run.path / SERVED) as file:
        listed(catalogue_of(run))[list(_COLUMNS)].to_parquet(file, index=False)


def read_served(run: Run) -> pd.DataFrame | None:
    """The items with which an update began to serve; None for updates of earlier versions, which didn't note them.

    Raises:
        RunError: the file is damaged.
    """
    file = run.path / SERVED
    return read_table(file, _COLUMNS, run.hint()).to_pandas() if file.is_file() else None


def _embedded(
    source: Run, target: Run, to: Path, gallery: Gallery, items: pd.DataFrame
) -> tuple[changes.NewItems | None, list[str]]:
    """Items of the source by the target's model, and why others could not be embedded."""
    if not len(items):
        return None, []
    root = Path(source.info["dataset"]["root"])
    files = [
        (Path(picture) if picture else None) if isinstance(picture, str) else root / item
        for item, picture in zip(items["id"], items["picture"], strict=True)
    ]
    made = list(embed_pictures(target, files))
    left = [f"{item}: {why}" for item, why in zip(items["id"], made, strict=True) if isinstance(why, str)]
    good = [(at, one) for at, one in enumerate(made) if isinstance(one, Picture)]
    if not good:
        return None, left
    at, pictures = zip(*good, strict=True)
    rows = items.iloc[list(at)]
    further = None if pictures[0].pretrained is None else np.stack([one.pretrained for one in pictures])
    return changes.NewItems(
        item_rows(target, gallery, rows["id"].tolist(), rows["class_name"].tolist()),
        np.stack([one.feature for one in pictures]), [one.thumb for one in pictures],
        [taken_over(file, target.path, to) for place in at if (file := files[place]) is not None],
        further, target.models(),
    ), left  # fmt: skip
