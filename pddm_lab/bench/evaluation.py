"""How long it takes to evaluate a similarity: exactly, and within a shortlist for many items."""

from __future__ import annotations

import time

from pddm_lab.bench.report import Log, Measure
from pddm_lab.bench.timing import clustered, trained_unit
from pddm_lab.metrics.retrieval import evaluate
from pddm_lab.model.similarity import make_similarity

PER_CLASS, SPREAD = 10, 1.7
SHORTLIST = 200


def measure(few: int, many: int, log: Log) -> list[Measure]:
    """Measure Euclidean and PDDM; each item is searched among the others.

    Args:
        few: items whose pairs are all scored.
        many: items for which PDDM ranks a shortlist; 0: leave that out.
    """
    log("training a unit on clusters")
    unit, euclidean = trained_unit(spread=SPREAD), make_similarity("euclidean", 128)
    measures: list[Measure] = []
    for items, shortlist, target in ((few, 0, 15.0), (many, SHORTLIST, 180.0)):
        if not items:
            continue
        features, labels = clustered(items, PER_CLASS, SPREAD)
        seconds: dict[str, float] = {}
        for similarity, ranked in ((euclidean, 0), (unit, shortlist)):
            log(f"{items:,} items by {similarity.name}")
            start = time.perf_counter()
            result = evaluate(similarity, features, features, labels, labels, True, shortlist=ranked)
            seconds[similarity.name] = time.perf_counter() - start
            within = f"within the nearest {ranked}" if ranked else "exact"
            over = f"{within}, R@1 {100 * result.metrics['recall@1']:.1f} %"
            measures.append(Measure(f"{items:,} items by {similarity.name}", seconds[similarity.name], "s", over=over))
        measures.append(Measure(f"{items:,} items by both", sum(seconds.values()), "s", target))
    return measures
