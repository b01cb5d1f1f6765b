"""Galleries: stored and read back, damaged ones named, search and re-ranking against slow loops, maps."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from pddm_lab.errors import DataError, RunError
from pddm_lab.gallery import store, umap_layout
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.pictures import file_of
from pddm_lab.gallery.umap_layout import start_map, write_map
from pddm_lab.metrics.separation import Distribution, histogram


class First:
    """A similarity that knows only the first coordinate."""

    name = "first"

    def rerank(self, query: Tensor, gallery: Tensor, shortlist: Tensor) -> tuple[Tensor, Tensor]:
        scores = -(gallery[shortlist, 0] - query[0]).abs()
        order = scores.argsort(descending=True, stable=True)
        return shortlist[order], scores[order]


def make_items(count: int, queries: int = 0) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [f"class {n % 5}/image é{n}.png" for n in range(count)],
            "label": np.arange(count) % 5,
            "class_name": [f"class {n % 5}" for n in range(count)],
            "role": ["query"] * queries + ["gallery" if queries else "both"] * (count - queries),
        }
    )


def make_features(count: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    features = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def picture(row: int) -> Image.Image:
    return Image.new("RGB", (200, 50 + row), (row, 0, 255 - row))


def make_distribution() -> Distribution:
    return histogram(np.linspace(-1, 2, 30, dtype="f4"), np.linspace(-3, 1, 70, dtype="f4"), 500)


def make(path: Path, count: int = 40, queries: int = 0, **changes) -> Gallery:
    parts = {"features": make_features(count), "items": make_items(count, queries)}
    parts |= {"load_image": picture, "distributions": {"pddm": make_distribution(), "euclidean": make_distribution()}}
    return Gallery.write(path / "unseen", "unseen", **(parts | changes))


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    make(tmp_path, 40, 10, progress=lambda *step: steps.append(step))
    gallery = Gallery.open(tmp_path / "unseen", verify=True)
    assert isinstance(gallery.features, np.memmap)
    assert not gallery.features.flags.writeable
    np.testing.assert_array_equal(gallery.features, make_features(40))
    pd.testing.assert_frame_equal(gallery.items, make_items(40, 10))
    assert (len(gallery), gallery.protocol, gallery.map) == (40, "unseen", None)
    assert gallery.manifest["roles"] == {"query": 10, "gallery": 30, "both": 0}
    np.testing.assert_array_equal(gallery.rows("query"), np.arange(10))
    np.testing.assert_array_equal(gallery.rows("gallery"), np.arange(10, 40))
    assert steps == [(done, 40, "thumbnails") for done in range(1, 41)]
    assert gallery.index_of(gallery.items["id"][17]) == 17
    with pytest.raises(RunError, match="'nothing' is not in the unseen gallery"):
        gallery.index_of("nothing")

    thumb = gallery.thumb(33)
    image = Image.open(io.BytesIO(thumb))
    assert (image.format, image.size) == ("JPEG", (96, 40))
    assert isinstance(thumb, bytes)
    assert np.abs(np.asarray(image)[20, 40].astype(int) - [33, 0, 222]).max() < 8

    back = gallery.distributions
    assert list(back) == ["pddm", "euclidean"]
    expected = make_distribution()
    for name in ("edges", "positive", "negative"):
        np.testing.assert_array_equal(getattr(back["pddm"], name), getattr(expected, name))
    assert (back["pddm"].pairs_scored, back["pddm"].pairs_total) == (100, 500)
    assert not list((tmp_path / "unseen").glob(".*")), "no temporary file stays"


def test_items_that_both_query_and_are_searched(tmp_path: Path) -> None:
    gallery = make(tmp_path, 12)
    for role in ("query", "gallery"):
        np.testing.assert_array_equal(gallery.rows(role), np.arange(12))


def test_thumbnails_of_any_mode_leave_the_images_alone(tmp_path: Path) -> None:
    images = [Image.new(mode, (300, 100)) for mode in ("L", "RGBA", "P", "RGB")]
    gallery = make(tmp_path, 4, load_image=images.__getitem__)
    assert all(image.size == (300, 100) for image in images)
    assert all(Image.open(io.BytesIO(gallery.thumb(row))).mode == "RGB" for row in range(4))


@pytest.mark.parametrize("name", ["features.npy", "items.parquet", "thumbs.bin", "thumbs.npy", "distributions.parquet"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    make(tmp_path)
    file = tmp_path / "unseen" / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(RunError, match=f"{name} is damaged.*`pddm-lab gallery rebuild {tmp_path.parent.name}`"):
        Gallery.open(file.parent)
    file.unlink()
    with pytest.raises(RunError, match=f"{name} is damaged.*got no file"):
        Gallery.open(file.parent)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RunError, match=f"{name} has changed"):
        Gallery.open(file.parent, verify=True)


def test_unknown_files_of_the_right_size_are_named(tmp_path: Path) -> None:
    make(tmp_path)
    for name in ("features.npy", "items.parquet", "thumbs.npy"):
        file = tmp_path / "unseen" / name
        whole = file.read_bytes()
        file.write_bytes(bytes(len(whole)))
        with pytest.raises(RunError, match=f"{name} is damaged or was not"):
            Gallery.open(file.parent)
        file.write_bytes(whole)
    np.save(file, np.array([{}] * 3, dtype=object))  # a pickle
    manifest = json.loads((file.parent / "manifest.json").read_text())
    manifest["files"]["thumbs.npy"]["bytes"] = file.stat().st_size
    (file.parent / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"thumbs\.npy is damaged or was not written by this lab: .*Python objects"):
        Gallery.open(file.parent)
    np.save(file, np.zeros(7, dtype=np.int64))
    manifest["files"]["thumbs.npy"]["bytes"] = file.stat().st_size
    (file.parent / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="different numbers of items"):
        Gallery.open(file.parent)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 3e38])
def test_features_that_are_not_finite_are_damaged(tmp_path: Path, value: float) -> None:
    gallery = make(tmp_path, count=20_000, load_image=lambda _: Image.new("RGB", (1, 1)))  # read in two parts
    features = np.load(gallery.path / "features.npy", mmap_mode="r+")
    features[-1, 3] = value
    features.flush()
    with pytest.raises(RunError, match=r"features\.npy is damaged: expected finite values.*gallery rebuild"):
        Gallery.open(gallery.path)


def test_a_damaged_or_unknown_manifest_is_named(tmp_path: Path) -> None:
    make(tmp_path)
    file = tmp_path / "unseen" / "manifest.json"
    whole = json.loads(file.read_text())
    for text, message in (
        ("{", "is damaged"),
        ("[]", "was not written by this lab"),
        ('{"format": 1}', "was not written by this lab"),
        (json.dumps(whole | {"files": {}}), "was not written by this lab"),
        (json.dumps(whole | {"format": 3}), "update this lab"),
    ):
        file.write_text(text)
        with pytest.raises(RunError, match=message):
            Gallery.open(file.parent)
    file.unlink()
    with pytest.raises(RunError, match="no complete gallery"):
        Gallery.open(file.parent)
    with pytest.raises(RunError, match="no complete gallery"):
        Gallery.open(tmp_path / "nowhere")


def test_a_writing_that_fails_leaves_the_gallery_before(tmp_path: Path) -> None:
    def broken(row: int) -> Image.Image:
        if row == 5:
            raise DataError("a.png can't be read.")
        return picture(row)

    with pytest.raises(DataError):
        make(tmp_path, load_image=broken)
    with pytest.raises(RunError, match="no complete gallery"):
        Gallery.open(tmp_path / "unseen")
    make(tmp_path, 9)
    with pytest.raises(DataError):
        make(tmp_path, 30, load_image=broken)
    assert len(Gallery.open(tmp_path / "unseen", verify=True)) == 9
    assert len(make(tmp_path, 7)) == 7
    assert len(list((tmp_path / "unseen").iterdir())) == 6, "nothing of the others is left"


def test_items_and_features_must_fit(tmp_path: Path) -> None:
    twice = make_items(40).assign(id="same")
    odd = make_items(40).assign(role="visitor")
    for changes in (
        {"features": make_features(39)},
        {"features": np.full((40, 8), np.nan)},
        {"items": twice},
        {"items": odd},
    ):
        with pytest.raises(ValueError, match="expected"):
            make(tmp_path, **changes)


def slow_search(features: np.ndarray, rows: list[int], query: np.ndarray, k: int) -> list[tuple[int, float]]:
    distances = [(float(np.sqrt(((features[row].astype("f8") - query) ** 2).sum())), row) for row in rows]
    return [(row, distance) for distance, row in sorted(distances)[:k]]


@pytest.mark.parametrize("queries", [1, 30])
def test_search_equals_a_slow_loop(tmp_path: Path, queries: int) -> None:
    gallery = make(tmp_path, 400, 30)
    query = gallery.features[:queries]
    actual, distances = gallery.search(query, 6)
    exact = [slow_search(gallery.features, list(range(30, 400)), one, 6) for one in query.astype("f8")]
    assert actual.tolist() == [[row for row, _ in line] for line in exact]
    np.testing.assert_allclose(distances, [[distance for _, distance in line] for line in exact], atol=1e-5)
    every, _ = gallery.search(query[:1], 1000)
    assert sorted(every[0]) == list(range(30, 400)), "no more than there are, and all of them"


def test_an_inverted_file_finds_most_of_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = make(tmp_path, 1000, features=make_features(1000, 4))
    exact, _ = gallery.search(gallery.features[:200], 10)
    monkeypatch.setattr(store, "FLAT_ITEMS", 10)
    fresh = Gallery.open(gallery.path)
    actual, _ = fresh.search(gallery.features[:200], 10)
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, actual, strict=True)]) > 0.9
    assert sorted(fresh.search(gallery.features[:1], 5000)[0][0]) == list(range(1000)), "all, though not from one cell"


def test_an_excluded_item_is_not_found(tmp_path: Path) -> None:
    features = make_features(20)
    features[7] = features[3]  # duplicates: either may come first
    gallery = make(tmp_path, 20, features=features)
    for row in (3, 7, 12):
        actual, distances = gallery.search(features[row][None], 5, exclude=row)
        expected = slow_search(features, [n for n in range(20) if n != row], features[row].astype("f8"), 5)
        assert actual[0].tolist() == [n for n, _ in expected]
        np.testing.assert_allclose(distances[0], [d for _, d in expected], atol=1e-3)
    actual, _ = gallery.search(features[12][None], 100, exclude=12)
    assert sorted(actual[0]) == [n for n in range(20) if n != 12]
    far, _ = gallery.search(-features[12][None], 3, exclude=12)
    assert far.shape == (1, 3)
    queries_apart = make(tmp_path, 20, 10)
    assert queries_apart.search(features[:1], 10, exclude=0)[0].shape == (1, 10), "a query that isn't searched"


def test_one_item_and_none(tmp_path: Path) -> None:
    gallery = make(tmp_path, 1)
    assert gallery.search(gallery.features, 5)[0].tolist() == [[0]]
    assert gallery.search(gallery.features, 5, exclude=0)[0].shape == (1, 0)
    result = gallery.search_by(gallery.features[0], [First()], exclude=0)
    assert result.ranked("euclidean").empty
    assert result.ranked("first").empty
    assert write_map(gallery.path) == "pca"
    none = make(tmp_path, 0)
    assert len(none) == 0
    with pytest.raises(RunError, match="no item to search"):
        none.search(make_features(1), 5)
    assert write_map(none.path) == "pca"
    map_ = Gallery.open(none.path).map
    assert map_ is not None
    assert map_.empty


class Last(First):
    """A similarity that knows only the last coordinate."""

    name = "last"

    def rerank(self, query: Tensor, gallery: Tensor, shortlist: Tensor) -> tuple[Tensor, Tensor]:
        return super().rerank(query.flip(0), gallery.flip(1), shortlist)


def test_a_shortlist_is_ranked_by_each_similarity(tmp_path: Path) -> None:
    gallery = make(tmp_path, 60, 10)
    query = gallery.features[4]
    result = gallery.search_by(query, [First(), Last()], shortlist=12)
    nearest = slow_search(gallery.features, list(range(10, 60)), query.astype("f8"), 12)
    assert result.similarities == ("euclidean", "first", "last")
    assert list(result.seconds) == ["search", "first", "last"]
    assert result.table["row"].tolist() == [row for row, _ in nearest]
    orders = {"euclidean": list(range(12))} | {
        name: sorted(range(12), key=lambda n: abs(gallery.features[nearest[n][0], at] - query[at]))
        for name, at in (("first", 0), ("last", -1))
    }
    for name, order in orders.items():
        frame = result.ranked(name, 5)
        assert list(frame) == ["rank", "row", "id", "class_name", "value", "rank_change"]
        assert frame["rank"].tolist() == [1, 2, 3, 4, 5]
        assert frame["row"].tolist() == [nearest[n][0] for n in order[:5]]
        assert len(result.ranked(name)) == 12
        for line in frame.itertuples():
            assert line.id == gallery.items["id"][line.row]
            assert line.class_name == gallery.items["class_name"][line.row]
            before = [row for row, _ in nearest].index(line.row)
            assert line.rank_change == before - order.index(before)
            at = {"first": 0, "last": -1}.get(name)
            value = -nearest[before][1] if at is None else -abs(gallery.features[line.row, at] - query[at])
            assert line.value == pytest.approx(value, abs=1e-5)
    assert (result.ranked("first")["rank_change"] != 0).any()
    assert gallery.search_by(query, [], shortlist=3).ranked("euclidean")["rank_change"].tolist() == [0, 0, 0]


def test_searching_from_many_threads(tmp_path: Path) -> None:
    gallery = make(tmp_path, 300)
    expected = gallery.search(gallery.features, 3)[0]
    fresh = Gallery.open(gallery.path)
    actual: dict[int, np.ndarray] = {}

    def look(number: int) -> None:
        actual[number] = fresh.search(fresh.features, 3)[0]

    threads = [threading.Thread(target=look, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(actual) == 8
    for rows in actual.values():
        np.testing.assert_array_equal(rows, expected)


def test_a_map_is_drawn_in_another_process(tmp_path: Path) -> None:
    centres = np.eye(3, 16, dtype=np.float32)
    features = np.repeat(centres, 20, axis=0) + make_features(60, 16) * 0.1
    features[5] = features[6]
    first = make(tmp_path / "a", 60, features=features)
    second = make(tmp_path / "b", 4)
    drawing = start_map(first.path)
    drawing.add(second.path)
    drawing.wait()
    gallery = Gallery.open(first.path, verify=True)
    assert gallery.map is not None
    assert gallery.map["id"].tolist() == first.items["id"].tolist()
    assert gallery.manifest["map"] == {"method": "umap", "reason": "", "seed": umap_layout.SEED}
    places = gallery.map[["x", "y"]].to_numpy().reshape(3, 20, 2)
    middles = places.mean(1)
    spread = np.linalg.norm(places - middles[:, None], axis=2).max()
    apart = min(np.linalg.norm(middles[a] - middles[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert apart > spread
    assert Gallery.open(second.path).manifest["map"]["method"] == "pca"
    assert "4" in Gallery.open(second.path).manifest["map"]["reason"]


def test_a_map_that_umap_cannot_draw_is_its_principal_components(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = make(tmp_path, 30)

    def fail(*_: np.ndarray) -> np.ndarray:
        raise ValueError("no graph")

    monkeypatch.setattr(umap_layout, "_umap", fail)
    assert write_map(gallery.path) == "pca"
    gallery = Gallery.open(gallery.path, verify=True)
    assert gallery.manifest["map"]["reason"] == "UMAP failed: no graph"
    assert gallery.map is not None
    centred = torch.from_numpy(gallery.features - gallery.features.mean(0)).double()
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors
    for column, direction in (("x", vectors[:, -1]), ("y", vectors[:, -2])):
        expected = (centred @ direction).numpy()
        np.testing.assert_allclose(np.abs(gallery.map[column]), np.abs(expected), atol=1e-5)
    assert make(tmp_path, 6, features=np.ones((6, 8))).map is None, "a new gallery drops the old map"
    assert write_map(gallery.path) == "pca"


def test_a_map_of_no_gallery_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no complete gallery"):
        write_map(tmp_path)


def test_the_file_of_an_item_is_where_its_picture_came_from(tmp_path: Path) -> None:
    root, picture = tmp_path / "data", str(tmp_path / "new" / "a.png")
    for null in (None, float("nan")):
        assert file_of(root, "b/a.png", null) == root / "b" / "a.png"
        for item in ("../a.png", "b/../../a.png", "/etc/passwd", f"{root}-2/a.png"):
            assert file_of(root, item, null) is None, "an id must not lead out of the data set"
    assert file_of("", "b/a.png", None) is None and file_of(root, "b/a.png", "") is None
    assert file_of(root, "b/a.png", picture) == file_of("", "b/a.png", picture) == Path(picture)
