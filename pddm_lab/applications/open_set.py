"""Queries that are not in the range: how well a decision tells them from those that are.

Half of a protocol's classes are the range, the others are not in it. A fifth of each class of the range is held out as
queries. The decision (analysis/decision.py) is fitted on the range's other items alone; all queries are new to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float

from pddm_lab.analysis.decision import FALSE_ACCEPTS, Decision, Range
from pddm_lab.data.splits import halves_by_hash, hold_out_queries
from pddm_lab.errors import RunError
from pddm_lab.local.unit import LocalStructure
from pddm_lab.model.similarity import Similarity
from pddm_lab.progress import Progress
from pddm_lab.runs.local import load_local
from pddm_lab.runs.model import load_similarities
from pddm_lab.runs.run import Run

HELD_OUT = 0.2
"""Share of each class of the range whose items are queries."""
BINS = 15
"""Of equal width, over which the calibration error is measured."""
METRICS = {
    "recall@1": "R@1", "auroc": "AUROC", "oscr": "OSCR", "found": "found", "false_accepts": "false accepts",
    "ece": "ECE",
}  # fmt: skip
"""Metric -> title. R@1 is of the queries in the range. AUROC tells these from the others by P(right). OSCR is the mean
share that is in the range, accepted and of the right class, over all shares of false accepts (Dhamija et al., NeurIPS
2018). Found and false accepts are shares at the threshold. ECE is of P(right), over all queries."""


def open_set(
    run: Run, draws: int = 5, false_accepts: float = FALSE_ACCEPTS, protocols: Sequence[str] = (), seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Decide on queries in and out of a range, by each similarity of a run.

    Args:
        run: finished.
        draws: how often the classes are divided.
        false_accepts: share of the queries that are not in the range that is aimed at.
        protocols: unseen, known; empty: those of the run.
        seed: of the draws.
        progress: called after each draw.

    Returns:
        protocol, draw, similarity, classes, and a column for each of `METRICS`.

    Raises:
        RunError: the run has no labels, no gallery, or too few items.
    """
    if not run.is_labelled:
        raise RunError(f"The items of {run.name} have no labels: what is in the range is not known.")
    by = compared_by(run)
    chosen = list(protocols or run.protocols())
    rows, done = [], 0
    for protocol in chosen:
        for draw in range(draws):
            rows += [
                {"protocol": protocol, "draw": draw, **row}
                for row in _draw(run, protocol, by, false_accepts, seed + draw)
            ]
            done += 1
            if progress:
                progress(done, len(chosen) * draws, "draws")
    return pd.DataFrame(rows)


def compared_by(run: Run) -> dict[str, Similarity | LocalStructure]:
    """D, and the similarities that a run trained; the cosine isn't there, since at unit length it ranks like D."""
    local = load_local(run)
    by: dict[str, Similarity | LocalStructure] = {
        name: similarity for name, similarity in load_similarities(run).items() if name in ("euclidean", *run.learned)
    }
    return by if local is None else by | {"local": local.structure}


def _draw(
    run: Run, protocol: str, by: dict[str, Similarity | LocalStructure], false_accepts: float, seed: int
) -> Iterator[dict[str, float | str | int]]:
    gallery = run.gallery(protocol)
    features, labels = torch.from_numpy(np.array(gallery.features)), gallery.items["label"].to_numpy()
    pretrained = None if gallery.pretrained is None else torch.from_numpy(np.array(gallery.pretrained))
    classes = np.unique(labels)
    inside = np.isin(labels, classes[halves_by_hash([str(label) for label in classes], seed)])
    items, known = hold_out_queries(labels, np.flatnonzero(inside), HELD_OUT, seed)
    others = np.flatnonzero(~inside)
    if not len(known) or not len(others):
        raise RunError(f"The {protocol} gallery of {run.name} has too few classes to leave half of them out.")
    queries = np.concatenate([known, others])
    for name, similarity in by.items():
        of = Range.over(features[items], labels[items], similarity, None if pretrained is None else pretrained[items])
        decision = Decision.fit(of, false_accepts, seed)
        near = of.nearest(features[queries], None if pretrained is None else pretrained[queries])
        probability, known_here = decision.probability(near), np.arange(len(queries)) < len(known)
        yield {
            "similarity": name, "classes": len(np.unique(labels[items])),
            **measure(probability, near.first == labels[queries], known_here, decision.least),
        }  # fmt: skip


def measure(
    probability: Float[np.ndarray, " queries"], right: Bool[np.ndarray, " queries"],
    known: Bool[np.ndarray, " queries"], least: float,
) -> dict[str, float]:  # fmt: skip
    """The metrics of decisions.

    Args:
        probability: P(right).
        right: whether the first class is the query's.
        known: whether the query is in the range.
        least: P above which it is taken to be.
    """
    from sklearn.metrics import roc_auc_score

    accepted = probability > least
    # OSCR: with each threshold, the share found against the share of false accepts.
    order = np.argsort(-probability, kind="stable")
    hits, wrong = np.cumsum((right & known)[order]) / known.sum(), np.cumsum(~known[order]) / (~known).sum()
    ends = np.flatnonzero(np.append(np.diff(probability[order]) < 0, True))
    hits, wrong = np.append(0.0, hits[ends]), np.append(0.0, wrong[ends])
    return {
        "recall@1": float(right[known].mean()),
        "auroc": float(roc_auc_score(known, probability)),
        "oscr": float(np.trapezoid(hits, wrong)),
        "found": float((accepted & right)[known].mean()),
        "false_accepts": float(accepted[~known].mean()),
        "ece": calibration_error(probability, right & known, np.where(known, 0.5 / known.sum(), 0.5 / (~known).sum())),
    }


def calibration_error(
    predicted: Float[np.ndarray, " queries"], observed: Bool[np.ndarray, " queries"],
    weights: Float[np.ndarray, " queries"],
) -> float:  # fmt: skip
    """Expected calibration error (Guo et al., ICML 2017): the mean gap of predicted and observed shares over bins."""
    bins = np.minimum((predicted * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights * (predicted - observed), BINS)
    return float(np.abs(gaps).sum() / weights.sum())
