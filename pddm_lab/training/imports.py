"""Make a run of features that come from elsewhere, so that every page opens them.

The features are the embedding as they are, at unit length. On request the similarities learn on them: PDDM and
Mahalanobis on mined quadruplets, local structure on held-out training classes. Else nothing is trained: quadruplets are
mined by D alone, and S and D_M rank like D.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pddm_lab.config import IMPORTED, TrainConfig
from pddm_lab.config import runs_root as root_of_runs
from pddm_lab.data.dataset import read_dataset
from pddm_lab.data.images import open_image
from pddm_lab.data.imported import Imported, check_features, keep, read_features, read_items
from pddm_lab.errors import DataError
from pddm_lab.model.features import in_threads, parts_of
from pddm_lab.model.foreign import ForeignModel
from pddm_lab.progress import Progress
from pddm_lab.runs.folder_name import check_new
from pddm_lab.runs.run import Run
from pddm_lab.training.trainer import dataset_info, train_run

MINED_STEPS = 50
"""Batches from which quadruplets are mined where nothing is trained."""
TRAINED_STEPS = 500
_CLASSES, _IMAGES = 32, 4


def import_features(
    name: str, features: Path, items: Path, images: Path | None = None, *, train: bool = False, local: bool = False,
    runs_root: str = "", seed: int = 0, shown: bool = True,
) -> Run:  # fmt: skip
    """A run of features in a file.

    Args:
        name: of the run.
        features: an .npy file, a row an item.
        items: the table of the items, see `pddm_lab.data.imported`.
        images: folder that the table's paths are relative to.
        train: train PDDM and Mahalanobis on the features of the training classes.
        local: fit the similarity on local structure.
        runs_root: folder that holds the runs.
        seed: of the training, and of a split that the table doesn't give.
        shown: show progress bars on standard error.

    Raises:
        LabError: a file that is missing or can't be, or a run of that name exists.
    """
    values = read_features(features)
    dataset = read_items(items, len(values), images, train or local, seed)
    return _make(name, Imported(dataset, values), "", train, local, runs_root, seed, shown)


def import_model(
    name: str, model: str, dataset: str, data_root: Path, *, train: bool = False, local: bool = False,
    runs_root: str = "", seed: int = 0, shown: bool = True, progress: Progress | None = None,
) -> Run:  # fmt: skip
    """A run of a data set's pictures by a model from elsewhere; other arguments and errors as for `import_features`.

    Args:
        model: as for `ForeignModel`.
        dataset: as for `read_dataset`.
        data_root: folder that holds the data sets.
        progress: called as pictures are embedded.
    """
    check_new(root_of_runs(runs_root), name)
    embed, read = ForeignModel(model), read_dataset(dataset, data_root, split_seed=seed)
    paths = [read.path(item) for item in range(len(read))]
    values = check_features(embed_files(embed, paths, progress), model)
    return _make(name, Imported(read, values), embed.name, train, local, runs_root, seed, shown)


def embed_files(
    embed: ForeignModel, paths: Sequence[Path], progress: Progress | None = None
) -> Float[np.ndarray, "files dim"]:
    """Features of picture files: threads read them, while the model, which may not bear threads, takes them in turn."""
    made: list[np.ndarray] = []
    parts = parts_of(len(paths), 1)
    for pictures in in_threads(lambda part: [open_image(path) for path in paths[part]], parts, threads=2):
        made.append(embed(pictures))
        if made[-1].shape[1] != made[0].shape[1]:
            raise DataError(f"{embed.name}: expected {made[0].shape[1]} values a picture, got {made[-1].shape[1]}.")
        if progress:
            progress(sum(map(len, made)), len(paths), "pictures")
    return np.concatenate(made)


def _make(
    name: str, imported: Imported, model: str, train: bool, local: bool, runs_root: str, seed: int, shown: bool
) -> Run:  # fmt: skip
    dataset = imported.dataset
    classes = np.bincount(dataset.labels[dataset.train]) if len(dataset.train) else np.empty(0, int)
    choices: dict[str, Any] = {"steps": TRAINED_STEPS}
    if not train:
        nothing = {"lr": 0.0, "interpolate": False, "val_class_share": 0.0}
        choices = {"similarity": "euclidean", "steps": MINED_STEPS, **nothing}
    config = TrainConfig(
        preset=IMPORTED, dataset=f"{IMPORTED}:{dataset.name}", run_name=name, runs_root=runs_root, trunk=IMPORTED,
        weights="none", views=1, pool_power=1.0, dim=imported.features.shape[1], start="random", whiten=False,
        local_structure=local, seed=seed, split_seed=seed, images_per_class=_IMAGES,
        classes_per_batch=max(2, min(_CLASSES, int((classes > 1).sum()))), device="cpu", **choices,
    )  # fmt: skip
    facts = dataset_info(dataset) | {"labelled": dataset.labelled, "model": model}
    run = Run.create(config, facts, "cpu", "32")
    keep(imported, run.path)
    return train_run(run, dataset, shown)
