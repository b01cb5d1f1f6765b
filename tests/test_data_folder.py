"""Any root/<class>/<image>, and the errors of a folder that is not one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data_dataset import make_folder

from pddm_lab.data import images, pictures
from pddm_lab.data.dataset import read_dataset
from pddm_lab.data.sources.folder import list_folder
from pddm_lab.errors import DataError


def test_items_and_classes_are_in_alphabetical_order(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "shop", {"pear": 2, "apple": 3, "fig": 2, "quince": 2})
    (root / "pear" / "0.png").rename(root / "pear" / "Z.PNG")
    for name in ("notes.txt", ".0.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".sub/1.png"):
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
    assert listing.notes == ["Skipped 1 folder without images, such as empty."]


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


def test_the_fingerprint_and_the_split_of_an_ordinary_folder_stay(tmp_path: Path) -> None:
    for number in range(24):
        path = tmp_path / "shop" / "abcdef"[number % 6] / f"{number}.ppm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"P6 2 2 255\n" + bytes(range(number, number + 12)))
    data = read_dataset(f"folder:{tmp_path / 'shop'}", tmp_path)
    assert data.fingerprint() == "89f8294407ab11949abfb3c867a547f869609829992c15937ec82490c8110589"
    assert data.unseen is not None and data.known is not None
    assert data.unseen.query.tolist() == [4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 19]
    assert data.known.query.tolist() == [3, 14, 22]
    assert data.notes == []


def test_deeper_pictures_have_the_path_as_class(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "shop", {"apple/red": 2, "apple/green": 3, "fig": 2})
    Image.new("RGB", (4, 4)).save(root / "apple" / "0.png")
    Image.new("RGB", (4, 4)).save(root / "loose.png")
    (root / "apple" / "yellow" / "pale").mkdir(parents=True)
    listing = list_folder(root)
    assert listing.class_names == ["apple", "apple/green", "apple/red", "fig"]
    assert listing.ids[:3] == ["apple/0.png", "apple/green/0.png", "apple/green/1.png"]
    assert listing.labels.tolist() == [0, 1, 1, 1, 2, 2, 3, 3]
    assert listing.notes == [
        "Skipped 1 folder without images, such as apple/yellow.",
        "Skipped 1 image outside of class folders, such as loose.png.",
    ]


def test_folders_of_a_split_are_no_classes(tmp_path: Path) -> None:
    for splits in (("train", "val"), ("test",)):
        root = make_folder(tmp_path / "-".join(splits), {f"{split}/{c}": 2 for split in splits for c in "ab"})
        with pytest.raises(DataError, match=rf"is split into .*: folder:{root / splits[0]}$"):
            list_folder(root)
        assert list_folder(root / splits[0]).class_names == ["a", "b"]
    flat = make_folder(tmp_path / "flat", {"train": 2, "test": 2, "c": 2})
    with pytest.raises(DataError, match="is split into train, test"):
        list_folder(flat)
    assert list_folder(make_folder(tmp_path / "vehicles", {"bus": 2, "train": 2})).class_names == ["bus", "train"]


def test_links_in_a_circle_and_locked_folders_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder(tmp_path / "shop", {"apple": 2, "fig": 2, "locked": 2})
    (root / "apple" / "up").symlink_to(root)
    (root / "fig" / "2.png").symlink_to(root / "fig" / "2.png")
    (root / "fig" / "3.png").symlink_to(tmp_path / "nowhere.png")
    shutil.move(root / "fig" / "1.png", tmp_path)
    (root / "fig" / "1.png").symlink_to(tmp_path / "1.png")
    scandir = os.scandir

    def locked(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(pictures.os, "scandir", locked)  # permissions don't stop root, who runs tests in containers
    listing = list_folder(root)
    assert listing.ids == ["apple/0.png", "apple/1.png", "fig/0.png", "fig/1.png"]
    assert listing.notes[:2] == [
        "Skipped 3 links in a circle or to nowhere, such as apple/up.",
        "Skipped 1 folder without permission to read, such as locked.",
    ]


def test_names_in_another_encoding_are_skipped_counted_and_named(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "shop", {"apple": 3, "fig": 3})
    for name in (b"apple/caf\xe9.png", b"caf\xe9/0.png"):
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        shutil.copy(root / "fig" / "0.png", path)
    data = read_dataset(f"folder:{root}", tmp_path)
    assert (len(data), data.class_names) == (6, ["apple", "fig"])
    assert data.fingerprint()
    (note,) = (note for note in data.notes if "UTF-8" in note)
    assert note.startswith("Skipped 2 files named in another encoding than UTF-8, such as apple/caf\\xe9.png")
    os.rename(root, os.path.join(os.fsencode(tmp_path), b"caf\xe9"))
    with pytest.raises(DataError, match=r"caf\\xe9 is named in another encoding than UTF-8: rename it"):
        read_dataset(os.fsdecode(os.fsencode(f"folder:{tmp_path}/") + b"caf\xe9"), tmp_path)


def test_pictures_that_are_not_read_are_counted_by_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "SUFFIXES", images.SUFFIXES - {".heic"})
    root = make_folder(tmp_path / "shop", {"apple": 2, "fig": 2})
    for name in ("a.HEIC", "b.heic", "c.svg", "notes.txt", "data.json", "README", "Thumbs.db"):
        (root / "fig" / name).write_text("no picture inside")
    shutil.copy(root / "fig" / "0.png", root / "fig" / "0")
    assert list_folder(root).notes[0] == (
        "4 pictures in formats that aren't read: .HEIC 2, .SVG 1, no ending 1. "
        "To read HEIC: pip install 'pddm-lab[heic]'."
    )


@pytest.mark.parametrize("path", ["", "  "])
def test_a_folder_needs_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(make_folder(tmp_path / "shop", {"apple": 2, "fig": 2}))
    with pytest.raises(DataError, match="folder: needs a path, as in folder:photos"):
        read_dataset(f"folder:{path}", tmp_path)
