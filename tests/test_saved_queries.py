"""Queries that are kept with a gallery: their accuracy before and after changes, checked against a slow loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_gallery import make
from test_gallery_upkeep import new, structure, written  # noqa: F401 - a fixture

from pddm_lab.analysis.decision import Range, Shortlists
from pddm_lab.analysis.saved_queries import FILE, SavedQueries, keep, read, save
from pddm_lab.errors import RunError
from pddm_lab.files import replacing, temporary_beside
from pddm_lab.gallery.changes import remove, rename_class, undo, update
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.upkeep import keep_up
from pddm_lab.local.unit import LocalStructure
from pddm_lab.model.similarity import make_similarity


def slowly(gallery: Gallery, kept: SavedQueries) -> float:
    hits = []
    searched = gallery.items[gallery.items["role"] != "query"]
    named = dict(zip(gallery.items["id"], gallery.items["class_name"], strict=True))
    for item, saved, feature in zip(kept.items["id"], kept.items["class_name"], kept.features, strict=True):
        name = named.get(item, saved)
        others = searched.index[searched["id"] != item]
        nearest = others[np.argmin(np.linalg.norm(gallery.features[others] - feature, axis=1))]
        hits.append(searched["class_name"][nearest] == name)
    return float(np.mean(hits))


def test_the_accuracy_follows_every_change(tmp_path: Path) -> None:
    gallery = make(tmp_path, 60)
    by = make_similarity("euclidean", gallery.manifest["dim"])
    kept = save(gallery, 25)
    assert len(kept) == 25 and kept.items["id"].is_unique
    read_again = read(gallery)
    assert read_again is not None and read_again.pretrained is None
    pd.testing.assert_frame_equal(read_again.items, kept.items)
    np.testing.assert_array_equal(read_again.features, kept.features)
    assert kept.accuracy(gallery, by) == pytest.approx(slowly(gallery, kept))
    gallery = remove(gallery, kept.items["id"].iloc[:5].tolist())  # these queries are no items any more
    after = read(gallery)
    assert after is not None and after.accuracy(gallery, by) == pytest.approx(slowly(gallery, kept))
    before = kept.accuracy(gallery, by)
    for name in kept.items["class_name"].unique():
        gallery = rename_class(gallery, name, f"another name for {name}")
    assert kept.accuracy(gallery, by) == before, "of items that are there, and of those that left"


def test_a_merged_class_is_the_class_of_its_queries(tmp_path: Path) -> None:
    gallery = make(tmp_path, 60)
    by = make_similarity("euclidean", gallery.manifest["dim"])
    kept = save(gallery, 60)
    before = kept.accuracy(gallery, by)
    gallery = rename_class(gallery, "class 0", "class 1")
    assert kept.accuracy(gallery, by) == pytest.approx(slowly(gallery, kept)) and slowly(gallery, kept) > before
    assert kept.accuracy(undo(gallery)[0], by) == before


def test_queries_of_an_earlier_version_have_no_labels(tmp_path: Path) -> None:
    gallery = make(tmp_path, 60)
    kept = save(gallery, 25)
    pd.read_parquet(gallery.path / FILE).drop(columns="label").to_parquet(gallery.path / FILE)
    earlier = read(gallery)
    assert earlier is not None
    pd.testing.assert_frame_equal(earlier.items, kept.items)


def test_local_structure_looks_at_the_kept_pretrained_features(structure: LocalStructure, tmp_path: Path) -> None:  # noqa: F811
    gallery = written(tmp_path / "gallery", 120)
    kept = save(gallery, 40)
    assert kept.pretrained is not None and 0 <= kept.accuracy(gallery, structure) <= 1
    again = read(gallery)
    assert again is not None and again.accuracy(gallery, structure) == kept.accuracy(gallery, structure)


def test_a_query_whose_picture_was_replaced_is_searched_without_its_item(
    structure: LocalStructure,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gallery = written(tmp_path / "gallery", 120)
    kept = save(gallery, 40)
    gallery = update(gallery, new(list(range(200, 212)), kept.items["id"].tolist()[:12]), structure)
    gallery = keep_up(gallery, structure)
    of, searched, expected, actual = Range.of(gallery, structure), gallery.rows("gallery"), {}, {}
    assert kept.pretrained is not None
    for feature, further, item in zip(kept.features, kept.pretrained, kept.items["id"], strict=True):
        others = of.keeping(gallery.items["id"].to_numpy()[searched] != item)
        near = others.nearest(torch.from_numpy(feature[None]), torch.from_numpy(further[None]))
        expected[feature.tobytes()] = near.scores[0]
    nearest = Range.nearest

    def kept_track_of(self: Range, query: torch.Tensor, *more: torch.Tensor | None) -> Shortlists:
        near = nearest(self, query, *more)
        actual.update({feature.numpy().tobytes(): scores for feature, scores in zip(query, near.scores, strict=True)})
        return near

    monkeypatch.setattr(Range, "nearest", kept_track_of)
    kept.accuracy(gallery, structure)
    assert len(actual) == 40
    for number, feature in enumerate(kept.features):
        close = 0.01 if number < 12 else 0.05  # nothing is built anew for an item that is as it was
        np.testing.assert_allclose(actual[feature.tobytes()], expected[feature.tobytes()], atol=close)


@pytest.mark.parametrize("rows", [[3], [3, 50, 51]])
def test_a_range_without_items_never_had_them(structure: LocalStructure, tmp_path: Path, rows: list[int]) -> None:  # noqa: F811
    of = Range.of(written(tmp_path / "gallery", 90), structure)
    assert of.pretrained is not None
    kept = np.ones(len(of.labels), bool)
    kept[rows] = False
    query = of.features[rows], of.pretrained[rows]
    actual, expected = of.without(np.array(rows)).nearest(*query), of.keeping(kept).nearest(*query)
    np.testing.assert_array_equal(actual.first, expected.first)
    np.testing.assert_allclose(actual.scores, expected.scores, atol=0.02)


def test_a_gallery_has_none_until_they_are_saved(tmp_path: Path) -> None:
    assert read(make(tmp_path, 20)) is None


@pytest.mark.parametrize("by_local", [False, True])
def test_the_only_item_that_is_left_finds_nothing(structure: LocalStructure, tmp_path: Path, by_local: bool) -> None:  # noqa: F811
    gallery = written(tmp_path / "gallery", 20)
    kept = save(gallery, 16)
    searched = gallery.items["id"].iloc[gallery.rows("gallery")].tolist()
    stays, label = kept.items[["id", "label"]].iloc[0]
    gallery = remove(gallery, [item for item in searched if item != stays])
    of_class = int((kept.items["label"] == label).sum())
    by = structure if by_local else make_similarity("euclidean", gallery.manifest["dim"])
    assert of_class > 1 and kept.accuracy(gallery, by) == (of_class - 1) / 16, "the others of its class find it"


def test_a_file_without_queries_holds_none(tmp_path: Path) -> None:
    gallery = make(tmp_path, 20)
    kept = save(gallery, 5)
    keep(gallery, kept.items.iloc[:0], kept.features[:0], None)
    assert read(gallery) is None


def test_queries_are_saved_while_the_gallery_changes(tmp_path: Path) -> None:
    gallery = make(tmp_path, 20)
    left = [temporary_beside(gallery.path / name) for name in ("items-7.parquet", "manifest.json")]
    left.append(gallery.path / ".items-7.parquet.4194305-1.tmp")  # of an earlier version
    for file in left:
        file.touch()
    with replacing(gallery.path / FILE) as temporary:
        temporary.write_bytes(b"a table")
        remove(gallery, gallery.items["id"].iloc[:1].tolist())  # by another process
    assert (gallery.path / FILE).read_bytes() == b"a table"
    assert not any(file.exists() for file in left), "what killed changes left is deleted"


def test_items_without_a_partner_are_no_queries(tmp_path: Path) -> None:
    gallery = make(tmp_path, 20)
    lone = gallery.items.assign(label=np.arange(20))
    with pytest.raises(RunError, match="no class with two items"):
        save(make(tmp_path / "lone", 20, items=lone), 5)


@pytest.mark.parametrize("damage", ["no table", "without features", "other dimensions", "not finite"])
def test_a_damaged_or_foreign_file_is_named(tmp_path: Path, damage: str) -> None:
    gallery = make(tmp_path, 20)
    save(gallery, 5)
    file = gallery.path / FILE
    table = pd.read_parquet(file)
    if damage == "no table":
        file.write_bytes(b"no table")
    elif damage == "without features":
        table.drop(columns="feature").to_parquet(file)
    elif damage == "other dimensions":
        table.assign(feature=[[1.0, 2.0]] * 5).to_parquet(file)
    else:
        table.assign(feature=[[float("nan")] * gallery.manifest["dim"]] * 5).to_parquet(file)
    with pytest.raises(RunError, match=r"queries\.parquet.*gallery queries"):
        read(gallery)
