"""Queries that are kept with a gallery, to see what each change of it does to the accuracy.

gallery/<name>/queries.parquet  id, label, class_name, feature, pretrained

They are a sample of the gallery's own items as they were when they were saved; later changes leave them alone. Each is
searched in the gallery without itself, and is right if the most similar item is of its class: of the class that its
item has by now, or, if the item was removed, of the one with the label that it had.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from pddm_lab.analysis.decision import Range
from pddm_lab.errors import RunError
from pddm_lab.files import read_table, replacing
from pddm_lab.gallery import history
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.upkeep import keep_up
from pddm_lab.local.unit import LocalStructure
from pddm_lab.model.similarity import Similarity, make_similarity

FILE = "queries.parquet"
_OUT_AT_ONCE = 0.01
"""Share of the items that are taken out together where their pictures were replaced, so that it takes seconds."""
_HINT = "Save them again: `pddm-lab gallery queries`."


@dataclass(frozen=True, eq=False)
class SavedQueries:
    """Queries of a gallery."""

    items: pd.DataFrame
    """id, label, class_name, as they were saved."""
    features: Float[np.ndarray, "queries dim"]
    pretrained: Float[np.ndarray, "queries pretrained"] | None
    """Where the gallery had them."""

    def __len__(self) -> int:
        return len(self.items)

    def accuracy(self, gallery: Gallery, by: Similarity | LocalStructure) -> float:
        """R@1: the share of the queries whose most similar item is of their class; a class that is gone has none."""
        of = Range.of(gallery, by)
        searched = gallery.items["id"].to_numpy()[gallery.rows("gallery")]
        row_of = {item: row for row, item in enumerate(searched)}
        own = np.array([row_of.get(item, -1) for item in self.items["id"]])
        by_now = self.items["id"].map(gallery.items.set_index("id")["label"])
        expected = by_now.fillna(self.items["label"]).to_numpy(int)
        right = 0
        for others, at, itself in self._searches(of, own):
            if len(at):
                near = others.nearest(*self._some(at), None if itself is None else torch.from_numpy(itself))
                right += int((near.first == expected[at]).sum())
        return right / len(self)

    def _searches(
        self, of: Range, own: Int[np.ndarray, " queries"]
    ) -> Iterator[tuple[Range, Int[np.ndarray, " some"], Int[np.ndarray, " some"] | None]]:
        """Which queries to search in what, and the rows out of which they are taken.

        Where an item has another picture by now, its row doesn't stand for the query: it is taken out of the range.
        """
        if len(of.labels) == 1:  # the item finds nothing besides itself
            yield of, np.flatnonzero(own < 0), None
            return
        there = np.flatnonzero(own >= 0)
        as_saved = of.holds(*self._some(there), torch.from_numpy(own[there]))
        yield of, np.flatnonzero(own < 0), None
        yield of, there[as_saved], own[there[as_saved]]
        replaced = there[~as_saved]
        if len(replaced):
            of = of.without(own[:0])  # with nothing stale, which would be listed anew each time
            groups = math.ceil(len(replaced) / max(int(_OUT_AT_ONCE * len(of.labels)), 1))
            for some in (replaced[group::groups] for group in range(groups)):
                yield of.without(own[some]), some, None

    def _some(
        self, at: Int[np.ndarray, " some"]
    ) -> tuple[Float[torch.Tensor, "some dim"], Float[torch.Tensor, "some pretrained"] | None]:
        """The features of some queries."""
        further = None if self.pretrained is None else torch.from_numpy(self.pretrained[at])
        return torch.from_numpy(self.features[at]), further


def recall_of(gallery: Gallery, kept: SavedQueries, structure: LocalStructure | None) -> dict[str, float]:
    """R@1 of saved queries by D, and by local structure where the run has it: the similarity's name -> its value."""
    values = {"euclidean": kept.accuracy(gallery, make_similarity("euclidean", int(gallery.manifest["dim"])))}
    return values if structure is None else values | {"local": kept.accuracy(gallery, structure)}


def save(gallery: Gallery, count: int, seed: int = 0) -> SavedQueries:
    """Choose queries among the searched items of which the gallery has another one of their class, and keep them.

    Raises:
        RunError: there is no such item, or the file can't be written.
    """
    rows = gallery.rows("gallery")
    labels = gallery.items["label"].to_numpy()[rows]
    rows = rows[np.bincount(labels)[labels] > 1]
    if not len(rows):
        raise RunError(f"The {gallery.protocol} gallery has no class with two items to search: nothing can be found.")
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:count])
    chosen = gallery.items.iloc[rows][["id", "label", "class_name"]].reset_index(drop=True)
    further = None if gallery.pretrained is None else np.array(gallery.pretrained[rows])
    return keep(gallery, chosen, np.array(gallery.features[rows]), further)


def keep(
    gallery: Gallery, items: pd.DataFrame, features: Float[np.ndarray, "queries dim"],
    pretrained: Float[np.ndarray, "queries pretrained"] | None,
) -> SavedQueries:  # fmt: skip
    """Keep queries with a gallery, in place of those that it has; raises RunError if they can't be written.

    Args:
        items: id, label, class_name of each; one or more.
        features: by the model of the gallery.
        pretrained: where the gallery has them.
    """
    columns = {"feature": list(features), "pretrained": None if pretrained is None else list(pretrained)}
    with replacing(gallery.path / FILE) as file:
        items.assign(**columns).to_parquet(file, index=False)
    return SavedQueries(items, features, pretrained)


def read(gallery: Gallery) -> SavedQueries | None:
    """The queries that are kept with a gallery; None if there are none.

    Raises:
        RunError: the file is damaged, of another run, or was not written by this lab.
    """
    file = gallery.path / FILE
    if not file.is_file():
        return None
    columns = {"id": "string", "label": "int64", "class_name": "string"}
    items = read_table(file, columns, _HINT, optional=["label"]).to_pandas()
    if not len(items):
        return None  # an update of an earlier version wrote it when all of them had left
    labels = gallery.items.drop_duplicates("class_name").set_index("class_name")["label"]
    # Earlier versions didn't keep the label.
    items["label"] = items["label"].fillna(items["class_name"].map(labels)).fillna(-1).astype(int)
    try:
        table = pd.read_parquet(file, columns=["feature", "pretrained"])
        features = np.stack(table["feature"].to_list()).astype(np.float32)
        further = None
        if table["pretrained"].notna().all():
            further = np.stack(table["pretrained"].to_list()).astype(np.float32)
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{file} was not written by this lab: expected features of each query. {_HINT}") from error
    expected = [(len(items), gallery.manifest["dim"])]
    arrays = [features]
    if gallery.pretrained is not None:
        expected.append((len(items), gallery.pretrained.shape[1]))
        arrays.append(np.empty((0, 0), np.float32) if further is None else further)
    if any(one.shape != shape or not np.isfinite(one).all() for one, shape in zip(arrays, expected, strict=True)):
        raise RunError(f"{file} is of another run: expected finite features of {expected[0][1]} dimensions. {_HINT}")
    return SavedQueries(items, features, further)


@dataclass(frozen=True, eq=False)
class Effect:
    """Of a change."""

    after: Gallery
    """With no stale neighbourhood."""
    listed_anew: int
    """Neighbourhoods that the change had left stale."""
    recall: dict[str, tuple[float, float]]
    """Similarity -> R@1 of the saved queries before and after it; empty where none are saved."""


def effect_of(before: Gallery, after: Gallery, structure: LocalStructure | None) -> Effect:
    """List stale neighbourhoods anew, search with the saved queries, and keep their R@1 with the change.

    Args:
        before, after: the gallery, opened before the change, and as the change returned it.
        structure: the run's similarity on local structure, if it has one.

    Raises:
        RunError: the saved queries or the history are damaged, another process is changing the gallery, or its files
            can't be written. The change itself stays.
    """
    change, stale = int(after.manifest.get("change", 0)), 0
    if structure is not None and (stale := after.reference(structure).stale):
        after = keep_up(after, structure)
    kept = read(after)
    if kept is None:
        return Effect(after, stale, {})
    earlier, now = (recall_of(one, kept, structure) for one in (before, after))
    recall = {name: (earlier[name], now[name]) for name in now}
    history.keep_recall(after.path, change, recall)
    return Effect(after, stale, recall)
