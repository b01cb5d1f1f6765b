"""Compare ways to bring a model up to date on sessions of new classes: one cell a data set, seed and way.

Cells are kept as those of a study are (study/cells.py), so a comparison that was stopped resumes. Of each cell:

    metrics    "after 2" -> similarity -> "recall@1 of 1" and "map@r of 1": on the classes of session 1 after session 2
    settings   seconds of processor time of each session; curves, R@1 by D on all earlier classes before an update and
               after every few steps; untrained, R@1 by D of the pretrained features on each session; two_by_two and
               backfill after the first session
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pddm_lab.config import TrainConfig
from pddm_lab.errors import ConfigError, unknown_name
from pddm_lab.metrics.retrieval import outcomes
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.similarity import Euclidean
from pddm_lab.progress import progress_bars
from pddm_lab.study.cells import Study, key_of
from pddm_lab.study.work import Outcome, Task, compute_cells
from pddm_lab.update import compatibility
from pddm_lab.update.continued import Choices
from pddm_lab.update.sessions import CLASSES, SESSIONS, Plan, Sessions, read_sessions, sessions_of
from pddm_lab.update.ways import WAYS, Trained, first_training, ranked, train_on_session

PART = "sessions"
DATASETS = ("emoji", "grocery", "caltech101")
COMPARED = ("replay", "near", "full")
"""Ways whose features are compared with the old ones."""
VIEWS = 2
"""Of each picture that trains: level with four on emoji, and the pictures are read in two thirds of the time."""


def run_sessions(
    study: Study, datasets: Sequence[str] = (), ways: Sequence[str] = (), *, base: Mapping[str, Any],
    sessions: int = SESSIONS, classes: int = CLASSES, seeds: int = 3, steps: int = 500,
    choices: Choices | None = None, anew: Sequence[int] = (), local: bool = True, processes: int = 1,
    progress: bool = True,
) -> Outcome:  # fmt: skip
    """Compute the cells that a study doesn't have yet.

    Args:
        study: that keeps them.
        datasets: empty: `DATASETS`.
        ways: of `WAYS`; empty: all.
        base: fields of `TrainConfig`, such as data_root.
        sessions, classes: see `Plan`.
        seeds: divisions of each data set, and trainings.
        steps: of a training anew.
        choices: of an update.
        anew: sessions after which the way `full` trains, which takes most of the time; empty: all.
        local: fit local structure on session 0, too, which takes as long as the rest of the first training.
        processes: that compute in parallel, each with one thread.
        progress: show bars while the trunk's features are computed.

    Raises:
        ConfigError: no such way.
        LabError: missing data, too few classes, or a study with other settings.
    """
    for way in ways:
        if way not in WAYS:
            raise ConfigError(unknown_name("way", way, WAYS))
    choices = choices or Choices(near=1.0)
    settings = {"sessions": sessions, "classes": classes, "steps": steps, "local": local, "update": vars(choices)}
    study.record_settings(PART, settings)
    plans = [
        Plan(
            TrainConfig.from_parameters({"device": "cpu", "views": VIEWS, **base, "dataset": name}), sessions, classes,
            seed,
        )
        for name in datasets or DATASETS for seed in range(seeds)
    ]  # fmt: skip
    tasks = [
        Task(
            key_of(PART, plan.config.dataset, plan.seed, way), measure_way,
            {"plan": plan, "way": way, "steps": steps, "choices": choices, "anew": tuple(anew), "local": local},
            cost=1000.0 * (steps if way == "full" else choices.steps),
        )
        for plan in plans for way in ways or WAYS
    ]  # fmt: skip
    for plan in plans:
        if any(task.arguments["plan"] == plan and not study.has(task.key) for task in tasks):
            read_sessions(plan, progress_bars(progress))  # several processes would each compute missing features
    return compute_cells(study, tasks, processes)


def measure_way(
    needed: Sequence[Mapping[str, Any]], *, plan: Plan, way: str, steps: int, choices: Choices, anew: Sequence[int],
    local: bool,
) -> dict[str, Any]:  # fmt: skip
    """The cell of one way on one division of a data set.

    Args:
        needed: unused; every task of a study takes it.
        plan: the division.
        way: of `WAYS`.
        steps: of a training anew.
        choices: of an update.
        anew, local: see `run_sessions`.
    """
    sessions, first = sessions_of(plan), first_training(plan, steps, local)
    latest, metrics = first, {"after 0": _measured(first, sessions)}
    seconds, curves, settings = [0.0], [], {}
    for session in range(1, plan.sessions + 1):
        if way == "full" and anew and session not in anew:
            continue
        watch = _Watch(sessions, session)
        watch(latest.model)
        watch.seconds = 0.0
        begun = time.process_time()
        latest = train_on_session(way, latest, sessions, session, plan.seed, steps, choices, watch)
        seconds.append(time.process_time() - begun - watch.seconds)
        curves.append(watch.values)
        metrics[f"after {session}"] = metrics["after 0"] if way == "none" else _measured(latest, sessions)
        if session == 1 and way in COMPARED:
            settings = _compared(first, latest, sessions, plan.seed)
    return {
        "part": PART, "dataset": plan.config.dataset, "method": way, "seed": plan.seed, "metrics": metrics,
        "settings": {"seconds": seconds, "curves": curves, "untrained": _untrained(sessions), **settings},
    }  # fmt: skip


class _Watch:
    """R@1 by D on all classes of earlier sessions while a model trains; its own time doesn't count."""

    def __init__(self, sessions: Sessions, session: int) -> None:
        self._sessions, self.seconds = sessions, 0.0
        self.values: list[float] = []
        self._queries = np.concatenate(sessions.queries[:session])

    @torch.no_grad()
    def __call__(self, model: MetricModel) -> None:
        begun = time.process_time()
        self.values.append(_hits(model.embedding.project, self._sessions, self._queries))
        self.seconds += time.process_time() - begun


def _measured(trained: Trained, sessions: Sessions) -> dict[str, dict[str, float]]:
    """Similarity -> metric of each session."""
    queries = np.concatenate(sessions.queries)
    of = np.repeat(np.arange(len(sessions.queries)), [len(one) for one in sessions.queries])
    return {
        name: {
            f"{metric} of {session}": float(np.nanmean(values[of == session]))
            for metric, values in (("recall@1", hits), ("map@r", precisions))
            for session in range(len(sessions.queries))
        }
        for name, hits, precisions in ranked(trained, sessions, queries)
    }


def _untrained(sessions: Sessions) -> list[float]:
    return [_hits(F.normalize, sessions, queries) for queries in sessions.queries]


def _hits(embed: Callable[[Tensor], Tensor], sessions: Sessions, queries: np.ndarray) -> float:
    """R@1 by D of features that are made of the trunk's."""
    labels, inputs = torch.from_numpy(sessions.labels), sessions.material.inputs
    scores = Euclidean().matrix(embed(inputs[queries]), embed(inputs[sessions.searched]))
    return float(outcomes(scores, labels[queries], labels[sessions.searched])[0].float().mean())


def _compared(old: Trained, new: Trained, sessions: Sessions, seed: int) -> dict[str, Any]:
    """How new features are searched among old ones after the first session."""
    of_old, of_new = sessions.queries[:2]
    both, searched = (old.embed(sessions), new.embed(sessions), sessions.labels), sessions.until(1)
    return {
        "two_by_two": compatibility.two_by_two(*both, {"old": of_old, "new": of_new}, searched, sessions.train[0]),
        "backfill": compatibility.backfill(
            *both, np.concatenate([of_old, of_new]), searched, sessions.train[0], seed
        ),
    }  # fmt: skip
