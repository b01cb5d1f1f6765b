"""Trainings on the plane: each runs in its own thread, so that pages can watch it, and is cached."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st
from shared.work import Background

from pddm_lab.teaching.exercises import REGIONS_SEED, REGIONS_STEPS, scores_by_letter
from pddm_lab.teaching.point_sets import PlaneConfig, make_point_set, mesh

if TYPE_CHECKING:
    from torch import Tensor

    from pddm_lab.teaching.plane import Accepted, Measured, Snapshot


class PlaneTraining(Background):
    """A training on the plane; its snapshots grow until it is done."""

    def __init__(self, config: PlaneConfig) -> None:
        self.config = config
        self.scene = make_point_set(config.scene, config.seed)
        self.snapshots: list[Snapshot] = []
        self.distance: dict[str, Measured] = {}
        self.seconds = 0.0
        super().__init__()

    def _work(self) -> None:
        from pddm_lab.teaching.plane import measure_distance, train_plane

        start = time.perf_counter()
        self.distance = measure_distance(self.scene)
        for snapshot in train_plane(self.scene, self.config, self._stop.is_set):
            self.snapshots.append(snapshot)
            self.seconds = time.perf_counter() - start

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1."""
        return self.snapshots[-1].step / self.config.steps if self.snapshots else 0.0


class RegionsTraining(Background):
    """What S and L learn in the first of two regions, and what they find in both."""

    def __init__(self) -> None:
        from pddm_lab.teaching.regions import make_regions

        self.regions = make_regions(REGIONS_SEED)
        self.scores: tuple[dict[str, Tensor], ...] = ()
        """By region and letter; empty until it is done."""
        self._step = 0
        super().__init__()

    def _work(self) -> None:
        from pddm_lab.teaching.regions import train_on

        learned = train_on(self.regions[0], REGIONS_STEPS, REGIONS_SEED, self._report)
        self.scores = tuple(scores_by_letter(region, *learned) for region in self.regions)

    def _report(self, step: int) -> None:
        self._step = step
        if self._stop.is_set():
            raise InterruptedError("The server ends.")

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1."""
        return self._step / (2 * REGIONS_STEPS)


@st.cache_resource(max_entries=24, show_spinner=False)
def training(config: PlaneConfig) -> PlaneTraining:
    """The training with these settings, started at the first call. `training.clear(config)` forgets it."""
    return PlaneTraining(config)


@st.cache_resource(show_spinner=False)
def regions_training() -> RegionsTraining:
    """What learns in one region and is searched in two, started at the first call."""
    return RegionsTraining()


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
