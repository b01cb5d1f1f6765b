"""Uploaded pictures are kept under safe names, and only where the change they were for was made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pddm_lab.data.uploads import FOLDER, checked_name, kept, taken_over
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


@pytest.mark.parametrize("links", [True, False])
def test_a_run_gets_the_uploads_of_items_that_it_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("no hard links")))
    hidden, run = tmp_path / ".two.tmp", tmp_path / "two"
    with kept(tmp_path / "one", "fruit/apple", [("a.png", b"1")]) as folder:
        picture = folder / "fruit" / "apple" / "a.png"
    own = taken_over(picture, hidden, run)
    assert own == taken_over(picture, hidden, run) == run / picture.relative_to(tmp_path / "one")
    hidden.rename(run)
    shutil.rmtree(tmp_path / "one")
    assert own.read_bytes() == b"1" and [file for file in run.rglob("*") if file.is_file()] == [own]
    elsewhere = tmp_path / "photos" / "a.png"
    for other in (elsewhere, own, picture):
        assert taken_over(other, run, run) == other, "of nobody's uploads, its own, or gone"


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
