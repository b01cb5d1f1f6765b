"""What is measured of each query of a stream against a run's catalogue, to see whether the stream drifts.

Every query, of the run or from outside, is compared with the items of the catalogue, and an item that is itself the
query is left out. The reference are the run's own held-out queries: all items of its catalogue but the training
pictures, whose embedding is better than that of any new picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int

from pddm_lab.analysis.decision import Decision, Range
from pddm_lab.data.splits import by_class
from pddm_lab.errors import DataError, RunError
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.metrics.density import radius_from
from pddm_lab.progress import Progress
from pddm_lab.runs.model import load_similarities, trained_with_updates
from pddm_lab.runs.run import Run

SIGNALS = {
    "distance": ("Distance", "D to the nearest item"),
    "score": ("Score", "by the run's own similarity, of the most similar item"),
    "margin": ("Margin", "how much farther the nearest item of another class is, in D"),
    "radius": ("Radius", "mean D to the ten nearest items: large where items lie sparsely"),
    "familiarity": ("Familiarity", "cosine to the nearest centre of a training class"),
    "probability": ("Probability", "that the class of the nearest item is right"),
    "classes": ("Classes", "which classes the queries are taken for, all together"),
    "features": ("Features", "the whole features, all together"),
}
"""Signal -> (title, what it is of a query). The last two are of a window of queries."""
MOST_REFERENCE = 3000
"""Held-out queries that are measured; of more, a seeded sample."""
_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Stream:
    """Queries in their order, with what was measured of each."""

    signals: dict[str, Float[np.ndarray, " queries"]]
    """Those of `SIGNALS` that are of one query, as far as they are known."""
    space: Float[np.ndarray, "queries dim"]
    """The points that are compared as a whole: the features, or the signals where there are none."""
    classes: Int[np.ndarray, " queries"] | None = None
    """Label of the nearest item; None without labels."""
    in_range: Bool[np.ndarray, " queries"] | None = None
    """Whether it is taken to be in the range; None where nothing is decided."""

    def __len__(self) -> int:
        return len(self.space)

    def take(self, rows: Int[np.ndarray, " rows"]) -> Stream:
        """Some of the queries, in the order of their rows."""
        classes, in_range = (None if of is None else of[rows] for of in (self.classes, self.in_range))
        return Stream({name: of[rows] for name, of in self.signals.items()}, self.space[rows], classes, in_range)

    def then(self, other: Stream) -> Stream:
        """This stream and another one after it, with the signals that both have."""
        names = [name for name in self.signals if name in other.signals]
        return Stream(
            {name: np.concatenate([self.signals[name], other.signals[name]]) for name in names},
            np.concatenate([self.space, other.space]), _joined(self.classes, other.classes),
            _joined(self.in_range, other.in_range),
        )  # fmt: skip


def _joined(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return None if one is None or other is None else np.concatenate([one, other])


@dataclass(frozen=True, eq=False)
class Gauge:
    """Measures queries against the catalogue of a run."""

    by_distance: Range
    by_score: Range
    decision: Decision | None
    """By D; None without labels, or where there are too few items."""
    centres: Float[torch.Tensor, "classes dim"] | None
    """Mean directions of the training classes; None where nothing was trained on."""
    ids: list[str]
    """Of the searched items."""
    class_names: dict[int, str]
    """Label -> name; empty without labels."""
    held_out: Int[np.ndarray, " queries"]
    """Places among the searched items of those that were not trained on."""

    @classmethod
    def of(cls, run: Run) -> Gauge:
        """The gauge of a run.

        Raises:
            RunError: the run has no gallery or no model.
        """
        names = run.galleries()
        if not names:
            raise RunError(f"{run.name} has no gallery to compare queries with. {run.hint()}")
        gallery = run.gallery(names[0])
        rows = gallery.rows("gallery")
        features = torch.from_numpy(np.array(gallery.features[rows]))
        labels = gallery.items["label"].to_numpy()[rows] if run.is_labelled else np.arange(len(rows))
        similarities = load_similarities(run)
        by_distance = Range.over(features, labels, similarities["euclidean"])
        named = gallery.items.drop_duplicates("label") if run.is_labelled else gallery.items[:0]
        trained = _trained(run, gallery)[rows]
        return cls(
            by_distance, Range.over(features, labels, similarities[run.config.similarity]),
            _decision(by_distance) if run.is_labelled else None,
            _centres(features, labels, trained) if run.is_labelled else None,
            gallery.items["id"].iloc[rows].astype(str).tolist(),
            dict(zip(named["label"].astype(int), named["class_name"].astype(str), strict=True)),
            np.flatnonzero(~trained),
        )  # fmt: skip

    def sample(self, seed: int = 0) -> Int[np.ndarray, " queries"]:
        """Places of the held-out items in random order, at most `MOST_REFERENCE`."""
        return np.random.default_rng(seed).permutation(self.held_out)[:MOST_REFERENCE]

    def own(self, places: Int[np.ndarray, " queries"], progress: Progress | None = None) -> Stream:
        """Items of the catalogue as queries, each left out of it."""
        return self.read(self.by_distance.features[torch.from_numpy(places)].numpy(), places, progress)

    @torch.no_grad()
    def read(
        self, features: Float[np.ndarray, "queries dim"], own: Int[np.ndarray, " queries"] | None = None,
        progress: Progress | None = None,
    ) -> Stream:  # fmt: skip
        """Measure queries.

        Args:
            features: of unit length.
            own: the item of the catalogue, by its place, that each query is another picture of or that is itself the
                query, and that it is not compared with; None: none.
            progress: called with (queries, all, "queries").
        """
        query, parts = torch.from_numpy(np.asarray(features, dtype=np.float32)), []
        for start in range(0, len(query), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            parts.append(self._read(query[part], None if own is None else torch.from_numpy(own[part])))
            if progress:
                progress(min(start + _AT_ONCE, len(query)), len(query), "queries")
        stream = parts[0]
        for later in parts[1:]:
            stream = stream.then(later)
        return stream

    def _read(self, query: torch.Tensor, own: torch.Tensor | None) -> Stream:
        near = self.by_distance.nearest(query, own=own)
        same = self.by_score is self.by_distance or self.by_score.by is self.by_distance.by
        scores = near if same else self.by_score.nearest(query, own=own)
        # Items that are left out come last, with minus infinity.
        distances = np.where(np.isfinite(near.scores), -near.scores, np.nan)
        signals = {"distance": distances[:, 0], "score": scores.scores[:, 0], "radius": radius_from(distances)}
        if same:
            del signals["score"]
        in_range = None
        if self.class_names:
            signals["margin"] = near.signs()[:, 1]
        if self.decision is not None:
            signals["probability"] = self.decision.probability(near)
            in_range = self.decision.in_range(signals["probability"])
        if self.centres is not None:
            signals["familiarity"] = (F.normalize(query, dim=1) @ self.centres.T).amax(1).numpy()
        ordered = {name: np.asarray(signals[name], dtype=float) for name in SIGNALS if name in signals}
        return Stream(ordered, query.numpy(), near.first if self.class_names else None, in_range)


def _trained(run: Run, gallery: Gallery) -> Bool[np.ndarray, " items"]:
    """Which items of a gallery are training pictures: in a run that no update made, those that are searched in the
    gallery of the known classes."""
    if (with_updates := trained_with_updates(run)) is not None:
        return gallery.items["id"].isin(with_updates).to_numpy()
    if "known" not in run.galleries():
        return np.zeros(len(gallery), bool)
    known = run.gallery("known")
    items = known.items.iloc[np.setdiff1d(known.rows("gallery"), known.rows("query"))]
    return gallery.items["id"].isin(items["id"]).to_numpy()


def _centres(
    features: Float[torch.Tensor, "items dim"], labels: Int[np.ndarray, " items"], trained: Bool[np.ndarray, " items"]
) -> Float[torch.Tensor, "classes dim"] | None:
    """Of the training pictures alone: a held-out query must not be part of the centre that it is compared with."""
    members = by_class(labels, np.flatnonzero(trained))
    if not members:
        return None
    return F.normalize(torch.stack([features[torch.from_numpy(rows)].mean(0) for rows in members.values()]), dim=1)


def _decision(of: Range) -> Decision | None:
    try:
        return Decision.fit(of)
    except DataError:  # too few items
        return None
