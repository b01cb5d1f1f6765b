"""What corrections brought: a run that was trained with them against an earlier one, on the same corrected queries.

Both runs search the corrected items of the later run, with its labels. A query counts if it is one of the same protocol
in both runs, so that neither was trained on it. The gain is the difference of the two runs query by query; its interval
is a bootstrap over the classes and, in each, over the queries.

gain.json beside the later run's other files keeps it. It belongs to the items and the weights of both runs; after a
change of one it is measured again.
"""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pddm_lab.analysis.lead import PLACES, ranking_key, report_part, signed, sure_sign
from pddm_lab.analysis.local_pairs import score_pairs_in
from pddm_lab.analysis.query_errors import PairsOfRows, by_features, judge
from pddm_lab.errors import RunError
from pddm_lab.files import Content, Count, Text, plain, read_json, write_file
from pddm_lab.gallery.reference import Reference
from pddm_lab.local.episodes import shortlist_size
from pddm_lab.metrics.intervals import percentile_interval, resampled_means
from pddm_lab.runs.compare import load_rivals, rivals_of
from pddm_lab.runs.local import load_local
from pddm_lab.runs.model import load_similarities
from pddm_lab.runs.run import CATALOGUE, Run
from pddm_lab.similarities import EVERY

if TYPE_CHECKING:
    from pddm_lab.gallery.gallery import Gallery
    from pddm_lab.progress import Progress

MEASURES = {"recall@1": "right", "map@r": "ap"}
"""Measure -> its column of `judge`."""
KEPT = "gain.json"
MOST_QUERIES = 2000
"""Queries of a protocol that are compared; of more, a seeded sample."""


@dataclass(frozen=True)
class Gain:
    """One similarity's gain in a measure under a protocol, as shares."""

    protocol: str
    similarity: str
    measure: str
    """recall@1 or map@r."""
    before: float
    after: float
    low: float
    high: float
    """Ends of the 95 % interval of the difference; NaN where there are fewer than two classes."""
    queries: int
    classes: int

    @property
    def difference(self) -> float:
        """By how much the later run is ahead."""
        return self.after - self.before

    @property
    def sign(self) -> int:
        """1: surely better, -1: surely worse, 0: the interval includes 0, or there is none."""
        return sure_sign(self.low, self.high)


class _GainContent(Content):
    protocol: Text
    similarity: Text
    measure: Literal["recall@1", "map@r"]
    before: float | None
    after: float | None
    low: float | None
    high: float | None
    queries: Count
    classes: Count


class _KeptContent(Content):
    """gain.json."""

    key: Text
    gains: list[_GainContent]


@dataclass(frozen=True, eq=False)
class _Items:
    """The searched items of a protocol as a run sees them."""

    features: Float[np.ndarray, "items dim"]
    pretrained: Float[np.ndarray, "items pretrained"] | None


def kept_gains(before: Run, after: Run, progress: Progress | None = None) -> list[Gain]:
    """As `gains`, as kept with the later run; what isn't is measured, and kept where its folder can be written."""
    key, file = _key(before, after), after.path / KEPT
    with suppress(RunError):
        content = read_json(file, _KeptContent, "", "")
        if content["key"] == key:
            names = [field.name for field in fields(Gain)]
            return [Gain(**{name: math.nan if one[name] is None else one[name] for name in names})  # type: ignore[arg-type]
                    for one in content["gains"]]  # fmt: skip
    measured = gains(before, after, progress)
    with suppress(RunError):
        write_file(file, json.dumps(plain({"key": key, "gains": [vars(one) for one in measured]}), indent=1))
    return measured


def _key(before: Run, after: Run) -> str:
    """What stands for the items of two runs and for the weights that rank them."""
    digest = hashlib.sha256()
    for run in (before, after):
        rivals = load_rivals(run)
        for name in run.galleries():
            digest.update(f"{name} {ranking_key(run.gallery(name), rivals)}".encode())
    return digest.hexdigest()


def gains(before: Run, after: Run, progress: Progress | None = None) -> list[Gain]:
    """Compare two runs on the corrected queries of the later one.

    Args:
        before: trained without the corrections.
        after: trained with them.
        progress: called with (done, total, what).

    Raises:
        RunError: a file of one is missing or damaged, or they have no query in common.
    """
    results: list[Gain] = []
    names = ["euclidean", *(name for name in reversed(rivals_of(before)) if name in rivals_of(after))]
    parts = len(after.protocols()) * len(names) * 2
    for protocol in after.protocols():
        gallery = after.gallery(protocol)
        rows, seen = _seen_by(before, gallery)
        queries = _queries(before, gallery, rows)
        searched = np.intersect1d(gallery.rows("gallery"), rows)
        labels = gallery.items["label"].to_numpy()
        largest = int(np.unique(labels[searched], return_counts=True)[1].max(initial=0))
        depth = shortlist_size(largest)
        for name in names:
            if not len(queries) or not len(searched):  # the earlier run has no features of the items
                nothing = np.empty(0)
                results += [_gain(protocol, name, measure, nothing, nothing, labels[:0]) for measure in MEASURES]
                continue
            sides: list[pd.DataFrame] = []
            for run, of in ((before, seen), (after, _Items(gallery.features, gallery.pretrained))):
                report = progress and partial(
                    report_part, progress, len(results) + len(sides), parts, EVERY[name].title
                )
                score = _scorer(run, name, of, searched)
                sides.append(judge(of.features, labels, queries, searched, score, depth, report))
            groups = labels[sides[0]["row"]]
            for measure, column in MEASURES.items():
                earlier, later = (side[column].to_numpy() for side in sides)
                results.append(_gain(protocol, name, measure, earlier, later, groups))
    if not any(one.queries for one in results):
        both = f"{before.name} and {after.name}"
        raise RunError(f"{both} have no query in common: compare runs of the same data and split.")
    return results


def _seen_by(run: Run, gallery: Gallery) -> tuple[Int[np.ndarray, " rows"], _Items]:
    """The rows of another run's gallery that a run has too, and all rows as it sees them (zeros where it doesn't)."""
    features = np.zeros((len(gallery), run.gallery(run.galleries()[0]).features.shape[1]), dtype=np.float32)
    pretrained: np.ndarray | None = None
    known = np.zeros(len(gallery), dtype=bool)
    for name in sorted(run.galleries(), key=CATALOGUE.__eq__):
        of = run.gallery(name)
        place = {item: row for row, item in enumerate(of.items["id"])}
        own = np.array([place.get(item, -1) for item in gallery.items["id"]])
        new = np.flatnonzero((own >= 0) & ~known)
        features[new] = of.features[own[new]]
        if of.pretrained is not None and len(new):
            if pretrained is None:
                pretrained = np.zeros((len(gallery), of.pretrained.shape[1]), dtype=np.float32)
            pretrained[new] = of.pretrained[own[new]]
        known[new] = True
    return np.flatnonzero(known), _Items(features, pretrained)


def _queries(before: Run, gallery: Gallery, rows: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " queries"]:
    """The queries of a gallery that an earlier run has under the same protocol, or a seeded sample of them."""
    if gallery.protocol not in before.protocols():
        return rows[:0]
    earlier = before.gallery(gallery.protocol)
    theirs = set(earlier.items["id"].iloc[earlier.rows("query")])
    ids = gallery.items["id"]
    both = np.array([row for row in gallery.rows("query") if ids.iloc[row] in theirs], dtype=np.int64)
    if len(both) > MOST_QUERIES:
        both = np.sort(np.random.default_rng(0).choice(both, MOST_QUERIES, replace=False))
    return both


def _scorer(run: Run, name: str, of: _Items, searched: Int[np.ndarray, " searched"]) -> PairsOfRows | None:
    """How a run ranks pairs of items by a similarity; None by D."""
    if name == "euclidean":
        return None
    if name != "local":
        return by_features(of.features, load_similarities(run)[name])
    local = load_local(run)
    assert local is not None
    pretrained = of.pretrained if local.structure.weight else None
    reference = Reference.of(
        local.structure, of.features[searched], None if pretrained is None else pretrained[searched], searched
    )
    return partial(score_pairs_in, reference, of.features, pretrained)


def _gain(
    protocol: str, name: str, measure: str, before: Float[np.ndarray, " queries"],
    after: Float[np.ndarray, " queries"], groups: Int[np.ndarray, " queries"],
) -> Gain:  # fmt: skip
    classes, low, high = len(np.unique(groups)), math.nan, math.nan
    if classes > 1:
        low, high = map(float, percentile_interval(resampled_means(after - before, groups)))
    first, then = (float(values.mean()) if len(values) else math.nan for values in (before, after))
    return Gain(protocol, name, measure, first, then, low, high, len(groups), classes)


def sentence(of: Gain) -> str:
    """A gain in one sentence, with its interval."""
    place, letter = PLACES.get(of.protocol, "In this gallery"), EVERY[of.similarity].letter
    what = "R@1" if of.measure == "recall@1" else "MAP@R"
    if not of.queries:
        return f"{place} nothing can be compared: the runs have no query in common."
    if of.classes < 2 or not of.sign:
        between = "" if of.classes < 2 else f" ({signed(100 * of.low)} to {signed(100 * of.high)})"
        points = f"{signed(100 * of.difference)} points{between}"
        return f"{place}, the difference with the corrections may be chance: {points} of {what} by {letter}."
    more = "more" if of.sign > 0 else "less"
    low, high = sorted((abs(100 * of.low), abs(100 * of.high)))
    points = f"{abs(100 * of.difference):.1f} points ({low:.1f} to {high:.1f})"
    return f"{place}, {letter} finds {points} {more} {what} with the corrections than without."
