"""Transfer and zero-shot: train on some classes or one data set, use the model on others without training.

A **target** is pictures with classes and protocols. It is searched with the pretrained features, with models trained
elsewhere, and with a model trained on the target's own training classes, the upper reference. The unseen protocol of a
run is already zero-shot; the targets here are further away: another data set, finer classes than those trained on, or
one iconic picture of a product instead of photos.

All models share one frozen trunk, so they differ only in what the embedding was trained on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.applications.feature_spaces import Space, pooled_features, pretrained_space, run_space
from pddm_lab.config import TrainConfig
from pddm_lab.data.dataset import Dataset, Protocol
from pddm_lab.errors import DataError
from pddm_lab.metrics.intervals import mean_intervals
from pddm_lab.metrics.retrieval import evaluate
from pddm_lab.model.embedding import signed_power
from pddm_lab.model.similarity import Euclidean
from pddm_lab.progress import Progress
from pddm_lab.runs.run import Run
from pddm_lab.similarities import PRETRAINED, SIMILARITIES
from pddm_lab.study.cells import Study, key_of
from pddm_lab.study.fit import Fitting, fit
from pddm_lab.study.material import Material
from pddm_lab.study.methods import METHODS
from pddm_lab.training.finish import paths_of

COMPARED = ("euclidean", "pddm")
"""Similarities that rank by default."""


@dataclass(frozen=True, eq=False)
class Target:
    """Pictures with classes, and the protocols to search them by."""

    name: str
    paths: list[Path]
    labels: Int[np.ndarray, " items"]
    protocols: tuple[Protocol, ...]

    @classmethod
    def of(cls, dataset: Dataset) -> Target:
        """A data set with its own protocols."""
        protocols = tuple(protocol for protocol in (dataset.unseen, dataset.known) if protocol)
        return cls(dataset.name, paths_of(dataset), dataset.labels, protocols)

    @classmethod
    def iconic(cls, dataset: Dataset, icons: Mapping[str, Path]) -> Target:
        """A data set's queries against one iconic picture of each class: R@1 is the share of photos recognised.

        Args:
            dataset: its classes are matched by name.
            icons: class name -> its picture (`sources.grocery.iconic_images`); classes without one are left out.

        Raises:
            DataError: no class of a protocol has a picture.
        """
        named = [c for c, name in enumerate(dataset.class_names) if name in icons]
        row_of = {c: len(dataset) + number for number, c in enumerate(named)}
        protocols = []
        for protocol in cls.of(dataset).protocols:
            query = protocol.query[np.isin(dataset.labels[protocol.query], named)]
            gallery = np.array([row_of[c] for c in np.unique(dataset.labels[query])], dtype=np.int64)
            if len(gallery):
                protocols.append(Protocol(protocol.name, query, gallery))
        if not protocols:
            raise DataError(f"No class of {dataset.name} has an iconic picture: expected one for each class.")
        paths = [*paths_of(dataset), *(icons[dataset.class_names[c]] for c in named)]
        return cls(f"{dataset.name}, iconic", paths, np.append(dataset.labels, named), tuple(protocols))


def coarse(material: Material, coarse_of: Mapping[str, str]) -> Material:
    """The same material with coarser classes to train on. Pictures and split stay the same.

    Args:
        material: of a data set with fine classes.
        coarse_of: fine class name -> coarse class name (`sources.grocery.coarse_classes`).

    Raises:
        DataError: a class has no coarse class.
    """
    dataset = material.dataset
    if missing := [name for name in dataset.class_names if name not in coarse_of]:
        raise DataError(f"{dataset.name} has no coarse class for {missing[0]}; expected one for each class.")
    names, number = np.unique([coarse_of[name] for name in dataset.class_names], return_inverse=True)
    relabelled = dataclasses.replace(dataset, labels=number[dataset.labels], class_names=names.tolist())
    return dataclasses.replace(material, dataset=relabelled)


def train_each(
    materials: Mapping[str, Material], steps: int, seeds: Iterable[int], *, method: str = "pddm",
    settings: Mapping[str, Any] | None = None, progress: Progress | None = None,
) -> dict[tuple[str, int], Fitting]:  # fmt: skip
    """Train one embedding on each material with each seed.

    Args:
        materials: name -> material to train on.
        seeds: of the weights and the batches.
        method: a key of `methods.METHODS`.
        settings: of the method; None: the first of its configurations.
        progress: called after each training.

    Returns:
        (name, seed) -> the trained embedding.
    """
    wanted = [(name, seed) for name in materials for seed in seeds]
    chosen = METHODS[method].configurations(1)[0] if settings is None else settings
    trained: dict[tuple[str, int], Fitting] = {}
    for number, (name, seed) in enumerate(wanted):
        material = materials[name]
        trained[name, seed] = fit(material, METHODS[method], chosen, material.dataset.train, steps, seed)
        if progress:
            progress(number + 1, len(wanted), "trainings")
    return trained


def transfer(
    target: Target, trained: Mapping[tuple[str, int], Fitting], config: TrainConfig,
    similarities: Sequence[str] = COMPARED, progress: Progress | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Use trained embeddings on a target without training, compared with the pretrained features.

    Args:
        trained: as `train_each` returns them, all on the trunk that `config` names.
        config: names the trunk and the folder of its cached features.
        similarities: to rank by, if a space has them.
        progress: called after each embedding.

    Returns:
        target, protocol, trained_on ("pretrained" for none), seed (-1 for none), similarity, metric, value.
    """
    inputs = signed_power(pooled_features(config, target.paths), config.pool_power).cpu()
    tables = [measure(target, Space(PRETRAINED, F.normalize(inputs, dim=1), {"euclidean": Euclidean()}))]
    for number, ((name, seed), fitting) in enumerate(trained.items()):
        tables.append(measure(target, fitted_space(name, fitting, inputs), seed, similarities))
        if progress:
            progress(number + 1, len(trained), f"embeddings on {target.name}")
    return pd.concat(tables, ignore_index=True)


@torch.no_grad()
def fitted_space(name: str, fitting: Fitting, inputs: Float[Tensor, "items trunk_dim"]) -> Space:
    """The space of a trained embedding, given the trunk's features after `signed_power`."""
    assert fitting.model is not None, "a method that trains"
    ranks = {each: fitting.similarity(each) for each in SIMILARITIES if each in fitting.method.ranks}
    return Space(name, fitting.model.embedding.project(inputs), ranks)


def transfer_run(
    run: Run, target: Target, reference: Run | None = None, similarities: Sequence[str] = COMPARED,
    progress: Progress | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Use a run's model on a target without training, compared with the pretrained features and a reference run.

    Args:
        run: finished.
        reference: a run on the target's own data set, as the upper reference.
        similarities: to rank by, if a space has them.
        progress: called as pictures are embedded.

    Returns:
        As `transfer`.

    Raises:
        RunError: a run has no model yet.
    """
    runs: Sequence[Run] = (run,) if reference is None else (run, reference)
    tables = [measure(target, pretrained_space(run.config, target.paths, progress))]
    for each in runs:
        tables.append(measure(target, run_space(each, target.paths, progress), each.config.seed, similarities))
    return pd.concat(tables, ignore_index=True)


def measure(target: Target, space: Space, seed: int = -1, similarities: Sequence[str] = COMPARED) -> pd.DataFrame:
    """Measure a space on a target: a row per similarity and metric, with the columns of `transfer`.

    Args:
        space: features of all its items.
        seed: of the training, for the table.
        similarities: to rank by, if the space has them.
    """
    rows = []
    for protocol in target.protocols:
        query, gallery = (space.features[torch.from_numpy(part)] for part in (protocol.query, protocol.gallery))
        labels = target.labels[protocol.query], target.labels[protocol.gallery]
        has_clusters = len(labels[1]) > len(np.unique(labels[1]))
        for name in (name for name in similarities if name in space.similarities):
            result = evaluate(
                space.similarities[name], query, gallery, *labels, protocol.leave_one_out,
                nmi=has_clusters and name == "euclidean",
            )  # fmt: skip
            shared = {"target": target.name, "protocol": protocol.name, "trained_on": space.name, "seed": seed}
            rows += [
                {**shared, "similarity": name, "metric": metric, "value": value}
                for metric, value in result.metrics.items()
            ]
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds with 95 % intervals (Student's t), which are NaN for a single seed.

    Args:
        table: as `transfer` returns it.

    Returns:
        target, protocol, trained_on, similarity, metric, seeds, value, low, high.
    """
    keys = ["target", "protocol", "trained_on", "similarity", "metric"]
    means = mean_intervals(table, keys, "value")
    value, half = means["mean"], means["half"]
    return means[keys].assign(seeds=means["count"], value=value, low=value - half, high=value + half)


def keep(study: Study, table: pd.DataFrame, settings: Mapping[str, Any]) -> None:
    """Write a table to a study: a cell per target, model and seed.

    Args:
        table: as `transfer` returns it.
        settings: of the trainings; a study takes one such set.

    Raises:
        RunError: the study has cells of other settings.
    """
    study.record_settings("transfer", settings)
    for (target, trained_on, seed), cell in table.groupby(["target", "trained_on", "seed"], sort=False):
        metrics: dict[str, dict[str, dict[str, float]]] = {}
        for row in cell.itertuples():
            metrics.setdefault(row.protocol, {}).setdefault(row.similarity, {})[row.metric] = row.value
        study.write(
            key_of("transfer", target, trained_on, seed), part="transfer", dataset=target, method=trained_on,
            seed=seed, settings=settings, metrics=metrics,
        )  # fmt: skip
