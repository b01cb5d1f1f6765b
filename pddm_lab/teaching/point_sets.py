"""Points on a plane whose classes are laid out so that one distance fits all of them, or none.

The points are raw coordinates. Features of the lab have unit length in R^128: the plane drops that, so that a position
can be seen. Arrays only: what draws a scene needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from pddm_lab.errors import ConfigError

TRAIN, HELD_OUT = 24, 12
"""Points of a class that train, and others that measure; a class that never trains has only the latter."""
EXTENT = ((-3.4, 3.4), (-1.9, 1.9))
"""The part of the plane that is drawn: from and to, by axis."""

Classes: TypeAlias = list[tuple[str, bool, np.ndarray]]
"""(region, whether it never trains, points of shape (count, 2)) of each class."""


@dataclass(frozen=True, eq=False)
class PointSet:
    """Points of several classes, some of which never train."""

    name: str
    points: Float[np.ndarray, "items 2"]
    """float32."""
    labels: Int[np.ndarray, " items"]
    trains: Bool[np.ndarray, " items"]
    """Points the unit is trained on; all others are held out."""
    unseen: Bool[np.ndarray, " items"]
    """Points of classes that never train."""
    regions: tuple[str, ...]
    """By class: the name of its part of the plane."""

    def held_out(self, protocol: str) -> Int[np.ndarray, " items"]:
        """Rows to measure on: `known`, new points of classes that trained; `unseen`, points of those that didn't."""
        return np.flatnonzero(~self.trains & (self.unseen == (protocol == "unseen")))

    def region_of(self, rows: Int[np.ndarray, " items"]) -> np.ndarray:
        """The region's name of each row."""
        return np.array(self.regions, dtype=object)[self.labels[rows]]


@dataclass(frozen=True)
class Layout:
    """A kind of scene, and where to look in it."""

    title: str
    summary: str
    """What it shows, in a sentence or two."""
    classes: Callable[[np.random.Generator, int], Classes]
    """Draws the classes, each of so many points."""
    path: tuple[tuple[float, float], tuple[float, float]]
    """From where to where the mean of a pair is moved."""
    length: float
    """A difference worth moving: its length,"""
    angle: int
    """and its direction in degrees."""
    anchor: tuple[float, float]
    """Where the first anchor is looked for."""


def make_point_set(name: str, seed: int = 0) -> PointSet:
    """Draw a scene.

    Args:
        name: a key of `LAYOUTS`.
        seed: of its points.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in LAYOUTS:
        raise ConfigError(f"Unknown scene {name!r}. Expected one of {', '.join(LAYOUTS)}.")
    classes = LAYOUTS[name].classes(np.random.default_rng(seed), TRAIN + HELD_OUT)
    drawn = [points[:HELD_OUT] if never else points for _, never, points in classes]
    sizes = [len(points) for points in drawn]
    return PointSet(
        name,
        np.concatenate(drawn).astype(np.float32),
        labels=np.repeat(np.arange(len(classes)), sizes),
        trains=np.concatenate([np.arange(size) >= HELD_OUT for size in sizes]),
        unseen=np.repeat([never for _, never, _ in classes], sizes),
        regions=tuple(region for region, _, _ in classes),
    )


def without(scene: PointSet, region: str) -> PointSet:
    """The scene with a region whose classes never train: of these only the points that measure are left."""
    never = scene.region_of(np.arange(len(scene.points))) == region
    kept = ~(never & scene.trains)
    return PointSet(
        scene.name, scene.points[kept], scene.labels[kept], scene.trains[kept], (scene.unseen | never)[kept],
        scene.regions,
    )  # fmt: skip


class Span(NamedTuple):
    """What a ruler has to do for one class: reach as far as `half`, and not as far as `nearest`."""

    label: int
    region: str
    half: float
    """Half of the pairs of its points lie nearer together than this."""
    nearest: float
    """The smallest distance of one of its points to a point of another class."""


def spans(scene: PointSet) -> list[Span]:
    """How wide each class is, and how near the next one lies."""
    away = np.linalg.norm(scene.points[:, None] - scene.points, axis=-1)
    found = []
    for label, region in enumerate(scene.regions):
        own = scene.labels == label
        within = away[own][:, own]
        half = np.median(within[np.triu_indices(len(within), 1)])
        found.append(Span(label, region, float(half), float(away[own][:, ~own].min())))
    return found


def first_anchor(scene: PointSet) -> int:
    """The held-out point of a known class that lies nearest to where the scene is best looked at first."""
    rows = scene.held_out("known")
    away = np.linalg.norm(scene.points[rows] - np.array(LAYOUTS[scene.name].anchor), axis=1)
    return int(rows[away.argmin()])


def mesh(columns: int = 80) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, "rows columns 2"]]:
    """A grid over what is drawn of the plane: its x, its y, and its points."""
    (left, right), (low, high) = EXTENT
    x = np.linspace(left, right, columns)
    y = np.linspace(low, high, round(columns * (high - low) / (right - left)))
    return x, y, np.stack(np.meshgrid(x, y), axis=-1)


def vector(length: float, angle: float) -> Float[np.ndarray, " 2"]:
    """A difference from its length and its direction in degrees."""
    return length * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])


def path(scene: PointSet, places: int = 101) -> Float[np.ndarray, "places 2"]:
    """Where the mean of a pair is moved: from one region of the scene to the other, in even steps."""
    start, end = np.array(LAYOUTS[scene.name].path)
    return start + np.linspace(0, 1, places)[:, None] * (end - start)


def _disc(centre: tuple[float, float], radius: float, count: int, random: np.random.Generator) -> np.ndarray:
    """A round class, evenly filled."""
    angle, away = random.uniform(0, 2 * np.pi, count), radius * np.sqrt(random.uniform(0, 1, count))
    return np.array(centre) + away[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _stripe(
    centre: tuple[float, float], angle: float, length: float, count: int, random: np.random.Generator
) -> np.ndarray:
    """A long thin class; `angle` in degrees."""
    along, across = random.uniform(-length / 2, length / 2, count), random.normal(0, 0.045, count).clip(-0.11, 0.11)
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array(centre) + np.stack([cos * along - sin * across, sin * along + cos * across], axis=1)


def _dense_to_sparse(random: np.random.Generator, count: int) -> Classes:
    classes: Classes = []
    for region, x, radius, rows, apart, never in (
        ("dense", -3.05, 0.085, 6, 0.34, (1, 4)),
        ("dense", -2.6, 0.13, 4, 0.5, (2,)),
        ("between", -2.0, 0.2, 3, 0.75, (1,)),
        ("between", -1.1, 0.32, 3, 1.0, (0,)),
        ("sparse", 0.1, 0.43, 3, 1.2, (1,)),
        ("sparse", 1.4, 0.45, 3, 1.22, (2,)),
        ("sparse", 2.75, 0.47, 3, 1.25, (1,)),
    ):
        for row in range(rows):
            centre = (x, (row - (rows - 1) / 2) * apart)
            classes.append((region, row in never, _disc(centre, radius, count, random)))
    return classes


def _islands(random: np.random.Generator, count: int) -> Classes:
    places = list(product(range(3), range(3)))
    dense = [(-2.4 + 0.34 * column, 0.34 * row - 0.34) for column, row in places]
    sparse = [(0.15 + 1.25 * column, 1.2 * row - 1.2) for column, row in places]
    return [
        *(("dense", at in (6, 7, 8), _disc(centre, 0.085, count, random)) for at, centre in enumerate(dense)),
        *(("sparse", at in (4, 7), _disc(centre, 0.45, count, random)) for at, centre in enumerate(sparse)),
    ]


def _two_grains(random: np.random.Generator, count: int) -> Classes:
    lying = [(-1.75, 0.42 * row - 1.26) for row in range(7)]
    upright = [(0.45 + 0.42 * column, 0.0) for column in range(7)]
    return [
        *(("lying", at in (2, 3), _stripe(centre, 0, 2.6, count, random)) for at, centre in enumerate(lying)),
        *(("upright", at in (2, 3), _stripe(centre, 90, 2.6, count, random)) for at, centre in enumerate(upright)),
    ]


def _diagonals(random: np.random.Generator, count: int) -> Classes:
    offsets = [0.29 * (number - 3) for number in range(7)]
    rising, falling = [(off - 1.7, -off) for off in offsets], [(off + 1.7, off) for off in offsets]
    return [
        *(("rising", at in (2, 3), _stripe(centre, 45, 2.0, count, random)) for at, centre in enumerate(rising)),
        *(("falling", at in (2, 3), _stripe(centre, 135, 2.0, count, random)) for at, centre in enumerate(falling)),
    ]


def _one_density(random: np.random.Generator, count: int) -> Classes:
    centres = [(column - 2.5, 1.2 * row - 1.2 + 0.15 * (-1) ** column) for column in range(6) for row in range(3)]
    return [("everywhere", at in (7, 8, 10), _disc(centre, 0.25, count, random)) for at, centre in enumerate(centres)]


LAYOUTS = {
    "density": Layout(
        "Dense to sparse",
        "Small classes close together on the left, wide classes on the right: within a wide class points lie further "
        "apart than small classes do. One ruler can't fit both.",
        _dense_to_sparse, ((-3.05, 0.0), (2.75, 1.25)), 0.42, 90, (1.4, 0.0),
    ),
    "islands": Layout(
        "Two islands",
        "Dense and sparse, with a gap between. Train with other seeds: the loss is near 0 each time, but whether one "
        "threshold on S fits both islands is a matter of luck.",
        _islands, ((-2.06, 0.0), (1.4, 1.2)), 0.42, 90, (1.4, 1.2),
    ),
    "grains": Layout(
        "Two grains",
        "Classes are lying stripes on the left, upright stripes on the right: the same difference stays within a class "
        "here and leaves it there.",
        _two_grains, ((-1.75, 0.0), (1.71, 0.0)), 0.84, 0, (-1.75, 0.84),
    ),
    "diagonals": Layout(
        "Diagonals",
        "The same stripes, turned by 45°. Along and across a stripe |a − b| is the same, and so is S: no training can "
        "tell them apart.",
        _diagonals, ((-1.7, 0.0), (1.7, 0.0)), 0.82, 45, (-1.41, -0.29),
    ),
    "even": Layout(
        "One density",
        "Classes of one size, evenly spread: one ruler fits all, and D needs no training.",
        _one_density, ((-2.5, 0.0), (2.5, 0.0)), 0.4, 90, (-0.5, 0.0),
    ),
}  # fmt: skip
"""Every scene by name."""


@dataclass(frozen=True)
class PlaneConfig:
    """Choices of a training on the plane."""

    scene: str = "density"
    """A key of `LAYOUTS`."""
    position: bool = True
    """Whether the unit sees v; without, W_v is held at 0 and S depends on u alone."""
    seed: int = 0
    """Of the points, the unit's start and the batches."""
    hidden: int = 48
    """Width of the unit's layers."""
    steps: int = 300
    score_margin: float = 0.5
    """alpha, in score units."""

    def __post_init__(self) -> None:
        if self.scene not in LAYOUTS:
            raise ConfigError(f"Unknown scene {self.scene!r}. Expected one of {', '.join(LAYOUTS)}.")
        for name, low, high in (("seed", 0, 2**31 - 1), ("hidden", 2, 256), ("steps", 1, 5000)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must be {low} to {high}, and is {getattr(self, name)}.")
        if not 0 < self.score_margin <= 10:
            raise ConfigError(f"score_margin must be above 0 and at most 10, and is {self.score_margin}.")
