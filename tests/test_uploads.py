"""Uploaded pictures are kept under safe names, and only where the change they were for was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from pddm_lab.data.uploads import FOLDER, checked_name, kept
from pddm_lab.errors import DataError


def test_pictures_are_kept_with_names_of_their_own(tmp_path: Path) -> None:
    pictures = [("a.png", b"1"), ("A.png", b"2"), ("C:/photos/a.png", b"3"), ("no ending", b"4")]
    with kept(tmp_path, " fruit/apple ", pictures) as folder:
        pass
    files = {file.name: file.read_bytes() for file in (folder / "fruit" / "apple").iterdir()}
    assert files == {"a.png": b"1", "A-2.png": b"2", "a-3.png": b"3", "no ending": b"4"}
    assert folder.parent == tmp_path / FOLDER


def test_nothing_stays_of_a_change_that_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with kept(tmp_path, "apple", [("a.png", b"1")]):
            raise DataError("unreadable")

    with pytest.raises(DataError, match="unreadable"):
        fail()
    assert list((tmp_path / FOLDER).iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["", "  ", "..", "../up", "a/../b", "/root", "a//b", "a/", ".hidden", "a/.b", "x" * 101, "a\\b", "a\0b", "a\nb"],
)
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be the name of a class"):
        checked_name(name, "class")
    with pytest.raises(DataError), kept(tmp_path, name, [("a.png", b"1")]):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_picture_of_a_hidden_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name of a picture"), kept(tmp_path, "apple", [("a.png", b"1"), ("..", b"2")]):
        pass
    assert list((tmp_path / FOLDER).iterdir()) == []
