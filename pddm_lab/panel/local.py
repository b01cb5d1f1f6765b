"""When is a local metric worth it? Local and global metrics on one embedding, with the same ingredients.

A cell trains one embedding (recipes.py) and measures on it, on full and on thinned galleries:

    global   D; D of the whitened features, and of [x; w p] with a w of its own; a linear metric and a network of both
             cosines that learn on [x; w p]; the paper's unit, where the embedding has one
    local    the similarities without training, each with the k that is best on the folds; the unit on local structure,
             first pass and both

All that learns or is chosen beyond the embedding learns from the same episodes: held-out training classes and held-out
pictures, in full and thinned galleries (local/episodes.py). What is local re-ranks one shortlist, by z; so do the
network and the paper's unit. All else ranks the whole gallery.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from pddm_lab.config import PRESETS, TrainConfig
from pddm_lab.data.dataset import Protocol
from pddm_lab.errors import ConfigError, unknown_name
from pddm_lab.panel.local_ways import Ways
from pddm_lab.panel.recipes import compute_on_materials, config_of, split_of
from pddm_lab.study.cells import Study, key_of
from pddm_lab.study.material import FOLDS, material_of
from pddm_lab.study.work import Outcome, Task

EMBEDDINGS = ("quick", "arcface", "joint", "pretrained")
"""Recipes of the panel, and the frozen trunk's features as they are."""
DATASETS = ("emoji", "grocery", "caltech101", "fruits360")
THINNED = (1, 2, 3, 5, 10)
"""Items a class in the galleries besides the full one."""
MOST_QUERIES = 500
"""Of a thinned gallery."""


def run_local(
    study: Study, part: str = "local", datasets: Sequence[str] = (), embeddings: Sequence[str] = (), *,
    base: Mapping[str, Any], folds: int = FOLDS, seeds: int = 0, steps: int = 0, processes: int = 1,
    progress: bool = True,
) -> Outcome:  # fmt: skip
    """Compute the cells of this part of a study that it doesn't have yet.

    Args:
        study: that keeps them.
        part: local, on the test classes; or local-folds, where each seed holds out a fold of the training classes.
        datasets: the materials; empty: `DATASETS`.
        embeddings: of `EMBEDDINGS`; empty: all.
        base: fields of `TrainConfig`, such as data_root.
        folds: of the training classes.
        seeds: trainings of each embedding; 0: five, or one for each fold.
        steps: of each training; 0: the default's.
        processes: that compute in parallel, each with one thread.
        progress: show bars while the trunk's features are computed.

    Raises:
        ConfigError: no such embedding.
        LabError: missing data, or a study with other settings.
    """
    for name in embeddings:
        if name not in EMBEDDINGS:
            raise ConfigError(unknown_name("embedding", name, EMBEDDINGS))
    steps, on_test = steps or PRESETS["quick"].steps, part == "local"
    study.record_settings(part, {"folds": folds, "steps": steps})
    configs = {name: config_of(name, base) for name in datasets or DATASETS}
    tasks = [
        Task(
            key_of(part, name, embedding, "test" if on_test else seed % folds, seed), measure_local,
            {"part": part, "config": config, "name": name, "embedding": embedding, "folds": folds,
             "fold": None if on_test else seed % folds, "seed": seed, "steps": steps},
            cost=400.0 * steps,
        )
        for seed in range(seeds or (5 if on_test else folds)) for name, config in configs.items()
        for embedding in embeddings or EMBEDDINGS
    ]  # fmt: skip
    return compute_on_materials(study, tasks, folds, processes, progress)


def measure_local(
    needed: Sequence[Mapping[str, Any]], *, part: str, config: TrainConfig, name: str, embedding: str, folds: int,
    fold: int | None, seed: int, steps: int,
) -> dict[str, Any]:  # fmt: skip
    """The cell of one embedding and all that is measured on it.

    Args:
        needed: unused; every task of a study takes it.
        part: of the study that the cell belongs to.
        config: of the material.
        name: of the material in the tables.
        fold: of the training classes that plays the unseen ones; None: the test's protocols.
    """
    material = material_of(config, folds)
    items, protocols = split_of(material, fold)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This gallery has")  # thinned galleries may be too small
        torch.manual_seed(seed)
        ways = Ways.of(material, embedding, items, steps, seed)
        metrics: dict[str, Any] = {}
        classes: dict[str, Any] = {}
        for protocol in protocols:
            for thinned, searched in galleries(material.dataset.labels, protocol, seed):
                ranked = dict(ways.measure(searched, seed, with_pairs=not thinned))
                under = f"{protocol.name}, {thinned} a class" if thinned else protocol.name
                metrics[under] = {way: one.means() for way, one in ranked.items()}
                if not thinned:
                    classes[under] = {way: one.of_classes() for way, one in ranked.items()}
    return {
        "part": part, "dataset": name, "method": embedding, "seed": seed, "metrics": metrics, "classes": classes,
        "settings": {"embedding": embedding, "fold": fold, "steps": steps, **ways.chosen},
    }  # fmt: skip


def galleries(labels: Int[np.ndarray, " items"], protocol: Protocol, seed: int) -> Iterator[tuple[int, Protocol]]:
    """The full gallery (0), and thinned ones by items a class, as long as classes have more.

    Under the unseen protocol all that isn't in a thinned gallery is a query.
    """
    yield 0, protocol
    random = np.random.default_rng(seed)
    shuffled = random.permutation(protocol.gallery)
    _, number, counts = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    order = np.argsort(number, kind="stable")
    within = np.empty(len(order), dtype=int)
    within[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    for count in (count for count in THINNED if count < np.median(counts)):
        kept, others = shuffled[within < count], shuffled[within >= count]
        queries = others if protocol.leave_one_out else protocol.query
        yield count, Protocol(protocol.name, random.permutation(queries)[:MOST_QUERIES], kept)
