"""Which queries are searched among which items: whole classes of a run's gallery, so that classes keep their sizes.

No query is in the gallery that is searched. Where each item is searched among the others, a query would find its own
picture as it was before it was corrupted, and a similarity on local structure the neighbourhood of that picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.errors import RunError
from pddm_lab.gallery.pictures import file_in
from pddm_lab.runs.run import Run

PAIRS = (16, 32)
"""Positive and negative items that each query is paired with, for the distributions of scores."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Items of a gallery. Queries and searched items are given by their rows among these items."""

    ids: list[str]
    paths: list[Path]
    labels: Int[np.ndarray, " items"]
    query: Int[np.ndarray, " queries"]
    searched: Int[np.ndarray, " searched"]
    pairs: Int[Tensor, "queries pairs"]
    """Places among the searched items: of `PAIRS[0]` items of the query's class, then of `PAIRS[1]` others."""

    @property
    def query_labels(self) -> Int[Tensor, " queries"]:
        """Classes of the queries."""
        return torch.from_numpy(self.labels[self.query])

    @property
    def searched_labels(self) -> Int[Tensor, " searched"]:
        """Classes of the searched items."""
        return torch.from_numpy(self.labels[self.searched])


def draw_sample(run: Run, protocol: str, queries: int, items: int, seed: int) -> Sample:
    """Draw classes until the gallery would hold more than so many items, then queries of them.

    Items that are queries and searched too become one or the other: at most half of a class become queries.

    Args:
        run: with a gallery of the protocol.
        protocol: unseen or known.
        queries, items: their numbers at most; two classes are always drawn.
        seed: of both draws.

    Raises:
        RunError: the run has no labels, no gallery, no pictures on this machine, or no queries with right items.
    """
    if not run.is_labelled:
        raise RunError(f"The items of {run.name} have no labels: whether a result is right is not known.")
    gallery, root = run.gallery(protocol), run.info["dataset"].get("root") or ""
    sample = sample_of(
        gallery.items["id"].astype(str).tolist(), gallery.items["label"].to_numpy(), gallery.rows("query"),
        gallery.rows("gallery"), Path(root), (queries, items, seed), f"The {protocol} gallery of {run.name}",
    )  # fmt: skip
    files = [file_in(gallery, gallery.index_of(item), root) for item in sample.ids]  # some may be added or replaced
    paths = [file for file in files if file and file.is_file()]
    if len(paths) < len(files):
        lost = (file or item for file, item in zip(files, sample.ids, strict=True) if not (file and file.is_file()))
        raise RunError(
            f"{len(files) - len(paths)} of {len(files)} pictures of {run.name} are missing, the first is {next(lost)}: "
            "robustness needs the pictures of the data set, and those that were added."
        )
    return replace(sample, paths=paths)


def sample_of(
    ids: Sequence[str], labels: Int[np.ndarray, " all"], query: Int[np.ndarray, " queries"],
    gallery: Int[np.ndarray, " searched"], root: Path, numbers: tuple[int, int, int], what: str,
) -> Sample:  # fmt: skip
    """As `draw_sample`, of any items.

    Args:
        ids: of all items: their paths relative to the root.
        labels: of all items.
        query, gallery: items that are searched for and among; they may be the same.
        root: of the pictures.
        numbers: queries, items and seed.
        what: they are, for the error.

    Raises:
        RunError: fewer than two classes have queries and items.
    """
    queries, items, seed = numbers
    are_both = bool(np.isin(query, gallery).any())
    counts = np.bincount(labels[gallery], minlength=int(labels.max(initial=0)) + 1)
    classes = np.unique(labels[query])
    classes = classes[counts[classes] > are_both]
    if len(classes) < 2:
        raise RunError(f"{what} has queries of {len(classes)} classes: expected two.")
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(classes)
    fits = max(int((np.cumsum(counts[drawn]) <= items).sum()), 2)
    drawn = np.sort(drawn[:fits])
    query, gallery = (rows[np.isin(labels[rows], drawn)] for rows in (query, gallery))
    query = rng.permutation(query)
    if are_both:
        before = pd.Series(labels[query]).groupby(labels[query]).cumcount().to_numpy()
        query = query[before < counts[labels[query]] // 2]
    query = np.sort(query[:queries])
    gallery = np.setdiff1d(gallery, query)
    rows = np.union1d(query, gallery)
    of_rows = [ids[row] for row in rows]
    places = np.searchsorted(rows, query), np.searchsorted(rows, gallery)
    pairs = draw_pairs(labels[query], labels[gallery], rng)
    return Sample(of_rows, [root / item for item in of_rows], labels[rows], *places, pairs)


def draw_pairs(query_labels: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Int[Tensor, "queries pairs"]:
    """Places of items for each query, as `Sample.pairs` has them; each query's class has an item."""
    pairs = np.empty((len(query_labels), sum(PAIRS)), np.int64)
    for query, of in enumerate(query_labels):
        same = labels == of
        pairs[query] = np.concatenate([
            rng.choice(np.flatnonzero(same), PAIRS[0]), rng.choice(np.flatnonzero(~same), PAIRS[1])
        ])  # fmt: skip
    return torch.from_numpy(pairs)


@dataclass(frozen=True, eq=False)
class Features:
    """What a run makes of pictures."""

    features: Float[Tensor, "items dim"]
    further: Float[Tensor, "items further"] | None
    """The pretrained features that its similarity on local structure uses; None if it uses none."""
    pretrained: Float[Tensor, "items trunk_dim"] | None
    """The trunk's own before training, of unit length; None of an import."""

    def of(self, rows: Int[np.ndarray, " rows"]) -> Features:
        """Those of some items."""
        at = torch.from_numpy(rows)
        return Features(*(None if one is None else one[at] for one in (self.features, self.further, self.pretrained)))  # type: ignore[arg-type]

    @classmethod
    def join(cls, parts: list[Features]) -> Features:
        """Those of several parts, one after the other."""
        columns = zip(*((one.features, one.further, one.pretrained) for one in parts), strict=True)
        return cls(*(None if column[0] is None else torch.cat(column) for column in columns))  # type: ignore[arg-type]
