"""A panel for choosing defaults: recipes of training side by side, on folds of the training classes of data sets.

A fold of the training classes plays the unseen ones. Held-out pictures of the others play the known queries, with their
near-duplicates. The test classes have no part in it. A recipe must hold everywhere: it is judged by its mean rank and
by its worst case against the pretrained features, not by its mean score.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.config import LOSSES, PRESETS, TrainConfig, runs_root
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
from pddm_lab.training.loop import Loop, view_inputs
from pddm_lab.training.shares import UNIT_SHARES, choose_head_share, choose_sure_gain, precisions, used_head

if TYPE_CHECKING:
    import pandas as pd

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


RECIPES: dict[str, Recipe] = {
    "quick": Recipe("Default: E_e from the principal components, share, whitening", scores=True),
    "untrained": Recipe("The default's start, whitened, untrained", changes={"lr": 0.0}),
    "unwhitened": Recipe("The default without whitening", changes={"whiten": False}),
    "whole": Recipe("The default with all of the training", changes={"interpolate": False}),
    "random": Recipe("The default from random weights", changes={"start": "random", "interpolate": False}),
    "joint": Recipe("The paper's joint objective from random weights, best step", "joint", scores=True),
    "lab": Recipe("Preset lab", "lab", scores=True),
    **{
        name: Recipe(f"The default with {loss.title}", changes={"loss": name})
        for name, loss in LOSSES.items()
        if loss.is_rival or name == "triplet"
    },
}
"""By name. The rivals have the default's start, share, whitening and steps: only the loss differs."""


def recipe_tasks(
    configs: Mapping[str, TrainConfig], recipes: Sequence[str], folds: int, seeds: int, steps: int
) -> list[Task]:
    """The cells of a panel.

    Args:
        configs: material -> the configuration of its features.
        recipes: keys of `RECIPES`.
        folds: of the training classes; each is held out once.
        seeds: trainings of each fold.
        steps: of each training.
    """
    return [
        Task(
            key_of("recipes", name, recipe, fold, seed), train_recipe,
            {"config": config, "name": name, "recipe": recipe, "folds": folds, "fold": fold, "seed": seed,
             "steps": steps},
            cost=steps * (90.0 if RECIPES[recipe].scores else 20.0),
        )
        for name, config in configs.items() for seed in range(seeds) for fold in range(folds) for recipe in recipes
    ]  # fmt: skip


def run_recipes(
    study: Study, datasets: Sequence[str], recipes: Sequence[str] = (), *, base: Mapping[str, Any], folds: int = FOLDS,
    seeds: int = 1, steps: int = 0, processes: int = 1, progress: bool = True,
) -> Outcome:  # fmt: skip
    """Compute the cells of a panel that a study doesn't have yet.

    Args:
        study: that keeps them.
        datasets: the materials; a name that ends in `-weak` stands for the data set with features weak on purpose.
        recipes: keys of `RECIPES`; empty: all.
        base: fields of `TrainConfig`, such as data_root.
        folds: of the training classes.
        seeds: trainings of each fold.
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
    configs = {name: _config(name, base) for name in datasets}
    study.record_settings("recipes", {"folds": folds, "steps": steps})
    tasks = recipe_tasks(configs, recipes or tuple(RECIPES), folds, seeds, steps)
    for name in dict.fromkeys(task.arguments["name"] for task in tasks if not study.has(task.key)):
        # Missing features are computed here once, on all cores, before several processes need them.
        Material.load(configs[name], folds, progress_bars(progress))
    return compute_cells(study, tasks, processes)


def _config(name: str, base: Mapping[str, Any]) -> TrainConfig:
    dataset = name.removesuffix(WEAK_SUFFIX)
    weak = WEAK if name != dataset else {}
    return TrainConfig.from_parameters({"device": "cpu", **base, **weak, "dataset": dataset})


def train_recipe(
    needed: Sequence[Mapping[str, Any]], *, config: TrainConfig, name: str, recipe: str, folds: int, fold: int,
    seed: int, steps: int,
) -> dict[str, Any]:  # fmt: skip
    """The cell of one training, measured on a fold of the training classes and on held-out pictures.

    Args:
        needed: unused; every task of a study takes it.
        config: of the material.
        name: of the material in the tables.
    """
    material = material_of(config, folds)
    choices = RECIPES[recipe]
    preset = PRESETS[choices.preset]
    of_preset = {field: value for field, value in preset.to_dict().items() if value != getattr(PRESETS["quick"], field)}
    # `signed_power` was applied to the inputs already.
    own = {**of_preset, **choices.changes, "steps": steps, "seed": seed, "pool_power": 1.0}
    labels, held = material.dataset.labels, material.folds[fold]
    fit = material.fit_items(fold)
    groups = near_duplicate_groups(material.dataset, fit, runs_root(config.runs_root) / ".features")
    items, known = hold_out_queries(labels, fit, HELD_PICTURES, config.split_seed, groups)
    training = RecipeTraining(material, dataclasses.replace(config, **own), items, choices.scores)
    model = training.train()
    features, pretrained = training.embed(model), F.normalize(material.inputs, dim=1)
    ways: dict[str, tuple[Similarity, Tensor]] = {
        "pretrained": (Euclidean(), pretrained), "euclidean": (Euclidean(), features),
        **({"pddm": (model.similarity("pddm"), features)} if choices.scores else {}),
    }  # fmt: skip
    metrics = {
        protocol: {
            way: rank(similarity, of[query], of[gallery], labels[query], labels[gallery], protocol == "unseen")
            for way, (similarity, of) in ways.items()
        }
        for protocol, query, gallery in (("unseen", held, held), ("known", known, items))
    }
    chosen = {"recipe": recipe, "fold": fold, "steps": steps, **training.shares}
    return {
        "part": "recipes", "dataset": name, "method": recipe, "seed": seed, "metrics": metrics,
        "settings": {**chosen, "mean_length": float(features[items].mean(0).norm())},
    }  # fmt: skip


class RecipeTraining:
    """A training as a run does it (training/phases.py), in memory.

    Args:
        config: the choices; `pool_power` is 1, since the material's inputs have theirs.
        items: that train.
        scores: train the unit, too.
    """

    def __init__(self, material: Material, config: TrainConfig, items: Int[np.ndarray, " items"], scores: bool) -> None:
        self.material, self.config, self.items = material, config, items
        self.labels, self.learning = material.dataset.labels, ["pddm"] if scores else []
        self.inputs = view_inputs(material.views, material.dataset.train, config.seed)
        self.shares = {"head_share": 1.0, "unit_share": 1.0}
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
        if len(validation) and (self.learning or not config.interpolates):
            loop = self._loop(fit, steps, 1.0)
            if config.interpolates:
                self._advance(loop, steps, fit)
                self.shares["unit_share"] = self._unit_share(loop, validation)
            else:
                steps = self._best_step(loop, fit, validation)
        loop = self._loop(items, max(round(steps * len(items) / len(fit)), 1), self.shares["unit_share"])
        self._advance(loop, loop.config.steps, items)
        return loop.used()

    def _loop(self, items: np.ndarray, steps: int, unit_share: float) -> Loop:
        head = used_head(self.config, self.shares["head_share"], self.material.inputs, self.labels, items)
        return Loop(
            copy.deepcopy(self._started), dataclasses.replace(self.config, steps=steps), self.labels, items,
            self.inputs, self.learning, used_head=head, unit_share=unit_share,
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


def write_recipes(study: Study, path: Path) -> pd.DataFrame:
    """Write the panel's table as CSV: each recipe's mean rank and worst case, then its results by material.

    Values are means over folds and seeds, in points; differences are to the pretrained features.
    """
    import pandas as pd

    rows = []
    for cell in study.cells("recipes"):
        for protocol, ways in cell["metrics"].items():
            for way, values in ways.items():
                if way != "pretrained":
                    for metric in ("recall@1", "map@r"):
                        value, before = 100 * values[metric], 100 * ways["pretrained"][metric]
                        rows.append((cell["method"], way, cell["dataset"], protocol, metric, value, value - before))
    columns = ["recipe", "similarity", "dataset", "protocol", "metric", "value", "difference"]
    table = pd.DataFrame(rows, columns=columns).groupby(columns[:5], sort=False)[columns[5:]].mean().reset_index()
    of_d = table[(table.similarity == "euclidean") & (table.metric == "map@r")]
    ranks = of_d.groupby(["dataset", "protocol"]).value.rank(ascending=False)
    mean_rank = ranks.groupby(of_d.recipe).mean()
    table["cell"] = table.dataset + " " + table.protocol + " " + table.metric
    wide = table.pivot(index=["recipe", "similarity"], columns="cell", values="value")
    worst = table.groupby(["recipe", "similarity"]).difference.min()
    wide.insert(0, "worst difference", worst)
    wide.insert(0, "mean rank", [mean_rank[recipe] if way == "euclidean" else None for recipe, way in wide.index])
    wide.columns.name = None
    wide = wide.sort_values(["mean rank", "worst difference"], ascending=[True, False]).round(2).reset_index()
    path.parent.mkdir(parents=True, exist_ok=True)
    wide.to_csv(path, index=False)
    return wide
