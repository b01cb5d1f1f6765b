"""Add, replace and remove items of a gallery, without writing or indexing the other items again.

New data is appended to the files that grow (files.py), the list of current items is written under a new name, and the
manifest, written last, names it. A change that is broken off leaves the gallery as it was; the next one cuts off what
it appended. The bytes of removed items stay in these files until the gallery is written again.

Neighbourhoods change with the items, where the run's similarity on local structure is given: the first pass is exact,
and what is stale of the second is marked, to be listed anew later (upkeep.py). Without it they are dropped.

The id identifies an item: rows move up when items before them are removed. The metrics and the distributions describe
the items that were measured. On the map new items lie between their neighbours (map_upkeep.py); the manifest counts
under `changed` how many items were added and removed since.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from pddm_lab.errors import RunError
from pddm_lab.gallery import history, map_upkeep
from pddm_lab.gallery.files import (
    CHANGED_FORMAT,
    COLUMNS,
    GROWING,
    NEIGHBOURHOODS,
    PRETRAINED,
    ROLES,
    append,
    as_next,
    changing,
    commit,
    count_roles,
    file_name,
    map_array,
    new_file,
    read_items,
    read_manifest,
    read_metadata,
    repair,
)
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.history import Change
from pddm_lab.gallery.schema import METADATA
from pddm_lab.wording import counted

if TYPE_CHECKING:
    from pddm_lab.gallery.reference import Reference
    from pddm_lab.local.unit import LocalStructure

_HEADER = 128
"""Bytes before the first feature in features.npy."""


@dataclass(frozen=True, eq=False)
class NewItems:
    """Items for a gallery."""

    items: pd.DataFrame
    """id, label, class_name, role, a row per item."""
    features: Float[np.ndarray, "items dim"]
    thumbs: Sequence[bytes]
    """A JPEG per item (`thumbnail` in files.py)."""
    pictures: Sequence[Path] = ()
    """The file of each item's picture, from which the gallery can be written again; empty if they are not known."""
    pretrained: Float[np.ndarray, "items pretrained"] | None = None
    """Where the gallery has them."""
    models: Collection[str] = ()
    """Stamps of the models whose vectors can be compared with these, their own first; empty: it isn't known."""


def add(gallery: Gallery, new: NewItems, structure: LocalStructure | None = None, reason: str = "") -> Gallery:
    """Add items.

    Args:
        gallery: as it was opened.
        new: the items.
        structure: the run's similarity on local structure, whose neighbourhoods are kept up.
        reason: of the change, for its history.

    Returns:
        The changed gallery. If the index of the given gallery is built, a changed copy of it is used.

    Raises:
        RunError: an id is already in the gallery or twice among the new ones, another process is changing the gallery,
            or its files can't be written.
        ValueError: the features have the wrong shape, or an item has no id or an unknown role.
    """
    return _change(gallery, new, structure, reason=reason)


def update(gallery: Gallery, new: NewItems, structure: LocalStructure | None = None, reason: str = "") -> Gallery:
    """Replace the pictures of items, which keep class and role; as `add`, but raises RunError for an unknown id."""
    return _change(gallery, new, structure, new.items["id"].tolist(), reason)


def remove(
    gallery: Gallery, ids: Sequence[str], structure: LocalStructure | None = None, reason: str = ""
) -> Gallery:  # fmt: skip
    """Remove items; as `add`, but raises RunError if an id isn't in the gallery or no item to search would remain."""
    return _change(gallery, None, structure, ids, reason)


def rename_class(
    gallery: Gallery, old: str, name: str, structure: LocalStructure | None = None, reason: str = ""
) -> Gallery:  # fmt: skip
    """Rename a class, or merge it with the class that has the name.

    Raises:
        RunError: there is no such class, or another process is changing the gallery.
    """
    with changing(gallery.path):
        current = gallery.reopened()
        listed = _listed(current)
        is_old, is_new = listed["class_name"] == old, listed["class_name"] == name
        if not is_old.any():
            raise RunError(f"The {current.protocol} gallery has no class {old!r}: `pddm-lab gallery list` names all.")
        if old == name or not name.strip() or "\0" in name:
            raise RunError(f"Expected another name for the class {old!r}, got {name!r}.")
        label = (listed[is_new] if is_new.any() else listed[is_old])["label"].iloc[0]
        before = listed[is_old].copy()
        listed.loc[is_old, ["label", "class_name"]] = [label, name]
        how = "merged" if is_new.any() else "renamed"
        what = f"{how} {counted(int(is_old.sum()), 'item')} of {old!r} into {name!r}"
        _relist(current, listed, structure, before, {"what": what, "reason": reason})
        return current.reopened()


def relabel(
    gallery: Gallery, items: pd.DataFrame, structure: LocalStructure | None = None, reason: str = ""
) -> Gallery:  # fmt: skip
    """Give items other classes: id, label and class_name of each; ids that aren't in the gallery are passed over."""
    with changing(gallery.path):
        current = gallery.reopened()
        listed, of_item = _listed(current), items.set_index("id")
        at = listed["id"].isin(items["id"])
        before = listed[at].copy()
        for column in ("label", "class_name"):
            listed.loc[at, column] = of_item.loc[before["id"], column].to_numpy()
        text = {"what": f"gave {counted(len(before), 'item')} another class", "reason": reason}
        _relist(current, listed, structure, before, text)
        return current.reopened()


def undo(gallery: Gallery, structure: LocalStructure | None = None) -> tuple[Gallery, Change]:
    """Take back the last change that isn't undone.

    Returns:
        The gallery with the items it had before, and what was undone.

    Raises:
        RunError: there is nothing to undo, or the list of the items before is damaged.
    """
    with changing(gallery.path):
        current = gallery.reopened()
        past = history.changes(current.path, current.manifest)
        if not past:
            raise RunError(f"There is no change of the {current.protocol} gallery to undo.")
        listed = history.items_before(current.path, past[0], _listed(current))
        stored = _stored(current.path, current.manifest, "features.npy")
        assert stored is not None
        last = len(stored) - 1
        if not listed["place"].is_monotonic_increasing or not listed["place"].between(0, last).all():
            raise RunError(f"{history.file_of(current.path, past[0])} is damaged: expected places up to {last}.")
        _relist(current, listed, structure)
        history.forget(current.path, past[0])
        return current.reopened(), past[0]


def _relist(
    current: Gallery, listed: pd.DataFrame, structure: LocalStructure | None, renamed: pd.DataFrame | None = None,
    text: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Write another list of items, all of which are stored; the history keeps those renamed, and why."""
    path, before = current.path, current.manifest
    places = _places(current)
    here, then = set(listed["place"]), set(places.tolist())
    after = _changed(current, listed, len(here - then), len(then - here))
    reference = None
    if structure is not None:
        row_of = {int(place): row for row, place in enumerate(places)}
        searched = np.flatnonzero(listed["role"].isin(["gallery", "both"]))
        at = listed["place"].to_numpy()[searched]
        was = current.items["role"].isin(["gallery", "both"]).to_numpy()
        origin = np.array([row_of.get(int(place), -1) for place in at])
        origin[(origin >= 0) & ~was[origin]] = -1
        features, further = (
            np.array(values[at[origin < 0]]) if (values := _stored(path, before, name)) is not None else None
            for name in ("features.npy", PRETRAINED)
        )
        assert features is not None
        further = further if structure.weight else None
        reference = current.reference(structure).changed(searched, origin, features, further)
    with new_file(path, after, "items.parquet") as temporary:
        listed.to_parquet(temporary, index=False)
    _carry_map(current, listed, after)
    if reference is not None:
        reference.write(path, after)
    if renamed is not None and text is not None:
        history.note(path, after["change"], len(current), renamed, range(0), text)
    commit(path, after)


def _carry_map(current: Gallery, listed: pd.DataFrame, after: dict[str, Any]) -> None:
    """Write the map of the items after a change, if the gallery had a map that can be read."""
    try:
        drawn = current.map
    except RunError:
        drawn = None  # a damaged one is dropped
    if drawn is None:
        return
    row_of = {int(place): row for row, place in enumerate(_places(current))}
    origin = np.array([row_of.get(int(place), -1) for place in listed["place"]])
    stored = _stored(current.path, after, "features.npy")
    assert stored is not None
    new = np.array(stored[listed["place"].to_numpy()[origin < 0]])
    frame = map_upkeep.carried(drawn, np.array(current.features), origin, listed["id"], new)
    after["map"] = map_upkeep.note_of(current.manifest["map"] or {}, frame, len(new))
    with new_file(current.path, after, "map.parquet") as temporary:
        frame.to_parquet(temporary, index=False)


def _stored(path: Path, manifest: Mapping[str, Any], name: str) -> np.ndarray | None:
    """A growing file's rows, by place; None if the gallery has no such file."""
    file = file_name(manifest, name)
    return map_array(path / file, manifest["files"][file]["bytes"]) if file else None


def _changed(current: Gallery, items: pd.DataFrame, added: int, removed: int) -> dict[str, Any]:
    """The manifest of a gallery with other items; the files that follow from these are dropped."""
    before = current.manifest
    counts = before.get("changed", {"added": 0, "removed": 0})
    files = {name: dict(entry) for name, entry in before["files"].items()}
    for dropped in ("map.parquet", NEIGHBOURHOODS):
        files.pop(file_name(before, dropped), None)
    after = {
        **before, "format": CHANGED_FORMAT, "items": len(items), "roles": count_roles(items), "map": None,
        "files": files, "changed": {"added": counts["added"] + added, "removed": counts["removed"] + removed},
    }  # fmt: skip
    as_next(current.path, after)
    return after


def _change(
    gallery: Gallery, new: NewItems | None, structure: LocalStructure | None, removed: Sequence[str] = (),
    reason: str = "",
) -> Gallery:  # fmt: skip
    read_manifest(gallery.path)  # raises: there is no gallery any more
    with changing(gallery.path):
        current = gallery.reopened()
        leaves = current.items["id"].isin(list(removed)).to_numpy()
        if leaves.sum() < len(set(removed)):
            there = set(current.items["id"][leaves])
            current.index_of(next(item for item in removed if item not in there))  # raises: there is no such item
        if new is not None:
            _check(new, current, leaves)
            new = replace(new, items=_kept(new.items, current) if removed else _labelled(new.items, current.items))
        if not (leaves.any() or (new is not None and len(new.items))):
            return current
        parts = [current.items[~leaves], *([new.items[COLUMNS]] if new is not None else [])]
        items = pd.concat(parts, ignore_index=True).astype(current.items.dtypes)
        if not items["role"].isin(["gallery", "both"]).any():
            raise RunError(
                f"Nothing was removed: no item to search would be left in the {current.protocol} gallery. Keep one "
                "item or more."
            )
        reference = None if structure is None else _reference(current, structure, items, ~leaves, new)
        _write(current, items, ~leaves, new, reference, reason)
        return current.reopened()


def _kept(new: pd.DataFrame, current: Gallery) -> pd.DataFrame:
    """The items as the gallery lists them by now: their class may have been renamed since they were chosen."""
    return current.items.iloc[[current.index_of(item) for item in new["id"]]].reset_index(drop=True)


def _labelled(new: pd.DataFrame, current: pd.DataFrame) -> pd.DataFrame:
    """New items with labels that are right by now: the gallery may have got classes since they were chosen."""
    known, of_new = (items.drop_duplicates("class_name") for items in (current, new))
    labels = dict(zip(known["class_name"], known["label"], strict=True))
    for name, label in zip(of_new["class_name"], of_new["label"], strict=True):
        free = max(*labels.values(), *of_new["label"]) + 1 if label in labels.values() else label
        labels.setdefault(name, free)
    return new.assign(label=new["class_name"].map(labels))


def _check(new: NewItems, current: Gallery, leaves: Bool[np.ndarray, " items"]) -> None:
    made_by = current.manifest.get("model")
    if made_by and new.models and made_by not in new.models:
        raise RunError(
            f"The vectors of the {current.protocol} gallery are of another model than the new ones, and can't be "
            f"compared with them. {repair(current.path)}."
        )
    ids, shape = new.items["id"], (len(new.items), current.manifest["dim"])
    if new.features.shape != shape or not np.isfinite(new.features).all() or len(new.thumbs) != len(ids):
        raise ValueError(f"expected finite features of shape {shape} and as many thumbnails, got {new.features.shape}")
    has, gets = current.pretrained, new.pretrained
    wanted = None if has is None else (len(ids), has.shape[1])
    if (None if gets is None else gets.shape) != wanted or (gets is not None and not np.isfinite(gets).all()):
        raise ValueError(f"expected finite pretrained features of shape {wanted}, as the gallery has them")
    if not new.items["role"].isin(ROLES).all() or not ids.astype(bool).all():
        raise ValueError(f"expected an id for each item, and roles among {', '.join(ROLES)}")
    if not ids.is_unique:
        raise RunError(f"{ids[ids.duplicated()].iloc[0]!r} occurs twice among the new items. Expected unique ids.")
    stay = current.items["id"][~leaves]
    if (known := stay.isin(ids.tolist())).any():
        raise RunError(
            f"{stay[known].iloc[0]!r} is already in the {current.protocol} gallery: update it, or remove it first."
        )


def _reference(
    current: Gallery, structure: LocalStructure, items: pd.DataFrame, stay: Bool[np.ndarray, " items"],
    new: NewItems | None,
) -> Reference:  # fmt: skip
    """The neighbourhoods of the items after the change: those that stay, then the new ones."""
    before = current.reference(structure)
    is_searched = items["role"].isin(["gallery", "both"]).to_numpy()
    origin = np.concatenate([np.flatnonzero(stay), np.full(len(items) - int(stay.sum()), -1)])
    of_new = is_searched[origin < 0]
    features = np.empty((0, structure.dim), np.float32) if new is None else new.features[of_new]
    further = new.pretrained[of_new] if structure.weight and new is not None and new.pretrained is not None else None
    return before.changed(np.flatnonzero(is_searched), origin[is_searched], features, further)


def _write(
    current: Gallery, items: pd.DataFrame, stay: Bool[np.ndarray, " items"], new: NewItems | None,
    reference: Reference | None, reason: str,
) -> None:  # fmt: skip
    path, before = current.path, current.manifest
    added, removed = len(new.items) if new is not None else 0, int((~stay).sum())
    after = _changed(current, items, added, removed)
    files, listed = after["files"], _listed(current)
    features, thumbs, ends = (file_name(before, name) for name in GROWING)
    first = len(map_array(path / features, files[features]["bytes"]))
    text = {"what": _in_words(added, removed), "reason": reason}
    history.note(path, after["change"], len(listed), listed[~stay], range(first, first + added), text)
    whole = listed[stay]
    if new is not None and added:
        pictures = [str(file.resolve()) for file in new.pictures] or [""] * added
        rows = new.items[COLUMNS].assign(place=range(first, first + added), picture=pictures)
        # A new picture of an item leaves its metadata; a new item has none.
        metadata = listed[~stay].set_index("id").filter(regex=f"^{re.escape(METADATA)}")
        whole = pd.concat([whole, rows.join(metadata, on="id").fillna(dict.fromkeys(metadata, ""))], ignore_index=True)
        begin = files[thumbs]["bytes"]
        append(path / features, files, np.ascontiguousarray(new.features, dtype=np.float32).tobytes())
        if new.pretrained is not None:
            further = path / file_name(before, PRETRAINED)
            append(further, files, np.ascontiguousarray(new.pretrained, dtype=np.float32).tobytes())
        append(path / thumbs, files, b"".join(new.thumbs))
        append(path / ends, files, (begin + np.cumsum([*map(len, new.thumbs)], dtype=np.int64)).tobytes())
    with new_file(path, after, "items.parquet") as temporary:
        whole.to_parquet(temporary, index=False)
    _carry_map(current, whole, after)
    if reference is not None:
        reference.write(path, after)
    commit(path, after)


def _places(current: Gallery) -> Int[np.ndarray, " items"]:
    return current.places_of(np.arange(len(current)))


def _in_words(added: int, removed: int) -> str:
    how = "updated" if added and removed else "added" if added else "removed"
    return f"{how} {counted(max(added, removed), 'item')}"


def _listed(current: Gallery) -> pd.DataFrame:
    """`with_sources` of an open gallery."""
    listed = current.items if current.pictures is None else current.items.assign(picture=current.pictures)
    return with_sources(current.path, current.manifest, listed.assign(place=_places(current)))


def with_sources(path: Path, manifest: Mapping[str, Any], listed: pd.DataFrame | None = None) -> pd.DataFrame:
    """The items with place and picture (`read_items` in files.py), whether these are listed or not, and metadata.

    `listed` is what was read of them already.
    """
    items = read_items(path, manifest) if listed is None else listed
    items = items.join(read_metadata(path, manifest).add_prefix(METADATA))
    if "place" not in items:
        items["place"] = np.arange(len(items))
    if "picture" not in items:  # older versions didn't list it: what was appended is not from the data set
        entry = manifest["files"][file_name(manifest, "features.npy")]
        size = entry["bytes"] - sum(part["bytes"] for part in entry.get("appended", []))
        written = (size - _HEADER) // (4 * manifest["dim"])
        items["picture"] = [None if place < written else "" for place in items["place"]]
    return items
