"""Recognition without a classifier layer: which class does a picture show, given a few pictures of each?

An **episode** draws some classes, some pictures of each to learn from (the shots) and others to recognise. A plain
method learns from the features: scikit-learn's nearest neighbours, linear SVM or Gaussian naive Bayes, the nearest
class mean, or neighbours by the PDDM score S. The network doesn't change, so classes can come and go immediately.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.applications.feature_spaces import Space, gallery_spaces
from pddm_lab.data.splits import by_class
from pddm_lab.errors import ConfigError, LabError
from pddm_lab.metrics.intervals import mean_intervals
from pddm_lab.model.similarity import Similarity
from pddm_lab.progress import Progress
from pddm_lab.runs.run import Run
from pddm_lab.similarities import PRETRAINED
from pddm_lab.study.cells import Study, key_of

METHODS = {
    "knn": "k-NN", "svm": "linear SVM", "bayes": "naive Bayes", "mean": "nearest class mean", "pddm": "k-NN by S",
}  # fmt: skip
"""Method -> title. The last needs a space with a PDDM score."""
SHOTS = (1, 2, 5, 10)
NEIGHBOURS = 5
"""Neighbours that vote; never more than there are shots."""
SHORTLIST = 50
"""Nearest pictures by Euclidean distance, from which S selects the neighbours."""
SMOOTHING = 1.0
"""Share of the largest variance that naive Bayes adds to each, since a few pictures are too few to estimate one."""


@dataclass(frozen=True, eq=False)
class Episode:
    """Rows of the items of one episode."""

    support: Int[np.ndarray, "ways shots"]
    """Pictures to learn from, a row per class; the first k columns are the class's k shots."""
    query: Int[np.ndarray, " queries"]
    """Pictures to recognise, none of them in the support."""


class Episodes:
    """Episodes, each a pure function of (seed, number).

    Numbers of shots that fewer than half of the classes can provide are left out, then classes with fewer pictures than
    the largest remaining number. All shots are measured on the same classes, so a curve over shots compares only shots.

    Attributes:
        shots: numbers to measure, ascending.
        ways: classes in an episode.
        classes: to draw from.
    """

    def __init__(
        self, labels: Int[np.ndarray, " items"], gallery: Int[np.ndarray, " gallery"],
        query: Int[np.ndarray, " queries"], *, shots: Sequence[int] = SHOTS, ways: int = 20, queries: int = 15,
        seed: int = 0,
    ) -> None:  # fmt: skip
        """Args:
            labels: class of each item.
            gallery: rows to learn from.
            query: rows to recognise; if they equal `gallery`, an episode recognises rows that it doesn't learn from.
            shots: numbers of pictures of each class to learn from.
            ways: classes in an episode; 0, or more than there are: all.
            queries: of each class in an episode, at most.
            seed: of all episodes.

        Raises:
            ConfigError: no number of shots, or one below 1.
            LabError: fewer than two classes have enough pictures.
        """
        if not shots or min(shots) < 1:
            raise ConfigError(f"--shots expects numbers of pictures, 1 or more, got {tuple(shots)}.")
        self._same = np.array_equal(gallery, query)
        self._support, self._query = by_class(labels, gallery), by_class(labels, query)
        spare = {c: len(rows) - self._same for c, rows in self._support.items() if c in self._query}
        counts = np.array(list(spare.values()), dtype=np.int64)
        self.shots = tuple(k for k in sorted(set(shots)) if len(counts) and (counts >= k).mean() >= 0.5)
        self.classes = np.array([c for c in spare if self.shots and spare[c] >= self.shots[-1]], dtype=np.int64)
        if len(self.classes) < 2:
            raise LabError(
                f"Recognition needs at least two classes with {min(shots)} pictures to learn from and one to "
                f"recognise; {len(self.classes)} of {len(self._support)} classes have that."
            )
        self.ways = min(ways, len(self.classes)) if ways else len(self.classes)
        self._queries, self._seed = queries, seed

    def episode(self, number: int) -> Episode:
        """The rows of an episode, 0, 1, 2, ..."""
        rng = np.random.default_rng([self._seed, number])
        support, query = [], []
        for c in rng.permutation(self.classes)[: self.ways].tolist():
            pictures = rng.permutation(self._support[c])
            support.append(pictures[: self.shots[-1]])
            rest = pictures[self.shots[-1] :] if self._same else rng.permutation(self._query[c])
            query.append(rest[: self._queries])
        return Episode(np.stack(support), np.concatenate(query))


def recognise(
    spaces: Sequence[Space], labels: Int[np.ndarray, " items"], episodes: Episodes, count: int,
    *, methods: Sequence[str] = tuple(METHODS), progress: Progress | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Measure the accuracy of every method in every space, all on the same episodes.

    Args:
        spaces: features of the same items.
        methods: keys of `METHODS`; spaces without a PDDM score leave out "pddm".
        progress: called after each episode.

    Returns:
        Columns space, shots, method, episode, ways, queries, accuracy (0 to 1).
    """
    rows: list[dict[str, Any]] = []
    for number in range(count):
        episode = episodes.episode(number)
        for space in spaces:
            similarity = space.similarities.get("pddm")
            chosen = [method for method in methods if method != "pddm" or similarity is not None]
            for k, method, predicted in _predictions(space, similarity, labels, episode, episodes.shots, chosen):
                accuracy = float((predicted == labels[episode.query]).mean())
                fixed = {"ways": episodes.ways, "queries": len(episode.query), "accuracy": accuracy}
                rows.append({"space": space.name, "shots": k, "method": method, "episode": number, **fixed})
        if progress:
            progress(number + 1, count, "episodes")
    return pd.DataFrame(rows)


def _predictions(
    space: Space, similarity: Similarity | None, labels: np.ndarray, episode: Episode, shots: Sequence[int],
    methods: Sequence[str],
) -> Iterator[tuple[int, str, Int[np.ndarray, " queries"]]]:  # fmt: skip
    """Yields (shots, method, predicted class of each query)."""
    queries = space.features[torch.from_numpy(episode.query)]
    for k in shots:
        rows = episode.support[:, :k].ravel()
        support = space.features[torch.from_numpy(rows)]
        for method in methods:
            if method == "pddm":
                assert similarity is not None
                yield k, method, by_score(similarity, queries, support, labels[rows], min(k, NEIGHBOURS))
                continue
            if method == "mean":
                yield k, method, by_mean(queries, support, labels[rows])
                continue
            model = classifier(method, min(k, NEIGHBOURS))
            model.fit(support.cpu().numpy(), labels[rows])
            yield k, method, model.predict(queries.cpu().numpy())


def classifier(method: str, neighbours: int = NEIGHBOURS) -> Any:
    """The scikit-learn classifier for knn, svm or bayes.

    Raises:
        ConfigError: no such method.
    """
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import LinearSVC

    if method == "knn":
        return KNeighborsClassifier(neighbours, weights=_by_rank)
    if method == "svm":
        return LinearSVC(C=1.0)
    if method == "bayes":
        return GaussianNB(var_smoothing=SMOOTHING)
    raise ConfigError(f"Unknown method {method!r}. Expected one of {', '.join(METHODS)}.")


def by_mean(
    queries: Float[Tensor, "queries dim"], support: Float[Tensor, "items dim"], labels: Int[np.ndarray, " items"]
) -> Int[np.ndarray, " queries"]:
    """The class whose mean feature is nearest, so that one vector represents a class.

    Args:
        queries: features to recognise.
        support: features to learn from.
        labels: class of each of these.
    """
    classes, place = np.unique(labels, return_inverse=True)
    sums = support.new_zeros(len(classes), support.shape[1]).index_add_(
        0, torch.from_numpy(place).to(support.device), support
    )
    counts = torch.from_numpy(np.bincount(place)).to(support)
    return classes[torch.cdist(queries, sums / counts[:, None]).argmin(1).cpu().numpy()]


def by_score(
    similarity: Similarity, queries: Float[Tensor, "queries dim"], support: Float[Tensor, "items dim"],
    labels: Int[np.ndarray, " items"], neighbours: int = NEIGHBOURS, shortlist: int = SHORTLIST,
) -> Int[np.ndarray, " queries"]:  # fmt: skip
    """Nearest neighbours by a similarity, which re-ranks a Euclidean shortlist; the best of it vote.

    Args:
        similarity: larger is more similar.
        queries, support, labels: as for `by_mean`.
        neighbours: that vote.
        shortlist: nearest items by Euclidean distance to score.

    Returns:
        The class of each query.
    """
    near = torch.cdist(queries, support).topk(min(shortlist, len(support)), largest=False).indices
    scores = similarity.candidates(queries, support, near)
    best = near.gather(1, scores.topk(min(neighbours, near.shape[1])).indices)
    return vote(labels[best.cpu().numpy()])


def vote(neighbours: Int[np.ndarray, "queries neighbours"]) -> Int[np.ndarray, " queries"]:
    """The most frequent class among the neighbours; on a tie, the one whose neighbours are nearer.

    Args:
        neighbours: classes of each query's neighbours, the nearest first.
    """
    classes, place = np.unique(neighbours, return_inverse=True)
    votes = np.zeros((len(neighbours), len(classes)))
    rows = np.arange(len(neighbours))[:, None]
    np.add.at(votes, (rows, place.reshape(neighbours.shape)), _by_rank(neighbours))
    return classes[votes.argmax(axis=1)]


def _by_rank(nearest_first: np.ndarray) -> np.ndarray:
    """Votes by rank: 1 plus a bonus for nearer ranks. All bonuses together are less than one vote."""
    count = nearest_first.shape[1]
    return np.tile(1 + (count - np.arange(count)) / (count * (count + 1)), (len(nearest_first), 1))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the episodes with 95 % intervals (Student's t), which tell how much other episodes would change them.

    Args:
        table: as `recognise` returns it; other columns, such as `protocol`, define groups.

    Returns:
        The columns that define groups, then episodes, accuracy, low, high.
    """
    keys = [name for name in table.columns if name not in ("episode", "queries", "accuracy")]
    means = mean_intervals(table, keys, "accuracy")
    accuracy, half = means["mean"], means["half"]
    return means[keys].assign(episodes=means["count"], accuracy=accuracy, low=accuracy - half, high=accuracy + half)


def recognise_run(
    run: Run, count: int, *, protocols: Sequence[str] = (), shots: Sequence[int] = SHOTS, ways: int = 20, seed: int = 0,
    methods: Sequence[str] = tuple(METHODS), progress: Progress | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Recognise classes in a run's galleries: the table of `recognise` with a first column `protocol`.

    Args:
        run: finished. Its embedding is compared with the pretrained features if the pictures still exist.
        count: episodes per protocol.
        protocols: unseen, known; empty: those that the run has.
        shots, ways, seed: as for `Episodes`.
        methods, progress: as for `recognise`.

    Raises:
        RunError: no such gallery.
        LabError: too few pictures.
    """
    parts = []
    for protocol in protocols or run.protocols():
        gallery = run.gallery(protocol)
        labels = gallery.items["label"].to_numpy()
        rows = gallery.rows("gallery"), gallery.rows("query")
        episodes = Episodes(labels, *rows, shots=shots, ways=ways, seed=seed)
        table = recognise(gallery_spaces(run, gallery), labels, episodes, count, methods=methods, progress=progress)
        table.insert(0, "protocol", protocol)
        parts.append(table)
    if not parts:
        run.gallery("unseen")  # raises: there is none, and what to do
    return pd.concat(parts, ignore_index=True)


def keep(study: Study, dataset: str, table: pd.DataFrame, seed: int, settings: Mapping[str, Any]) -> None:
    """Write means over episodes to a study: a cell per space, with the methods in the place of similarities.

    The metrics are accuracy@k for k shots, and half@k, half of its 95 % interval.

    Args:
        dataset: that the run was trained on.
        table: as `recognise_run` returns it.
        seed: of the run's training; pretrained features have none, -1.
        settings: of the episodes; a study takes only one such set.

    Raises:
        RunError: the study has cells of other settings.
    """
    study.record_settings("recognition", settings)
    for space, rows in summary(table).groupby("space", sort=False):
        metrics: dict[str, dict[str, dict[str, float]]] = {}
        for row in rows.itertuples():
            of_method = metrics.setdefault(row.protocol, {}).setdefault(row.method, {})
            of_method |= {f"accuracy@{row.shots}": row.accuracy, f"half@{row.shots}": row.high - row.accuracy}
        of = -1 if space == PRETRAINED else seed
        study.write(
            key_of("recognition", dataset, space, of), part="recognition", dataset=dataset, method=space, seed=of,
            settings=settings, metrics=metrics,
        )  # fmt: skip
