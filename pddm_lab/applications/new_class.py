"""How well is a new class recognised from its first pictures, in a range of classes that have all of theirs?

Each class in turn is new: n of its pictures join the gallery of all other classes, and those that are left are the
queries. In the episodes of few_shot.py every class has n pictures; here the others have many, which is harder for the
new one. The neighbourhoods that local structure looks at follow each change as those of a catalogue do (upkeep.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pddm_lab.analysis.decision import Range, Shortlists
from pddm_lab.applications.few_shot import NEIGHBOURS, SHOTS, Episode, Episodes, vote
from pddm_lab.applications.open_set import compared_by
from pddm_lab.errors import RunError
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.local.neighbourhoods import Neighbourhoods
from pddm_lab.local.unit import LocalStructure
from pddm_lab.local.upkeep import change, refresh
from pddm_lab.metrics.intervals import percentile_interval
from pddm_lab.model.similarity import Similarity
from pddm_lab.progress import Progress
from pddm_lab.runs.run import Run

METRICS = {"recall@1": "R@1", "vote": "k-NN"}
"""Metric -> title: the nearest item is of the class; most of the nearest are, as many as it has pictures, at most 5."""
RESAMPLES = 2000


def new_classes(
    run: Run, draws: int = 5, *, protocol: str = "unseen", shots: Sequence[int] = SHOTS, seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Let each class of a protocol be new once a draw.

    All numbers of pictures are measured on the same classes and the same queries: those that are left beside the
    largest number.

    Args:
        run: finished.
        draws: how often the pictures that come first are drawn.
        protocol: unseen, whose classes the run was never trained on, or known.
        shots: numbers of pictures; those that fewer than half of the classes can give are left out.
        seed: of the draws.
        progress: called after each class.

    Returns:
        protocol, draw, class, shots, similarity, items (of the gallery), queries, and a column for each of `METRICS`.

    Raises:
        RunError: the run has no labels, or no such gallery.
        LabError: too few pictures.
    """
    if not run.is_labelled:
        raise RunError(f"The items of {run.name} have no labels: which are of a new class is not known.")
    gallery = run.gallery(protocol)
    labels, names = gallery.items["label"].to_numpy(), gallery.items["class_name"].to_numpy()
    searched = gallery.rows("gallery")
    episodes = Episodes(labels, searched, gallery.rows("query"), shots=shots, ways=0, queries=len(labels), seed=seed)
    drawn = [_by_class(episodes.episode(draw), labels) for draw in range(draws)]
    ranges = {name: _Joined(gallery, searched, similarity) for name, similarity in compared_by(run).items()}
    rows: list[dict[str, Any]] = []
    for at, label in enumerate(episodes.classes.tolist()):
        others = searched[labels[searched] != label]
        for joined in ranges.values():
            joined.begin(others)
        for draw, count in product(range(draws), episodes.shots):
            pictures, query = drawn[draw][label]
            for name, joined in ranges.items():
                near = joined.nearest(pictures[:count], query)
                voted = vote(near.labels[:, : min(count, NEIGHBOURS)])
                rows.append({
                    "protocol": protocol, "draw": draw, "class": names[pictures[0]], "shots": count,
                    "similarity": name, "items": len(others) + count, "queries": len(query),
                    "recall@1": float((near.first == label).mean()), "vote": float((voted == label).mean()),
                })  # fmt: skip
        if progress:
            progress(at + 1, len(episodes.classes), "new classes")
    return pd.DataFrame(rows)


def _by_class(episode: Episode, labels: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Class -> its pictures to learn from, its queries."""
    return {
        int(labels[pictures[0]]): (pictures, episode.query[labels[episode.query] == labels[pictures[0]]])
        for pictures in episode.support
    }


class _Joined:
    """A gallery that some pictures join, compared by one similarity."""

    def __init__(self, gallery: Gallery, searched: np.ndarray, by: Similarity | LocalStructure) -> None:
        self._features, self._labels = torch.from_numpy(np.array(gallery.features)), gallery.items["label"].to_numpy()
        self._pretrained = None if gallery.pretrained is None else torch.from_numpy(np.array(gallery.pretrained))
        self._by, self._searched = by, searched
        self._z = self._whole = None
        if isinstance(by, LocalStructure):
            self._z = by.space(self._features, self._pretrained)
            self._whole = by.reference(self._features[searched], self._of(searched))

    def begin(self, others: np.ndarray) -> None:
        """Let the gallery be these of the searched items."""
        self._others = others
        self._reference = self._changed(self._whole, np.searchsorted(self._searched, others), others)

    def nearest(self, pictures: np.ndarray, query: np.ndarray) -> Shortlists:
        """The items near each query once pictures have joined."""
        items = np.concatenate([self._others, pictures])
        origin = np.concatenate([np.arange(len(self._others)), np.full(len(pictures), -1)])
        reference = self._changed(self._reference, origin, items)
        joined = Range.over(self._features[items], self._labels[items], self._by, self._of(items), reference)
        return joined.nearest(self._features[query], self._of(query))

    def _changed(self, before: Neighbourhoods | None, origin: np.ndarray, items: np.ndarray) -> Neighbourhoods | None:
        if before is None or self._z is None:
            return None
        assert isinstance(self._by, LocalStructure)
        return refresh(self._by, change(before, self._z[items], torch.from_numpy(origin)))

    def _of(self, rows: np.ndarray) -> Tensor | None:
        return None if self._pretrained is None else self._pretrained[rows]


def summary(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Means over the classes, each of which counts alike, and how far each similarity is ahead of D.

    Args:
        table: as `new_classes` returns it.
        seed: of the bootstrap over classes.

    Returns:
        protocol, shots, similarity, classes, draws; for each metric its mean, <metric> deviation (over the draws),
        <metric> low and high (95 % interval over classes), and <metric> ahead, ahead low and ahead high: minus D.
    """
    rows = []
    for (protocol, shots), part in table.groupby(["protocol", "shots"], sort=False):
        by = {name: of for name, of in part.groupby("similarity", sort=False)}
        for name, of in by.items():
            row: dict[str, Any] = {"protocol": protocol, "shots": shots, "similarity": name}
            row |= {"classes": of["class"].nunique(), "draws": of["draw"].nunique()}
            for metric in METRICS:
                wide = [one.pivot(index="draw", columns="class", values=metric) for one in (of, by["euclidean"])]
                values, lead = wide[0], wide[0] - wide[1]
                row |= {metric: values.to_numpy().mean(), f"{metric} deviation": values.mean(axis=1).std(ddof=0)}
                for what, each in (("", values), (" ahead", lead)):
                    low, high = percentile_interval(_resampled(each.to_numpy().mean(axis=0), seed))
                    row |= {f"{metric}{what} low": float(low), f"{metric}{what} high": float(high)}
                row[f"{metric} ahead"] = lead.to_numpy().mean()
            rows.append(row)
    return pd.DataFrame(rows)


def _resampled(of_classes: np.ndarray, seed: int) -> np.ndarray:
    """Means over classes that are drawn with replacement."""
    drawn = np.random.default_rng(seed).integers(0, len(of_classes), (RESAMPLES, len(of_classes)))
    return of_classes[drawn].mean(axis=1)
