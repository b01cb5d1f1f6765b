"""The Grocery Store data set: a small copy in the official layout, and the real one where it is."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pddm_lab.data.dataset import read_dataset
from pddm_lab.data.sources import grocery
from pddm_lab.errors import DataError

COUNTS = {"train": 3, "val": 1, "test": 2}


def make_grocery(root: Path, classes: int = 5) -> Path:
    root.mkdir(parents=True)
    header = "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic (str),Text (str)"
    rows = [f"Fruit-{c},{c},Coarse,{c // 2},/iconic/Fruit-{c}.jpg,/iconic/Fruit-{c}.txt" for c in range(classes)]
    (root / "classes.csv").write_text("\n".join([header, *rows]) + "\n")
    (root / "iconic").mkdir()
    Image.new("RGB", (8, 8)).save(root / "iconic" / "Fruit-1.jpg")
    for split, count in COUNTS.items():
        lines = []
        for c in range(classes):
            for number in range(count):
                path = f"{split}/Fruit/Fruit-{c}/Fruit-{c}_{number:03}.jpg"
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16 + number, 12), (40 * c, 99, 0)).save(root / path)
                lines.append(f"{path}, {c}, {c // 2}")
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n\n")
    return root


@pytest.mark.parametrize("inner", ["", "dataset"])
def test_both_places_of_the_lists_are_read(tmp_path: Path, inner: str) -> None:
    make_grocery(tmp_path / "GroceryStoreDataset" / inner)
    data = read_dataset("grocery", tmp_path)
    assert len(data) == 30
    assert data.class_names == [f"Fruit-{c}" for c in range(5)]
    assert data.ids[0] == "train/Fruit/Fruit-0/Fruit-0_000.jpg"
    assert data.root == tmp_path / "GroceryStoreDataset" / inner
    assert grocery.is_present(tmp_path)
    assert grocery.fetch(tmp_path) == tmp_path / "GroceryStoreDataset", "what is there is not downloaded"


def test_the_split_is_the_official_one(tmp_path: Path) -> None:
    make_grocery(tmp_path / "GroceryStoreDataset")
    data = read_dataset("grocery", tmp_path, known_query_share=0.5, split_seed=3)
    assert data.unseen is not None
    assert data.known is not None

    def described(items: np.ndarray) -> set[tuple[str, int]]:
        return {(data.ids[i].split("/")[0], int(data.labels[i])) for i in items}

    assert described(data.train) == {(split, c) for split in ("train", "val") for c in (0, 2, 4)}
    assert described(data.known.gallery) == described(data.train)
    assert described(data.known.query) == {("test", c) for c in (0, 2, 4)}
    assert described(data.unseen.query) == {("test", c) for c in (1, 3)}
    assert described(data.unseen.gallery) == {(split, c) for split in ("train", "val") for c in (1, 3)}
    assert len(data.train) == 12
    assert len(data.unseen.query) == 4


def test_a_photo_that_is_listed_but_missing_is_skipped(tmp_path: Path) -> None:
    root = make_grocery(tmp_path / "GroceryStoreDataset")
    (root / "val/Fruit/Fruit-2/Fruit-2_000.jpg").unlink()
    data = read_dataset("grocery", tmp_path)
    assert [(s.id, s.reason) for s in data.skipped] == [("val/Fruit/Fruit-2/Fruit-2_000.jpg", "the file is missing.")]


def test_wrong_layouts_are_one_clear_error(tmp_path: Path) -> None:
    root = make_grocery(tmp_path / "GroceryStoreDataset")
    (root / "val.txt").write_text("val/Fruit/x.jpg 3\n")
    with pytest.raises(DataError, match=r"val\.txt, line 1: expected 3 columns, got 'val/Fruit/x\.jpg 3'"):
        read_dataset("grocery", tmp_path)
    (root / "val.txt").write_text("val/Fruit/x.jpg, three, 0\n")
    with pytest.raises(DataError, match=r"val\.txt: expected whole numbers"):
        read_dataset("grocery", tmp_path)
    (root / "val.txt").write_text("val/Fruit/x.jpg, 77, 0\n")
    with pytest.raises(DataError, match=r"does not name the class ids \[77\]"):
        read_dataset("grocery", tmp_path)
    (root / "val.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"Cannot read .*val\.txt"):
        read_dataset("grocery", tmp_path)
    (root / "val.txt").unlink()
    with pytest.raises(
        DataError, match=r"does not have the layout of the Grocery Store data set: .* but val\.txt is missing"
    ):
        read_dataset("grocery", tmp_path)


def test_iconic_images_are_those_that_exist(tmp_path: Path) -> None:
    root = make_grocery(tmp_path / "GroceryStoreDataset" / "dataset")
    assert grocery.iconic_images(tmp_path) == {"Fruit-1": root / "iconic" / "Fruit-1.jpg"}


def test_download_unpacks_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = make_grocery(tmp_path / "published" / "GroceryStoreDataset-master" / "dataset")
    archive = tmp_path / "master.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in published.rglob("*"):
            file.write(path, path.relative_to(tmp_path / "published"))
    monkeypatch.setattr(grocery, "ARCHIVE", replace(grocery.ARCHIVE, url=archive.as_uri()))
    steps: list[tuple[int, int, str]] = []
    root = grocery.fetch(tmp_path / "data", lambda *step: steps.append(step))
    assert [path.name for path in (tmp_path / "data").iterdir()] == [root.name] == ["GroceryStoreDataset"]
    assert len(read_dataset("grocery", tmp_path / "data")) == 30
    assert steps[-1][:2] == (archive.stat().st_size, archive.stat().st_size)


def test_no_network_or_a_broken_archive_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grocery, "ARCHIVE", replace(grocery.ARCHIVE, url=(tmp_path / "none.zip").as_uri()))
    with pytest.raises(DataError, match=r"Cannot download GroceryStoreDataset .*Expected a network.*Or clone"):
        grocery.fetch(tmp_path / "data")
    (tmp_path / "none.zip").write_bytes(b"<html>moved</html>")
    with pytest.raises(DataError, match="ReadError"):
        grocery.fetch(tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == [], "nothing half-written stays"


def test_an_incomplete_copy_is_not_overwritten(tmp_path: Path) -> None:
    root = make_grocery(tmp_path / "GroceryStoreDataset")
    (root / "val.txt").unlink()
    with pytest.raises(DataError, match=r"is not a complete copy.*such as classes\.csv.*move the folder away"):
        grocery.fetch(tmp_path)
    assert (root / "train.txt").is_file()


def test_the_real_data_set() -> None:
    data_root = Path(os.environ.get("PDDM_LAB_DATA", ""))
    if not os.environ.get("PDDM_LAB_DATA") or not grocery.is_present(data_root):
        pytest.skip("the Grocery Store data set is not in $PDDM_LAB_DATA")
    data = read_dataset("grocery", data_root)
    assert (len(data), len(data.class_names), data.skipped) == (5421, 81, [])
    assert data.unseen is not None
    assert data.known is not None
    assert (len(data.unseen.query), len(data.unseen.gallery)) == (1197, 1443)
    assert (len(data.known.query), len(data.known.gallery), len(data.train)) == (1288, 1493, 1493)
    assert len(grocery.iconic_images(data_root)) == 81
