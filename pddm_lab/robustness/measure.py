"""Measure how a run's similarities rank when pictures are corrupted: the query's, the gallery's, or both."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pddm_lab.data.images import open_image
from pddm_lab.errors import ConfigError, unknown_name
from pddm_lab.progress import Progress
from pddm_lab.robustness.cells import CLEAN, SIDES, Key, Measurement
from pddm_lab.robustness.corruptions import CORRUPTIONS, STRENGTHS, square_of
from pddm_lab.robustness.pictures import Pictures
from pddm_lab.robustness.products import why_no_background
from pddm_lab.robustness.sample import Features, Sample, draw_sample
from pddm_lab.robustness.scoring import Embedding, Ranking
from pddm_lab.runs.run import Run

QUERIES, ITEMS = 500, 2000
_LOOKED_AT = 40
"""Pictures that say whether a data set's pictures lie on white."""


def measure_robustness(
    run: Run, protocol: str = "unseen", corruptions: Sequence[str] = (), strengths: Sequence[int] = STRENGTHS,
    sides: Sequence[str] = SIDES, queries: int = QUERIES, items: int = ITEMS, seed: int = 0, processes: int = 0,
    model: str = "", progress: Progress | None = None,
) -> Measurement:  # fmt: skip
    """Measure each cell that isn't measured yet, the query's side first.

    Args:
        run: finished.
        protocol: unseen or known.
        corruptions: of `CORRUPTIONS`; empty: all that the pictures allow.
        strengths: of `STRENGTHS`.
        sides: of `SIDES`.
        queries, items, seed: as for `draw_sample`.
        processes: that corrupt pictures; 0: one a core; 1: this one.
        model: of imported features: what made them.
        progress: called with (pictures done, pictures to do, cell).

    Raises:
        ConfigError: an unknown corruption, strength or side, or a corruption that the pictures don't allow.
        RunError: as `draw_sample` and `Measurement.create`.
        DataError: a picture can't be read.
    """
    _check(corruptions, strengths, sides)
    sample = draw_sample(run, protocol, queries, items, seed)
    refused = refused_for(sample)
    if wanted := [name for name in corruptions if name in refused]:
        raise ConfigError(f"{CORRUPTIONS[wanted[0]].title} isn't offered for {run.name}: {refused[wanted[0]]}")
    names = [name for name in corruptions or CORRUPTIONS if name not in refused]
    kept = Measurement.create(run, protocol, sample, (queries, items, seed), refused)
    stages = [[side for side in SIDES if side in sides and (side == "query") == first] for first in (True, False)]
    todo = [
        (name, strength, missing, sample.query if of == ["query"] else np.arange(len(sample.ids)))
        for of in stages
        for name in names
        for strength in strengths
        if (missing := [(side, name, strength) for side in of if not kept.has((side, name, strength))])
    ]
    if not todo and kept.has(CLEAN):
        return kept
    embedding = Embedding(run, model)
    total = len(sample.ids) + sum(len(rows) for *_, rows in todo)
    done = 0
    with Pictures.read(sample.paths, sample.ids, embedding.network, processes, progress) as pictures:

        def report(of_part: int, _: int, what: str) -> None:
            if progress:
                progress(done + of_part, total, what)

        clean = embedding.of(pictures, np.arange(len(sample.ids)), *CLEAN[1:], report)
        done, ranking = len(sample.ids), Ranking.of(run)
        gallery = clean.of(sample.searched)
        if not kept.has(CLEAN):
            _measure(kept, CLEAN, ranking, sample, clean.of(sample.query), gallery)
        for name, strength, missing, rows in todo:
            made = embedding.of(pictures, rows, name, strength, report)
            done += len(rows)
            for key, *both in _both_sides(missing, sample, clean, gallery, made):
                _measure(kept, key, ranking, sample, *both)
    return kept


def _both_sides(
    missing: list[Key], sample: Sample, clean: Features, gallery: Features, made: Features
) -> Iterator[tuple[Key, Features, Features]]:
    """Each cell with the features of its queries and of its gallery.

    Args:
        missing: cells of the query's side, for which `made` is of the queries; or of the others, for which it is of
            all items.
    """
    if missing[0][0] == "query":
        yield from ((key, made, gallery) for key in missing)
        return
    corrupted = made.of(sample.searched)  # one object for both cells, so that its neighbourhoods are listed once
    for key in missing:
        yield key, (clean if key[0] == "gallery" else made).of(sample.query), corrupted


def _measure(
    kept: Measurement, key: Key, ranking: Ranking, sample: Sample, queries: Features, gallery: Features
) -> None:
    begun, metrics, outcomes = time.perf_counter(), {}, []
    for name, hits, precisions, values in ranking.outcomes(sample, queries, gallery):
        metrics[name] = values
        rows = {"similarity": name, "query": np.arange(len(hits), dtype=np.int32), "hit": hits}
        outcomes.append(pd.DataFrame(rows | {"precision": precisions.astype(np.float32)}))
    kept.write(key, pd.concat(outcomes, ignore_index=True), metrics, time.perf_counter() - begun)


def refused_for(sample: Sample) -> dict[str, str]:
    """The corruptions that a sample's pictures don't allow, with the reason."""
    some = np.linspace(0, len(sample.ids) - 1, min(_LOOKED_AT, len(sample.ids))).astype(int)
    reason = why_no_background([square_of(open_image(Path(sample.paths[row]))) for row in some])
    return {"background": reason} if reason else {}


def _check(corruptions: Sequence[str], strengths: Sequence[int], sides: Sequence[str]) -> None:
    for what, chosen, known in (("corruption", corruptions, CORRUPTIONS), ("side", sides, SIDES)):
        for one in chosen:
            if one not in known:
                raise ConfigError(unknown_name(what, one, known))
    for strength in strengths:
        if strength not in STRENGTHS:
            raise ConfigError(f"--strengths expects {STRENGTHS[0]} to {STRENGTHS[-1]}, got {strength}.")
