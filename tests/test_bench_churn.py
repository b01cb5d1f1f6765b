"""The benchmark of churn: its changes and its exact search are right, and its figures hold what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pddm_lab import figures
from pddm_lab.bench.churn import measure as module
from pddm_lab.bench.churn.changes import Churn, nearest
from pddm_lab.bench.churn.measure import measure, measures
from pddm_lab.gallery.gallery import Gallery


def test_changes_are_random_the_same_each_time_and_noted(tmp_path: Path) -> None:
    after = []
    for copy in ("a", "b"):
        churn = Churn(150)
        gallery = Gallery.open(churn.write(tmp_path / copy))
        before = dict(zip(gallery.items["id"], np.array(gallery.features), strict=True))
        for _ in range(12):
            gallery = churn.step(gallery)
        now = dict(zip(gallery.items["id"], np.array(gallery.features), strict=True))
        assert set(churn.removed) == {*before} - {*now} and {*now} - {*before}, "some were added"
        assert any(not np.array_equal(now[name], before[name]) for name in {*now} & {*before}), "some were updated"
        assert all(np.array_equal(churn.removed[name], before[name]) for name in {*churn.removed} & {*before})
        after.append(now)
    assert after[0].keys() == after[1].keys()
    np.testing.assert_array_equal(list(after[0].values()), list(after[1].values()))
    queries = churn.queries(5, seed=3)
    for query, rows in zip(queries, nearest(gallery, queries, 7), strict=True):
        distances = [
            sum((float(a) - float(b)) ** 2 for a, b in zip(query, one, strict=True)) for one in gallery.features
        ]
        assert rows.tolist() == np.argsort(distances, kind="stable")[:7].tolist()


def test_every_store_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROUNDS": 2, "QUERIES": 10, "TIMED_QUERIES": 20}.items():
        monkeypatch.setattr(module, name, value)
    log: list[str] = []
    table = measure(tmp_path, 400, 6, ("flat", "ivf:12", "milvus"), 0.01, log.append)
    assert log == [f"{store}: round {number} of 2" for store in ("flat", "ivf:12", "milvus") for number in (1, 2)]
    assert table["changes"].tolist() == [3, 6] * 3
    of = {store: rows for store, rows in table.groupby("store")}
    for store in ("flat", "milvus"):
        assert (of[store][["recall", "recall@10", "own"]] == 1).all(axis=None) and not of[store]["back"].any()
    assert of["ivf:12"]["recall"].max() < 0.99, "these cells are too few, and the benchmark sees it"
    assert (table[["p50", "p99", "p99 during", "change", "searches", "searches during"]] > 0).all(axis=None)
    short = measures(table)
    assert {(one.what, one.over): one.verdict for one in short}[
        "queries with the same first 10, in order", "flat and milvus, 20 queries"
    ] == "met"
    assert [one.verdict for one in short if one.what.startswith("lowest recall of the 100")] == ["met", "missed", "met"]


def test_the_chart_draws_a_line_for_each_store_in_each_panel() -> None:
    table = pd.DataFrame({
        "store": ["flat", "flat", "milvus", "milvus"], "changes": [10, 20, 10, 20], "recall": [1.0, 0.99, 1.0, 0.98],
        "p99": [2.0, 4.0, 8.0, 8.0], "p99 during": [3.0, 8.0, 8.0, 16.0], "change": [100.0, 110.0, 90.0, 95.0],
    })  # fmt: skip
    figure = figures.churn(table, 0.99, 2.0)
    lines = [(line.name, list(line.x), list(line.y)) for line in figure.data]
    assert lines == [
        ("flat", [10, 20], [1.0, 0.99]), ("flat", [10, 20], [1.5, 2.0]), ("flat", [10, 20], [100.0, 110.0]),
        ("milvus", [10, 20], [1.0, 0.98]), ("milvus", [10, 20], [1.0, 2.0]), ("milvus", [10, 20], [90.0, 95.0]),
    ]  # fmt: skip
    assert [line.showlegend for line in figure.data] == [True, False, False] * 2
    assert len({line.line.color for line in figure.data}) == 2 and len({line.line.dash for line in figure.data}) == 2
