"""How far a run's local similarity is ahead of D, with an interval, and the queries on which it wins or loses.

Every query of a protocol is ranked by D, and its nearest items again by the similarity. The difference of the two
average precisions over the first R, summed up over the queries, is the lead in MAP@R. Its interval is a bootstrap over
the classes and, in each, over the queries.

lead-<protocol>.safetensors beside the run's other files keeps what is slow: how each query ended, by each similarity.
It belongs to the items and the weights that it was computed with; after a change it is computed again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from pddm_lab.analysis.local_pairs import score_local_pairs
from pddm_lab.analysis.query_errors import PairsOfRows, by_features, judge
from pddm_lab.errors import RunError
from pddm_lab.files import read_tensors, write_tensors
from pddm_lab.gallery.files import items_key
from pddm_lab.local.episodes import shortlist_size
from pddm_lab.local.unit import LocalStructure
from pddm_lab.metrics.intervals import percentile_interval, resampled_means
from pddm_lab.similarities import EVERY

if TYPE_CHECKING:
    from pddm_lab.gallery.gallery import Gallery
    from pddm_lab.model.similarity import Similarity
    from pddm_lab.progress import Progress
    from pddm_lab.runs.run import Run

D = "euclidean"
MOST_QUERIES = 5000
"""Queries that are ranked; of more, a seeded sample."""
MOST_DISTANCES = 2_000_000_000
"""Distances computed at most: on a very large gallery fewer queries are ranked."""
FEWEST_QUERIES = 500
"""That are ranked on any gallery."""
PLACES = {"unseen": "On classes it has never met", "known": "On new pictures of its training classes"}

Rivals = Mapping[str, "Similarity | LocalStructure"]


@dataclass(frozen=True, eq=False)
class Judged:
    """How the queries of a gallery ended, by D and by other similarities."""

    rows: Int[np.ndarray, " queries"]
    """Of the queries in the gallery; only those that have something to find."""
    precision: dict[str, Float[np.ndarray, " queries"]]
    """Similarity -> average precision over the first R; MAP@R is its mean."""
    right: dict[str, Float[np.ndarray, " queries"]]
    """Similarity -> 1 where the first result is of the query's class, else 0."""
    total: int
    """Queries of the gallery, of which these may be a sample."""

    def gains(self, name: str) -> Float[np.ndarray, " queries"]:
        """By how much a similarity's average precision is above that of D; by D itself, its average precision."""
        return self.precision[name] - (self.precision[D] if name != D else 0.0)

    def only(self, which: Bool[np.ndarray, " queries"]) -> Judged:
        """Some of the queries."""
        precision, right = (
            {name: values[which] for name, values in part.items()} for part in (self.precision, self.right)
        )
        return Judged(self.rows[which], precision, right, self.total)


@dataclass(frozen=True)
class Lead:
    """A similarity's lead over D in a measure, as shares; by D itself, the measure."""

    similarity: str
    difference: float
    low: float
    high: float
    """Ends of the 95 % interval; NaN where there are fewer than two classes."""
    better: int
    worse: int
    """Queries with a larger and with a smaller value than by D."""
    queries: int
    classes: int

    @property
    def sign(self) -> int:
        """1: surely ahead, -1: surely behind, 0: the interval includes 0, or there is none."""
        return sure_sign(self.low, self.high)


def judge_queries(
    gallery: Gallery, rivals: Rivals, progress: Progress | None = None,
    queries: Int[np.ndarray, " queries"] | None = None,
) -> Judged:  # fmt: skip
    """Rank queries of a gallery by D and by other similarities.

    Args:
        gallery: with labels.
        rivals: similarities by name; each re-ranks what is nearest by D.
        progress: called with (done, total, what).
        queries: their rows; None: all of the gallery's, or a sample where they are many.

    Raises:
        RunError: the gallery lacks what a similarity uses.
    """
    searched, labels, total = gallery.rows("gallery"), gallery.items["label"].to_numpy(), len(gallery.rows("query"))
    if queries is None:
        most = max(MOST_DISTANCES // max(len(searched), 1), FEWEST_QUERIES)
        queries = sample(gallery, min(most, MOST_QUERIES))
    largest = int(np.unique(labels[searched], return_counts=True)[1].max(initial=0))
    rows, precision, right = queries[:0], {}, {}
    for number, (name, by) in enumerate({D: None, **rivals}.items()):
        score: PairsOfRows | None = None
        if isinstance(by, LocalStructure):
            score = partial(score_local_pairs, gallery, by)
        elif by is not None:
            score = by_features(gallery.features, by)
        report = progress and partial(report_part, progress, number, 1 + len(rivals), EVERY[name].title)
        of = judge(gallery.features, labels, queries, searched, score, shortlist_size(largest), report)
        rows, precision[name], right[name] = of["row"].to_numpy(), of["ap"].to_numpy(), of["right"].to_numpy()
    return Judged(rows, precision, right, total)


def sample(gallery: Gallery, most: int) -> Int[np.ndarray, " queries"]:
    """The rows of a gallery's queries, or of a seeded sample of them, in their order."""
    queries = gallery.rows("query")
    return queries if len(queries) <= most else np.sort(np.random.default_rng(0).choice(queries, most, replace=False))


def report_part(progress: Progress, part: int, parts: int, title: str, done: int, total: int, what: str) -> None:
    """Report the progress of one of several parts as that of them all.

    Args:
        progress: called with (done, total, what).
        part: number of this part, from 0.
        parts: how many there are, each as long as this one.
        title: of the similarity that it ranks by.
        done, total, what: of this part.
    """
    progress(part * total + done, parts * total, f"{what}, by {title}")


def judged(run: Run, gallery: Gallery, rivals: Rivals, progress: Progress | None = None) -> Judged:
    """As `judge_queries`, as kept with the run; what isn't is computed, and kept where its folder can be written."""
    key = ranking_key(gallery, rivals)
    before = kept(run, gallery, rivals)
    if before is not None:
        return before
    computed = judge_queries(gallery, rivals, progress)
    import torch

    tensors = {"rows": torch.tensor(computed.rows)}
    for name in computed.precision:
        tensors[f"precision.{name}"] = torch.tensor(computed.precision[name])
        tensors[f"right.{name}"] = torch.tensor(computed.right[name])
    with suppress(RunError):
        write_tensors(_file(run, gallery), tensors, {"key": key, "total": computed.total})
    return computed


def kept(run: Run, gallery: Gallery, rivals: Rivals) -> Judged | None:
    """What `judged` has kept with the run; None if there is nothing, or nothing that fits."""
    try:
        tensors, about = read_tensors(_file(run, gallery), "")
        if about.get("key") != ranking_key(gallery, rivals):
            return None
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        rows, total = arrays.pop("rows"), int(about["total"])
        parts = {
            part: {name: arrays[f"{part}.{name}"] for name in (D, *rivals)} for part in ("precision", "right")
        }  # fmt: skip
    except (RunError, KeyError, TypeError, ValueError):
        return None
    values = [value for part in parts.values() for value in part.values()]
    fits = rows.dtype == np.int64 and (not len(rows) or (rows.min() >= 0 and rows.max() < len(gallery)))
    if not fits or any(one.shape != rows.shape or not np.isfinite(one).all() for one in values):
        return None
    return Judged(rows, parts["precision"], parts["right"], total)


def _file(run: Run, gallery: Gallery) -> Path:
    return run.path / f"lead-{gallery.protocol}.safetensors"


def ranking_key(gallery: Gallery, rivals: Rivals) -> str:
    """What stands for the items and for the weights that rank them."""
    digest = hashlib.sha256(items_key(gallery.manifest).encode())
    for name, by in rivals.items():
        digest.update(f"{name} {by.weight if isinstance(by, LocalStructure) else ''}".encode())
        for part, values in by.state_dict().items():
            digest.update(part.encode() + values.cpu().numpy().tobytes())
    return digest.hexdigest()


def lead(of: Judged, labels: Int[np.ndarray, " items"], name: str, measure: str = "map@r") -> Lead:
    """How far a similarity is ahead of D, with an interval.

    Args:
        of: the judged queries.
        labels: of the gallery's items.
        name: of the similarity; "euclidean" gives the measure itself.
        measure: map@r or recall@1.
    """
    values = of.precision if measure == "map@r" else of.right
    return _lead_of(values[name] - (values[D] if name != D else 0.0), labels[of.rows], name)


def _lead_of(gains: Float[np.ndarray, " queries"], groups: Int[np.ndarray, " queries"], name: str) -> Lead:
    classes, low, high = len(np.unique(groups)), math.nan, math.nan
    if classes > 1:
        low, high = map(float, percentile_interval(resampled_means(gains, groups)))
    mean = float(gains.mean()) if len(gains) else math.nan
    return Lead(name, mean, low, high, int((gains > 0).sum()), int((gains < 0).sum()), len(gains), classes)


def between(
    one: Judged, other: Judged, ids: tuple[Sequence[str], Sequence[str]], names: tuple[str, str], groups: Sequence[str]
) -> Lead:  # fmt: skip
    """How far one run's similarity is ahead of another run's in MAP@R, on the queries that both have.

    Args:
        one, other: the judged queries of both runs.
        ids: of the items of both galleries.
        names: of the similarity of each.
        groups: class of each item of the first gallery.
    """
    place = {ids[1][row]: at for at, row in enumerate(other.rows)}
    both = [(at, place[ids[0][row]]) for at, row in enumerate(one.rows) if ids[0][row] in place]
    here, there = np.array(both, dtype=np.int64).reshape(-1, 2).T
    gains = one.precision[names[0]][here] - other.precision[names[1]][there]
    of_class = np.unique([groups[row] for row in one.rows[here]], return_inverse=True)[1]
    return _lead_of(gains, of_class, names[0])


def sentence(of: Lead, protocol: str, measure: str = "MAP@R") -> str:
    """The lead in one sentence, with its interval."""
    place, letter, points = PLACES.get(protocol, "In this gallery"), EVERY[of.similarity].letter, 100 * of.difference
    if not of.queries:
        return f"{place} nothing can be measured: no query has another item of its class to find."
    if of.similarity == D:
        interval = f" ({100 * of.low:.1f} to {100 * of.high:.1f})" if of.classes > 1 else ""
        return f"{place}, D reaches {points:.1f} %{interval} {measure}."
    if not of.better and not of.worse:
        return f"{place}, {letter} ranks as D does: no query of {of.queries:,} has another {measure}."
    if of.classes < 2:
        return f"{place} there is one class: {letter} and D differ by {signed(points)} points of {measure} on it."
    if of.sign:
        low, high = sorted((abs(100 * of.low), abs(100 * of.high)))
        lead = f"{abs(points):.1f} points ({low:.1f} to {high:.1f}) {'more' if of.sign > 0 else 'less'}"
        return f"{place}, {letter} finds {lead} {measure} than D."
    between = " and ".join(signed(100 * end) for end in (of.low, of.high))
    return f"{place}, {letter} and D are level: the difference in {measure} lies between {between} points."


def sure_sign(low: float, high: float) -> int:
    """1: an interval lies above 0, -1: below, 0: it includes 0, or there is none."""
    return int(low > 0) - int(high < 0)


def signed(value: float) -> str:
    """A difference with its sign and one decimal."""
    return f"{value:+.1f}".replace("-", "−")


def strongest(
    of: Judged, labels: Int[np.ndarray, " items"], name: str, wins: bool, most: int = 12, one_a_class: bool = False
) -> Int[np.ndarray, " some"]:
    """The places among the judged queries where a similarity is furthest ahead of D, or furthest behind.

    Args:
        of: the judged queries.
        labels: of the gallery's items.
        name: of the similarity; by D itself, the queries with the highest and with the lowest average precision.
        wins: ahead, else behind.
        most: how many.
        one_a_class: only the strongest query of each class.
    """
    gains = of.gains(name) * (1 if wins else -1)
    order = np.argsort(-gains, kind="stable")
    order = order[gains[order] > 0] if name != D else order
    if one_a_class:
        order = order[np.sort(np.unique(labels[of.rows[order]], return_index=True)[1])]
    return order[:most]
