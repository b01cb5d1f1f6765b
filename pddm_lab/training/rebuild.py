"""Write a gallery of a run again, with its model and from its pictures, where files of the gallery are damaged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from pddm_lab.data.dataset import Dataset, Protocol
from pddm_lab.data.images import open_image
from pddm_lab.data.imported import read_imported
from pddm_lab.errors import DataError, RunError
from pddm_lab.gallery.changes import with_sources
from pddm_lab.gallery.files import (
    GROWING,
    PRETRAINED,
    THUMB_SIDE,
    file_name,
    is_intact,
    read_distributions,
    read_manifest,
    thumbnail,
    write_files,
)
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.pictures import file_of
from pddm_lab.gallery.store import IndexChoice
from pddm_lab.gallery.upkeep import keep_up
from pddm_lab.metrics.retrieval import evaluate
from pddm_lab.metrics.separation import Distribution
from pddm_lab.progress import Progress
from pddm_lab.runs.local import load_local
from pddm_lab.runs.model import load_similarities
from pddm_lab.runs.new_items import Picture, embed_pictures
from pddm_lab.runs.run import PROTOCOLS, Run
from pddm_lab.runs.versions import model_stamp
from pddm_lab.training.finish import item_table, measured_similarities, no_picture


@dataclass(frozen=True, eq=False)
class Rebuilt:
    """A gallery that was written again."""

    gallery: Gallery
    lost: list[str]
    """Why an item could not be kept, one sentence each."""


def protocols_to_rebuild(run: Run, dataset: Dataset, only: str = "") -> list[Protocol]:
    """The protocols of a run whose galleries can be written again.

    Raises:
        RunError: there is none, or none named `only`.
    """
    every = [protocol for protocol in (dataset.unseen, dataset.known, dataset.catalogue) if protocol]
    begun = [one for one in every if run.status == "finished" or (run.path / "gallery" / one.name).is_dir()]
    chosen = [one for one in begun if only in ("", one.name)]
    if not chosen and begun:
        raise RunError(f"{run.name} has no {only} gallery: expected {' or '.join(one.name for one in begun)}.")
    if not chosen:
        raise RunError(f"{run.name} has no gallery yet. Resume it with `pddm-lab resume {run.name}`.")
    return chosen


def rebuild(run: Run, dataset: Dataset, protocol: Protocol, progress: Progress | None = None) -> Rebuilt:
    """Embed the items of a gallery again and replace the gallery.

    Its own list says which items it has, or the data set where this list is damaged. An item of the data set is
    embedded from there, and another from the picture that it was added from. Where that can't be read, the stored
    feature and thumbnail are kept if they are undamaged.

    Raises:
        RunError: the run has no model, no item is left, or another process is changing the gallery.
    """
    path, lost = run.path / "gallery" / protocol.name, []
    try:
        manifest = read_manifest(path)
    except RunError:
        manifest = {"files": {}}
    if is_intact(path, manifest, "items.parquet"):
        items = with_sources(path, manifest)
    else:
        items = item_table(dataset, protocol).assign(picture=None)
        lost = (
            []
            if not path.is_dir()
            else [f"The list of items in {path} is damaged: only the items of the data set were embedded again."]
        )
    needed = [PRETRAINED] if file_name(manifest, PRETRAINED) else []
    whole = all(is_intact(path, manifest, name) for name in ("items.parquet", *GROWING, *needed))
    stored = None
    with suppress(RunError):  # foreign files may be as their manifest says and hold NaN
        stored = Gallery(path, manifest, IndexChoice.of("")) if whole else None
    local = load_local(run)
    uses_pretrained = local is not None and local.part is not None
    if stored is not None and uses_pretrained and stored.pretrained is None:
        stored = None  # of another run, or written by hand: its items would lack a part
    row_of = {name: row for row, name in enumerate(dataset.ids)}
    files = [
        file_of(dataset.root, name, picture) if isinstance(picture, str) or name in row_of else None
        for name, picture in zip(items["id"], items["picture"], strict=True)
    ]
    kept, pictures = np.ones(len(items), bool), []
    of_items = [row_of.get(name) for name in items["id"]]
    embedded = _imported(run, files, of_items) if run.config.is_imported else embed_pictures(run, files)
    for row, made in enumerate(embedded):
        if isinstance(made, str) and stored is not None:
            further = stored.pretrained[row] if uses_pretrained and stored.pretrained is not None else None
            made = Picture(stored.features[row], stored.thumb(row), further)
        if isinstance(made, str):
            kept[row] = False
            lost.append(f"{items['id'].iloc[row]}: {made}")
        else:
            pictures.append(made)
        if progress:
            progress(row + 1, len(items), "pictures")
    items = items[kept].drop(columns="picture" if items["picture"].isna().all() else []).reset_index(drop=True)
    if not items["role"].isin(["gallery", "both"]).any():
        raise RunError(f"No item of {path} can be embedded again. {' '.join(lost[:1])}")
    features, thumbs, pretrained = zip(*pictures, strict=True)
    rows, further = np.stack(features), None if pretrained[0] is None else np.stack(pretrained)
    intact = is_intact(path, manifest, "distributions.parquet")
    distributions = read_distributions(path, manifest) if intact else {}
    if protocol.name in PROTOCOLS:  # nothing is measured on the catalogue
        distributions |= _distributions(run, rows, items, besides=distributions)
    counts = manifest.get("changed")
    changed = {**counts, "removed": counts["removed"] + int((~kept).sum())} if counts else None
    write_files(
        path, protocol.name, rows, items, thumbs.__getitem__, distributions, None, changed, further,
        model_stamp(run.path),
    )  # fmt: skip
    written = Gallery.open(path)
    return Rebuilt(written if local is None else keep_up(written, local.structure, progress), lost)


def _imported(run: Run, files: Sequence[Path | None], rows: Sequence[int | None]) -> Iterator[Picture | str]:
    """What is stored of imported items, by their rows, and of others why they can't be embedded again."""
    features = read_imported(run.path).features
    for file, row in zip(files, rows, strict=True):
        if row is None or file is None:
            yield f"{run.name} has no model that embeds it again."
            continue
        try:
            image = open_image(file, 2 * THUMB_SIDE)
        except DataError:
            image = no_picture(file.name)
        yield Picture(features[row] / np.linalg.norm(features[row]), thumbnail(image))


def _distributions(
    run: Run, features: Float[np.ndarray, "items dim"], items: pd.DataFrame, besides: Collection[str]
) -> dict[str, Distribution]:
    """The histograms of an evaluation of these items by the run's similarities, besides some."""
    query, gallery = (np.flatnonzero(items["role"].isin([role, "both"])) for role in ("query", "gallery"))
    measured = measured_similarities(run)
    of, labels = torch.from_numpy(features), items["label"].to_numpy()
    return {
        name: evaluate(
            similarity, of[query], of[gallery], labels[query], labels[gallery], np.array_equal(query, gallery)
        ).distribution
        for name, similarity in load_similarities(run).items()
        if name not in besides and name in measured
    }
