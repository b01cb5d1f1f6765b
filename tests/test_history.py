"""The history of a gallery: what each change did, and that undoing them leads back, whatever was changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_changes import new_items
from test_gallery import make
from test_gallery_upkeep import EXAMPLES, anew, assert_first_pass, structure, written  # noqa: F401 - a fixture
from test_gallery_upkeep import new as new_of_upkeep

from pddm_lab.errors import RunError
from pddm_lab.gallery import changes, history
from pddm_lab.gallery.changes import NewItems, add, remove, rename_class, undo, update
from pddm_lab.gallery.files import read_manifest
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.umap_layout import write_map
from pddm_lab.gallery.upkeep import keep_up, needs_upkeep
from pddm_lab.local.unit import LocalStructure


def state(gallery: Gallery) -> tuple[list[list], np.ndarray, list[bytes]]:
    """All that a reader sees of the items."""
    opened = Gallery.open(gallery.path, verify=True)
    rows = range(len(opened))
    return opened.items.to_numpy().tolist(), np.array(opened.features), [opened.thumb(row) for row in rows]


def assert_same(one: tuple, other: tuple) -> None:
    assert one[0] == other[0] and one[2] == other[2]
    np.testing.assert_array_equal(one[1], other[1])


def renewed(gallery: Gallery, rows: list[int], seed: int) -> NewItems:
    made = new_items(len(rows), seed=seed)
    return NewItems(gallery.items.iloc[rows].reset_index(drop=True), made.features, made.thumbs)


STEPS = st.lists(st.sampled_from(["add", "update", "remove", "rename", "merge", "undo"]), min_size=1, max_size=7)


@settings(
    max_examples=EXAMPLES or 15, derandomize=not EXAMPLES, database=None, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(steps=STEPS, seed=st.integers(0, 99))
def test_any_changes_are_undone_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], seed: int
) -> None:
    gallery, rng = make(tmp_path_factory.mktemp("gallery"), 40), np.random.default_rng(seed)
    states = [state(gallery)]
    for number, step in enumerate(steps):
        names = gallery.items["class_name"].unique().tolist()
        rows = sorted(rng.choice(len(gallery), 3, replace=False).tolist())
        if step == "add":
            gallery = add(gallery, new_items(3, seed=100 + number, first=10 * number), reason="why")
        elif step == "update":
            gallery = update(gallery, renewed(gallery, rows, 100 + number))
        elif step == "remove":
            gallery = remove(gallery, gallery.items["id"].iloc[rows].tolist())
        elif step == "rename":
            gallery = rename_class(gallery, names[0], f"class {number} anew")
        elif step == "merge" and len(names) > 2:
            gallery = rename_class(gallery, names[0], names[1])
            assert gallery.items.groupby("class_name")["label"].nunique().eq(1).all()
        elif step == "undo" and len(states) > 1:
            gallery, _ = undo(gallery)
            states.pop()
            assert_same(state(gallery), states[-1])
            continue
        else:
            continue
        states.append(state(gallery))
    while len(states) > 1:
        gallery, _ = undo(gallery)
        states.pop()
        assert_same(state(gallery), states[-1])
        assert gallery.search(gallery.features[:1], 1)[0].tolist() == [[0]], "an item finds itself"
    with pytest.raises(RunError, match="no change of the unseen gallery to undo"):
        undo(gallery)


def test_what_was_done_when_and_why(tmp_path: Path) -> None:
    gallery = add(make(tmp_path, 20), new_items(2), reason="spring")
    gallery = remove(gallery, ["new/0.png"])
    gallery = rename_class(gallery, "class 7", "pears", reason="plural")
    found = history.changes(gallery.path, gallery.manifest)
    assert [(one.what, one.reason, one.items) for one in found] == [
        ("renamed 1 item of 'class 7' into 'pears'", "plural", 21), ("removed 1 item", "", 22),
        ("added 2 items", "spring", 20),
    ]  # fmt: skip
    assert all(one.time.startswith("20") and one.time.endswith("+00:00") for one in found)
    gallery, undone = undo(gallery)
    assert undone == found[0] and "class 7" in set(gallery.items["class_name"])
    assert len(history.changes(gallery.path, gallery.manifest)) == 2


def test_a_change_that_was_broken_off_has_no_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = add(make(tmp_path, 20), new_items(2))
    before = state(gallery)
    with monkeypatch.context() as patch:
        patch.setattr(changes, "commit", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            remove(gallery, ["new/0.png"])
    assert [one.what for one in history.changes(gallery.path, gallery.reopened().manifest)] == ["added 2 items"]
    assert_same(state(gallery), before)
    gallery = rename_class(gallery.reopened(), "class 7", "pears")
    assert history.changes(gallery.path, gallery.manifest)[0].what.startswith("renamed")
    gallery, _ = undo(gallery)
    assert_same(state(gallery), before)


def test_a_history_of_an_earlier_version_is_undone(tmp_path: Path) -> None:
    gallery = make(tmp_path, 20)
    before, listed = state(gallery), changes._listed(gallery)
    gallery = update(gallery, renewed(gallery, [2, 7], 5))
    folder = gallery.path / "history"
    entry = json.loads((folder / "1.json").read_text())
    (folder / "1.json").write_text(
        json.dumps({name: entry[name] for name in ("change", "time", "what", "reason", "items")})
    )
    (folder / "1-rows.parquet").unlink()
    listed.to_parquet(folder / "1.parquet", index=False)  # all items before the change
    gallery, undone = undo(add(gallery, new_items(2)))
    assert undone.what == "added 2 items"
    gallery, undone = undo(gallery)
    assert undone.what == "updated 2 items" and not list(folder.iterdir())
    assert_same(state(gallery), before)


def test_the_history_keeps_only_what_a_change_took_away(tmp_path: Path) -> None:
    gallery = make(tmp_path, 20)
    gone = gallery.items["id"].iloc[[3, 9]].tolist()
    gallery = add(remove(gallery, gone), new_items(4))
    kept = [pd.read_parquet(gallery.path / "history" / f"{change}-rows.parquet")["id"].tolist() for change in (1, 2)]
    assert kept == [gone, []]


@pytest.mark.parametrize("damage", ["missing", "no table", "a place beyond", "no json", "foreign"])
def test_a_damaged_history_is_named_and_changes_nothing(tmp_path: Path, damage: str) -> None:
    gallery = make(tmp_path, 20)
    gallery = remove(gallery, gallery.items["id"].iloc[4:6].tolist())
    before, folder = state(gallery), gallery.path / "history"
    (table,), (entry,) = folder.glob("*.parquet"), folder.glob("*.json")
    if damage == "missing":
        table.unlink()
    elif damage == "no table":
        table.write_bytes(b"no table")
    elif damage == "a place beyond":
        frame = pd.read_parquet(table)
        frame.assign(place=frame["place"] + 1000).to_parquet(table)
    elif damage == "no json":
        entry.write_text("{")
    else:
        entry.write_text(json.dumps({"change": "one"}))
    with pytest.raises(RunError, match="history"):
        undo(gallery)
    assert_same(state(gallery), before)


def test_a_class_that_is_not_there_or_a_name_that_cannot_be(tmp_path: Path) -> None:
    gallery = make(tmp_path, 20)
    name = gallery.items["class_name"].iloc[0]
    for old, new, message in (
        ("nothing", "a", "no class 'nothing'"),
        (name, name, "another name"),
        (name, " ", "got ' '"),
    ):
        with pytest.raises(RunError, match=message):
            rename_class(gallery, old, new)
    assert not (gallery.path / "history").exists()


def test_a_gallery_written_again_has_no_history(tmp_path: Path) -> None:
    gallery = add(make(tmp_path, 20), new_items(2))
    again = make(tmp_path, 20)
    assert again.path == gallery.path and not (again.path / "history").exists()


def test_neighbourhoods_follow_an_undone_change(structure: LocalStructure, tmp_path: Path) -> None:  # noqa: F811
    gallery = written(tmp_path / "gallery", 120)
    gallery = remove(gallery, gallery.items["id"].iloc[10:20].tolist(), structure)
    gallery = add(gallery, new_of_upkeep(list(range(130, 140))), structure)
    for _ in range(2):
        gallery, _ = undo(gallery, structure)
        assert_first_pass(gallery.reference(structure).neighbourhoods, anew(gallery, structure))
    assert len(gallery) == 120


@pytest.mark.parametrize("later", ["map", "neighbourhoods", "undo"])
def test_a_change_that_broke_off_is_never_listed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    structure: LocalStructure,  # noqa: F811
    later: str,
) -> None:
    gallery = written(tmp_path, 60)
    write_map(gallery.path)
    gallery = remove(gallery.reopened(), [gallery.items["id"][3]], structure, "kept")
    with monkeypatch.context() as patch:
        patch.setattr(changes, "commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            add(gallery, new_of_upkeep([70, 71]), structure, "broke off")
    if later == "map":
        write_map(gallery.path)
    elif later == "neighbourhoods":
        assert needs_upkeep(gallery, structure)
        keep_up(gallery, structure)
    else:
        assert undo(gallery, structure)[1].reason == "kept"
    manifest = read_manifest(gallery.path)
    assert [one.reason for one in history.changes(gallery.path, manifest)] == ["kept"] * (later != "undo")


def test_a_gallery_written_anew_has_no_history_also_if_it_broke_off_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = add(make(tmp_path, 20), new_items(2))
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, 20)
    gallery = gallery.reopened()
    assert len(gallery) == 20 and not history.changes(gallery.path, gallery.manifest)
    with pytest.raises(RunError, match="no change"):
        undo(gallery)


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt
