"""Any root/<class>/<image>, and the errors of a folder that is not one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_data_dataset import make_folder

from pddm_lab.data.dataset import read_dataset
from pddm_lab.data.sources.folder import list_folder
from pddm_lab.errors import DataError


def test_items_and_classes_are_in_alphabetical_order(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "shop", {"pear": 2, "apple": 3, "fig": 2, "quince": 2})
    (root / "pear" / "0.png").rename(root / "pear" / "Z.PNG")
    for name in ("notes.txt", ".0.png", "sub/1.png"):
        (root / "pear" / name).parent.mkdir(exist_ok=True)
        (root / "pear" / name).touch()
    (root / ".hidden").mkdir()
    (root / "empty").mkdir()
    (root / "readme.md").touch()
    listing = list_folder(root)
    assert listing.class_names == ["apple", "fig", "pear", "quince"]
    assert listing.ids[:3] == ["apple/0.png", "apple/1.png", "apple/2.png"]
    assert listing.ids[5:7] == ["pear/1.png", "pear/Z.PNG"]
    assert listing.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert listing.trains.sum() == 2
    assert listing.notes == ["1 folders without images are skipped; the first is empty."]


def test_fewer_than_four_classes_all_train(tmp_path: Path) -> None:
    data = read_dataset(f"folder:{make_folder(tmp_path / 'shop', dict.fromkeys('abc', 5))}", tmp_path)
    assert data.name == f"folder:{tmp_path / 'shop'}"
    assert data.unseen is None
    assert data.known is not None
    assert len(np.unique(data.labels[data.train])) == 3
    assert any("are used for training" in note for note in data.notes)


def test_what_is_no_folder_of_classes_is_one_clear_error(tmp_path: Path) -> None:
    def message(root: Path | str) -> str:
        with pytest.raises(DataError) as caught:
            read_dataset(f"folder:{root}", tmp_path)
        return str(caught.value)

    assert f"The folder {tmp_path / 'none'} does not exist: expected FOLDER/<class>/<image>" in message(
        tmp_path / "none"
    )
    (tmp_path / "empty").mkdir()
    assert "has no folders: expected" in message(tmp_path / "empty")
    loose = make_folder(tmp_path / "loose", {"a": 2}) / "a"
    assert "has 2 images outside of class folders" in message(loose)
    assert "has only one class with images (a)" in message(tmp_path / "loose")
    (tmp_path / "hollow" / "a").mkdir(parents=True)
    assert "has 1 folders, all without images" in message(tmp_path / "hollow")
    assert "does not exist" in message(tmp_path / "loose" / "a" / "0.png")
    assert "expected" in message("")
