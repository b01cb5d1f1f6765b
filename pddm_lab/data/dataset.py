"""A data set as the lab uses it: readable items, their classes, and the two protocols that measure retrieval.

To add a data set, write a file in sources/ that defines `SOURCE`, and add its name to `SOURCES`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from pddm_lab.data.corrections import Corrections
from pddm_lab.data.images import FORMATS, open_image, why_unreadable
from pddm_lab.data.pictures import readable_name
from pddm_lab.data.source import Source, Use
from pddm_lab.data.sources import folder, imagenet, manifest
from pddm_lab.data.splits import hold_out_queries, without_lone_items
from pddm_lab.errors import DataError, RunError
from pddm_lab.files import sha256_of, write_file
from pddm_lab.progress import Progress

SOURCES: dict[str, Source] = {
    name: importlib.import_module(f"pddm_lab.data.sources.{name}").SOURCE
    for name in ("emoji", "grocery", "caltech101", "fruits360", "cub200", "cars196", "products", "digits")
}
"""The data sets known by name, the demo first."""
PREFIXES: dict[str, Callable[[str], Source]] = {
    "folder": folder.source, "manifest": manifest.source, "imagenet": imagenet.source
}  # fmt: skip
"""Data sets named PREFIX:ARGUMENT: `folder:PATH`, `manifest:FILE.csv`, `imagenet:zero-shot`, `imagenet:transfer`."""
OWN = ("folder", "manifest")
"""Prefixes of a user's own images; a path follows."""

_CHUNK = 64


@dataclass(frozen=True, eq=False)
class Protocol:
    """Which items are queries and which are searched. If both are equal, each item is searched among all the others."""

    name: str
    """"unseen" (classes not used for training) or "known" (new photos of the training classes)."""
    query: np.ndarray
    """(queries,) int64 item indices."""
    gallery: np.ndarray
    """(gallery,) int64 item indices."""

    @property
    def leave_one_out(self) -> bool:
        """Whether queries and gallery are the same items."""
        return np.array_equal(self.query, self.gallery)


@dataclass(frozen=True)
class Skipped:
    """An item left out because its file cannot be read."""

    id: str
    reason: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """Items with labels and their split."""

    name: str
    root: Path
    ids: list[str]
    """Path of each item relative to root, "/" separated; stable across machines."""
    labels: np.ndarray
    """(items,) int64 class indices."""
    class_names: list[str]
    train: np.ndarray
    """Indices of the training items."""
    unseen: Protocol | None
    """Retrieval among classes not used for training."""
    known: Protocol | None
    """Retrieval of new photos of the training classes; None if no queries were held out."""
    skipped: list[Skipped]
    licence: str
    attribution: str
    notes: list[str] = field(default_factory=list)
    """What a user should know about the data as read, one sentence each."""
    sizes: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64), repr=False)
    """(items,) int64 file sizes in bytes."""
    metadata: dict[str, list[str]] = field(default_factory=dict, repr=False)
    """What else the data set says of its items: name -> a text for each."""
    stamp: str = ""
    """What identifies the split, if it can change while items and labels stay."""
    labelled: bool = True
    """Whether the classes are known; else all items are of one, and nothing can be measured."""
    corrections: Corrections | None = None
    """What people corrected in it, if that is applied (corrected.py)."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def catalogue(self) -> Protocol | None:
        """All items, each searched among all the others; None where a protocol is that already."""
        everything = np.arange(len(self))
        whole = any(one and one.leave_one_out and len(one.query) == len(self) for one in (self.unseen, self.known))
        return None if whole else Protocol("catalogue", everything, everything)

    def path(self, item: int) -> Path:
        """Path of an item's file."""
        return self.root / self.ids[item]

    def load(self, item: int) -> Image.Image:
        """An item's picture, RGB.

        Raises:
            DataError: the file has changed since the data set was read and can no longer be decoded.
        """
        return open_image(self.path(item))

    def fingerprint(self) -> str:
        """SHA-256 of ids, labels, file sizes and `stamp`; it does not depend on where the data is stored."""
        digest = hashlib.sha256(self.stamp.encode())
        for item_id, label, size in zip(self.ids, self.labels.tolist(), self.sizes.tolist(), strict=True):
            digest.update(f"{item_id}\t{label}\t{size}\n".encode())
        return digest.hexdigest()


def read_dataset(
    name: str, data_root: Path | str, *, known_query_share: float = 0.2, split_seed: int = 0,
    check_cache: Path | None = None, progress: Progress | None = None,
) -> Dataset:  # fmt: skip
    """Read a data set by name, skip images that cannot be decoded, and split it by classes.

    Args:
        name: a name in `SOURCES`, or one that starts with a prefix in `PREFIXES`.
        data_root: folder that holds the data sets under their usual names; not used for your own images.
        known_query_share: share of each training class held out as queries of the known classes, 0 to 0.5; not used if
            the data set has its own queries.
        split_seed: seed of the split by classes and of the held-out queries.
        check_cache: folder that stores which files can be decoded, by id, size and time; None checks every file again.
        progress: called while files are checked.

    Raises:
        DataError: unknown name, missing data, unexpected layout, no readable images, or too few training classes.
    """
    data_root = Path(data_root)
    source = source_of(name)
    if source.automatic and not source.is_present(data_root):
        source.fetch(data_root, progress)
    listing = source.list_items(data_root, split_seed)
    place = str(listing.root.resolve())
    if readable_name(place) != place:
        raise DataError(f"The folder {readable_name(place)} is named in another encoding than UTF-8: rename it.")
    cache_file = check_cache / f"{source.name}-{_short_hash(place + ' '.join(FORMATS))}.json" if check_cache else None
    reasons, sizes = check_images(listing.root, listing.ids, cache_file, progress, listing.sha256)
    kept = np.array([not reason for reason in reasons], dtype=bool)
    skipped = [Skipped(i, reason) for i, reason in zip(listing.ids, reasons, strict=True) if reason]
    if not kept.any():
        if not skipped:
            raise DataError(f"{name} lists no images in {listing.root}: expected at least two classes with two each.")
        raise DataError(
            f"None of the {len(kept)} images of {name} in {listing.root} can be read. "
            f"The first is {skipped[0].id}: {skipped[0].reason}"
        )
    notes = list(listing.notes)
    if skipped:
        first = f"{skipped[0].id}: {skipped[0].reason}"
        notes.append(f"{len(skipped)} of {len(kept)} images cannot be read and are skipped; the first is {first}")
    classes, labels = np.unique(listing.labels[kept], return_inverse=True)
    train, unseen, known = split_items(
        labels, listing.trains[classes], None if listing.uses is None else listing.uses[kept],
        known_query_share, split_seed,
    )  # fmt: skip
    lone = int((np.bincount(labels) == 1).sum())
    if lone:
        notes.append(f"{lone} {'class has' if lone == 1 else 'classes have'} only one image and cannot be trained on.")
    if (trained := len(np.unique(labels[train]))) < 2:
        raise DataError(
            f"{name} has {trained} {'class' if trained == 1 else 'classes'} to train on. Expected at least two classes "
            f"with two readable images each in the training half of {listing.root}: add images, or choose another."
        )
    return Dataset(
        name=name, root=listing.root, ids=[i for i, keep in zip(listing.ids, kept, strict=True) if keep],
        labels=labels.astype(np.int64), class_names=[listing.class_names[c] for c in classes], train=train,
        unseen=unseen, known=known, skipped=skipped, licence=source.licence, attribution=source.attribution,
        notes=notes, sizes=sizes[kept], stamp=listing.stamp,
        metadata={name: list(compress(texts, kept)) for name, texts in listing.metadata.items()},
    )  # fmt: skip


def source_of(name: str) -> Source:
    """The source of a data set.

    Raises:
        DataError: unknown name.
    """
    prefix, colon, argument = name.partition(":")
    if colon and prefix in PREFIXES:
        return PREFIXES[prefix](argument)
    if name not in SOURCES:
        raise DataError(
            f"Unknown data set {name!r}. Expected one of {', '.join(SOURCES)}, folder:PATH or manifest:FILE.csv."
        )
    return SOURCES[name]


def split_items(
    labels: np.ndarray, trains: np.ndarray, uses: np.ndarray | None, share: float, seed: int
) -> tuple[np.ndarray, Protocol | None, Protocol | None]:
    """What trains, and what measures.

    Args:
        labels: (items,) class of each item.
        trains: (classes,) the training classes.
        uses: (items,) `Use` of each item; None if the data set says nothing of them.
        share: of each training class that is held out as known queries where `uses` names none.
        seed: of the queries that are held out.

    Returns:
        (train items, unseen, known).
    """
    is_known = trains[labels]
    if uses is None:
        uses = np.where(is_known, Use.TRAIN | Use.GALLERY, Use.QUERY | Use.GALLERY)

    def items(of: np.ndarray, use: Use) -> np.ndarray:
        return np.flatnonzero(of & (uses & use > 0)).astype(np.int64)

    train, query, gallery = (items(is_known, use) for use in (Use.TRAIN, Use.QUERY, Use.GALLERY))
    if not len(query):
        train, query = hold_out_queries(labels, train, share, seed)
        gallery = np.setdiff1d(gallery, query)
    known = Protocol("known", query, gallery)
    unseen = Protocol("unseen", items(~is_known, Use.QUERY), items(~is_known, Use.GALLERY))
    return (
        without_lone_items(labels, train),
        unseen if len(unseen.query) and len(unseen.gallery) else None,
        known if len(query) and len(gallery) else None,
    )


def check_images(
    root: Path, ids: list[str], cache_file: Path | None = None, progress: Progress | None = None,
    checksums: Mapping[str, str] = MappingProxyType({}),
) -> tuple[list[str], np.ndarray]:  # fmt: skip
    """Decode every file once, in threads (decoders release the interpreter).

    Args:
        root: folder the ids are relative to.
        ids: files to check.
        cache_file: JSON that keeps results by id, size and modification time; not written on a read-only disk.
        progress: called as files are done.
        checksums: SHA-256 that files must have, by id.

    Returns:
        (why each file cannot be read, "" if it can; (files,) int64 sizes in bytes, 0 if missing).
    """
    stats = [_size_and_time(os.path.join(root, item_id)) for item_id in ids]
    cached = _read_cache(cache_file)
    reasons: dict[int, str] = {}
    for item, (item_id, stat) in enumerate(zip(ids, stats, strict=True)):
        if stat is None:
            reasons[item] = "the file is missing."
        elif (entry := cached.get(item_id)) and tuple(entry[:2]) == stat:
            reasons[item] = entry[2]
    open_items = [item for item in range(len(ids)) if item not in reasons]
    if open_items:
        chunks = [open_items[start : start + _CHUNK] for start in range(0, len(open_items), _CHUNK)]
        done = 0
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = pool.map(lambda chunk: [_why_skipped(root, ids[item], checksums) for item in chunk], chunks)
            for chunk, result in zip(chunks, results, strict=True):
                reasons.update(zip(chunk, result, strict=True))
                done += len(chunk)
                if progress:
                    progress(done, len(open_items), "checking images")
        entries = {i: [*stat, reasons[item]] for item, (i, stat) in enumerate(zip(ids, stats, strict=True)) if stat}
        _write_cache(cache_file, entries)
    sizes = np.array([stat[0] if stat else 0 for stat in stats], dtype=np.int64)
    return [reasons[item] for item in range(len(ids))], sizes


def _why_skipped(root: Path, item: str, checksums: Mapping[str, str]) -> str:
    with contextlib.suppress(OSError):  # decoding says why
        if item in checksums and sha256_of(root / item) == checksums[item]:
            return ""  # as the lab wrote it: a tenth of the time that decoding takes
    reason = why_unreadable(root / item)
    if not reason and item in checksums:
        return "the file is not the one that was fetched: fetch the data set again."
    return reason


def _size_and_time(path: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _read_cache(cache_file: Path | None) -> dict[str, list]:
    try:
        entries = json.loads(cache_file.read_bytes()) if cache_file else {}
    except (OSError, ValueError):  # missing or damaged: check again
        return {}
    if not isinstance(entries, dict):
        return {}
    return {i: entry for i, entry in entries.items() if isinstance(entry, list) and len(entry) == 3}


def _write_cache(cache_file: Path | None, entries: dict[str, list]) -> None:
    if cache_file is None:
        return
    with contextlib.suppress(OSError, RunError):  # on a read-only or full disk the files are checked again next time
        cache_file.parent.mkdir(parents=True, exist_ok=True)
        write_file(cache_file, json.dumps(entries))


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
