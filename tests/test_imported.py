"""Tables and features that come from elsewhere: what is read, what is refused, and how a run keeps them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pddm_lab.data.imported import NO_LABEL, Imported, keep, read_features, read_imported, read_items
from pddm_lab.errors import DataError, RunError


def features(count: int = 12, dim: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)


def table(tmp_path: Path, text: str, name: str = "items.csv") -> Path:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def classes(count: int = 12, of: int = 3, columns: str = "", **cells: list[str]) -> str:
    lines = ["id,label" + columns]
    for at in range(count):
        lines.append(",".join([f"item {at}", f"class {at // of}", *(cells[name][at] for name in cells)]))
    return "\n".join(lines) + "\n"


def test_without_training_all_items_are_one_gallery(tmp_path: Path) -> None:
    read = read_items(table(tmp_path, classes()), 12)
    assert read.unseen and read.unseen.leave_one_out and len(read.unseen.query) == 12
    assert (read.known, len(read.train), read.labelled) == (None, 12, True)
    assert read.class_names == ["class 0", "class 1", "class 2", "class 3"]
    assert read.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_with_training_half_of_the_classes_is_unseen(tmp_path: Path) -> None:
    read = read_items(table(tmp_path, classes()), 12, learns=True)
    assert read.unseen and read.known
    trained, unseen = set(read.labels[read.train]), set(read.labels[read.unseen.query])
    assert len(trained) == 2 and len(unseen) == 2 and not trained & unseen
    assert read.labels[read.known.query].tolist() == sorted(trained)
    assert not set(read.known.query) & set(read.train)


def test_the_table_s_own_split_counts(tmp_path: Path) -> None:
    split = ["train", "train", "test", "Train", "train", "train", *["test"] * 6]
    read = read_items(table(tmp_path, classes(columns=",Split", split=split)), 12, learns=True)
    assert read.unseen and read.known
    assert read.train.tolist() == [0, 1, 3, 4, 5]
    assert read.known.query.tolist() == [2]
    assert read.unseen.query.tolist() == [6, 7, 8, 9, 10, 11] and read.unseen.leave_one_out
    wrong = classes(columns=",split", split=["train", "validation", *["test"] * 10])
    with pytest.raises(DataError, match="item 2, column split: expected train or test, got validation"):
        read_items(table(tmp_path, wrong), 12, learns=True)


def test_other_columns_are_metadata(tmp_path: Path) -> None:
    shops = [f"shop {at % 2}" for at in range(12)]
    read = read_items(table(tmp_path, classes(columns=",shop", shop=shops)), 12)
    assert read.metadata == {"shop": shops}


def test_without_labels_nothing_can_be_measured_or_learned(tmp_path: Path) -> None:
    file = table(tmp_path, "id\n" + "\n".join(f"item {at}" for at in range(12)))
    read = read_items(file, 12)
    assert (read.labelled, read.class_names, len(read.train)) == (False, [NO_LABEL], 0)
    with pytest.raises(DataError, match="no column label"):
        read_items(file, 12, learns=True)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_byte_order_marks_and_parquet(tmp_path: Path, separator: str) -> None:
    text = classes().replace(",", separator)
    (tmp_path / "items.csv").write_text("\ufeff" + text, encoding="utf-8")
    read = read_items(tmp_path / "items.csv", 12)
    assert read.ids[0] == "item 0" and len(read.class_names) == 4
    pd.read_csv(tmp_path / "items.csv", sep=separator).to_parquet(tmp_path / "items.parquet")
    assert read_items(tmp_path / "items.parquet", 12).ids == read.ids


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label\na\n", "expected columns path or id"),
        ("", "can't be read"),
        ("id,id\na,b\n", "each once"),
        ("id,label\na,x\n", "has 1 items and the features have 12 rows"),
        (classes().replace("item 3", "item 2"), "item 4, column id: expected a name of its own .*, got item 2"),
        (classes().replace("item 3", ""), "item 4, column id: expected a name, got nothing"),
        (classes().replace("class 3", ""), "item 10, column label: expected the name of a class, got nothing"),
        ("id,label\n" + "a,b,c,d\n" * 12, "can't be read|a name of its own"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_items(table(tmp_path, text), 12)


def test_a_table_or_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"items\.csv does not exist"):
        read_items(tmp_path / "items.csv", 12)
    with pytest.raises(DataError, match="folder of images"):
        read_items(table(tmp_path, classes()), 12, tmp_path / "nowhere")
    (tmp_path / "items.csv").write_bytes(b"id\n\xff\xfe\n")
    with pytest.raises(DataError, match="can't be read"):
        read_items(tmp_path / "items.csv", 1)


def test_too_few_classes_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 1 class to train on"):
        read_items(table(tmp_path, classes(of=6)), 12, learns=True)


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int32, np.uint8])
def test_any_kind_of_number_is_read_as_float32(tmp_path: Path, kind: type) -> None:
    values: np.ndarray = np.arange(1, 13).reshape(3, 4).astype(kind)
    np.save(tmp_path / "f.npy", values)
    read = read_features(tmp_path / "f.npy")
    assert read.dtype == np.float32 and np.array_equal(read, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones(5), "expected a row of 1 to"), (np.ones((2, 3, 4)), "2 x 3 x 4"),
        (np.ones((0, 4)), "no rows"), (np.array([["a"]]), "got 1 x 1 values of <U1"),
        (np.array([[1.0, np.nan]]), "row 0: expected finite"), (np.array([[1, 2], [0, 0]]), "row 1: .* only zeros"),
        (np.array([[1, 2], [3, np.inf]]), "row 1: expected finite"), (np.array([[1 + 1j]]), "complex"),
    ],
)  # fmt: skip
def test_features_that_cannot_be_are_refused(tmp_path: Path, values, message: str) -> None:
    np.save(tmp_path / "f.npy", values)
    with pytest.raises(DataError, match=message):
        read_features(tmp_path / "f.npy")


def test_files_that_are_no_features_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "code.npy", np.array([object()]), allow_pickle=True)
    np.savez(tmp_path / "several.npz", a=np.ones(3))
    (tmp_path / "text.npy").write_text("no features")
    (tmp_path / "empty.npy").touch()
    for name in ("code.npy", "several.npz", "text.npy", "empty.npy", "missing.npy"):
        with pytest.raises(DataError, match=name):
            read_features(tmp_path / name)


def test_a_run_keeps_items_features_and_split(tmp_path: Path) -> None:
    split = ["train", "train", "test", "train", "train", "train", *["test"] * 6]
    text = classes(columns=",split,shop", split=split, shop=["x"] * 12)
    read = read_items(table(tmp_path, text), 12, learns=True)
    keep(Imported(read, features()), tmp_path)
    again = read_imported(tmp_path)
    assert again.dataset.fingerprint() == read.fingerprint()
    assert np.array_equal(again.features, features())
    for name in ("train", "labels"):
        assert np.array_equal(getattr(again.dataset, name), getattr(read, name))
    for name in ("unseen", "known"):
        for use in ("query", "gallery"):
            assert np.array_equal(getattr(getattr(again.dataset, name), use), getattr(getattr(read, name), use))
    for name in ("ids", "class_names", "metadata", "root", "name", "labelled"):
        assert getattr(again.dataset, name) == getattr(read, name)


def _drop(folder: Path) -> None:
    (folder / "about.json").unlink()


def _fewer(folder: Path) -> None:
    np.save(folder / "features.npy", features(11))


def _gap(folder: Path) -> None:
    items = pd.read_parquet(folder / "items.parquet")
    items.assign(label=items["label"].replace(1, 7)).to_parquet(folder / "items.parquet")


def _twice(folder: Path) -> None:
    items = pd.read_parquet(folder / "items.parquet")
    items.assign(id="a").to_parquet(folder / "items.parquet")


def _about(folder: Path) -> None:
    (folder / "about.json").write_text(json.dumps({"name": 3}))


def _not_a_table(folder: Path) -> None:
    (folder / "items.parquet").write_bytes(b"no table")


@pytest.mark.parametrize("damage", [_drop, _fewer, _gap, _twice, _about, _not_a_table])
def test_damage_is_one_sentence_with_what_to_do(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    keep(Imported(read_items(table(tmp_path, classes()), 12), features()), tmp_path)
    damage(tmp_path / "imported")
    with pytest.raises(RunError, match="pddm-lab import"):
        read_imported(tmp_path)
