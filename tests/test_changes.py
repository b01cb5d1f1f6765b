"""Changes of a gallery: the same as a gallery written again, also for readers meanwhile and after an interruption."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_gallery import make, make_features, make_items, picture

from pddm_lab.errors import ConfigError, RunError
from pddm_lab.files import fingerprint
from pddm_lab.gallery import index, store, umap_layout
from pddm_lab.gallery.changes import NewItems, add, remove, rename_class, update, with_sources
from pddm_lab.gallery.files import changing, check_files, commit, thumbnail
from pddm_lab.gallery.gallery import Gallery


@pytest.fixture(params=["flat", "ivf", "ivf:2"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tests of a search run with each index; one that looks into all of its cells finds what a flat one does."""
    monkeypatch.setenv("PDDM_LAB_INDEX", request.param)
    if request.param == "ivf":
        monkeypatch.setattr(index, "RECALL", 2)
    return request.param


def new_items(count: int, seed: int = 9, first: int = 0, label: int = 7) -> NewItems:
    items = pd.DataFrame(
        {
            "id": [f"new/{first + n}.png" for n in range(count)],
            "label": label,
            "class_name": f"class {label}",
            "role": "both",
        }
    )
    thumbs = [thumbnail(picture(200 + n)) for n in range(count)]
    return NewItems(items, make_features(count, seed=seed), thumbs)


def as_written_again(path: Path, gallery: Gallery) -> Gallery:
    """A gallery of the same items that was never changed."""
    features = np.array(gallery.features)
    return make(path, len(gallery), features=features, items=gallery.items.copy(), load_image=lambda row: picture(0))


def test_a_changed_gallery_is_as_one_written_anew(tmp_path: Path, kind: str) -> None:
    gallery = make(tmp_path, 60)
    features, items = np.array(gallery.features), gallery.items
    gallery.search(gallery.features[:1], 1)
    added = add(gallery, new_items(5))
    gone = items["id"].iloc[[0, 17, 59]].tolist()
    removed = remove(added, [*gone, "new/3.png"])
    changed = NewItems(items.iloc[[4, 30]], make_features(2, seed=5), [b"a", b"bc"])
    updated = update(removed, changed)

    keep = [n for n in range(60) if n not in (0, 17, 59, 4, 30)]
    new = new_items(5)
    expected = pd.concat([items.iloc[keep], new.items.iloc[[0, 1, 2, 4]], changed.items], ignore_index=True)
    expected_features = np.concatenate([features[keep], new.features[[0, 1, 2, 4]], changed.features])
    for one in (updated, Gallery.open(gallery.path, verify=True)):
        pd.testing.assert_frame_equal(one.items, expected)
        np.testing.assert_array_equal(one.features, expected_features)
        assert [one.index_of(item) for item in expected["id"]] == list(range(61))
        assert one.thumb(one.index_of(items["id"].iloc[5])) == gallery.thumb(5)
        assert one.thumb(one.index_of("new/4.png")) == new.thumbs[4]
        assert [one.thumb(row) for row in (59, 60)] == [b"a", b"bc"]
        assert one.manifest["roles"] == {"query": 0, "gallery": 0, "both": 61}
        assert one.manifest["changed"] == {"added": 7, "removed": 6}
        assert (one.manifest["items"], one.manifest["format"], one.manifest["map"]) == (61, 2, None)
        if kind != "ivf:2":
            again = as_written_again(tmp_path / "again", one)
            for exclude in (None, 3, 60):
                for mine, theirs in zip(
                    one.search(one.features[[3, 60]], 9, exclude), again.search(one.features[[3, 60]], 9, exclude),
                    strict=True,
                ):  # fmt: skip
                    np.testing.assert_allclose(mine, theirs, atol=2e-3)
    assert not list(gallery.path.glob(".*"))
    assert [file.name for file in gallery.path.glob("items*")] == ["items-3.parquet"]
    assert updated.distributions["pddm"].pairs_total == 500


def test_what_is_removed_is_never_found(tmp_path: Path, kind: str) -> None:
    gallery = make(tmp_path, 200)
    query = np.array(gallery.features[:20])
    gallery.search(query, 1)
    ids = gallery.items["id"].iloc[:20].tolist()
    fewer = remove(gallery, ids)
    for one in (fewer, Gallery.open(gallery.path)):
        actual, distances = one.search(query, 180)
        assert actual.shape == (20, 180)
        assert set(one.items["id"].iloc[np.unique(actual)]) == set(gallery.items["id"].iloc[20:])
        assert (distances > 0.01).all()
    back = add(fewer, NewItems(gallery.items.iloc[:20], query, [b""] * 20))
    assert back._index is not None, "the index came along"
    actual, _ = back.search(query, 1)
    assert back.items["id"].iloc[actual[:, 0]].tolist() == ids


def test_who_reads_meanwhile_reads_on(tmp_path: Path, kind: str) -> None:
    gallery = make(tmp_path, 50)
    features, thumbs = np.array(gallery.features), [gallery.thumb(row) for row in range(50)]
    before = gallery.search(features[:9], 7)
    add(remove(gallery, gallery.items["id"].iloc[:10].tolist()), new_items(30))
    for old, new in zip(before, gallery.search(features[:9], 7), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(gallery.features, features)
    assert [gallery.thumb(row) for row in range(50)] == thumbs
    assert len(gallery.items) == 50
    assert len(gallery.reopened()) == 70


def test_a_change_while_a_gallery_is_looked_at_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = make(tmp_path, 20)

    def changed_first(path: Path, manifest: dict[str, Any], verify: bool) -> None:
        monkeypatch.undo()
        remove(gallery, gallery.items["id"].iloc[:1].tolist())
        check_files(path, manifest, verify)

    monkeypatch.setattr("pddm_lab.gallery.gallery.check_files", changed_first)
    assert len(gallery.reopened()) == 19
    (gallery.path / "manifest.json").unlink()
    with pytest.raises(RunError, match="no complete gallery"):
        gallery.reopened()


def test_an_index_is_built_anew_where_too_much_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FLAT_ITEMS", 100)
    gallery = make(tmp_path, 90)
    gallery.search(gallery.features[:1], 1)
    few = add(gallery, new_items(10))
    assert few._index is not None
    many = add(few, new_items(20, first=10))
    assert many._index is None, "beyond the flat one's size"
    assert many.search(many.features[:1], 1)[0].tolist() == [[0]]
    assert isinstance(many._index, index.Index) and many._index.cells
    assert add(many, new_items(10, first=30))._index is not None
    assert add(many.reopened(), new_items(130, first=40))._index is None, "more than twice what its cells were laid for"


def test_a_gallery_written_anew_takes_no_index_over(tmp_path: Path) -> None:
    gallery = make(tmp_path, 30)
    gallery.search(gallery.features[:1], 1)
    assert gallery.reopened()._index is not None
    make(tmp_path, 30, features=make_features(30, seed=4))
    other = gallery.reopened()
    assert other._index is None
    assert other.search(other.features[:3], 1)[0].ravel().tolist() == [0, 1, 2]


def test_what_was_appended_is_verified(tmp_path: Path) -> None:
    gallery = add(add(make(tmp_path, 10), new_items(2)), new_items(2, first=2))
    for name in ("features.npy", "thumbs.bin", "thumbs.npy"):
        file = gallery.path / name
        whole = file.read_bytes()
        for place in (-1, len(whole) // 2, 130):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + (whole[place + 1 :] if place != -1 else b""))
            with pytest.raises(RunError, match=f"{name} has changed"):
                Gallery.open(gallery.path, verify=True)
        file.write_bytes(whole[:-1])
        with pytest.raises(RunError, match=f"{name} is damaged"):
            Gallery.open(gallery.path)
        file.write_bytes(whole)
    Gallery.open(gallery.path, verify=True)


def test_places_from_a_stranger_are_looked_at(tmp_path: Path) -> None:
    gallery = remove(make(tmp_path, 10), make_items(10)["id"].iloc[:2].tolist())
    file = gallery.path / "items-1.parquet"
    for places in ([-1, *range(1, 8)], [*range(7), 10], [3, *range(7)]):
        gallery.items.assign(place=places).to_parquet(file, index=False)
        files = gallery.manifest["files"] | {file.name: fingerprint(file)}
        commit(gallery.path, gallery.manifest | {"files": files})
        with pytest.raises(RunError, match="expected places"):
            Gallery.open(gallery.path)


def test_changes_that_cannot_be_made_change_nothing(tmp_path: Path) -> None:
    gallery = make(tmp_path, 10)
    ids = gallery.items["id"].tolist()
    with pytest.raises(RunError, match="'nobody' is not in the unseen gallery"):
        remove(gallery, [ids[0], "nobody"])
    with pytest.raises(RunError, match=r"'new/0\.png' is not in the unseen gallery"):
        update(gallery, new_items(1))
    with pytest.raises(RunError, match="no item to search would be left"):
        remove(gallery, ids)
    taken = NewItems(gallery.items.iloc[:1], make_features(1), [b""])
    with pytest.raises(RunError, match="gallery: update it"):
        add(gallery, taken)
    twice = new_items(2)
    twice.items["id"] = "same"
    with pytest.raises(RunError, match="'same' occurs twice"):
        add(gallery, twice)
    for wrong in (
        NewItems(new_items(2).items, make_features(3), [b"", b""]),
        NewItems(new_items(2).items, make_features(2) * np.nan, [b"", b""]),
        NewItems(new_items(2).items, make_features(2), [b""]),
        NewItems(new_items(2).items.assign(role="visitor"), make_features(2), [b"", b""]),
        NewItems(new_items(2).items.assign(id=["", "a"]), make_features(2), [b"", b""]),
    ):
        with pytest.raises(ValueError, match="expected"):
            add(gallery, wrong)
    assert len(add(gallery, new_items(0))) == 10
    assert Gallery.open(gallery.path, verify=True).manifest == gallery.manifest
    shutil.rmtree(gallery.path)
    with pytest.raises(RunError):
        remove(gallery, ids[:1])


def test_a_copy_that_shares_its_files_stays_as_it_is(tmp_path: Path) -> None:
    gallery = make(tmp_path, 10)
    shutil.copytree(gallery.path, tmp_path / "copy", copy_function=lambda source, to: Path(to).hardlink_to(source))
    add(gallery, new_items(3))
    other = add(Gallery.open(tmp_path / "copy"), new_items(2, seed=3, first=5))
    for one, count in ((gallery.reopened(), 13), (other, 12)):
        assert len(Gallery.open(one.path, verify=True)) == len(one) == count


def test_one_change_at_a_time(tmp_path: Path) -> None:
    gallery = make(tmp_path, 10)
    with changing(gallery.path), pytest.raises(RunError, match="changed by another process"):
        add(gallery, new_items(1))
    assert len(add(gallery, new_items(1))) == 11
    assert len(add(gallery, new_items(1, first=1))) == 12, "from an older view of it"


def test_a_map_covers_what_was_changed_while_it_was_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = make(tmp_path, 10)
    gone = gallery.items["id"].iloc[3]

    def slow(features: np.ndarray, *_: np.ndarray) -> np.ndarray:
        twin = NewItems(new_items(1).items, np.array(gallery.features[[6]]), [b"a"])
        remove(add(gallery, twin), [gone])
        return features[:, :2]

    monkeypatch.setattr(umap_layout, "_umap", slow)
    umap_layout.write_map(gallery.path)
    after = Gallery.open(gallery.path, verify=True)
    assert after.map is not None and after.manifest["map"]["placed"] == 1
    assert after.map["id"].tolist() == after.items["id"].tolist() and gone not in after.map["id"].tolist()
    kept = np.delete(np.array(gallery.features[:, :2]), 3, axis=0)
    np.testing.assert_allclose(after.map[["x", "y"]].iloc[:-1], kept)
    np.testing.assert_allclose(after.map[["x", "y"]].iloc[-1], gallery.features[6, :2], atol=1e-3)


def test_a_map_of_a_gallery_that_was_written_anew_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = make(tmp_path, 10)

    def slow(features: np.ndarray, *_: np.ndarray) -> np.ndarray:
        make(tmp_path, 10, features=make_features(10, seed=5))
        return features[:, :2]

    monkeypatch.setattr(umap_layout, "_umap", slow)
    with pytest.raises(RunError, match="was changed while its map was drawn: draw it again"):
        umap_layout.write_map(gallery.path)
    assert Gallery.open(gallery.path, verify=True).map is None


def test_a_gallery_knows_where_its_items_came_from(tmp_path: Path) -> None:
    gallery = add(make(tmp_path, 3), new_items(1))
    new = new_items(2, first=1)
    again = add(gallery, NewItems(new.items, new.features, new.thumbs, [tmp_path / "a.png", tmp_path / "b.png"]))
    files = [None, None, None, "", str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert with_sources(again.path, again.manifest)["picture"].replace({np.nan: None}).to_list() == files
    file = again.path / "items-2.parquet"
    pd.read_parquet(file).drop(columns="picture").to_parquet(file)  # as older versions wrote it
    older = with_sources(again.path, again.manifest)["picture"].replace({np.nan: None}).to_list()
    assert older == [None, None, None, "", "", ""]


def test_the_index_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = make(tmp_path, 300)
    exact = gallery.search(gallery.features[:50], 5)[0]
    for text, cells in (("flat", 0), ("auto", 0), ("", 0), ("ivf:3", 3), ("ivf:1000", 35)):
        one = Gallery.open(gallery.path, index=text)
        actual = one.search(one.features[:50], 5)[0]
        assert isinstance(one._index, index.Index) and one._index.cells == cells
        assert (actual == exact).mean() == 1 or text == "ivf:3"
    monkeypatch.setenv("PDDM_LAB_INDEX", "ivf:2")
    assert Gallery.open(gallery.path).search(gallery.features[:1], 300)[0].shape == (1, 300)
    for wrong in ("hnsw", "flat:3", "ivf:", "ivf:0", "ivf:-1", "auto:"):
        with pytest.raises(ConfigError, match="expects auto, flat, ivf, ivf:CELLS"):
            Gallery.open(gallery.path, index=wrong)


def test_many_shortlists_are_ranked_at_once(tmp_path: Path) -> None:
    import torch

    from pddm_lab.model.similarity import make_similarity

    torch.manual_seed(0)
    similarity = make_similarity("pddm", 8).eval().requires_grad_(False)
    gallery = remove(make(tmp_path, 80), make_items(80)["id"].iloc[3:9].tolist())
    features = torch.from_numpy(np.array(gallery.features))
    queries = make_features(6, seed=3)
    actual, _ = gallery.search(queries, 20)
    rows, scores = gallery.rerank(queries, actual, similarity)
    for query, shortlist, ranked, values in zip(queries, actual, rows, scores, strict=True):
        exact = [float(similarity(torch.from_numpy(query), features[row])) for row in shortlist]
        order = np.argsort([-value for value in exact], kind="stable")
        assert ranked.tolist() == shortlist[order].tolist()
        np.testing.assert_allclose(values, np.array(exact)[order], atol=1e-5)
        one = gallery.search_by(query, [similarity], 20)
        assert one.ranked("pddm")["row"].tolist() == ranked.tolist()


def test_classes_that_two_add_at_the_same_time_have_labels_of_their_own(tmp_path: Path) -> None:
    gallery = make(tmp_path, 20)
    add(gallery, new_items(2))
    other = new_items(3, first=10)
    other.items["class_name"] = ["another", "class 7", "class 0"]
    after = add(gallery, other)  # as it was before the first change: its labels were chosen for that gallery
    assert after.items.groupby("class_name")["label"].nunique().eq(1).all()
    assert after.items.groupby("label")["class_name"].nunique().eq(1).all()
    assert after.items.set_index("id")["label"][["new/0.png", "new/11.png", "new/12.png"]].tolist() == [7, 7, 0]


def test_a_new_picture_leaves_the_class_that_its_item_got_meanwhile(tmp_path: Path) -> None:
    gallery = make(tmp_path / "g", 8)
    chosen = gallery.items.iloc[[2]].reset_index(drop=True)
    rename_class(gallery, chosen["class_name"][0], "renamed")
    new = NewItems(chosen, make_features(1, seed=3), [thumbnail(picture(1))])
    after = update(gallery, new)
    row = after.index_of(chosen["id"][0])
    assert after.items["class_name"].iloc[row] == "renamed" and np.array_equal(after.features[row], new.features[0])
    assert after.items.groupby("class_name", observed=True)["label"].nunique().eq(1).all()
