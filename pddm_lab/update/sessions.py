"""A data set as it arrives in sessions: some classes first, and then new ones, a few at a time.

Session 0 is the first training. The classes of the later sessions are drawn from those that the data set holds out as
unseen, and where these don't suffice, from the others. A quarter of each class's pictures are its queries. Everything
is searched in one gallery, that of the other pictures of all sessions, so that a column of the matrix of accuracies is
about the same search throughout.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from pddm_lab.config import TrainConfig
from pddm_lab.data.splits import hold_out_queries
from pddm_lab.errors import ConfigError
from pddm_lab.progress import Bar
from pddm_lab.study.material import Material
from pddm_lab.training.loop import dataset_of

SESSIONS, CLASSES = 5, 10
HELD_OUT = 0.25
"""Share of a class's pictures that are its queries."""
FEWEST = 4
"""Pictures of a class that can arrive: three to train and search, one to search for."""
MOST_QUERIES = 300
"""Of the classes of session 0: a sample."""


@dataclass(frozen=True)
class Plan:
    """How a data set is divided; a seed gives another division."""

    config: TrainConfig
    sessions: int = SESSIONS
    classes: int = CLASSES
    """New ones in each session after the first."""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Sessions:
    """The items of each session."""

    material: Material
    """Its `dataset.train` are the items of all sessions that train."""
    train: list[Int[np.ndarray, " items"]]
    queries: list[Int[np.ndarray, " queries"]]

    @property
    def labels(self) -> Int[np.ndarray, " all"]:
        """Class of each item of the data set."""
        return self.material.dataset.labels

    @property
    def searched(self) -> Int[np.ndarray, " items"]:
        """The gallery: the training items of all sessions."""
        return self.material.dataset.train

    def until(self, session: int) -> Int[np.ndarray, " items"]:
        """The training items of all sessions up to one."""
        return np.sort(np.concatenate(self.train[: session + 1]))

    def classes(self, session: int) -> Int[np.ndarray, " classes"]:
        """The classes that are new in a session."""
        return np.unique(self.labels[self.train[session]])


def read_sessions(plan: Plan, bar: Bar | None = None) -> Sessions:
    """Divide a data set, and get the frozen trunk's features that aren't cached yet.

    Raises:
        ConfigError: the data set has too few classes.
        LabError: it is missing or damaged.
    """
    dataset = dataset_of(plan.config)
    labels, random = dataset.labels, np.random.default_rng(plan.seed)
    known = np.unique(labels[dataset.train])
    order = [random.permutation(part) for part in (np.setdiff1d(labels, known), known)]
    counts = np.bincount(labels)
    eligible = [int(one) for one in np.concatenate(order) if counts[one] >= FEWEST]
    count = plan.sessions * plan.classes
    first = np.setdiff1d(known[counts[known] >= FEWEST], eligible[:count])
    if len(first) < plan.classes:
        raise ConfigError(
            f"{plan.config.dataset} has {len(eligible)} classes of {FEWEST} pictures or more: too few for "
            f"{plan.sessions} sessions of {plan.classes} new classes after a first one. Lower --sessions or --classes."
        )
    groups = [first, *(np.array(eligible[at : at + plan.classes]) for at in range(0, count, plan.classes))]
    train, queries = [], []
    for classes in groups:
        kept, held = hold_out_queries(labels, np.flatnonzero(np.isin(labels, classes)), HELD_OUT, plan.seed)
        train.append(kept)
        queries.append(held)
    queries[0] = np.sort(random.permutation(queries[0])[:MOST_QUERIES])
    arriving = replace(dataset, train=np.sort(np.concatenate(train)))
    return Sessions(Material.load(plan.config, bar=bar, dataset=arriving), train, queries)


@functools.lru_cache(maxsize=1)
def sessions_of(plan: Plan) -> Sessions:
    """`read_sessions`, cached in this process for the last plan."""
    return read_sessions(plan)
