"""`emoji`, the demo: over 1200 pictograms, each in up to eight drawing styles, rendered at 128 px on white.

On disk: emoji/<class>/<style>.png, emoji/index.json (the list of files, written last), emoji/LICENSES.md.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pddm_lab.data.source import Credit, Listing, Source, how_to_get, staged_folder
from pddm_lab.data.sources.emoji_sets import (
    LICENCE_URLS,
    STYLE_SETS,
    STYLES_NEEDED,
    IconSet,
    Picture,
    StyleSet,
    group_into_classes,
    svg_text,
)
from pddm_lab.data.sources.npm import Pack, is_intact, npm_pack, tarball_name
from pddm_lab.data.sources.render import render_svgs
from pddm_lab.data.splits import halves_by_hash
from pddm_lab.errors import DataError
from pddm_lab.files import sha256_of
from pddm_lab.progress import Progress

FOLDER = "emoji"
SIDE = 128
"""Side of a picture, in pixels."""
INDEX = "index.json"
LICENCES = "LICENSES.md"
_VERSION = 1
_DOWNLOADS = ".emoji-packages"


def fetch(
    data_root: Path, progress: Progress | None = None, *, pack: Pack = npm_pack,
    sets: Sequence[StyleSet] = STYLE_SETS, styles_needed: int = STYLES_NEEDED,
) -> Path:  # fmt: skip
    """Download the sets, check them against their published sha512, and render every class.

    A complete folder is kept, an incomplete one is replaced. Intact downloads are used again.

    Args:
        data_root: folder that holds the data sets.
        progress: called as packages and pictures are done.
        pack: fetches packages, as `npm pack` does.
        sets: the styles.
        styles_needed: styles a pictogram needs to become a class.

    Raises:
        DataError: no network, a package that differs from the published one, or a data root that cannot be written.
    """
    target = data_root / FOLDER
    if _is_complete(target, sets):
        return target
    with staged_folder(target, owns=_is_ours) as folder:
        downloads = data_root / _DOWNLOADS
        icons = _download(downloads, sets, pack, progress)
        classes = group_into_classes(icons, styles_needed)
        jobs = [
            (folder / name / f"{style}.png", svg_text(icons[style], picture))
            for name, pictures in classes.items()
            for style, picture in pictures.items()
        ]
        render_svgs(jobs, SIDE, progress)
        items, repeated, shared = _drop_repeated(folder, classes, styles_needed)
        (folder / LICENCES).write_text(_licences(sets), encoding="utf-8")
        hashes = {name: sha256_of(folder / name) for name in _files(items)}
        index = {
            "version": _VERSION, "packages": _pins(sets), "repeated": repeated, "shared": shared, "items": items,
            "sha256": hashes,
        }  # fmt: skip
        (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    shutil.rmtree(downloads, ignore_errors=True)
    return target


def is_present(data_root: Path) -> bool:
    """Whether there is a finished folder."""
    return _read_index(data_root / FOLDER) is not None


def list_items(data_root: Path, split_seed: int = 0) -> Listing:
    """Items by class, then style; a seeded hash of the class name splits the classes in halves.

    Raises:
        DataError: the data set is missing or incomplete.
    """
    root = data_root / FOLDER
    index = _read_index(root)
    if index is None:
        state = f"{root} is incomplete: it has no valid {INDEX}" if root.exists() else f"There is no {root}"
        raise DataError(f"{state}. {how_to_get('emoji', data_root)}")
    names = list(index["items"])
    ids = list(_files(index["items"]))
    labels = np.repeat(np.arange(len(names), dtype=np.int64), [len(styles) for styles in index["items"].values()])
    return Listing(root, ids, labels, names, halves_by_hash(names, split_seed), sha256=index.get("sha256", {}))


def credit(item: str) -> Credit | None:
    """Where an item comes from: the name of its file is its style."""
    sets = (s for s in STYLE_SETS if s.style == PurePosixPath(item).stem)
    return next((Credit(s.title, s.author, s.licence, s.url) for s in sets), None)


def _download(downloads: Path, sets: Sequence[StyleSet], pack: Pack, progress: Progress | None) -> dict[str, IconSet]:
    """Style -> its parsed icons.json, from tarballs that match their pinned integrity."""
    downloads.mkdir(exist_ok=True)
    missing = [s for s in sets if not is_intact(downloads / tarball_name(s.spec), s.integrity)]
    if progress:
        progress(len(sets) - len(missing), len(sets), "downloading emoji sets")
    if missing:
        pack([s.spec for s in missing], downloads)
    icons = {}
    for done, style_set in enumerate(sets, 1):
        tarball = downloads / tarball_name(style_set.spec)
        if not is_intact(tarball, style_set.integrity):
            raise DataError(
                f"The package {style_set.spec} is not the published one: expected {style_set.integrity}. Try again. If "
                "the error persists, check what lies between this machine and npm's registry, such as a proxy."
            )
        with tarfile.open(tarball) as archive:
            member = archive.extractfile("package/icons.json")
            icons[style_set.style] = json.load(member)  # type: ignore[arg-type]  # checked by its integrity
        if progress:
            progress(done, len(sets), "reading emoji sets")
    return icons


def _drop_repeated(
    folder: Path, classes: Mapping[str, Mapping[str, Picture]], styles_needed: int
) -> tuple[dict[str, dict[str, int]], int, int]:
    """Keep one of several equal pictures in a class, and the classes that still have enough styles.

    Returns:
        (class -> style -> bytes, repeated pictures that were dropped, pictures that two classes share).
    """
    items: dict[str, dict[str, int]] = {}
    seen_in: Counter[bytes] = Counter()
    repeated = 0
    for name, pictures in classes.items():
        sizes: dict[str, int] = {}
        drawn: set[bytes] = set()
        for style in pictures:
            path = folder / name / f"{style}.png"
            png = path.read_bytes()
            if png in drawn:
                repeated += 1
                path.unlink()
            else:
                drawn.add(png)
                sizes[style] = len(png)
        if len(sizes) >= styles_needed:
            items[name] = sizes
            seen_in.update(drawn)
        else:
            shutil.rmtree(folder / name)
    return items, repeated, sum(count - 1 for count in seen_in.values())


def _is_ours(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    return (file.removesuffix(".png") in {s.style for s in STYLE_SETS}) if folder else file in (INDEX, LICENCES)


def _pins(sets: Sequence[StyleSet]) -> dict[str, str]:
    return {s.spec: s.integrity for s in sets}


def _read_index(root: Path) -> dict[str, Any] | None:
    try:
        index = json.loads((root / INDEX).read_bytes())
    except (OSError, ValueError):
        return None
    return index if isinstance(index, dict) and index.get("version") == _VERSION and index.get("items") else None


def _files(items: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Item id -> its size, of the items in an index."""
    return {f"{name}/{style}.png": size for name, styles in items.items() for style, size in styles.items()}


def _is_complete(root: Path, sets: Sequence[StyleSet]) -> bool:
    """Whether every picture of the index is as it was written, and comes from these packages."""
    index = _read_index(root)
    if index is None or index.get("packages") != _pins(sets):
        return False
    try:
        if any((root / name).stat().st_size != size for name, size in _files(index["items"]).items()):
            return False
        return all(sha256_of(root / name) == checksum for name, checksum in index.get("sha256", {}).items())
    except OSError:
        return False


def _licences(sets: Sequence[StyleSet]) -> str:
    rows = "\n".join(
        f"| {s.style} | [{s.title}]({s.url}) | {s.author} | [{s.licence}]({LICENCE_URLS[s.licence]}) | {s.spec} |"
        for s in sets
    )
    return (
        "# Artwork\n\n"
        f"Each picture <class>/<style>.png is the style's SVG, rendered at {SIDE} x {SIDE} pixels on white.\n"
        "It is under the licence of its style.\n\n"
        "| style | set | author | licence | package |\n|---|---|---|---|---|\n" + rows + "\n"
    )


SOURCE = Source(
    name="emoji", title="Emoji in eight drawing styles", folder_name=FOLDER,
    size="14 MB to download, about 40 MB on disk",
    licence="Apache-2.0, CC-BY-4.0, CC-BY-SA-4.0 and MIT, by style; see LICENSES.md beside the data",
    attribution="Artwork: " + "; ".join(f"{s.title} by {s.author} ({s.licence})" for s in STYLE_SETS) + ".",
    list_items=list_items, is_present=is_present, fetch=fetch, credit=credit,
)  # fmt: skip
