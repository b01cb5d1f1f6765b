"""Trainings on the plane: each runs in its own thread, so that pages can watch it, and is cached by its settings."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from pddm_lab.teaching.point_sets import PlaneConfig, make_point_set, mesh

if TYPE_CHECKING:
    from pddm_lab.teaching.plane import Accepted, Measured, Snapshot


class PlaneTraining:
    """A training on the plane in its own thread; its snapshots grow until it is done."""

    def __init__(self, config: PlaneConfig) -> None:
        self.config = config
        self.scene = make_point_set(config.scene, config.seed)
        self.snapshots: list[Snapshot] = []
        self.distance: dict[str, Measured] = {}
        self.seconds = 0.0
        self.failed = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._train, name="plane", daemon=True)
        self._thread.start()
        _TRAININGS.add(self)

    def _train(self) -> None:
        import torch

        from pddm_lab.teaching.plane import measure_distance, train_plane

        torch.set_num_threads(1)  # sessions share the cores
        start = time.perf_counter()
        try:
            self.distance = measure_distance(self.scene)
            for snapshot in train_plane(self.scene, self.config, self._stop.is_set):
                self.snapshots.append(snapshot)
                self.seconds = time.perf_counter() - start
        except Exception as error:  # an error in a thread would otherwise go unseen
            self.failed = f"{type(error).__name__}: {error}"

    @property
    def running(self) -> bool:
        """Whether it is still training."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop after the current step; the snapshots so far are kept."""
        self._stop.set()

    def wait(self, seconds: float) -> None:
        """Wait until it is done, at most this many seconds."""
        self._thread.join(seconds)


_TRAININGS: weakref.WeakSet[PlaneTraining] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Stop all threads first: a process must not end while a thread is inside torch."""
    for training in list(_TRAININGS):
        training.stop()
        training.wait(10)


@st.cache_resource(max_entries=24, show_spinner=False)
def training(config: PlaneConfig) -> PlaneTraining:
    """The training with these settings, started at the first call. `training.clear(config)` forgets it."""
    return PlaneTraining(config)


@dataclass(frozen=True, eq=False)
class AnchorView:
    """The plane at one snapshot, seen from one anchor."""

    training: PlaneTraining
    snapshot: Snapshot
    anchor: int
    """Row of the anchor among the points."""
    around: np.ndarray
    """S between the anchor and each point of `mesh`, (rows, columns)."""
    to_points: np.ndarray
    """S between the anchor and every point, (points,)."""
    threshold: float
    """S above which a pair is accepted."""
    radius: float
    """D below which a pair is accepted."""

    def score_at(self, means: np.ndarray, difference: np.ndarray) -> np.ndarray:
        """S of a pair with this difference, at each mean."""
        from pddm_lab.teaching.plane import score_at

        return score_at(self.snapshot.unit, means, difference)

    def accepted(self) -> dict[str, Accepted]:
        """The points that S and D accept as the anchor's class."""
        from pddm_lab.teaching.plane import accepted

        scene = self.training.scene
        distances = np.linalg.norm(scene.points - scene.points[self.anchor], axis=1)
        return {
            "S": accepted(scene, self.anchor, self.to_points, self.threshold),
            "D": accepted(scene, self.anchor, -distances, -self.radius),
        }


def anchor_view(training: PlaneTraining, number: int, anchor: int) -> AnchorView:
    """The view from an anchor at snapshot `number`; takes a few milliseconds."""
    from pddm_lab.teaching.plane import score

    points, snapshot = training.scene.points, training.snapshots[number]
    around, to_points = (score(snapshot.unit, points[anchor], others) for others in (mesh()[2], points))
    radius = -training.distance["known"].threshold
    return AnchorView(training, snapshot, anchor, around, to_points, snapshot.known.threshold, radius)
