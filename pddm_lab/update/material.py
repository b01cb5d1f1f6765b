"""What an update works on: the items of a run's galleries and the new ones, with the frozen trunk's features of each.

Each picture file is looked at once, however many galleries list it. Its features come from the cache beside the runs,
where they are since the run was trained; those of new pictures are computed, once, and are then there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pddm_lab.data.dataset import Dataset
from pddm_lab.data.splits import hold_out_queries, without_lone_items
from pddm_lab.errors import RunError
from pddm_lab.gallery.changes import with_sources
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.engine import Engine
from pddm_lab.model.features import trunk_features
from pddm_lab.progress import Progress
from pddm_lab.runs.model import trained_with_updates
from pddm_lab.runs.new_items import item_rows
from pddm_lab.runs.run import CATALOGUE, Run
from pddm_lab.training.loop import dataset_of
from pddm_lab.update.arrivals import Arrivals

HELD_OUT = 0.2
"""Share of each new class that doesn't train, and is searched for to see whether the update is better."""


@dataclass(frozen=True, eq=False)
class Stored:
    """A gallery of the run with the files of its items."""

    gallery: Gallery
    items: pd.DataFrame
    """As `with_sources` has them."""
    files: Int[np.ndarray, " items"]
    """Of each item, its place among the material's files."""


@dataclass(frozen=True, eq=False)
class Material:
    """The galleries of a run, and the items that join its catalogue."""

    stored: dict[str, Stored]
    """By name; the one that grows comes first."""
    new: pd.DataFrame
    """id, label, class_name, role, picture of each new item."""
    pooled: Float[Tensor, "files trunk_dim"]
    views: Float[Tensor, "views training trunk_dim"]
    """Of the items that may train, in the order of `trainable`."""
    files: Int[np.ndarray, " all"]
    """Of each item of the catalogue and then of the new ones, its place in `pooled`."""
    labels: Int[np.ndarray, " all"]
    trained: Bool[np.ndarray, " all"]
    """Whether an item of the catalogue has trained the model already."""
    train_new: Int[np.ndarray, " some"]
    """The new items that train, as rows of all."""
    held: Int[np.ndarray, " some"]
    """The new items that don't."""
    trainable: Int[np.ndarray, " training"]
    engine: Engine

    @property
    def catalogue(self) -> Stored:
        """The gallery that grows."""
        return next(iter(self.stored.values()))

    @property
    def inputs(self) -> Float[Tensor, "all trunk_dim"]:
        """The trunk's features of the catalogue's items and of the new ones."""
        return self.pooled[torch.from_numpy(self.files)]


def gather_material(
    run: Run, model: MetricModel, arrivals: Arrivals, progress: Progress | None = None
) -> Material:  # fmt: skip
    """Read a run's galleries, choose which new items train, and get the trunk's features of all pictures.

    Args:
        run: finished, with a frozen trunk.
        model: of the run.
        arrivals: that the catalogue doesn't have.
        progress: called as pictures are embedded.

    Raises:
        RunError: the run has no catalogue, or a picture of it is gone.
        DataError: the run's data set is gone.
    """
    config = run.config
    dataset = dataset_of(config, run.path.parent)
    names = run.galleries()
    if not names or (dataset.catalogue is not None and names[0] != CATALOGUE):
        raise RunError(f"{run.name} has no catalogue. Write it: `pddm-lab gallery rebuild {run.name}`.")
    place: dict[Path, int] = {}
    stored = {}
    for name in names:
        gallery = run.gallery(name)
        items = with_sources(gallery.path, gallery.manifest)
        paths = [_path_of(run, dataset, *row) for row in zip(items["id"], items["picture"], strict=True)]
        stored[name] = Stored(gallery, items, np.array([place.setdefault(path, len(place)) for path in paths]))
    first = stored[names[0]]
    new = item_rows(run, first.gallery, arrivals.ids, arrivals.classes)
    new["picture"] = [str(path) for path in arrivals.paths]
    of_new = np.array([place.setdefault(path, len(place)) for path in arrivals.paths])
    files = np.concatenate([first.files, of_new])
    labels = np.concatenate([first.items["label"].to_numpy(), new["label"].to_numpy()]).astype(np.int64)
    rows = np.arange(len(first.items), len(files))
    train_new, held = hold_out_queries(labels, rows, HELD_OUT, config.split_seed)
    trained = np.isin(first.items["id"].to_numpy(dtype=object), list(trained_ids(run, dataset)))
    trained = np.concatenate([trained, np.zeros(len(rows), bool)])
    both = without_lone_items(labels, np.union1d(np.flatnonzero(trained), train_new))
    train_new = np.intersect1d(both, train_new)
    engine = _engine(run, model)
    wanted: dict[int, Sequence[int] | np.ndarray] = {0: range(len(place))}
    wanted |= dict.fromkeys(range(1, config.views), files[both])
    features = trunk_features(
        engine, list(place), run.path.parent / ".features", resize=config.resize, progress=progress, views=wanted,
        augmentation=config.augmentation,
    )  # fmt: skip
    pooled, *others = (torch.from_numpy(features[view]) for view in wanted)
    views = torch.stack([pooled[torch.from_numpy(files[both])], *others])
    return Material(stored, new, pooled, views, files, labels, trained, train_new, held, both, engine)


def trained_ids(run: Run, dataset: Dataset) -> set[str]:
    """The ids of all items that a run's model was trained on."""
    with_updates = trained_with_updates(run)
    return {dataset.ids[item] for item in dataset.train.tolist()} if with_updates is None else with_updates


def _path_of(run: Run, dataset: Dataset, item: str, picture: object) -> Path:
    """The file of an item; `picture` is as `read_items` in gallery/files.py has it."""
    path = Path(picture) if isinstance(picture, str) else dataset.root / item
    if picture == "" or not path.is_file():
        where = f"The picture of {item!r}" + (f", {path}," if picture != "" else "")
        raise RunError(
            f"{where} is missing, so that it can't be embedded by another model. Restore it, or remove the item: "
            f"`pddm-lab gallery remove {run.name} {item}`."
        )
    return path


def _engine(run: Run, model: MetricModel) -> Engine:
    """An engine as the run's items were embedded; early runs were by torch."""
    noted = run.info.get("engine")
    return Engine(
        model.embedding.trunk, size=run.config.image_size, device=torch.device("cpu"),
        precision=(noted or run.info)["precision"] if run.info["device"] == "cpu" else "32",
        name="torch" if noted is None else noted["name"] if run.info["device"] == "cpu" else "auto",
    )  # fmt: skip
