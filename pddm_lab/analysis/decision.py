"""A decision instead of a list: which class does a query show, and is it in the range at all?

    P(c) = exp(s_c / T) / (sum_c' exp(s_c' / T) + exp(tau / T))        P(none) = exp(tau / T) / (the same)

Paper -> code:  s_c -> the query's similarity with the most similar item of class c   T -> scale   tau -> none

T and tau come from the range itself, by maximum likelihood: each item is asked twice, once as it is, where the right
answer is its class, and once with its class taken out, where the right answer is *none*. So both kinds of queries
count alike, and the probabilities are those of a stream in which every second query is not in the range. A query is in
the range if P(none) is below a threshold, which lets a stated share of the items through whose class was taken out.

No class is trained on, and none has parameters of its own: a range may change, and decides anew. The idea of a score
for *none* beside the classes is open-set recognition (Scheirer et al., PAMI 2013).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pddm_lab.errors import DataError
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.local.neighbourhoods import Neighbourhoods
from pddm_lab.local.unit import LocalStructure
from pddm_lab.model.similarity import Similarity

SHORTLIST = 200
"""Nearest items by D that are looked at; more where a class is larger, so that others are among them."""
ASKED = 1500
"""Items that are asked to fit a decision; of more, a seeded sample."""
FEWEST = 20
"""Items to ask, below which nothing is decided."""
FALSE_ACCEPTS = 0.05
"""Share of queries that are not in the range and are taken for a class all the same."""
PARTS = 4
"""In which the classes are taken out, for a similarity that looks at the whole range."""
_CHUNK = 64


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

    @torch.no_grad()
    def best(
        self, query: Float[Tensor, "queries dim"], pretrained: Float[Tensor, "queries pretrained"] | None = None,
        own: Int[Tensor, " queries"] | None = None,
    ) -> ClassScores:  # fmt: skip
        """The similarity of each query with the most similar item of each class near it.

        Args:
            query: features.
            pretrained: of the queries, where the similarity uses them.
            own: the queries' own rows in the range, out of which they are taken; None: they are not in it.
        """
        largest = int(np.unique(self.labels, return_counts=True)[1].max())
        count = min(max(SHORTLIST, round(1.25 * largest)), len(self.features) - (own is not None))
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
        return ClassScores.of(*(np.concatenate(side) for side in zip(*parts, strict=True)))

    def _scores(self, query: Tensor, further: Tensor | None, rows: Tensor, own: Tensor | None) -> Tensor:
        if not isinstance(self.by, LocalStructure):
            return self.by.candidates(query, self.features, rows)
        assert self.reference is not None
        return self.by.candidates(self.reference, self.by.space(query, further), rows, own)

    def ask(
        self, rows: Int[np.ndarray, " asked"], seed: int = 0
    ) -> tuple[ClassScores, ClassScores]:  # fmt: skip
        """The class scores of some items as they are, and with their class taken out.

        Neighbourhoods feel the items of a class even where these are no candidates. So for local structure the classes
        are taken out in parts, and each part's items are asked of a range that never had them.
        """
        own, labels = torch.from_numpy(rows), self.labels[rows]
        further = None if self.pretrained is None else self.pretrained[own]
        whole = self.best(self.features[own], further, own)
        if self.reference is None:
            return whole, whole.without(labels)
        classes = np.random.default_rng(seed).permutation(np.unique(self.labels))
        parts, order = [], []
        for out in np.array_split(classes, min(PARTS, len(classes))):
            asked = np.flatnonzero(np.isin(labels, out))
            if len(asked):
                further = None if self.pretrained is None else self.pretrained[own[asked]]
                parts.append(self.keeping(~np.isin(self.labels, out)).best(self.features[own[asked]], further))
                order.append(asked)
        return whole, ClassScores.joined(parts, np.concatenate(order))


@dataclass(frozen=True, eq=False)
class ClassScores:
    """The classes near each query, the most similar first; the places of missing ones hold minus infinity."""

    scores: Float[np.ndarray, "queries classes"]
    labels: Int[np.ndarray, "queries classes"]

    @classmethod
    def of(
        cls, scores: Float[np.ndarray, "queries items"], labels: Int[np.ndarray, "queries items"]
    ) -> ClassScores:  # fmt: skip
        """The best score of each class among some items."""
        order = np.argsort(-scores, axis=1, kind="stable")
        scores, labels = np.take_along_axis(scores, order, 1), np.take_along_axis(labels, order, 1)
        lines = [np.sort(np.unique(line, return_index=True)[1]) for line in labels]
        width = max(map(len, lines), default=0)
        best, named = np.full((len(lines), width), -np.inf), np.full((len(lines), width), -1)
        for row, at in enumerate(lines):
            best[row, : len(at)], named[row, : len(at)] = scores[row, at], labels[row, at]
        return cls(best, named)

    @classmethod
    def joined(cls, parts: Sequence[ClassScores], order: Int[np.ndarray, " queries"]) -> ClassScores:
        """The queries of several, where `order` says which each of them is."""
        width = max(part.scores.shape[1] for part in parts)
        scores, labels = np.full((len(order), width), -np.inf), np.full((len(order), width), -1)
        begin = 0
        for part in parts:
            at = order[begin : begin + len(part.scores)]
            scores[at, : part.scores.shape[1]], labels[at, : part.scores.shape[1]] = part.scores, part.labels
            begin += len(at)
        return cls(scores, labels)

    def without(self, labels: Int[np.ndarray, " queries"]) -> ClassScores:
        """With a class of each query taken out."""
        return ClassScores(np.where(self.labels == labels[:, None], -np.inf, self.scores), self.labels)


@dataclass(frozen=True)
class Decision:
    """How similarities become probabilities of classes and of none."""

    scale: float
    """T, in units of the similarity."""
    none: float
    """tau, in units of the similarity: as similar as an item of no class is."""
    most_none: float
    """Largest P(none) of a query that is in the range."""
    false_accepts: float
    """Share of the items whose class was taken out that are accepted at `most_none`."""
    found: float
    """Share of the items with their class in the range that are accepted and get it."""
    asked: int
    """Items that were asked."""

    @classmethod
    def fit(cls, of: Range, false_accepts: float = FALSE_ACCEPTS, seed: int = 0, asked: int = ASKED) -> Decision:
        """Ask the items of a range for their classes, with and without these.

        Args:
            of: the range.
            false_accepts: share of the items without their class that may be accepted.
            seed: of the sample of items.
            asked: size of the sample.

        Raises:
            DataError: too few items have another one of their class.
        """
        counts = np.bincount(of.labels)
        rows = np.flatnonzero(counts[of.labels] > 1)
        if len(rows) < FEWEST or (counts > 1).sum() < 2:
            raise DataError(
                f"Too few items to decide by: expected {FEWEST} that have another one of their class, of two classes "
                f"or more, got {len(rows)}."
            )
        if len(rows) > asked:
            rows = np.sort(np.random.default_rng(seed).choice(rows, asked, replace=False))
        with_class, without = of.ask(rows, seed)
        labels = of.labels[rows]
        right = with_class.labels == labels[:, None]
        scale, none = _most_likely(with_class.scores, right, without.scores)
        fitted = cls(scale, none, 1.0, false_accepts, 0.0, len(rows))
        nobody = fitted.probabilities(without)[1]
        most = float(np.quantile(nobody, false_accepts, method="lower"))
        classes, nobody = fitted.probabilities(with_class)
        hit = (nobody < most) & right[np.arange(len(rows)), classes.argmax(1)]
        return cls(scale, none, most, false_accepts, float(hit.mean()), len(rows))

    def probabilities(
        self, of: ClassScores
    ) -> tuple[Float[np.ndarray, "queries classes"], Float[np.ndarray, " queries"]]:
        """P(c) of the classes near each query, in their order, and P(none)."""
        logits = np.column_stack([of.scores, np.full(len(of.scores), self.none)]) / self.scale
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        return shares[:, :-1], shares[:, -1]

    def in_range(self, none: Float[np.ndarray, " queries"]) -> Bool[np.ndarray, " queries"]:
        """Whether queries are in the range, by their P(none)."""
        return none < self.most_none


def _most_likely(
    scores: Float[np.ndarray, "asked classes"], right: Bool[np.ndarray, "asked classes"],
    without: Float[np.ndarray, "asked classes"],
) -> tuple[float, float]:  # fmt: skip
    """T and tau by maximum likelihood of the right class, and of none where that is taken out."""
    from scipy.optimize import minimize

    best = np.where(right, scores, -np.inf).max(1)
    finite = scores[np.isfinite(scores)]
    centre, spread = float(np.median(finite)), float(finite.std()) or 1.0

    def loss(values: np.ndarray) -> float:
        scale, none = spread * math.exp(values[0]), centre + spread * values[1]
        whole, rest = (
            np.logaddexp.reduce(np.column_stack([of, np.full(len(of), none)]) / scale, axis=1)
            for of in (scores, without)
        )
        known = np.maximum(best / scale - whole, -50.0)  # a class that isn't in the shortlist
        return -float(known.mean() + (none / scale - rest).mean())

    found = minimize(loss, np.array([-1.5, 1.0]), method="Nelder-Mead", options={"maxiter": 400, "xatol": 1e-4})
    return spread * math.exp(found.x[0]), centre + spread * float(found.x[1])
