"""Maps say how far they can be trusted: density and kept neighbours of every item against slow loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_gallery import make, make_features

from pddm_lab.gallery import umap_layout
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.umap_layout import NEIGHBOURS, trust, write_map
from pddm_lab.metrics.density import NEIGHBOURS as NEAR
from pddm_lab.metrics.density import nearest


def slow_neighbours(points: np.ndarray, item: int, count: int) -> list[int]:
    distances = [float(np.linalg.norm(points[item].astype(float) - other)) for other in points]
    return sorted((other for other in range(len(points)) if other != item), key=lambda other: distances[other])[:count]


@pytest.mark.parametrize("rows", [None, np.array([3, 40, 7])])
def test_trust_agrees_with_a_loop(rows: np.ndarray | None) -> None:
    random = np.random.default_rng(1)
    features = random.normal(size=(80, 6)).astype(np.float32)
    places = (features[:, :2] + 0.3 * random.normal(size=(80, 2))).astype(np.float32)
    radius, overlap = trust(places, *nearest(features, NEIGHBOURS, rows), rows)
    for at, item in enumerate(range(80) if rows is None else rows):
        near, drawn = (slow_neighbours(points, item, NEIGHBOURS) for points in (features, places))
        assert overlap[at] == pytest.approx(len(set(near) & set(drawn)) / NEIGHBOURS)
        expected = np.mean([np.linalg.norm(features[item].astype(float) - features[other]) for other in near[:NEAR]])
        assert radius[at] == pytest.approx(expected, rel=1e-5)
    assert 0 < overlap.mean() < 1


def test_a_map_is_stored_with_what_it_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = make_features(60)
    gallery = make(tmp_path, 60, features=features)
    monkeypatch.setattr(umap_layout, "_umap", lambda of, *_: of[:, :2] * 3)
    assert write_map(gallery.path) == "umap"
    frame = Gallery.open(gallery.path).map
    assert frame is not None
    assert list(frame) == ["id", "x", "y", "radius", "overlap"]
    radius, overlap = trust(features[:, :2] * 3, *nearest(features, NEIGHBOURS))
    np.testing.assert_array_equal(frame["radius"], radius)
    np.testing.assert_array_equal(frame["overlap"], overlap)


@pytest.mark.parametrize("items", [0, 1, 3])
def test_a_handful_of_items_is_drawn_and_trusted_as_far_as_it_goes(tmp_path: Path, items: int) -> None:
    gallery = make(tmp_path, items)
    assert write_map(gallery.path) == "pca"
    frame = pd.read_parquet(gallery.path / "map.parquet")
    assert len(frame) == items
    assert (frame["overlap"] == 1).all()
