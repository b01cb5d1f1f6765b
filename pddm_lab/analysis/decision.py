"""A decision instead of a list: which class does a query show, and is it in the range at all?

The query is taken for the class of its most similar item, if enough speaks for it: P(right) is a logistic function of
four signs, in which s are similarities, larger = more similar:

    s_1   s_1 - s_o   s_1 - mean(s_o ... s_o20)   s_2 - s_o

Here s_1 and s_2 are the first class's most similar item and its second, s_o ... s_o20 the items of other classes.

The weights come from the range itself: each item is asked twice, once as it is, and once with its class taken out,
where no answer is right. So both kinds of queries count alike, and P is that of a stream in which every second query is
not in the range. A query is in the range if P is above a threshold, which lets a stated share of the items through
whose class was taken out.

Nothing is learned of a class: a range may change, and decides anew. To refuse what is unlike all classes is open-set
recognition (Scheirer et al., PAMI 2013); the difference s_1 - s_o is Lowe's test (IJCV 2004).

decision-<gallery>-<similarity>.json beside a run's other files keeps what takes some seconds by local structure. It
belongs to the items and the weights that it was fitted on.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from pddm_lab.analysis.lead import ranking_key
from pddm_lab.errors import DataError, RunError
from pddm_lab.files import Content, Count, Text, plain, read_json, write_file
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.reference import are_same
from pddm_lab.local.episodes import shortlist_size
from pddm_lab.local.neighbourhoods import Neighbourhoods
from pddm_lab.local.unit import LocalStructure
from pddm_lab.local.upkeep import change, refresh
from pddm_lab.model.similarity import Similarity

if TYPE_CHECKING:
    from pddm_lab.runs.run import Run

FEWEST_NEAR = 200
"""Nearest items by D that are looked at; more where a class is larger, so that others are among them."""
SAMPLE = 1500
"""Items that a decision is fitted on; of more, a seeded sample."""
FEWEST = 20
"""Items to ask, below which nothing is decided."""
FALSE_ACCEPTS = 0.05
"""Share of queries that are not in the range and are taken for a class all the same."""
PARTS = 4
"""In which the classes are taken out, for a similarity that looks at the whole range."""
OTHERS = 20
"""Items of other classes in the third sign."""
_CHUNK = 64


def near_count(labels: Int[np.ndarray, " items"]) -> int:
    """How many of the nearest items by D to look at, for the labels of all items."""
    return shortlist_size(int(np.unique(labels, return_counts=True)[1].max()), FEWEST_NEAR)


@dataclass(frozen=True, eq=False)
class Range:
    """The items that a query is compared with, and by what."""

    features: Float[Tensor, "items dim"]
    pretrained: Float[Tensor, "items pretrained"] | None
    """Where the similarity uses them."""
    labels: Int[np.ndarray, " items"]
    by: Similarity | LocalStructure
    reference: Neighbourhoods | None
    """Of the items, as the similarity on local structure sees them."""

    @classmethod
    def of(cls, gallery: Gallery, by: Similarity | LocalStructure) -> Range:
        """The searched items of a gallery, compared by a similarity of its run.

        Raises:
            RunError: the gallery lacks what the similarity uses.
        """
        rows, pretrained = gallery.rows("gallery"), gallery.pretrained
        reference = gallery.reference(by).neighbourhoods if isinstance(by, LocalStructure) else None
        further = None if pretrained is None else torch.from_numpy(np.array(pretrained[rows]))
        features, labels = torch.from_numpy(np.array(gallery.features[rows])), gallery.items["label"].to_numpy()[rows]
        return cls.over(features, labels, by, further, reference)

    @classmethod
    def over(
        cls, features: Float[Tensor, "items dim"], labels: Int[np.ndarray, " items"], by: Similarity | LocalStructure,
        pretrained: Float[Tensor, "items pretrained"] | None = None, reference: Neighbourhoods | None = None,
    ) -> Range:  # fmt: skip
        """Items compared by a similarity; that on local structure looks at their neighbourhoods, if none are given."""
        if not isinstance(by, LocalStructure):
            return cls(features, None, labels, by, None)
        pretrained = pretrained if by.weight else None
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # too few items: then it is the cosine
            return cls(features, pretrained, labels, by, reference or by.reference(features, pretrained))

    def keeping(self, kept: Bool[np.ndarray, " items"]) -> Range:
        """The range with some of its items alone."""
        at = torch.from_numpy(np.flatnonzero(kept))
        further = None if self.pretrained is None else self.pretrained[at]
        return Range.over(self.features[at], self.labels[kept], self.by, further)

    def without(self, rows: Int[np.ndarray, " rows"]) -> Range:
        """The range without some of its items; only the neighbourhoods that this touches are listed anew."""
        kept = torch.from_numpy(np.delete(np.arange(len(self.features)), rows))
        further, reference = None if self.pretrained is None else self.pretrained[kept], self.reference
        if reference is not None and isinstance(self.by, LocalStructure):
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # too few items, as in `over`
                reference = refresh(self.by, change(reference, reference.features[kept], kept))
        return Range(self.features[kept], further, self.labels[kept.numpy()], self.by, reference)

    def holds(
        self, query: Float[Tensor, "queries dim"], pretrained: Float[Tensor, "queries pretrained"] | None,
        own: Int[Tensor, " queries"],
    ) -> Bool[np.ndarray, " queries"]:  # fmt: skip
        """Whether queries can be taken out of the neighbourhoods at their own rows: not if a picture was replaced.

        Args:
            query: features.
            pretrained: of the queries, where the similarity uses them.
            own: their rows in the range.
        """
        if self.reference is None or not isinstance(self.by, LocalStructure):
            return np.ones(len(query), bool)
        return are_same(self.reference.features[own], self.by.space(query, pretrained)).numpy()

    @torch.no_grad()
    def nearest(
        self, query: Float[Tensor, "queries dim"], pretrained: Float[Tensor, "queries pretrained"] | None = None,
        own: Int[Tensor, " queries"] | None = None,
    ) -> Shortlists:  # fmt: skip
        """The items near each query, with their similarities.

        Args:
            query: features.
            pretrained: of the queries, where the similarity uses them.
            own: the queries' own rows in the range, out of which they are taken (`holds`); None: they are not in it.
        """
        count = min(near_count(self.labels), len(self.features) - (own is not None))
        labels, parts = torch.from_numpy(self.labels), []
        for start in range(0, len(query), _CHUNK):
            part = slice(start, start + _CHUNK)
            distances = torch.cdist(query[part], self.features)
            itself = None if own is None else own[part]
            if itself is not None:
                distances[torch.arange(len(itself)), itself] = math.inf
            rows = distances.topk(count, largest=False).indices
            further = pretrained[part] if pretrained is not None and self.pretrained is not None else None
            scores = self._scores(query[part], further, rows, itself)
            parts.append((scores.float().numpy(), labels[rows].numpy()))
        return Shortlists.of(*(np.concatenate(side) for side in zip(*parts, strict=True)))

    def _scores(self, query: Tensor, further: Tensor | None, rows: Tensor, own: Tensor | None) -> Tensor:
        if not isinstance(self.by, LocalStructure):
            return self.by.candidates(query, self.features, rows)
        assert self.reference is not None
        return self.by.candidates(self.reference, self.by.space(query, further), rows, own)

    def ask(
        self, rows: Int[np.ndarray, " asked"], seed: int = 0
    ) -> tuple[Shortlists, Shortlists]:  # fmt: skip
        """The shortlists of some items as they are, and with their class taken out.

        Neighbourhoods feel the items of a class even where these are no candidates. So for local structure the classes
        are taken out in parts, and each part's items are asked of a range that never had them.
        """
        own, labels = torch.from_numpy(rows), self.labels[rows]
        further = None if self.pretrained is None else self.pretrained[own]
        whole = self.nearest(self.features[own], further, own)
        if self.reference is None:
            return whole, whole.without(labels)
        classes = np.random.default_rng(seed).permutation(np.unique(self.labels))
        parts, order = [], []
        for out in np.array_split(classes, min(PARTS, len(classes))):
            members = np.flatnonzero(np.isin(labels, out))
            if len(members):
                further = None if self.pretrained is None else self.pretrained[own[members]]
                parts.append(self.keeping(~np.isin(self.labels, out)).nearest(self.features[own[members]], further))
                order.append(members)
        return whole, Shortlists.joined(parts, np.concatenate(order))


@dataclass(frozen=True, eq=False)
class Shortlists:
    """The items near each query, the most similar first; what is left out comes last, with minus infinity."""

    scores: Float[np.ndarray, "queries items"]
    labels: Int[np.ndarray, "queries items"]

    @classmethod
    def of(cls, scores: Float[np.ndarray, "queries items"], labels: Int[np.ndarray, "queries items"]) -> Shortlists:
        """Items in any order."""
        order = np.argsort(-scores, axis=1, kind="stable")
        return cls(np.take_along_axis(scores, order, 1).astype(float), np.take_along_axis(labels, order, 1))

    @classmethod
    def joined(cls, parts: Sequence[Shortlists], order: Int[np.ndarray, " queries"]) -> Shortlists:
        """The queries of several, where `order` says which each of them is."""
        width = max(part.scores.shape[1] for part in parts)
        scores, labels = np.full((len(order), width), -np.inf), np.full((len(order), width), -1)
        begin = 0
        for part in parts:
            at = order[begin : begin + len(part.scores)]
            scores[at, : part.scores.shape[1]], labels[at, : part.scores.shape[1]] = part.scores, part.labels
            begin += len(at)
        return cls(scores, labels)

    def without(self, labels: Int[np.ndarray, " queries"]) -> Shortlists:
        """With a class of each query taken out."""
        return Shortlists.of(np.where(self.labels == labels[:, None], -np.inf, self.scores), self.labels)

    @property
    def first(self) -> Int[np.ndarray, " queries"]:
        """The class of each query's most similar item."""
        return self.labels[:, 0]

    def signs(self) -> Float[np.ndarray, "queries 4"]:
        """What speaks for the first class, see the head of this file. A sign that lacks items takes the last ones'."""
        there = np.isfinite(self.scores)
        last = np.where(there, self.scores, np.inf).min(1)
        last = np.where(np.isfinite(last), last, 0.0)  # nothing is near: any value, as nothing speaks for a class
        mine = (self.labels == self.first[:, None]) & there
        others = ~mine & there
        first = np.where(there[:, 0], self.scores[:, 0], last)
        other, own = self._mean_of(others, 1, last), self._mean_of(mine & (mine.cumsum(1) > 1), 1, last)
        return np.column_stack([first, first - other, first - self._mean_of(others, OTHERS, last), own - other])

    def _mean_of(
        self, which: Bool[np.ndarray, "queries items"], count: int, last: Float[np.ndarray, " queries"]
    ) -> Float[np.ndarray, " queries"]:  # fmt: skip
        """Mean of the first so many of some of the items."""
        chosen = which & (which.cumsum(1) <= count)
        total = np.where(chosen, self.scores, 0.0).sum(1)
        return np.where(chosen.any(1), total / np.maximum(chosen.sum(1), 1), last)


@dataclass(frozen=True)
class Decision:
    """How similarities become the probability that the first class is right."""

    weights: tuple[float, ...]
    """Of the signs."""
    offset: float
    least: float
    """Smallest P of a query that is in the range."""
    false_accepts: float
    """Share of the items whose class was taken out that are accepted."""
    hits: float
    """Share of the items with their class in the range that are accepted and get it."""
    items: int
    """That it was fitted on."""

    @classmethod
    def fit(cls, of: Range, false_accepts: float = FALSE_ACCEPTS, seed: int = 0, sample: int = SAMPLE) -> Decision:
        """Ask the items of a range for their classes, with and without these.

        Args:
            of: the range.
            false_accepts: share of the items without their class that may be accepted.
            seed: of the sample of items.
            sample: its size.

        Raises:
            DataError: too few items have another one of their class, or none gets its class.
        """
        from sklearn.linear_model import LogisticRegression

        counts = np.bincount(of.labels)
        rows = np.flatnonzero(counts[of.labels] > 1)
        if len(rows) < FEWEST or (counts > 1).sum() < 2:
            raise DataError(
                f"Too few items to decide by: expected {FEWEST} that have another one of their class, of two classes "
                f"or more, got {len(rows)}."
            )
        if len(rows) > sample:
            rows = np.sort(np.random.default_rng(seed).choice(rows, sample, replace=False))
        whole, without = of.ask(rows, seed)
        right = whole.first == of.labels[rows]
        if not right.any():
            raise DataError(
                f"Nothing to decide by: expected items whose most similar other one is of their class, got none among "
                f"{len(rows)}. Another similarity may tell the classes apart."
            )
        signs = np.concatenate([whole.signs(), without.signs()])
        centre, spread = signs.mean(0), np.maximum(signs.std(0), 1e-12)
        fitted = LogisticRegression().fit((signs - centre) / spread, np.concatenate([right, np.zeros(len(rows), bool)]))
        weights = fitted.coef_[0] / spread
        begun = cls(
            tuple(weights.tolist()), float(fitted.intercept_[0] - weights @ centre), 0.0, false_accepts, 0.0, len(rows)
        )
        least = float(np.quantile(begun.probability(without), 1 - false_accepts, method="higher"))
        hits = right & (begun.probability(whole) > least)
        return replace(begun, least=least, hits=float(hits.mean()))

    def probability(self, of: Shortlists) -> Float[np.ndarray, " queries"]:
        """P(right) of each query's first class."""
        logits = of.signs() @ np.array(self.weights) + self.offset
        return 1 / (1 + np.exp(-np.clip(logits, -700, 700)))

    def in_range(self, probability: Float[np.ndarray, " queries"]) -> Bool[np.ndarray, " queries"]:
        """Whether queries are in the range, by P(right)."""
        return probability > self.least

    def of_query(
        self, gallery: Gallery, by: Similarity | LocalStructure, query: Float[np.ndarray, " dim"],
        exclude: int | None = None, pretrained: Float[np.ndarray, " pretrained"] | None = None,
    ) -> tuple[str, float, bool]:  # fmt: skip
        """What a query shows: the class of its most similar item, P(right), and whether it is in the range.

        It is searched among as many items as this decision was fitted on: among fewer it would look more certain.

        Args:
            gallery: with at least one item to find.
            by: the similarity that this decision was fitted by.
            query, exclude, pretrained: as for `Gallery.search_by`.

        Raises:
            RunError: the gallery lacks what the similarity uses.
        """
        labels, similarities = gallery.items["label"].to_numpy(), [] if isinstance(by, LocalStructure) else [by]
        local, size = by if isinstance(by, LocalStructure) else None, near_count(labels[gallery.rows("gallery")])
        result = gallery.search_by(query, similarities, size, exclude, local, pretrained)
        values = result.table[result.similarities[-1]].to_numpy(float)
        probability = self.probability(Shortlists.of(values[None], labels[result.table["row"]][None]))
        first = str(result.ranked(result.similarities[-1], 1)["class_name"].iloc[0])
        return first, float(probability[0]), bool(self.in_range(probability)[0])


_Share = Annotated[float, Field(ge=0, le=1)]


class _DecisionContent(Content):
    weights: Annotated[list[float], Field(min_length=4, max_length=4)]
    offset: float
    least: _Share
    false_accepts: _Share
    hits: _Share
    items: Count


class _KeptContent(Content):
    key: Text
    decision: _DecisionContent | None


def decision_of(run: Run, gallery: Gallery, name: str, by: Similarity | LocalStructure, sample: int) -> Decision | None:
    """The decision by a similarity in a gallery of a run, as kept with the run; what isn't is fitted, and kept.

    Args:
        run: whose folder keeps it.
        gallery: with labels.
        name: of the similarity.
        by: the similarity.
        sample: items that it is fitted on, at most.

    Returns:
        None where there are too few items to decide by, or none of them gets its class.

    Raises:
        RunError: the gallery lacks what the similarity uses.
    """
    key, file = f"{ranking_key(gallery, {name: by})} {sample}", run.path / f"decision-{gallery.protocol}-{name}.json"
    with suppress(RunError):
        content = read_json(file, _KeptContent, "", "")
        if content["key"] == key:
            of = content["decision"]
            return of and Decision(tuple(of["weights"]), *(of[field.name] for field in fields(Decision)[1:]))
    fitted: Decision | None = None
    with suppress(DataError):  # there is nothing to decide by
        fitted = Decision.fit(Range.of(gallery, by), sample=sample)
    with suppress(RunError):
        write_file(file, json.dumps(plain({"key": key, "decision": fitted and vars(fitted)})))
    return fitted
