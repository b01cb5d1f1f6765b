"""A panel for choosing defaults: recipes of training side by side on several data sets.

    recipes    every recipe on folds of the training classes. A fold plays the unseen classes, held-out pictures of the
               others play the known queries, with their near-duplicates. The test classes have no part in it.
    sweep      the default far from its own settings and on weak features: does the embedding ever collapse?
    finalists  what was chosen, on the test classes.

A recipe must hold everywhere: it is judged by its mean rank and by its worst case against the pretrained features, not
by its mean score. The tables: tables.py.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.config import LOSSES, PRESETS, TrainConfig, runs_root
from pddm_lab.data.dataset import Protocol
from pddm_lab.data.near_duplicates import near_duplicate_groups
from pddm_lab.data.splits import hold_out_classes, hold_out_queries, without_lone_items
from pddm_lab.errors import ConfigError, unknown_name
from pddm_lab.metrics.retrieval import rank
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.similarity import Euclidean, Similarity
from pddm_lab.progress import progress_bars
from pddm_lab.study.cells import Study, key_of
from pddm_lab.study.material import FOLDS, Material, material_of
from pddm_lab.study.work import Outcome, Task, compute_cells
from pddm_lab.training.local_fit import fold_embeddings
from pddm_lab.training.loop import Loop, view_inputs
from pddm_lab.training.shares import UNIT_SHARES, choose_head_share, choose_sure_gain, precisions, used_head

HELD_PICTURES = 0.2
"""Share of the pictures of the classes that train that are held out as known queries."""
WEAK = {"trunk": "resnet18", "weights": "none", "resize": 64, "image_size": 64, "views": 1}
"""Features that are weak on purpose: of a trunk with random weights, at 64 px."""


WEAK_SUFFIX = "-weak"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One way to train."""

    title: str
    preset: str = "quick"
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    scores: bool = False
    """Measure S, too."""


_LOSSES = [name for name, loss in LOSSES.items() if loss.is_rival or name == "triplet"]
_FAR: dict[str, Mapping[str, Any]] = {
    "lr-low": {"lr": 5e-5}, "lr-high": {"lr": 5e-3}, "batch-8x4": {"classes_per_batch": 8},
    "batch-64x8": {"classes_per_batch": 64, "images_per_class": 8},
}  # fmt: skip

RECIPES: dict[str, Recipe] = {
    "quick": Recipe("Default: E_e from the principal components, share, whitening", scores=True),
    "untrained": Recipe("The default's start, whitened, untrained", changes={"lr": 0.0}),
    "unwhitened": Recipe("The default without whitening", changes={"whiten": False}),
    "whole": Recipe("The default with all of the training", changes={"interpolate": False}),
    "random": Recipe("The default from random weights", changes={"start": "random", "interpolate": False}),
    "joint": Recipe("The paper's joint objective from random weights, best step", "joint", scores=True),
    "narrow": Recipe("The default with 128 dimensions", changes={"dim": 128}),
    "one-view": Recipe("The default with one view of each picture", changes={"views": 1}),
    **{name: Recipe(f"The default with {LOSSES[name].title}", changes={"loss": name}) for name in _LOSSES},
    **{name: Recipe(f"The default with {name}", changes=changes) for name, changes in _FAR.items()},
}
"""By name. The rivals have the default's start, share, whitening and steps: only the loss differs."""

PANEL = ("emoji", "grocery", "caltech101", "fruits360", "digits")
MATERIALS = {"recipes": PANEL, "sweep": (*PANEL, *(name + WEAK_SUFFIX for name in PANEL)), "finalists": PANEL}
"""What each part of the panel looks at by default."""


def recipes_of(part: str) -> list[str]:
    """The recipes that a part of the panel is about."""
    return {"recipes": [name for name in RECIPES if name not in _FAR], "sweep": [*_FAR], "finalists": ["quick"]}[part]


def panel_tasks(
    part: str, configs: Mapping[str, TrainConfig], recipes: Sequence[str], folds: int, seeds: int, steps: int
) -> list[Task]:
    """The cells of a part of the panel.

    Args:
        part: recipes, each of whose folds is held out once; sweep, where each seed holds out another; or finalists,
            which train on all training classes.
        configs: material -> the configuration of its features.
        recipes: keys of `RECIPES`.
        folds: of the training classes.
        seeds: trainings of each fold, or of each material.
        steps: of each training.
    """
    held: dict[str, Callable[[int], Sequence[int | None]]] = {
        "recipes": lambda seed: range(folds), "sweep": lambda seed: [seed % folds], "finalists": lambda seed: [None],
    }  # fmt: skip
    return [
        Task(
            key_of(part, name, recipe, "test" if fold is None else fold, seed), train_recipe,
            {"part": part, "config": config, "name": name, "recipe": recipe, "folds": folds, "fold": fold,
             "seed": seed, "steps": steps},
            cost=steps * (90.0 if RECIPES[recipe].scores else 30.0),
        )
        for name, config in configs.items() for seed in range(seeds) for fold in held[part](seed) for recipe in recipes
    ]  # fmt: skip


def run_panel(
    study: Study, part: str = "recipes", datasets: Sequence[str] = (), recipes: Sequence[str] = (), *,
    base: Mapping[str, Any], folds: int = FOLDS, seeds: int = 0, steps: int = 0, processes: int = 1,
    progress: bool = True,
) -> Outcome:  # fmt: skip
    """Compute the cells of a part that a study doesn't have yet.

    Args:
        study: that keeps them.
        part: recipes, sweep or finalists.
        datasets: the materials; empty: the panel's. A name that ends in `-weak` stands for the data set with features
            weak on purpose.
        recipes: keys of `RECIPES`; empty: all that the part is about.
        base: fields of `TrainConfig`, such as data_root.
        folds: of the training classes.
        seeds: see `panel_tasks`; 0: one for recipes, else five.
        steps: of each training; 0: the default's.
        processes: that compute in parallel, each with one thread.
        progress: show bars while the trunk's features are computed.

    Raises:
        ConfigError: no such recipe.
        LabError: missing data, or a study with other settings.
    """
    for recipe in recipes:
        if recipe not in RECIPES:
            raise ConfigError(unknown_name("recipe", recipe, RECIPES))
    steps = steps or PRESETS["quick"].steps
    configs = {name: config_of(name, base) for name in datasets or MATERIALS[part]}
    study.record_settings(part, {"folds": folds, "steps": steps})
    tasks = panel_tasks(
        part, configs, recipes or tuple(recipes_of(part)), folds, seeds or (1 if part == "recipes" else 5), steps
    )
    return compute_on_materials(study, tasks, folds, processes, progress)


def compute_on_materials(
    study: Study, tasks: Sequence[Task], folds: int, processes: int, progress: bool
) -> Outcome:  # fmt: skip
    """`compute_cells`, once the features that tasks need are cached: several processes would each compute them."""
    missing = {task.arguments["config"] for task in tasks if not study.has(task.key)}
    for config in sorted(missing, key=lambda config: config.dataset):
        Material.load(config, folds, progress_bars(progress))
    return compute_cells(study, tasks, processes)


def config_of(name: str, base: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a material's features, by the material's name."""
    dataset = name.removesuffix(WEAK_SUFFIX)
    weak = WEAK if name != dataset else {}
    return TrainConfig.from_parameters({"device": "cpu", **base, **weak, "dataset": dataset})


def train_recipe(
    needed: Sequence[Mapping[str, Any]], *, part: str, config: TrainConfig, name: str, recipe: str, folds: int,
    fold: int | None, seed: int, steps: int,
) -> dict[str, Any]:  # fmt: skip
    """The cell of one training, measured on a fold of the training classes and on held-out pictures.

    Args:
        needed: unused; every task of a study takes it.
        part: of the study that the cell belongs to.
        config: of the material.
        name: of the material in the tables.
        fold: None trains on all training classes, and measures the test's protocols.
    """
    material = material_of(config, folds)
    choices = RECIPES[recipe]
    labels = material.dataset.labels
    items, protocols = split_of(material, fold)
    training = RecipeTraining(material, configured(config, recipe, steps, seed), items, choices.scores)
    model = training.train()
    features, pretrained = training.embed(model), F.normalize(material.inputs, dim=1)
    ways: dict[str, tuple[Similarity, Tensor]] = {
        "pretrained": (Euclidean(), pretrained), "euclidean": (Euclidean(), features),
        **({"pddm": (model.similarity("pddm"), features)} if training.scores else {}),
    }  # fmt: skip
    metrics = {
        protocol.name: {
            way: rank(
                similarity, of[protocol.query], of[protocol.gallery], labels[protocol.query], labels[protocol.gallery],
                protocol.leave_one_out,
            )
            for way, (similarity, of) in ways.items()
        }
        for protocol in protocols
    }  # fmt: skip
    if choices.scores and not training.scores:
        for values in metrics.values():
            values["pddm"] = values["euclidean"]
    chosen = {"recipe": recipe, "fold": fold, "steps": steps, **training.shares}
    return {
        "part": part, "dataset": name, "method": recipe, "seed": seed, "metrics": metrics,
        "settings": {**chosen, "mean_length": float(features[items].mean(0).norm())},
    }  # fmt: skip


def configured(config: TrainConfig, recipe: str, steps: int, seed: int) -> TrainConfig:
    """A material's configuration with a recipe's choices."""
    choices = RECIPES[recipe]
    preset, quick = PRESETS[choices.preset].to_dict(), PRESETS["quick"].to_dict()
    of_preset = {field: value for field, value in preset.items() if value != quick[field]}
    # `signed_power` was applied to the inputs already.
    own = {**of_preset, **choices.changes, "steps": steps, "seed": seed, "pool_power": 1.0}
    return dataclasses.replace(config, **own)


def split_of(material: Material, fold: int | None) -> tuple[Int[np.ndarray, " items"], Sequence[Protocol]]:
    """The items that train, and what is measured. Few classes have fewer folds: then the first come again."""
    dataset, config = material.dataset, material.config
    if fold is None:
        return dataset.train, material.protocols
    fold %= len(material.folds)
    fit, held = material.fit_items(fold), material.folds[fold]
    groups = near_duplicate_groups(dataset, fit, runs_root(config.runs_root) / ".features")
    items, known = hold_out_queries(dataset.labels, fit, HELD_PICTURES, config.split_seed, groups)
    return items, (Protocol("unseen", held, held), Protocol("known", known, items))


class RecipeTraining:
    """A training as a run does it (training/phases.py), in memory.

    Args:
        config: the choices; `pool_power` is 1, since the material's inputs have theirs.
        items: that train.
        scores: train the unit, too. `train` gives it up where none of it is used, since S ranks like D then.
    """

    def __init__(self, material: Material, config: TrainConfig, items: Int[np.ndarray, " items"], scores: bool) -> None:
        self.material, self.config, self.items = material, config, items
        self.labels, self.scores = material.dataset.labels, scores
        self.inputs = view_inputs(material.views[: config.views], material.dataset.train, config.seed)
        self.shares = {"head_share": 1.0, "unit_share": 1.0}
        self.steps = config.steps
        torch.manual_seed(config.seed)
        self._started = MetricModel(config, trunk=material.stand_in())
        self._started.embedding.fit_start(material.inputs[torch.from_numpy(items)], config.start == "principal")

    @torch.no_grad()
    def embed(self, model: MetricModel, items: Int[np.ndarray, " items"] | None = None) -> Float[Tensor, "items dim"]:
        """Features of some items, or of all."""
        inputs = self.material.inputs
        return model.embedding.project(inputs if items is None else inputs[torch.from_numpy(items)])

    def train(self) -> MetricModel:
        """The trained model, as it is used."""
        config, items, steps = self.config, self.items, self.config.steps
        if config.interpolates:
            self.shares["head_share"], values = choose_head_share(
                lambda: copy.deepcopy(self._started), config, self.labels, items, self.material.inputs, self.inputs
            )
            self.shares["unit_share"] = 1.0 if values else 0.0
        fit, validation = hold_out_classes(self.labels, items, config.val_class_share, config.split_seed)
        if len(validation) and (self.scores or not config.interpolates):
            loop = self._loop(fit, steps, 1.0)
            if config.interpolates:
                self._advance(loop, steps, fit)
                self.shares["unit_share"] = self._unit_share(loop, validation)
                self.scores = self.shares["unit_share"] > 0
            else:
                steps = self._best_step(loop, fit, validation)
        self.steps = max(round(steps * len(items) / len(fit)), 1)
        loop = self._loop(items, self.steps, self.shares["unit_share"])
        self._advance(loop, loop.config.steps, items)
        return loop.used()

    def fold_features(self, groups: Int[np.ndarray, " items"]) -> list[Float[Tensor, "items dim"]]:
        """Features of the items by heads that a fold's part trained, as in `fold_embeddings`, once all is trained."""
        return fold_embeddings(
            lambda: copy.deepcopy(self._started), dataclasses.replace(self.config, steps=self.steps),
            self.shares["head_share"], self.labels, self.items, groups, self.material.inputs, self.inputs,
        )  # fmt: skip

    def _loop(self, items: np.ndarray, steps: int, unit_share: float) -> Loop:
        head = used_head(self.config, self.shares["head_share"], self.material.inputs, self.labels, items)
        return Loop(
            copy.deepcopy(self._started), dataclasses.replace(self.config, steps=steps), self.labels, items,
            self.inputs, ["pddm"] if self.scores else [], used_head=head, unit_share=unit_share,
        )  # fmt: skip

    def _advance(self, loop: Loop, to: int, items: np.ndarray) -> None:
        while loop.step < to:
            loop.take_step()
        if self.config.familiarity:
            loop.kept.remember_classes(self.embed(loop.used(), items), torch.from_numpy(self.labels[items]))

    def _unit_share(self, loop: Loop, validation: np.ndarray) -> float:
        values = []
        for loop.unit_share in UNIT_SHARES:
            model = loop.used()
            values.append(self._precisions(model.similarity("pddm"), model, validation))
        labels = torch.from_numpy(self.labels[without_lone_items(self.labels, validation)])
        return choose_sure_gain(UNIT_SHARES, torch.stack(values), labels)[0]

    def _best_step(self, loop: Loop, fit: np.ndarray, validation: np.ndarray) -> int:
        """The latest step that is as good as the best one on the validation classes."""
        curve = []
        while loop.step < self.config.steps:
            self._advance(loop, min(loop.step + self.config.eval_every, self.config.steps), fit)
            values = self._precisions(Euclidean(), loop.used(), validation)
            curve.append((float(values.mean()), float(values.std()) / math.sqrt(len(values)), loop.step))
        best, error, _ = max(curve)
        return max(step for value, _, step in curve if value >= best - self.config.selection_tolerance * error)

    def _precisions(self, similarity: Similarity, model: MetricModel, items: np.ndarray) -> Float[Tensor, " ranked"]:
        return precisions(similarity, self.embed(model, items), torch.from_numpy(self.labels[items]))
