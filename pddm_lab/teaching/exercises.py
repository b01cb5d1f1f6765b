"""The lesson's exercises: a question, what one may predict, and the answer as it was measured.

The page Local vs global and the file of `pddm-lab lesson` show the same ones. A question needs the points only, so that
a class can think while the unit trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pddm_lab.teaching.point_sets import PlaneConfig, PointSet

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int

    from pddm_lab.local.unit import LocalStructure
    from pddm_lab.model.pddm import PDDM
    from pddm_lab.teaching.regions import Region

PARTS = {
    "pair": "1. Two points", "stripes": "2. All points", "regions": "3. A new region",
    "neighbourhoods": "4. Neighbourhoods", "plane": "Try it yourself",
}  # fmt: skip
"""Titles of the lesson's parts: three exercises, the second act, and the plane with all its settings."""
STRIPES = PlaneConfig("fine")
"""The training of the first two exercises."""
REGIONS_SEED, REGIONS_STEPS = 0, 200
"""Of the two regions in the third exercise and the second act."""
_FARTHEST = 0.6  # of a point of the pair, so that the picture shows all three close together


@dataclass(frozen=True)
class Exercise:
    """A question, and what one may predict."""

    question: str
    choices: dict[str, str]
    """What each choice says, by its key."""


@dataclass(frozen=True)
class Answer:
    """What happened."""

    choice: str
    """The key of the right choice."""
    values: dict[str, str]
    """What was measured, as text by its name."""
    result: str
    """The same in a sentence."""
    reason: str


class Pair(NamedTuple):
    """A query and two candidates, as rows of the points."""

    query: int
    a: int
    """The nearest held-out point of the query's class."""
    b: int
    """The nearest held-out point of another class, nearer than `a`."""


class Search(NamedTuple):
    """The most similar other point of each point."""

    rows: Int[np.ndarray, " items"]
    """The points that search and are searched."""
    nearest: Int[np.ndarray, " items"]
    """Rows of the points."""
    right: np.ndarray
    """Whether it has the same class, (items,) bool."""

    def __str__(self) -> str:
        return f"{100 * self.right.mean():.0f} %"


def search(scores: Float[np.ndarray, "items items"], labels: np.ndarray, rows: np.ndarray) -> Search:
    """Search each point among all the others.

    Args:
        scores: between the points of `rows`; larger is more similar.
        labels: of all points.
        rows: the points.
    """
    others = scores.copy()
    np.fill_diagonal(others, -np.inf)
    nearest = rows[others.argmax(1)]
    return Search(rows, nearest, labels[nearest] == labels[rows])


def distances(points: Float[np.ndarray, "items 2"]) -> Float[np.ndarray, "items items"]:
    """D of all pairs."""
    return np.linalg.norm(points[:, None] - points, axis=-1)


def pair_to_judge(point_set: PointSet) -> Pair:
    """The query where D is misled most: its own class begins far beyond another one.

    Only held-out points of known classes count, and only candidates that lie close enough to be seen in one picture.
    """
    rows = point_set.held_out("known")
    away, labels = distances(point_set.points[rows]), point_set.labels[rows]
    np.fill_diagonal(away, np.inf)
    same = labels[:, None] == labels
    own, other = np.where(same, away, np.inf), np.where(same, np.inf, away)
    ratio = np.where(own.min(1) <= _FARTHEST, own.min(1) / other.min(1), 0)
    query = int(ratio.argmax())
    return Pair(*(int(rows[row]) for row in (query, own[query].argmin(), other[query].argmin())))


def searches_in(point_set: PointSet, unit: PDDM) -> dict[str, Search]:
    """Each held-out point of a known class searched among the others, by D and by S."""
    from pddm_lab.teaching.plane import score

    rows = point_set.held_out("known")
    points = point_set.points[rows]
    by = {"D": -distances(points), "S": score(unit, points[:, None], points)}
    return {name: search(scores, point_set.labels, rows) for name, scores in by.items()}


def scores_by_letter(region: Region, unit: PDDM, structure: LocalStructure) -> dict[str, torch.Tensor]:
    """Similarities of all points of a region by D, by S and by L, (items, items) each."""
    from pddm_lab.teaching.regions import METHODS, scores_in

    by_method = scores_in(region, unit, structure)
    return {letter: by_method[method] for letter, method in zip("DSL", METHODS, strict=True)}


def on_one_plane(regions: Sequence[Region]) -> tuple[np.ndarray, np.ndarray]:
    """Points and labels of regions together, each region with classes of its own."""
    points, labels = (np.concatenate([getattr(of, name).numpy() for of in regions]) for name in ("points", "labels"))
    classes = [int(region.labels.max()) + 1 for region in regions]
    before = np.cumsum([0, *classes[:-1]])
    return points, labels + np.repeat(before, [len(region.labels) for region in regions])


def searches_in_regions(scores: Sequence[Mapping[str, torch.Tensor]], labels: np.ndarray) -> list[dict[str, Search]]:
    """Each point of a region searched among its others, by D and by S.

    Args:
        scores: by region, as `scores_by_letter` gives them.
        labels: of the points of all regions, as `on_one_plane` gives them.
    """
    starts = np.cumsum([0, *(len(of["D"]) for of in scores)])
    rows = [np.arange(start, end) for start, end in pairwise(starts)]
    return [
        {name: search(of[name].numpy(), labels, own) for name in "DS"} for of, own in zip(scores, rows, strict=True)
    ]


def pair_exercise(point_set: PointSet) -> Exercise:
    """Two candidates for one query."""
    d_a, d_b = _distances_to(point_set, pair_to_judge(point_set))
    return Exercise(
        f"The cross is a query. Point b is nearer to it: D is {d_b:.2f} to b and {d_a:.2f} to a. S learns from the "
        "small points which ones belong together. Which point will be more similar to the query by S?",
        {"a": "a, although it is farther away", "b": "b, the nearer one"},
    )


def pair_answer(point_set: PointSet, unit: PDDM) -> Answer:
    """Which candidate S prefers."""
    from pddm_lab.teaching.plane import score

    pair = pair_to_judge(point_set)
    s_a, s_b = score(unit, point_set.points[pair.query], point_set.points[[pair.a, pair.b]]).tolist()
    d_a, d_b = _distances_to(point_set, pair)
    choice = "a" if s_a > s_b else "b"
    own = "which is in the query's stripe" if choice == "a" else "which is in another stripe than the query"
    (region,) = point_set.region_of(np.array([pair.query]))
    stripes, along, across = ("lie", "x", "y") if region == "lying" else ("stand", "y", "x")
    return Answer(
        choice,
        {"S to a": _number(s_a), "S to b": _number(s_b), "D to a": _number(d_a), "D to b": _number(d_b)},
        f"S is larger to {choice}, {own}. D is smaller to b.",
        "All places inside the orange line are more similar to the query than b by S, all inside the blue circle by D. "
        f"The stripes {stripes} here. To suit them, a difference along {along} must count for little and one along "
        f"{across} for much; on the other side of the plane it is the other way round. A ruler for all places can't.",
    )


def stripes_exercise(point_set: PointSet) -> Exercise:
    """All held-out points of the fine stripes."""
    count = len(point_set.held_out("known"))
    return Exercise(
        f"On the left stripes lie, on the right they stand. Each of {count} new points searches the most similar one "
        "among all the others. For how many will it be of the right class?",
        {"S": "S will be right more often", "D": "D will be right more often", "same": "Both will be right as often"},
    )


def stripes_answer(point_set: PointSet, unit: PDDM) -> Answer:
    """R@1 of both on the fine stripes."""
    by = searches_in(point_set, unit)
    s, d = (int(by[name].right.sum()) for name in "SD")
    count = len(by["S"].rows)
    return Answer(
        _ahead(s, d),
        {"R@1 of S": str(by["S"]), "R@1 of D": str(by["D"])},
        f"S is right for {s} of {count} points, D for {d}. This share is called R@1.",
        "Each line joins a point to the most similar one where that is of another class: blue by D, orange by S. One "
        "ruler can't suit both sides. S sees where a pair lies, and learned another ruler for each side.",
    )


def regions_exercise() -> Exercise:
    """S in a region that it never saw."""
    return Exercise(
        "Now S learns in the left region only, where stripes lie. In the right region they stand, and S never sees it "
        "before we search there. Which one will be right more often in the right region?",
        {"S": "S: it has learned what a stripe is", "D": "D: it needs to learn nothing", "same": "Both, equally often"},
    )


def regions_answer(trained: Mapping[str, Search], new: Mapping[str, Search]) -> Answer:
    """R@1 of S and D in both regions.

    Args:
        trained: by similarity, where S learned.
        new: where it didn't.
    """
    return Answer(
        _ahead(int(new["S"].right.sum()), int(new["D"].right.sum())),
        {"R@1 of S, new region": str(new["S"]), "R@1 of D, new region": str(new["D"])},
        f"Where S learned, S is right for {trained['S']} of the points and D for {trained['D']}. In the new region S "
        f"is right for {new['S']} and D for {new['D']}.",
        "S knows places by their coordinates: “a difference along x hardly counts”. In the new region this is wrong. "
        "New classes lie in new places, so this is what happens with new classes in practice. Is there another way to "
        "describe a place?",
    )


def right_among(scores: torch.Tensor, region: Region) -> np.ndarray:
    """How many of each point's most similar others are of its class, (items,), of as many as its class has others."""
    others = scores.clone().fill_diagonal_(-float("inf"))
    first = others.topk(others_of_a_class(region), dim=1).indices
    return (region.labels[first] == region.labels[:, None]).sum(1).numpy()


def middle(region: Region) -> int:
    """The point nearest to the middle of a region."""
    return int((region.points - region.points.mean(0)).square().sum(1).argmin())


def others_of_a_class(region: Region) -> int:
    """How many other points of its class each point has; all classes have the same size."""
    return int((region.labels == region.labels[0]).sum()) - 1


def neighbourhoods(right: Sequence[Mapping[str, float]], count: int) -> tuple[str, str]:
    """The second act: what L finds in both regions, and how.

    Args:
        right: mean number of right points by similarity, where S and L learned and where they didn't.
        count: how many could be right.
    """
    trained, new = ({name: f"{of[name]:.1f}" for name in "DSL"} for of in right)
    return (
        f"Of the {count} most similar points in the new region, {new['L']} are of the right class by L, {new['D']} by "
        f"D and {new['S']} by S. Where S and L learned: L {trained['L']}, D {trained['D']}, S {trained['S']}.",
        "L, local structure, describes a place by its neighbours instead of its coordinates: do both points have the "
        "same nearest points, and is each among the nearest of the other? Along a stripe neighbours lead from point to "
        "point. “The same 8 are nearest to both” means the same everywhere, so what L learned on the left holds on the "
        "right. It needs no labels there. But it needs the other points: one point alone has no neighbourhood.",
    )


def _ahead(s: int, d: int) -> str:
    return "same" if s == d else "S" if s > d else "D"


def _distances_to(point_set: PointSet, pair: Pair) -> tuple[float, float]:
    away = np.linalg.norm(point_set.points[[pair.a, pair.b]] - point_set.points[pair.query], axis=1)
    return float(away[0]), float(away[1])


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
