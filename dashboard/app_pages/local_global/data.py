"""Trainings on the plane: each in a thread of its own, so that pages can watch it, and kept by its choices."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from pddm_lab.teaching.point_sets import PlaneConfig, make_scene, mesh

if TYPE_CHECKING:
    from pddm_lab.teaching.plane import Accepted, Measured, Snapshot


class Training:
    """One training; what is known of it grows until it is done.

    Args:
        config: its choices.
    """

    def __init__(self, config: PlaneConfig) -> None:
        self.config = config
        self.scene = make_scene(config.scene, config.seed)
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
        except Exception as error:  # a thread's error would show nowhere
            self.failed = f"{type(error).__name__}: {error}"

    @property
    def running(self) -> bool:
        """Whether it still trains."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End it after this step; what it has learned so far stays."""
        self._stop.set()

    def wait(self, seconds: float) -> None:
        """Wait until it is done, at most so long."""
        self._thread.join(seconds)


_TRAININGS: weakref.WeakSet[Training] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """A process may not end while a thread is inside torch."""
    for one in list(_TRAININGS):
        one.stop()
        one.wait(10)


@st.cache_resource(max_entries=24, show_spinner=False)
def training(config: PlaneConfig) -> Training:
    """The training of these choices: begun now, or the one that began before. `training.clear(config)` forgets it."""
    return Training(config)


@dataclass(frozen=True, eq=False)
class Looks:
    """What one snapshot says of the plane, seen from one anchor."""

    training: Training
    number: int
    anchor: int
    around: np.ndarray
    """S of the anchor with the points of `mesh`, (rows, columns)."""
    to_points: np.ndarray
    """S of the anchor with every point of the scene."""
    threshold: float
    """S above which a pair is accepted."""
    radius: float
    """D below which a pair is accepted."""

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot itself."""
        return self.training.snapshots[self.number]

    def at(self, means: np.ndarray, difference: np.ndarray) -> np.ndarray:
        """S of one difference at each mean."""
        from pddm_lab.teaching.plane import score_at

        return score_at(self.snapshot.unit, means, difference)

    def accepted(self) -> dict[str, Accepted]:
        """What the anchor accepts, by S and by D."""
        from pddm_lab.teaching.plane import accepted

        scene = self.training.scene
        distances = np.linalg.norm(scene.points - scene.points[self.anchor], axis=1)
        return {
            "S": accepted(scene, self.anchor, self.to_points, self.threshold),
            "D": accepted(scene, self.anchor, -distances, -self.radius),
        }


def looks(training: Training, number: int, anchor: int) -> Looks:
    """What a snapshot says around an anchor: a few milliseconds.

    Args:
        training: which.
        number: of its snapshot.
        anchor: a row of its scene.
    """
    from pddm_lab.teaching.plane import score

    points, snapshot = training.scene.points, training.snapshots[number]
    around, to_points = (score(snapshot.unit, points[anchor], others) for others in (mesh()[2], points))
    radius = -training.distance["known"].threshold
    return Looks(training, number, anchor, around, to_points, snapshot.known.threshold, radius)
