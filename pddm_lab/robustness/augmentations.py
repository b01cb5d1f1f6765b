"""Compare augmentations of the training views: their cost on pictures as they are, and their gain on corrupted queries.

A cell is one training of `quick` with an augmentation, in memory as a run trains (panel/recipes.py), measured by D; on
some the local structure of `lab` is fitted, too. The trunk is frozen, so all trainings share its features of the
corrupted pictures. Cells are kept as those of a study are (study/cells.py). Of each cell:

    metrics   unseen, known: similarity -> recall@1, map@r of all pictures as they are
              clean 0, fog 3, ...: the same of a sample of the unseen queries, corrupted; the gallery is as it is
    queries   classes, and similarity -> clean, corrupted: each sampled query's hit, and its mean over the cells

    augmentation        trains on all training classes, and measures on the test's
    augmentation-folds  seed n holds fold n of the training classes out, and measures on it, by D alone; for choosing
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from pddm_lab.config import AUGMENTATIONS, PRESETS, TrainConfig, runs_root
from pddm_lab.data.dataset import Protocol
from pddm_lab.data.near_duplicates import near_duplicate_groups
from pddm_lab.errors import ConfigError, unknown_name
from pddm_lab.metrics.retrieval import rank
from pddm_lab.model.embedding import MetricModel, signed_power
from pddm_lab.model.similarity import Euclidean
from pddm_lab.panel.recipes import RecipeTraining, compute_on_materials, config_of, configured, split_of
from pddm_lab.progress import progress_bars
from pddm_lab.robustness.cells import CLEAN
from pddm_lab.robustness.frozen import Pooled, pooled_features
from pddm_lab.robustness.sample import Features, Sample, sample_of
from pddm_lab.robustness.scoring import Ranking
from pddm_lab.runs.local import RunLocal
from pddm_lab.similarities import PRETRAINED
from pddm_lab.study.cells import Study, key_of
from pddm_lab.study.material import FOLDS, Material, engine_of, material_of
from pddm_lab.study.work import Outcome, Task
from pddm_lab.training.local_evaluation import Sides, evaluate_local
from pddm_lab.training.local_fit import fit_local

PARTS = ("augmentation", "augmentation-folds")
DATASETS = ("emoji", "grocery")
SEEDS = 2
QUERIES, ITEMS, STRENGTHS = 200, 2000, (3,)
"""Of the sample, which is drawn with seed 0; and of the corruptions, of which all are measured."""
METRICS = ("recall@1", "map@r")
WITH_LOCAL = ("crops", "mixed")
"""Augmentations on which local structure is fitted, on the test's classes: that takes longer than all else."""


class Corrupted(NamedTuple):
    """Which queries are corrupted, and the trunk's features of them."""

    sample: Sample
    pooled: Pooled


def run_augmentations(
    study: Study, part: str = PARTS[0], datasets: Sequence[str] = (), augmentations: Sequence[str] = (), *,
    base: Mapping[str, Any], folds: int = FOLDS, seeds: int = 0, steps: int = 0, processes: int = 1,
    progress: bool = True,
) -> Outcome:  # fmt: skip
    """Compute the cells of a part that a study doesn't have yet.

    Args:
        study: that keeps them.
        part: of `PARTS`.
        datasets: empty: `DATASETS`.
        augmentations: of `AUGMENTATIONS`; empty: all.
        base: fields of `TrainConfig`, such as data_root.
        folds: of the training classes.
        seeds: trainings of each; 0: `SEEDS`.
        steps: of each training; 0: the default's.
        processes: that compute in parallel, each with one thread; corrupting pictures takes as many.
        progress: show bars while features are computed.

    Raises:
        ConfigError: no such augmentation.
        LabError: missing data, or a study with other settings.
    """
    for augmentation in augmentations:
        if augmentation not in AUGMENTATIONS:
            raise ConfigError(unknown_name("augmentation", augmentation, AUGMENTATIONS))
    steps, on_test = steps or PRESETS["quick"].steps, part == PARTS[0]
    numbers = {"queries": QUERIES, "items": ITEMS, "strengths": list(STRENGTHS)}
    study.record_settings(part, {"folds": folds, "steps": steps, **numbers})
    tasks = []
    for seed in range(seeds or SEEDS):
        for name in datasets or DATASETS:
            for augmentation in augmentations or AUGMENTATIONS:
                fold = None if on_test else seed % folds
                arguments = {"part": part, "config": config_of(name, {**base, "augmentation": augmentation}),
                             "folds": folds, "fold": fold, "seed": seed, "steps": steps}  # fmt: skip
                key = key_of(part, name, augmentation, "test" if fold is None else fold, seed)
                tasks.append(Task(key, measure_augmentation, arguments, cost=200.0 * steps))
    for config, fold in dict.fromkeys(
        (replace(task.arguments["config"], augmentation="crops"), task.arguments["fold"])
        for task in tasks if not study.has(task.key)
    ):  # fmt: skip
        corrupted_of(config, folds, fold, processes, progress)
    return compute_on_materials(study, tasks, folds, processes, progress)


def measure_augmentation(
    needed: Sequence[Mapping[str, Any]], *, part: str, config: TrainConfig, folds: int, fold: int | None, seed: int,
    steps: int,
) -> dict[str, Any]:  # fmt: skip
    """The cell of one training.

    Args:
        needed: unused; every task of a study takes it.
        part: of the study that the cell belongs to.
        config: of the material, with the augmentation.
        fold: of the training classes that is held out; None: the test's classes are measured.
    """
    material = material_of(config, folds)
    items, protocols = split_of(material, fold)
    training = RecipeTraining(material, configured(config, "quick", steps, seed), items, scores=False)
    model = training.train()
    local = None
    if fold is None and config.augmentation in WITH_LOCAL:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            local = _local(material, training, model, items)
    metrics = {one.name: _as_they_are(material, training, model, local, one) for one in protocols}
    sample, pooled = corrupted_of(replace(config, augmentation="crops"), folds, fold)
    corrupted, queries = _corrupted(Corrupted(sample, pooled), config.pool_power, model, local)
    return {
        "part": part, "dataset": config.dataset, "method": config.augmentation, "seed": seed,
        "metrics": metrics | corrupted, "queries": queries,
        "settings": {"fold": fold, "steps": steps, "trained_steps": training.steps, **training.shares},
    }  # fmt: skip


@functools.lru_cache(maxsize=2)
def corrupted_of(
    config: TrainConfig, folds: int, fold: int | None, processes: int = 1, progress: bool = False
) -> Corrupted:  # fmt: skip
    """The sample of a data set's unseen queries, and the trunk's features of them, cached on disk and in this process.

    Args:
        config: of the material; its augmentation has no part in it.
        fold: as for `measure_augmentation`.
    """
    material = material_of(config, folds)
    dataset, protocol = material.dataset, next(one for one in split_of(material, fold)[1] if one.name == "unseen")
    sample = sample_of(
        dataset.ids, dataset.labels, protocol.query, protocol.gallery, dataset.root, (QUERIES, ITEMS, 0),
        f"The unseen gallery of {config.dataset}",
    )  # fmt: skip
    with progress_bars(progress)(f"{config.dataset}: corrupted pictures") as report:
        pooled = pooled_features(
            engine_of(config), sample, runs_root(config.runs_root) / ".features", resize=config.resize,
            strengths=STRENGTHS, processes=processes, progress=report,
        )  # fmt: skip
    return Corrupted(sample, pooled)


def _local(
    material: Material, training: RecipeTraining, model: MetricModel, items: Int[np.ndarray, " items"]
) -> RunLocal:
    """The similarity on local structure, fitted as a run's is."""
    groups = near_duplicate_groups(material.dataset, items, runs_root(material.config.runs_root) / ".features")
    return fit_local(
        training.config, training.embed(model, items), training.labels, items, groups, material.inputs,
        training.fold_features(groups),
    )  # fmt: skip


def _as_they_are(
    material: Material, training: RecipeTraining, model: MetricModel, local: RunLocal | None, protocol: Protocol
) -> dict[str, dict[str, float]]:
    """R@1 and MAP@R of D, of local structure and of the pretrained features under a protocol."""
    labels, features = training.labels, training.embed(model)
    query, gallery = protocol.query, protocol.gallery
    of_labels = (labels[query], labels[gallery], protocol.leave_one_out)
    spaces = {"euclidean": features, PRETRAINED: F.normalize(material.inputs, dim=1)}
    values = {name: rank(Euclidean(), one[query], one[gallery], *of_labels) for name, one in spaces.items()}
    if local is not None:
        sides = Sides(
            features, local.pretrained(material.inputs), torch.from_numpy(labels), torch.from_numpy(query),
            torch.from_numpy(gallery), protocol.leave_one_out,
        )  # fmt: skip
        values |= {name: evaluation.metrics for name, evaluation in evaluate_local(local, sides, ("local",))}
    return {name: {metric: of[metric] for metric in METRICS} for name, of in values.items()}


def _corrupted(
    of: Corrupted, power: float, model: MetricModel, local: RunLocal | None
) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, Any]]:
    """The metrics of the sample in each cell, and the hits of each query."""
    sample, ranking = of.sample, Ranking({"euclidean": Euclidean()}, local and local.structure)

    def features(pooled: Tensor) -> Features:
        inputs = signed_power(pooled, power)
        with torch.inference_mode():
            further = local and local.pretrained(inputs)
            return Features(model.embedding.project(inputs), further, F.normalize(inputs, dim=1))

    clean = features(of.pooled.clean)
    gallery = clean.of(sample.searched)
    cells = {CLEAN[1:]: clean.of(sample.query)} | {cell: features(one) for cell, one in of.pooled.corrupted.items()}
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    hits: dict[str, list[np.ndarray]] = {}
    for (name, strength), queries in cells.items():
        measured = metrics[f"{name} {strength}"] = {}
        for similarity, hit, _, values in ranking.outcomes(sample, queries, gallery):
            measured[similarity] = {metric: values[metric] for metric in METRICS}
            hits.setdefault(similarity, []).append(hit)
    means = {similarity: {"clean": one[0].tolist(), "corrupted": np.mean(one[1:], axis=0).round(5).tolist()}
             for similarity, one in hits.items()}  # fmt: skip
    return metrics, {"classes": sample.labels[sample.query].tolist(), "hits": means}
