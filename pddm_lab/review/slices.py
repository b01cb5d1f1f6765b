"""R@1 and MAP@R on parts of the queries: by tag, by class or by a column of the data set's metadata.

What is searched stays the same: a slice is of queries. Its interval is a bootstrap over the classes and, in each, over
the queries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from pddm_lab.analysis.lead import Judged
from pddm_lab.errors import DataError, unknown_name
from pddm_lab.gallery.schema import METADATA
from pddm_lab.metrics.intervals import percentile_interval, resampled_means
from pddm_lab.progress import Progress
from pddm_lab.similarities import EVERY

EVERYTHING, UNTAGGED = "all queries", "no tag"
TAGS, CLASSES = "tag", "class"
MOST = 30
"""Values of a column that are measured, the most frequent ones."""
_DRAWS = 1000


@dataclass(frozen=True)
class Slice:
    """One similarity on a part of the queries, as shares."""

    name: str
    similarity: str
    queries: int
    classes: int
    recall: float
    recall_low: float
    recall_high: float
    map_at_r: float
    map_low: float
    map_high: float
    """Ends of 95 % intervals; NaN where there are fewer than two classes."""


def columns(items: pd.DataFrame, tags: Mapping[str, Sequence[str]]) -> list[str]:
    """What the queries of a gallery can be divided by: tags, if there are any, metadata, and the class."""
    named = [name.removeprefix(METADATA) for name in items.columns if name.startswith(METADATA)]
    return [*([TAGS] if tags else []), *named, CLASSES]


def parts(
    items: pd.DataFrame, rows: np.ndarray, by: str, tags: Mapping[str, Sequence[str]]
) -> dict[str, Bool[np.ndarray, " queries"]]:
    """The parts of some queries, the largest first; parts by tag may overlap.

    Args:
        items: of the gallery.
        rows: of the queries.
        by: one of `columns`.
        tags: name -> ids of items.

    Raises:
        DataError: nothing is called `by`.
    """
    if by not in (known := columns(items, tags)):
        raise DataError(unknown_name("column", by, known))
    of = items.iloc[rows]
    if by == TAGS:
        inside = {name: of["id"].isin(ids).to_numpy() for name, ids in tags.items()}
        tagged = np.logical_or.reduce(list(inside.values()))
        return {name: which for name, which in {**inside, UNTAGGED: ~tagged}.items() if which.any()}
    texts = of["class_name" if by == CLASSES else METADATA + by].fillna("").astype(str)
    return {str(value) or "(empty)": (texts == value).to_numpy() for value in texts.value_counts().index[:MOST]}


def slices(
    judged: Judged, items: pd.DataFrame, by: str, tags: Mapping[str, Sequence[str]], progress: Progress | None = None
) -> list[Slice]:
    """Measure the judged queries of a gallery and their parts: a row for each part and similarity.

    Raises:
        DataError: as `parts`.
    """
    labels = items["label"].to_numpy()[judged.rows]
    everything = {EVERYTHING: np.ones(len(judged.rows), dtype=bool)}
    named = {**everything, **parts(items, judged.rows, by, tags)}
    measured: list[Slice] = []
    for number, (name, which) in enumerate(named.items(), 1):
        measured += _of_part(name, judged.only(which), labels[which])
        if progress:
            progress(number, len(named), "slices")
    return measured


def _of_part(name: str, of: Judged, labels: Int[np.ndarray, " queries"]) -> list[Slice]:
    classes, by = len(np.unique(labels)), list(of.precision)
    values = np.column_stack([part[one] for one in by for part in (of.right, of.precision)])
    low, high = np.full((2, values.shape[1]), math.nan)
    if classes > 1:
        low, high = percentile_interval(resampled_means(values, labels, _DRAWS))
    means = values.mean(0) if len(values) else low
    ends = np.column_stack([means, low, high]).reshape(len(by), 6)  # of R@1, then of MAP@R
    return [Slice(name, one, len(labels), classes, *map(float, six)) for one, six in zip(by, ends, strict=True)]


def as_table(of: Sequence[Slice]) -> pd.DataFrame:
    """Slices as rows, with the letters of their similarities."""
    table = pd.DataFrame([vars(one) for one in of])
    return table.assign(similarity=[EVERY[name].letter for name in table["similarity"]]) if len(table) else table
