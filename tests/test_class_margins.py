"""Distances within and between classes, against a slow loop and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pddm_lab.errors import DataError
from pddm_lab.metrics import class_margins as margins
from pddm_lab.metrics.class_margins import class_margins

LABELS = np.repeat([3, 1, 7], [4, 5, 3])


def test_margins_equal_a_slow_loop() -> None:
    points = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    (row,) = class_margins({"a": points}, LABELS).to_dict("records")
    items = range(12)
    distance = [[math.dist(points[i].tolist(), points[j].tolist()) for j in items] for i in items]
    own = [[distance[i][j] for j in items if j != i and LABELS[i] == LABELS[j]] for i in items]
    other = [[distance[i][j] for j in items if LABELS[i] != LABELS[j]] for i in items]
    assert row["intra"] == pytest.approx(np.mean(np.concatenate(own)), abs=1e-5)
    assert row["inter"] == pytest.approx(np.mean(np.concatenate(other)), abs=1e-5)
    assert row["ratio"] == pytest.approx(row["inter"] / row["intra"])
    assert row["nearest"] == pytest.approx(np.mean([min(line) for line in other]), abs=1e-5)
    gaps = [min(b) - min(a) for a, b in zip(own, other, strict=True)]
    assert row["margin"] == pytest.approx(np.mean(gaps), abs=1e-5)
    assert row["overlap"] == np.mean([gap < 0 for gap in gaps])
    silhouettes = []
    for i in items:
        a = np.mean(own[i])
        b = min(np.mean([distance[i][j] for j in items if LABELS[j] == c]) for c in set(LABELS) - {LABELS[i]})
        silhouettes.append((b - a) / max(a, b))
    assert row["silhouette"] == pytest.approx(np.mean(silhouettes), abs=1e-5)


def test_classes_that_lie_apart() -> None:
    points = torch.eye(3)[torch.tensor([0] * 4 + [1] * 5 + [2] * 3)]
    apart, mixed = class_margins({"apart": points, "mixed": torch.rand(12, 3)}, LABELS).to_dict("records")
    assert (apart["intra"], apart["overlap"]) == (0, 0)
    assert (apart["inter"], apart["margin"]) == (pytest.approx(math.sqrt(2)), pytest.approx(math.sqrt(2)))
    assert apart["silhouette"] == pytest.approx(1)
    assert apart["nmi"] == pytest.approx(1)
    assert apart["ratio"] == math.inf > mixed["ratio"]
    assert (apart["items"], apart["classes"]) == (12, 3)


def test_many_items_are_whole_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(margins, "MOST_ITEMS", 9)
    (row,) = class_margins({"a": torch.rand(12, 3)}, LABELS).to_dict("records")
    assert row["classes"] == 2
    assert row["items"] in (7, 8, 9)


def test_lone_items_are_left_out() -> None:
    (row,) = class_margins({"a": torch.rand(5, 3)}, np.array([0, 0, 1, 1, 2])).to_dict("records")
    assert (row["items"], row["classes"]) == (4, 2)
    with pytest.raises(DataError, match="at least two classes"):
        class_margins({"a": torch.rand(3, 3)}, np.array([0, 0, 1]))
