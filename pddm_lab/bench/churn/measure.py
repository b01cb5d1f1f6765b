"""What random changes do to a search: its recall, its slowest answers, and what a change takes; for each store.

One thread searches without a pause, always in the newest state of the gallery, while another changes the gallery.
Rounds of changes and rounds without take turns, so that other work on the machine slows both.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from pddm_lab.bench.churn.changes import Churn, nearest
from pddm_lab.bench.report import Log, Measure
from pddm_lab.gallery.gallery import Gallery

ROUNDS = 10
QUERIES = 100
"""Queries that measure the recall after each round."""
TIMED_QUERIES = 1000
FIRST, SHORTLIST = 10, 100
RECALL, SLOWER, ALIKE = 0.99, 2.0, 99.0
"""Targets: recall of the shortlist, p99 during changes over p99 without, % of queries with the same first 10."""


def measure(
    folder: Path, items: int, changes: int, stores: Sequence[str], quiet: float, log: Log,
    keep: Callable[[pd.DataFrame], None] = lambda table: None,
) -> pd.DataFrame:  # fmt: skip
    """A row for each store and round.

    Args:
        folder: to write galleries to.
        items: in the gallery at the start.
        changes: of the gallery, in `ROUNDS` rounds.
        stores: choices of an index (gallery/store.py); "milvus" is a file of milvus-lite in the folder.
        quiet: seconds of searching without changes in each round.
        keep: gets the rows so far after each round.

    Returns:
        store, changes so far, items; recall and recall@10; own: share of 100 items, half of them the last ones, that
        are their own nearest; back: removed ids among the nearest of the features that were removed; p50 and p99 of a
        search without changes, p99 during them, searches timed in each, and the median time of a change, in ms; first:
        ids of the first 10 of each query.
    """
    written = Churn(items).write(folder / "start")
    rows = list[dict]()
    for store in stores:
        copy = folder / store.replace(":", "-").replace("/", "-") / written.name
        shutil.copytree(written, copy)
        gallery = Gallery.open(copy, index=_choice(store, folder))
        for row in _rounds(gallery, Churn(items), store, changes, quiet, log):
            rows.append(row)
            keep(pd.DataFrame(rows))
    return pd.DataFrame(rows)


def measures(table: pd.DataFrame) -> list[Measure]:
    """The table in short, with targets."""
    some = []
    for store, rows in table.groupby("store", sort=False):
        over = f"{store}, {rows['changes'].max():,} changes"
        ratio = rows["p99 during"].median() / rows["p99"].median()
        some += [
            Measure(f"lowest recall of the {SHORTLIST} nearest", rows["recall"].min(), "", RECALL, over, True),
            Measure(f"lowest recall of the {FIRST} nearest", rows["recall@10"].min(), "", RECALL, over, True),
            Measure("items that are their own nearest", 100 * rows["own"].min(), "%", 100, over, True),
            Measure("removed items that came back", rows["back"].sum(), "", 0, over),
            Measure("p99 of a search without changes", rows["p99"].median(), "ms", over=f"{over}, median of rounds"),
            Measure("p99 during changes, over p99 without", ratio, "", SLOWER, f"{over}, medians of rounds"),
            Measure("a change in the first round", rows["change"].iloc[0], "ms", over=f"{over}, median"),
            Measure("a change in the last round", rows["change"].iloc[-1], "ms", over=f"{over}, median"),
        ]
    first, *others = (rows for _, rows in table.groupby("store", sort=False))
    for rows in others:
        same = [
            a == b
            for one, other in zip(first["first"], rows["first"], strict=True)
            for a, b in zip(one, other, strict=True)
        ]
        over = f"{first['store'].iloc[0]} and {rows['store'].iloc[0]}, {len(same):,} queries"
        some.append(
            Measure("queries with the same first 10, in order", 100 * float(np.mean(same)), "%", ALIKE, over, True)
        )
    return some


def _choice(store: str, folder: Path) -> str:
    return f"milvus:{folder / 'churn.db'}" if store == "milvus" else store


def _rounds(gallery: Gallery, churn: Churn, store: str, changes: int, quiet: float, log: Log) -> Iterator[dict]:
    timed, done = churn.queries(TIMED_QUERIES, seed=1), 0
    gallery.search(timed[:1], 1)  # builds or fills the store
    for number in range(1, ROUNDS + 1):
        log(f"{store}: round {number} of {ROUNDS}")
        with _Searching(gallery, timed) as without:
            time.sleep(quiet)
        seconds = []
        with _Searching(gallery, timed) as during:
            for _ in range(round(changes * number / ROUNDS) - done):
                start = time.perf_counter()
                gallery = during.gallery = churn.step(gallery)
                seconds.append(time.perf_counter() - start)
        done += len(seconds)
        yield {
            "store": store, "changes": done, "items": len(gallery), **_quality(gallery, churn, number),
            "p50": 1000 * np.median(without.seconds), "p99": 1000 * np.quantile(without.seconds, 0.99),
            "p99 during": 1000 * np.quantile(during.seconds, 0.99), "searches": len(without.seconds),
            "searches during": len(during.seconds), "change": 1000 * float(np.median(seconds or [np.nan])),
        }  # fmt: skip


class _Searching:
    """Searches in another thread until the block ends, in the gallery that is set last."""

    def __init__(self, gallery: Gallery, queries: Float[np.ndarray, "queries dim"]) -> None:
        self.gallery, self._queries = gallery, queries
        self.seconds: list[float] = []
        self._end, self._error = threading.Event(), list[BaseException]()
        self._thread = threading.Thread(target=self._search, daemon=True)

    def __enter__(self) -> _Searching:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        if self._error:
            raise self._error[0]

    def _search(self) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        try:
            while not self._end.is_set() or not self.seconds:
                query = self._queries[len(self.seconds) % len(self._queries)]
                start = time.perf_counter()
                self.gallery.search(query[None], SHORTLIST)
                self.seconds.append(time.perf_counter() - start)
        except BaseException as error:  # raised where the block ends
            self._error.append(error)


def _quality(gallery: Gallery, churn: Churn, number: int) -> dict[str, object]:
    queries = churn.queries(QUERIES, seed=1000 + number)
    near, exact = gallery.search(queries, SHORTLIST)[0], nearest(gallery, queries, SHORTLIST)
    ids = gallery.items["id"].to_numpy()
    own = np.concatenate([np.arange(len(gallery) - 50, len(gallery)), np.arange(0, len(gallery), len(gallery) // 50)])
    gone = {name: feature for name, feature in list(churn.removed.items())[-50:]}
    of_gone = ids[gallery.search(np.stack(list(gone.values())), SHORTLIST)[0]] if gone else np.empty(0)
    return {
        "recall": float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, near, strict=True)])),
        "recall@10": float(np.mean(
            [np.isin(a, b).mean() for a, b in zip(exact[:, :FIRST], near[:, :FIRST], strict=True)]
        )),
        "own": float(np.mean(gallery.search(gallery.features_of(own), 1)[0][:, 0] == own)),
        "back": int(np.isin(of_gone, list(gone)).sum()),
        "first": [tuple(line) for line in ids[near[:, :FIRST]].tolist()],
    }  # fmt: skip
