"""A map after changes: what stays keeps its place, what is new lies between its neighbours, what is undone is back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_changes import new_items
from test_gallery import make

from pddm_lab.gallery import umap_layout
from pddm_lab.gallery.changes import NewItems, add, remove, rename_class, undo, update
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.map_upkeep import aligned
from pddm_lab.gallery.umap_layout import write_map


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gallery:
    monkeypatch.setattr(umap_layout, "_umap", lambda features, *_: np.array(features[:, :2]))
    made = make(tmp_path, 40)
    write_map(made.path)
    return made.reopened()


def test_items_that_stay_keep_their_places(gallery: Gallery) -> None:
    before = gallery.map
    assert before is not None
    after = remove(gallery, gallery.items["id"].iloc[[3, 20]].tolist())
    after = rename_class(after, after.items["class_name"].iloc[0], "another name")
    assert after.map is not None and after.manifest["map"]["placed"] == 0
    expected = before.drop(index=[3, 20]).reset_index(drop=True)
    assert after.map["id"].tolist() == after.items["id"].tolist() == expected["id"].tolist()
    np.testing.assert_array_equal(after.map[["x", "y", "radius", "overlap"]], expected[["x", "y", "radius", "overlap"]])


def test_new_items_lie_between_their_nearest(gallery: Gallery) -> None:
    before = gallery.map
    assert before is not None
    twin, other = np.array(gallery.features[7]), new_items(1)
    copy = NewItems(other.items, twin[None], other.thumbs)
    after = add(gallery, copy)
    assert after.map is not None and after.manifest["map"]["placed"] == 1
    np.testing.assert_allclose(after.map[["x", "y"]].iloc[-1], before[["x", "y"]].iloc[7], atol=1e-3)
    assert np.isnan(after.map["overlap"].iloc[-1]) and after.map["overlap"].iloc[:-1].notna().all()
    after = add(after, new_items(3, first=5))
    assert after.map is not None and after.manifest["map"]["placed"] == 4
    low, high = before[["x", "y"]].min(), before[["x", "y"]].max()
    assert ((after.map[["x", "y"]] >= low) & (after.map[["x", "y"]] <= high)).all(axis=None)
    assert undo(after)[0].manifest["map"]["placed"] == 1, "those that are gone aren't counted"
    write_map(after.path)
    assert after.reopened().manifest["map"].get("placed", 0) == 0


def test_an_updated_item_moves_and_an_undone_removal_is_back(gallery: Gallery) -> None:
    before = gallery.map
    assert before is not None
    twin = NewItems(gallery.items.iloc[[4]].reset_index(drop=True), np.array(gallery.features[[9]]), [gallery.thumb(9)])
    after = update(gallery, twin)
    assert after.map is not None
    np.testing.assert_allclose(after.map[["x", "y"]].iloc[-1], before[["x", "y"]].iloc[9], atol=1e-3)
    after, _ = undo(remove(after, [after.items["id"].iloc[0]]))
    assert after.map is not None and after.map["id"].tolist() == after.items["id"].tolist()
    assert after.map[["x", "y"]].notna().all(axis=None)


def test_a_damaged_map_is_dropped_by_the_next_change(gallery: Gallery) -> None:
    file = gallery.path / "map.parquet"
    file.write_bytes(b"x" * file.stat().st_size)
    after = add(gallery, new_items(1))
    assert after.map is None and after.manifest["map"] is None


def test_a_new_map_is_turned_and_shifted_onto_the_one_before(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    before = gallery.map
    assert before is not None
    turn = np.array([[np.cos(2), np.sin(2)], [np.sin(2), -np.cos(2)]])  # and mirrored
    monkeypatch.setattr(umap_layout, "_umap", lambda features, *_: features[:, :2] @ turn + 7)
    after = add(remove(gallery, gallery.items["id"].iloc[[3]].tolist()), new_items(2))
    write_map(after.path)
    drawn = after.reopened().map
    assert drawn is not None and after.reopened().manifest["map"].get("placed", 0) == 0
    expected = before.drop(index=3)[["x", "y"]]
    np.testing.assert_allclose(drawn[["x", "y"]].iloc[:-2], expected, atol=1e-5)
    np.testing.assert_allclose(drawn[["x", "y"]].iloc[-2:], np.array(after.features)[-2:, :2], atol=1e-5)


@pytest.mark.parametrize("common", [0, 1])
def test_a_new_map_of_other_items_is_only_shifted_as_far_as_it_can_be(common: int) -> None:
    places = np.array([[1.0, 2.0], [5.0, 2.0], [3.0, 8.0]], np.float32)
    before = pd.DataFrame({"id": ["b", "x"], "x": [11.0, 0.0], "y": [22.0, 0.0]})
    ids = pd.Series(["a", "b" if common else "c", "d"])
    moved = aligned(places, ids, before)
    assert np.linalg.norm(moved[0] - moved[1]) == pytest.approx(4)
    np.testing.assert_allclose(moved[1], [11, 22] if common else [5, 2], atol=1e-5)
    np.testing.assert_array_equal(aligned(places, ids, None), places)
