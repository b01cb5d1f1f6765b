"""Archives are not trusted: checked by their sha256, unpacked inside their folder only, with bounded sizes."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pddm_lab.data import download as module
from pddm_lab.data.download import Archive, download
from pddm_lab.errors import DataError


def _tar(path: Path, **members: tarfile.TarInfo | bytes) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            if isinstance(content, bytes):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
            else:
                file.addfile(content)
    return path


def _zip(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def _fails(tmp_path: Path, archive: Path, most_bytes: int = 1000, **choices: str) -> str:
    with pytest.raises(DataError) as caught:
        download(Archive(archive.as_uri(), most_bytes, **choices), tmp_path / "data" / "set", "Or by hand.", None)
    assert list((tmp_path / "data").iterdir()) == [], "nothing half-written stays"
    return str(caught.value)


def _link(target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo("link")
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize("name", ["../outside.txt", "a/../../outside.txt"])
def test_a_tar_writes_nothing_outside(tmp_path: Path, name: str) -> None:
    assert "OutsideDestination" in _fails(tmp_path, _tar(tmp_path / "a.tgz", **{"in.txt": b"in", name: b"out"}))
    assert not [*tmp_path.rglob("outside.txt")]


def test_a_link_in_a_tar_leads_nowhere_outside(tmp_path: Path) -> None:
    evil = _tar(tmp_path / "a.tgz", link=_link(str(tmp_path)), **{"link/outside.txt": b"out"})
    assert "AbsoluteLink" in _fails(tmp_path, evil)
    assert not (tmp_path / "outside.txt").exists()


def test_a_zip_writes_nothing_outside(tmp_path: Path) -> None:
    evil = _zip(tmp_path / "a.zip", **{"../../outside.txt": b"out", "in.txt": b"in"})
    download(Archive(evil.as_uri(), 1000), tmp_path / "data" / "set", "", None)
    inside = sorted(path.name for path in (tmp_path / "data" / "set").rglob("*"))
    assert inside == ["in.txt", "outside.txt"]
    assert not (tmp_path / "outside.txt").exists()


@pytest.mark.parametrize("pack", [_tar, _zip])
def test_sizes_are_bounded(tmp_path: Path, pack: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "unpacks to more than 4,000 bytes" in _fails(tmp_path, pack(tmp_path / "bomb", **{"a.txt": bytes(5000)}))
    assert "expected at most 50 bytes" in _fails(tmp_path, tmp_path / "bomb", most_bytes=50)
    monkeypatch.setattr(module, "_MEMBERS", 1)
    many = pack(tmp_path / "many", **{"a.txt": b"a", "b.txt": b"b"})
    assert "or 1 files" in _fails(tmp_path, many)


@pytest.mark.parametrize("pack", [_tar, _zip])
def test_only_the_published_archive_is_unpacked(tmp_path: Path, pack: Callable[..., Path]) -> None:
    archive = pack(tmp_path / "archive", **{"a.txt": b"a"})
    published = hashlib.sha256(archive.read_bytes()).hexdigest()
    pack(archive, **{"a.txt": b"b"})
    assert f"expected an archive with the sha256 {published}, got" in _fails(tmp_path, archive, sha256=published)


@pytest.mark.parametrize("content", [b"", b"<html>moved</html>", b"PK\x05\x06", b"\x1f\x8b" + bytes(90)])
def test_what_is_no_archive_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert _fails(tmp_path, tmp_path / "a").endswith("Expected a network connection to its host. Or by hand.")


def test_an_archive_without_its_folder(tmp_path: Path) -> None:
    assert "it has no folder cub*" in _fails(tmp_path, _zip(tmp_path / "a.zip", **{"a.txt": b"a"}), inner="cub*")
