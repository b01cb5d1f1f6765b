"""Points on a plane whose classes are laid out so that one distance suits all of them, or none.

The points are raw coordinates, so that positions can be seen; the lab's features have unit length in R^128. Arrays
only: drawing a point set needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from pddm_lab.errors import ConfigError

TRAIN, HELD_OUT = 24, 12
"""Training points and held-out points of a class; a class that never trains has only held-out points."""
EXTENT = ((-3.4, 3.4), (-1.9, 1.9))
"""The part of the plane that is drawn: (from, to) of each axis."""

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
    """Training points; all others are held out."""
    unseen: Bool[np.ndarray, " items"]
    """Points of classes that never train."""
    regions: tuple[str, ...]
    """By class: the name of its part of the plane."""

    def held_out(self, protocol: str) -> Int[np.ndarray, " items"]:
        """Rows to measure on: `known`, held-out points of classes that train; `unseen`, points of those that don't."""
        return np.flatnonzero(~self.trains & (self.unseen == (protocol == "unseen")))

    def region_of(self, rows: Int[np.ndarray, " items"]) -> np.ndarray:
        """The region's name of each row."""
        return np.array(self.regions, dtype=object)[self.labels[rows]]


@dataclass(frozen=True)
class Layout:
    """A kind of point set, and what to look at first."""

    title: str
    summary: str
    """What it shows, in a sentence or two."""
    classes: Callable[[np.random.Generator, int], Classes]
    """Draws the classes, with a given number of points each."""
    path: tuple[tuple[float, float], tuple[float, float]]
    """Start and end of the path along which the mean of a pair moves."""
    length: float
    """Length of a difference that shows most when moved."""
    angle: int
    """Its direction in degrees."""
    anchor: tuple[float, float]
    """The first anchor is the point nearest to this place."""


def make_point_set(name: str, seed: int = 0) -> PointSet:
    """Draw a point set.

    Args:
        name: a key of `LAYOUTS`.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in LAYOUTS:
        raise ConfigError(f"Unknown point set {name!r}. Expected one of {', '.join(LAYOUTS)}.")
    classes = LAYOUTS[name].classes(np.random.default_rng(seed), TRAIN + HELD_OUT)
    drawn = [points[:HELD_OUT] if never else points for _, never, points in classes]
    sizes = [len(points) for points in drawn]
    return PointSet(
        name, np.concatenate(drawn).astype(np.float32), labels=np.repeat(np.arange(len(classes)), sizes),
        trains=np.concatenate([np.arange(size) >= HELD_OUT for size in sizes]),
        unseen=np.repeat([never for _, never, _ in classes], sizes),
        regions=tuple(region for region, _, _ in classes),
    )  # fmt: skip


def without(point_set: PointSet, region: str) -> PointSet:
    """The point set without the training points of a region, so that its classes never train."""
    never = point_set.region_of(np.arange(len(point_set.points))) == region
    kept = ~(never & point_set.trains)
    return replace(
        point_set, points=point_set.points[kept], labels=point_set.labels[kept], trains=point_set.trains[kept],
        unseen=(point_set.unseen | never)[kept],
    )  # fmt: skip


class Span(NamedTuple):
    """What a ruler has to do for one class: reach as far as `half`, and not as far as `nearest`."""

    label: int
    region: str
    half: float
    """Median distance between two of its points."""
    nearest: float
    """The smallest distance of one of its points to a point of another class."""


def spans(point_set: PointSet) -> list[Span]:
    """How wide each class is, and how near the next one lies."""
    away = np.linalg.norm(point_set.points[:, None] - point_set.points, axis=-1)
    result = []
    for label, region in enumerate(point_set.regions):
        own = point_set.labels == label
        within = away[own][:, own]
        half = np.median(within[np.triu_indices(len(within), 1)])
        result.append(Span(label, region, float(half), float(away[own][:, ~own].min())))
    return result


def first_anchor(point_set: PointSet) -> int:
    """The held-out point of a known class nearest to the layout's `anchor`."""
    rows = point_set.held_out("known")
    away = np.linalg.norm(point_set.points[rows] - np.array(LAYOUTS[point_set.name].anchor), axis=1)
    return int(rows[away.argmin()])


def mesh(columns: int = 80) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, "rows columns 2"]]:
    """A grid over the part of the plane that is drawn: x, y, and all points."""
    (left, right), (low, high) = EXTENT
    x = np.linspace(left, right, columns)
    y = np.linspace(low, high, round(columns * (high - low) / (right - left)))
    return x, y, np.stack(np.meshgrid(x, y), axis=-1)


def vector(length: float, angle: float) -> Float[np.ndarray, " 2"]:
    """The difference of a given length and direction in degrees."""
    return length * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])


def path(point_set: PointSet, places: int = 101) -> Float[np.ndarray, "places 2"]:
    """The path of a pair's mean from one region of the point set to the other, in even steps."""
    start, end = np.array(LAYOUTS[point_set.name].path)
    return start + np.linspace(0, 1, places)[:, None] * (end - start)


def _disc(centre: tuple[float, float], radius: float, count: int, random: np.random.Generator) -> np.ndarray:
    """A round class of even density."""
    angle, away = random.uniform(0, 2 * np.pi, count), radius * np.sqrt(random.uniform(0, 1, count))
    return np.array(centre) + away[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _stripe(
    centre: tuple[float, float], angle: float, length: float, count: int, random: np.random.Generator,
    width: float = 0.045,
) -> np.ndarray:  # fmt: skip
    """A long thin class; `angle` in degrees, `width` as a standard deviation."""
    along = random.uniform(-length / 2, length / 2, count)
    across = random.normal(0, width, count).clip(-2.44 * width, 2.44 * width)
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array(centre) + np.stack([cos * along - sin * across, sin * along + cos * across], axis=1)


def _dense_to_sparse(random: np.random.Generator, count: int) -> Classes:
    classes: Classes = []
    for region, x, radius, rows, apart, never in (
        ("dense", -3.05, 0.085, 6, 0.34, (1, 4)), ("dense", -2.6, 0.13, 4, 0.5, (2,)),
        ("between", -2.0, 0.2, 3, 0.75, (1,)), ("between", -1.1, 0.32, 3, 1.0, (0,)),
        ("sparse", 0.1, 0.43, 3, 1.2, (1,)), ("sparse", 1.4, 0.45, 3, 1.22, (2,)),
        ("sparse", 2.75, 0.47, 3, 1.25, (1,)),
    ):  # fmt: skip
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


def _fine_stripes(random: np.random.Generator, count: int) -> Classes:
    offsets = [0.2 * (number - 6) for number in range(13)]
    return [
        *(("lying", at in (2, 6, 10), _stripe((-1.7, off), 0, 2.6, count, random, 0.025))
          for at, off in enumerate(offsets)),
        *(("upright", at in (2, 6, 10), _stripe((1.7 + off, 0.0), 90, 2.6, count, random, 0.025))
          for at, off in enumerate(offsets)),
    ]  # fmt: skip


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
        "Small classes lie close together on the left, wide classes on the right. Points of a wide class are further "
        "apart than the small classes are. One ruler can't fit both.",
        _dense_to_sparse, ((-3.05, 0.0), (2.75, 1.25)), 0.42, 90, (1.4, 0.0),
    ),
    "islands": Layout(
        "Two islands",
        "A dense and a sparse region with a gap between them. Train with other seeds: the loss is near 0 each time, "
        "but whether one threshold on S suits both islands is a matter of luck.",
        _islands, ((-2.06, 0.0), (1.4, 1.2)), 0.42, 90, (1.4, 1.2),
    ),
    "grains": Layout(
        "Two grains",
        "Classes are horizontal stripes on the left and vertical stripes on the right: the same difference stays "
        "within a class on one side and leaves it on the other.",
        _two_grains, ((-1.75, 0.0), (1.71, 0.0)), 0.84, 0, (-1.75, 0.84),
    ),
    "fine": Layout(
        "Fine stripes",
        "Stripes so close together that the nearest point is often in the next stripe. D searches in a circle and "
        "takes it; S has learned in which direction a stripe runs.",
        _fine_stripes, ((-1.7, 0.0), (1.7, 0.0)), 0.4, 0, (-1.7, 0.2),
    ),
    "diagonals": Layout(
        "Diagonals",
        "The same stripes, turned by 45°. |a − b| is the same along and across a stripe, and so is S: no training can "
        "distinguish the two.",
        _diagonals, ((-1.7, 0.0), (1.7, 0.0)), 0.82, 45, (-1.41, -0.29),
    ),
    "even": Layout(
        "One density",
        "Classes of one size, evenly spread: one ruler fits all, and D needs no training.",
        _one_density, ((-2.5, 0.0), (2.5, 0.0)), 0.4, 90, (-0.5, 0.0),
    ),
}  # fmt: skip
"""Every point set by name."""


@dataclass(frozen=True)
class PlaneConfig:
    """Settings of a training on the plane."""

    scene: str = "density"
    """A key of `LAYOUTS`."""
    position: bool = True
    """Whether the unit uses v; otherwise W_v is fixed at 0 and S depends on u alone."""
    seed: int = 0
    """Of the points, the unit's initial weights and the batches."""
    hidden: int = 48
    """Width of the unit's layers."""
    steps: int = 300
    score_margin: float = 0.5
    """alpha, in score units."""

    def __post_init__(self) -> None:
        if self.scene not in LAYOUTS:
            raise ConfigError(f"Unknown point set {self.scene!r}. Expected one of {', '.join(LAYOUTS)}.")
        for name, low, high in (("seed", 0, 2**31 - 1), ("hidden", 2, 256), ("steps", 1, 5000)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} must be {low} to {high}, and is {getattr(self, name)}.")
        if not 0 < self.score_margin <= 10:
            raise ConfigError(f"score_margin must be above 0 and at most 10, and is {self.score_margin}.")
