"""Two regions of a plane with striped classes: does what a unit learned in one hold in the other?

In the first region the stripes lie, in the second they stand. In both they are thin and close together at one end, wide
and far apart at the other. Two units of the paper's form learn in the first region by the same loss: PDDM from the
coordinates of two points, the other from their neighbourhoods.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.local.episodes import episode, folds, splits
from pddm_lab.local.fit import QUERIES, first_of, listwise_loss, train_unit
from pddm_lab.local.neighbourhoods import Neighbourhoods
from pddm_lab.local.unit import LocalStructure
from pddm_lab.metrics.retrieval import average_precisions
from pddm_lab.model.pddm import PDDM

ROWS, COLUMNS, EACH = 6, 2, 24
"""Stripes below and beside each other, and the points of each."""
APART = 3.5
"""Between the centres of both regions, which are 2.4 wide."""
_REACH, _WAVES = 0.25, 256
METHODS = ("distance", "unit on coordinates", "unit on neighbourhoods")


@dataclass(frozen=True, eq=False)
class Region:
    """A part of the plane with classes of its own."""

    points: Float[Tensor, "items 2"]
    labels: Int[Tensor, " items"]


def make_regions(seed: int) -> tuple[Region, Region]:
    """The region to learn in, where stripes lie, and another one, where they stand."""
    random = torch.Generator().manual_seed(seed)
    return _region(0.0, False, random), _region(APART, True, random)


def features(points: Float[Tensor, "items 2"]) -> Float[Tensor, "items waves"]:
    """Features of unit length whose cosine falls with the distance like a bell curve, the same everywhere.

    Source: random Fourier features, Rahimi and Recht, NIPS 2007.
    """
    directions = torch.randn(2, _WAVES, generator=torch.Generator().manual_seed(0)) / _REACH
    phases = points @ directions
    return torch.cat([phases.cos(), phases.sin()], dim=1) / math.sqrt(_WAVES)


def train_on(
    region: Region, steps: int, seed: int, report: Callable[[int], None] = lambda step: None
) -> tuple[PDDM, LocalStructure]:
    """Train a unit on coordinates and one on neighbourhoods in a region, by the same loss.

    The unit on neighbourhoods learns from galleries of a part of the classes or of the points, as it does in the lab.

    Args:
        report: called with the number of steps that are done, of 2 * `steps`.
    """
    z, labels = features(region.points), region.labels
    made = [
        one for fold in folds(labels, seed) for split in splits(fold, labels, seed)
        if (one := episode(split, z, labels, 0, seed)) is not None
    ]  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        structure, unit = LocalStructure(z.shape[1], passes=1), PDDM(2, hidden=48)
    train_unit(structure.first, made, first_of, seed, report, steps)
    optimiser = torch.optim.AdamW(unit.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    random = torch.Generator().manual_seed(seed)
    rows = torch.arange(len(labels))
    for step in range(steps):
        query = torch.randperm(len(labels), generator=random)[:QUERIES]
        others = (query[:, None] != rows).nonzero()[:, 1].view(len(query), -1)
        scores = unit(region.points[query, None], region.points[others])
        loss = listwise_loss(scores, labels[query, None] == labels[others])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        report(steps + step + 1)
    return unit.requires_grad_(False), structure.requires_grad_(False)


def scores_in(region: Region, unit: PDDM, structure: LocalStructure) -> dict[str, Float[Tensor, "items items"]]:
    """Similarities of all points of a region by each of `METHODS`, each point searched among all the others."""
    z, points = features(region.points), region.points
    scores = (
        -torch.cdist(points, points), unit(points[:, None], points),
        structure.matrix(Neighbourhoods.of(z), z, torch.arange(len(z))),
    )  # fmt: skip
    return dict(zip(METHODS, scores, strict=True))


def quality(region: Region, scores: Float[Tensor, "items items"]) -> float:
    """MAP@R, each point searched among all the others."""
    return average_precisions(scores.clone(), region.labels, torch.arange(len(region.labels))).mean().item()


def nearest(scores: Float[Tensor, "items items"], point: int, count: int) -> Int[Tensor, " count"]:
    """The most similar others of a point, best first."""
    order = scores[point].argsort(descending=True, stable=True)
    return order[order != point][:count]


def _region(offset: float, standing: bool, random: torch.Generator) -> Region:
    labels = torch.arange(ROWS * COLUMNS).repeat_interleave(EACH)
    row, column = labels % ROWS, labels // ROWS
    width = torch.linspace(0.5, 1.5, ROWS)
    width = 2.4 * width / width.sum()
    place = width.cumsum(0) - width / 2 - 1.2
    along = 1.1 * (torch.rand(len(labels), generator=random) - 0.5) + 1.3 * (column - 0.5)
    across = place[row] + 0.08 * torch.sin(5 * along + labels)
    across = across + 0.16 * width[row] * torch.randn(len(labels), generator=random)
    points = torch.stack([across, along] if standing else [along, across], dim=1)
    return Region(points + torch.tensor([offset, 0.0]), labels)
