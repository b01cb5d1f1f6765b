"""The collection of a gallery in Milvus: its own, in step with the files, and repaired where it isn't."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusException
from test_changes import new_items
from test_gallery import make, make_features
from test_runs import make as make_run
from test_store import assert_exact

from pddm_lab import cli
from pddm_lab.errors import ConfigError, RunError
from pddm_lab.gallery import milvus, store, umap_layout
from pddm_lab.gallery.changes import add, remove
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.milvus import MilvusStore
from pddm_lab.gallery.store import IndexChoice


@pytest.fixture(autouse=True)
def server(milvus_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDDM_LAB_INDEX", f"milvus:{milvus_uri}")


def store_of(gallery: Gallery) -> MilvusStore:
    opened = gallery._built_index()
    assert isinstance(opened, MilvusStore)
    return opened


def held_by(gallery: Gallery) -> list[int]:
    """The places in a gallery's collection."""
    of = store_of(gallery)
    return milvus._places(of._client, of.collection, 10_000).tolist()


def test_a_collection_holds_the_searched_items(tmp_path: Path) -> None:
    gallery = make(tmp_path, 20, queries=4)
    assert held_by(gallery) == list(range(4, 20))
    changed = remove(add(gallery, new_items(3)), [gallery.items["id"][5], "new/1.png"])
    assert held_by(changed) == [4, *range(6, 21), 22]
    assert store_of(changed).collection == store_of(Gallery.open(gallery.path)).collection


@pytest.mark.parametrize("at", ["delete", "upsert", "the note"])
def test_an_update_that_was_broken_off_is_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    from pymilvus import MilvusClient

    monkeypatch.setattr(milvus, "_BYTES", 2 * 4 * 8)  # two items at once
    gallery = make(tmp_path, 20)
    gallery.search(gallery.features[:1], 1)
    calls = list[str]()

    def breaks(work: Any, after: int) -> Any:
        def instead(*arguments: Any, **options: Any) -> Any:
            calls.append(at)
            if len(calls) > after:
                raise KeyboardInterrupt
            return work(*arguments, **options)

        return instead

    with monkeypatch.context() as patch:
        if at == "the note":
            patch.setattr(milvus, "_write", breaks(milvus._write, 1))
        else:
            patch.setattr(MilvusClient, at, breaks(getattr(MilvusClient, at), int(at == "upsert")))
        with pytest.raises(KeyboardInterrupt):
            add(remove(gallery, gallery.items["id"].iloc[3:6].tolist()), new_items(5))
    opened = Gallery.open(gallery.path)
    for query in make_features(3, seed=3):
        assert_exact(opened, query, 30)
    assert held_by(opened) == opened._contents().places.tolist()


def test_what_a_server_lost_is_filled_again(tmp_path: Path) -> None:
    gallery = make(tmp_path, 20)
    of = store_of(gallery)
    of._client.delete(of.collection, ids=[3, 4])
    assert held_by(Gallery.open(gallery.path)) == list(range(20))
    of._client.drop_collection(of.collection)
    assert held_by(Gallery.open(gallery.path)) == list(range(20))


@pytest.mark.parametrize("copy", [shutil.copy2, lambda source, to: Path(to).hardlink_to(source)])
def test_a_copy_of_a_gallery_has_its_own_collection(tmp_path: Path, copy: Any) -> None:
    gallery = make(tmp_path, 20)
    first = store_of(gallery).collection
    shutil.copytree(gallery.path, tmp_path / "copy", copy_function=copy)
    other = remove(Gallery.open(tmp_path / "copy"), gallery.items["id"].iloc[:5].tolist())
    assert held_by(other) == list(range(5, 20))
    assert held_by(Gallery.open(gallery.path)) == list(range(20))
    assert store_of(other).collection not in (first, store_of(Gallery.open(gallery.path)).collection)


def test_a_gallery_written_again_is_filled_again(tmp_path: Path) -> None:
    store_of(make(tmp_path, 20))
    late = Gallery.open(tmp_path / "unseen")
    gallery = make(tmp_path, 12, features=make_features(12, seed=8))
    for row in range(12):
        assert_exact(gallery, gallery.features[row], 20)
    with pytest.raises(RunError, match="open it again"):
        late.search(late.features[:1], 1)
    assert held_by(gallery) == list(range(12))


def test_a_gallery_put_back_to_an_earlier_state_is_filled_again(tmp_path: Path) -> None:
    gallery = make(tmp_path, 20)
    shutil.copytree(gallery.path, tmp_path / "kept")
    changed = add(gallery, new_items(3))
    assert held_by(changed) == list(range(23))
    for file in gallery.path.glob("*.*"):
        if not file.name.startswith("milvus"):
            file.unlink()
    shutil.copytree(tmp_path / "kept", gallery.path, dirs_exist_ok=True)
    assert held_by(Gallery.open(gallery.path)) == list(range(20))


def test_another_index_beyond_the_flat_ones_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FLAT_ITEMS", 22)
    gallery = make(tmp_path, 20)
    assert store_of(gallery)._index == "FLAT"
    more = add(gallery, new_items(3))
    assert store_of(more)._index == "HNSW" and held_by(more) == list(range(23))
    less = remove(more, ["new/0.png"])
    assert store_of(less)._index == "FLAT" and held_by(less) == [*range(20), 21, 22]


def test_a_map_that_was_drawn_meanwhile_is_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(umap_layout, "_umap", lambda features, *_: features[:, :2])
    gallery = make(tmp_path, 20)
    umap_layout.write_map(gallery.path)
    assert gallery.reopened().manifest != gallery.manifest and held_by(gallery) == list(range(20))


def test_more_results_than_milvus_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = make(tmp_path, 50)
    store_of(gallery)
    monkeypatch.setattr(milvus, "MOST", 12)
    for k in (12, 13, 50):
        assert_exact(gallery, make_features(1, seed=3)[0], k)
    monkeypatch.setattr(milvus, "_RESULTS", 20)
    assert gallery.search(gallery.features, 9)[0][:, 0].tolist() == list(range(50))


def test_a_foreign_note_is_no_note(tmp_path: Path) -> None:
    gallery = make(tmp_path, 20)
    store_of(gallery)
    (note,) = gallery.path.glob("milvus-*.json")
    for content in ("{", "[]", '{"collection": 1}'):
        note.write_text(content)
        assert held_by(Gallery.open(gallery.path)) == list(range(20))


def test_without_a_server_one_sentence_says_so_and_changes_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = make(tmp_path, 20)
    store_of(gallery)._client.close()
    changed = add(gallery, new_items(2))
    assert changed._index is None and len(Gallery.open(gallery.path)) == 22
    assert held_by(changed) == list(range(22)), "the next search connects anew"
    for uri, what in (
        ("http://me:secret@127.0.0.1:9", "start it"), (f"{tmp_path}/no/such/folder.db", "its folder must exist"),
    ):  # fmt: skip
        monkeypatch.setenv("PDDM_LAB_INDEX", f"milvus:{uri}")
        with pytest.raises(RunError, match=f"doesn't answer .*{what}.*unset PDDM_LAB_INDEX") as raised:
            Gallery.open(gallery.path).search(gallery.features[:1], 1)
        assert "secret" not in str(raised.value) and "\n" not in str(raised.value)
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(ConfigError, match=r"pip install 'pddm-lab\[milvus\]'"):
        Gallery.open(gallery.path).search(gallery.features[:1], 1)


def test_with_a_run_its_collections_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run(tmp_path, run_name=name) for name in ("one", "two")]
    stores = [store_of(make(run.path / "gallery", 9)) for run in runs]
    for run in runs:
        run.update(status="finished")
    client = stores[0]._client
    drop = milvus.drop

    def broken(collection: str, choice: IndexChoice) -> None:
        if collection == stores[1].collection:
            raise RunError("Milvus doesn't answer.")
        drop(collection, choice)

    monkeypatch.setattr(milvus, "drop", broken)
    cli.main(["runs", "remove", "one", "two", "--yes", "--runs-root", str(tmp_path)])
    assert [client.has_collection(one.collection) for one in stores] == [False, True]
    assert f"The collection {stores[1].collection} stays in Milvus. Milvus doesn't answer." in capsys.readouterr().out


def test_where_another_library_changed_faiss_one_sentence_says_so() -> None:
    error = MilvusException(1, "torch_replacement_search() got an unexpected keyword argument 'params'")
    with (
        pytest.raises(RunError, match="another library has changed FAISS: use a Milvus server"),
        milvus._reaching("galleries.db"),
    ):
        raise error


def test_a_file_serves_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from milvus_lite import MilvusLite

    gallery = make(tmp_path, 20)
    elsewhere = MilvusLite(str(tmp_path / "taken.db"))
    monkeypatch.setenv("PDDM_LAB_INDEX", f"milvus:{tmp_path}/taken.db")
    with pytest.raises(RunError, match="one process at a time"):
        Gallery.open(gallery.path).search(gallery.features[:1], 1)
    elsewhere.close()
    rows, distances = Gallery.open(gallery.path).search(gallery.features[:1], 3)
    assert rows[0, 0] == 0 and distances[0, 0] == 0 and np.isfinite(distances).all()
