"""Ways to bring a model up to date when new classes have arrived, as sessions.py has them.

    none     leave everything as it is
    unit     train the unit of S on the new items; the embedding and local structure stay
    naive    train the head and the unit on the new items alone
    replay   on the new items and a replay buffer of the old ones
    near     as replay, and keep the features of old classes near the old ones: what `pddm-lab update` does
    full     train all anew on the items of all sessions so far, by the recipe of a run

All begin with the same model, which was trained on session 0 by the recipe of a run (panel/recipes.py) with local
structure on top, and all but `full` go on from what they made in the session before. Local structure keeps its unit in
all of them, `full` too, whose time lacks what fitting a unit anew takes; where the embedding is another, it gets the
whitening of the items that trained it.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.config import runs_root
from pddm_lab.data.near_duplicates import near_duplicate_groups
from pddm_lab.local.episodes import shortlist_size
from pddm_lab.local.fit import fit_local_structure
from pddm_lab.local.unit import LocalStructure
from pddm_lab.metrics.retrieval import outcomes
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.familiarity import PretrainedPart
from pddm_lab.model.similarity import Euclidean
from pddm_lab.panel.recipes import RecipeTraining
from pddm_lab.training.loop import view_inputs
from pddm_lab.update.continued import Choices, Continued, corrects, structure_on
from pddm_lab.update.replay import replay_items
from pddm_lab.update.sessions import Plan, Sessions, sessions_of

WAYS = {
    "none": "No training", "unit": "The unit alone", "naive": "New items alone", "replay": "With a replay buffer",
    "near": "Replay, kept near", "full": "All anew",
}  # fmt: skip
AT = 10
"""Steps of an update after which the accuracy on earlier classes is measured."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A model with its similarity on local structure."""

    model: MetricModel
    structure: LocalStructure | None = None
    part: PretrainedPart | None = None
    """Makes p of the trunk's features, where there is local structure."""

    @torch.no_grad()
    def embed(self, sessions: Sessions) -> Float[Tensor, "all dim"]:
        """Features of all items of the data set."""
        return self.model.eval().embedding.project(sessions.material.inputs)


def train_anew(sessions: Sessions, items: Int[np.ndarray, " items"], seed: int, steps: int) -> RecipeTraining:
    """A training as a run does it, on cached features; call its `train`."""
    config = replace(
        sessions.material.config, seed=seed, steps=steps, pool_power=1.0
    )  # of inputs that have their power
    return RecipeTraining(sessions.material, config, items, scores=True)


@functools.lru_cache(maxsize=1)
def first_training(plan: Plan, steps: int, local: bool = True) -> Trained:
    """The model of session 0, with local structure if `local` is set; cached in this process for the last plan."""
    sessions, seed = sessions_of(plan), plan.seed
    items, material = sessions.train[0], sessions.material
    training = train_anew(sessions, items, seed, steps)
    model = training.train()
    if not local:
        return Trained(model)
    groups = near_duplicate_groups(material.dataset, items, runs_root(material.config.runs_root) / ".features")
    part = PretrainedPart(material.inputs.shape[1])
    part.fit(material.inputs[torch.from_numpy(items)])
    heads = training.fold_features(groups)
    structure = fit_local_structure(
        training.embed(model, items), np.unique(sessions.labels[items], return_inverse=True)[1],
        F.normalize(part(material.inputs[torch.from_numpy(items)]), dim=1), lambda at, _: heads[at], seed=seed,
        groups=groups,
    )  # fmt: skip
    return Trained(model, structure, part)


def train_on_session(
    way: str, before: Trained, sessions: Sessions, session: int, seed: int, steps: int, choices: Choices,
    watch: Callable[[MetricModel], None] | None = None,
) -> Trained:  # fmt: skip
    """The model after a session.

    Args:
        way: of `WAYS`.
        before: the model after the session before.
        steps: of a training anew.
        choices: of an update; `near` counts for that way alone.
        watch: called with the model after every few steps of an update.
    """
    if way == "none":
        return before
    material, labels, items = sessions.material, sessions.labels, sessions.train[session]
    if way == "full":
        items = sessions.until(session)
        return _with_model(before, train_anew(sessions, items, seed, steps).train(), sessions, items)
    if way in ("replay", "near"):
        items = np.union1d(items, replay_items(material.inputs, labels, sessions.until(session - 1), choices.replay))
    config = choices.of(replace(material.config, pool_power=1.0), seed + session)
    inputs = view_inputs(material.views, material.dataset.train, config.seed)
    training = Continued(
        before.model, config, choices.near if way == "near" else 0.0, labels, items, inputs,
        sessions.classes(session), ["pddm"] if way == "unit" else None, way == "unit",
    )  # fmt: skip
    for done in range(0, choices.steps, AT):
        training.advance(min(AT, choices.steps - done))
        if watch:
            watch(training.model)
    model = copy.deepcopy(training.model)
    if way == "unit":
        return dataclasses.replace(before, model=model)
    return _with_model(before, model, sessions, items)


@torch.no_grad()
def _with_model(before: Trained, model: MetricModel, sessions: Sessions, items: Int[np.ndarray, " items"]) -> Trained:
    """Another model, with local structure, where there is one, on its features of the items that trained it."""
    if before.structure is None:
        return Trained(model)
    features = model.eval().embedding.project(sessions.material.inputs[torch.from_numpy(items)])
    return Trained(model, structure_on(before.structure, features, sessions.labels[items]), before.part)


@torch.no_grad()
def ranked(
    trained: Trained, sessions: Sessions, queries: Int[np.ndarray, " queries"]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The hits and AP@R of each query by D, and by S and local structure, which re-rank one shortlist.

    Yields:
        The similarity, whether each first result is right, and AP@R.
    """
    searched, labels = torch.from_numpy(sessions.searched), torch.from_numpy(sessions.labels)
    query = torch.from_numpy(queries)
    x = trained.embed(sessions)
    scores = Euclidean().matrix(x[query], x[searched])
    largest = int(labels[searched].bincount().max())
    rows = scores.topk(min(shortlist_size(largest), len(searched)), dim=1).indices
    yield "euclidean", *_outcomes(scores, labels[query], labels[searched])
    if corrects(trained.model):
        again = trained.model.similarity("pddm").candidates(x[query], x[searched], rows)
        yield "pddm", *_outcomes(_first(scores, rows, again), labels[query], labels[searched])
    else:  # S ranks like D
        yield "pddm", *_outcomes(scores, labels[query], labels[searched])
    structure = trained.structure
    if structure is None or trained.part is None:
        return
    p = F.normalize(trained.part(sessions.material.inputs), dim=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This gallery has")
        reference = structure.reference(x[searched], p[searched] if structure.weight else None)
        z = structure.space(x[query], p[query] if structure.weight else None)
        again = structure.candidates(reference, z, rows)
    yield "local", *_outcomes(_first(scores, rows, again), labels[query], labels[searched])


def _first(scores: Tensor, rows: Tensor, again: Tensor) -> Float[Tensor, "queries items"]:
    """Scores by which the candidates come first, in their own order, and the others after them as they were."""
    order = again.argsort(dim=1).argsort(dim=1).to(scores)
    return (scores - scores.max() - 1).scatter(1, rows, order)


def _outcomes(scores: Tensor, of_query: Tensor, of_items: Tensor) -> tuple[np.ndarray, np.ndarray]:
    hits, precisions = outcomes(scores, of_query, of_items)
    return hits.numpy(), precisions.numpy()
