"""Searches of a worker: the nearest by D from the gallery's index, re-ranked by a similarity, and what is decided.

Those that wait at the same time are searched by one call, which reads the items once for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pddm_lab.analysis.decision import Shortlists
from pddm_lab.local.unit import LocalStructure
from pddm_lab.model.similarity import Similarity
from pddm_lab.service.answers import Decided, Hit, SearchAnswer
from pddm_lab.service.batches import Batches
from pddm_lab.service.catalogue import Snapshot
from pddm_lab.service.decisions import Decisions
from pddm_lab.service.pictures import Feature

EUCLIDEAN, LOCAL = "euclidean", "local"
_BATCH = 16
"""Searches of one call: with more, the first of them would wait for too long."""


@dataclass(frozen=True, eq=False)
class Query:
    """A search that waits."""

    snapshot: Snapshot
    of: Feature
    row: int | None
    """Of the query itself, if it is an item that is searched; it is left out."""
    count: int
    similarity: str
    threshold: float | None
    """Least similarity of a hit."""


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The shortlists of some queries, best first, all of the same length."""

    rows: Int[np.ndarray, "queries shortlist"]
    scores: Float[np.ndarray, "queries shortlist"]
    distances: Float[np.ndarray, "queries shortlist"]


@dataclass(frozen=True, eq=False)
class Answered:
    """A query's answer, and what the log says of it."""

    answer: SearchAnswer
    scores: dict[str, Any]
    """As `pddm-lab drift --log` reads them (`ScoreContent` in change/drift_schema.py); empty if D didn't decide."""


class Search:
    """Searches by the similarities of a run.

    Args:
        run: its name, for the answers.
        similarities: name -> what re-ranks; Euclidean distance is always there.
        structure: the run's similarity on local structure, if it has one.
        decisions: what is decided.
        pool: where it is searched.
        threads: searches at the same time.
    """

    def __init__(
        self, run: str, similarities: Mapping[str, Similarity], structure: LocalStructure | None,
        decisions: Decisions, pool: Executor, threads: int,
    ) -> None:  # fmt: skip
        self._run = run
        self._similarities, self._structure, self._decisions = similarities, structure, decisions
        self._batches: Batches[Query, Answered] = Batches(self._all, pool, threads, _BATCH)

    async def __call__(self, query: Query) -> Answered:
        """The answer to a query."""
        return await self._batches(query)

    def _all(self, queries: Sequence[Query]) -> list[Answered | Exception]:
        answers: dict[int, Answered | Exception] = {}
        groups: dict[tuple[int, str, bool, int], list[int]] = {}
        for number, query in enumerate(queries):
            width = max(query.snapshot.shortlist, query.count)
            groups.setdefault((id(query.snapshot), query.similarity, query.row is None, width), []).append(number)
        for (*_, width), members in groups.items():
            some = [queries[number] for number in members]
            try:
                answers |= dict(zip(members, self._alike(some, width), strict=True))
            except Exception as error:  # of these alone: the others are answered
                answers |= dict.fromkeys(members, error)
        return [answers[number] for number in range(len(queries))]

    def _alike(self, queries: Sequence[Query], width: int) -> list[Answered]:
        """Answers to queries of one kind in the same gallery."""
        snapshot, name = queries[0].snapshot, queries[0].similarity
        ranked = self._ranked(queries, width)
        note = ""
        if name == LOCAL and self._structure is not None:
            reference = snapshot.gallery.reference(self._structure)
            note = reference.note or reference.stale_note
        decision, reason = self._decisions.of(name)
        probability = in_range = margin = None
        if decision is not None and ranked.rows.shape[1]:
            near = Shortlists.of(ranked.scores, snapshot.labels[ranked.rows])
            margin, probability = near.signs()[:, 1], decision.probability(near)
            in_range = decision.in_range(probability)
        answers = []
        for at, query in enumerate(queries):
            scores = ranked.scores[at]
            kept = len(scores) if query.threshold is None else int((scores.astype(float) >= query.threshold).sum())
            kept = min(kept, query.count)
            hits = [
                Hit(id=snapshot.ids[row], class_name=snapshot.classes[row], score=score, distance=distance)
                for row, score, distance in zip(
                    ranked.rows[at, :kept].tolist(), scores[:kept].tolist(), ranked.distances[at, :kept].tolist(),
                    strict=True,
                )
            ]  # fmt: skip
            decided, logged = None, {}
            if decision is not None and probability is not None and in_range is not None and margin is not None:
                decided = Decided.of(
                    decision, name, snapshot.classes[ranked.rows[at, 0]], float(probability[at]), bool(in_range[at])
                )
                if name == EUCLIDEAN:
                    logged = {"run": self._run, "distance": float(ranked.distances[at, 0]), "margin": float(margin[at])}
                    logged |= decided.model_dump(include={"probability", "in_range", "class_name"})
            answer = SearchAnswer(
                run=self._run, similarity=name, hits=hits, decision=decided, no_decision="" if decided else reason,
                note=note, items=len(snapshot.gallery), change=snapshot.change,
            )  # fmt: skip
            answers.append(Answered(answer, logged))
        return answers

    def _ranked(self, queries: Sequence[Query], width: int) -> _Ranked:
        snapshot, name = queries[0].snapshot, queries[0].similarity
        features = np.stack([query.of.feature for query in queries]).astype(np.float32)
        own = [query.row for query in queries]
        if own[0] is None:
            rows, distances = snapshot.gallery.search(features, width)
        else:
            rows, distances = snapshot.gallery.search(features, width + 1)
            drop = rows == np.array(own)[:, None]
            drop[~drop.any(1), -1] = True  # it lies behind identical ones
            rows, distances = (values[~drop].reshape(len(rows), -1) for values in (rows, distances))
        if name == EUCLIDEAN or not rows.shape[1]:
            return _Ranked(rows, -distances, distances)
        if name == LOCAL:
            assert self._structure is not None
            reference = snapshot.gallery.reference(self._structure)
            scores = np.stack([
                reference.scores(features[at], query.of.pretrained, rows[at], query.row)
                for at, query in enumerate(queries)
            ])  # fmt: skip
        else:
            order, ordered = snapshot.gallery.rerank(features, rows, self._similarities[name])  # type: ignore[arg-type]
            return _Ranked(order, ordered, _of_rows(rows, distances, order))
        order = (-scores).argsort(axis=1, kind="stable")
        return _Ranked(*(np.take_along_axis(values, order, 1) for values in (rows, scores, distances)))


def _of_rows(rows: np.ndarray, values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Values of rows, in the order in which the same rows stand in `others`."""
    by_row, place = rows.argsort(1), others.argsort(1).argsort(1)
    return np.take_along_axis(np.take_along_axis(values, by_row, 1), place, 1)
