"""A packed run is the same run again, and a file that is no packed run leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_changes import new_items
from test_gallery import make as make_gallery
from test_runs import DATASET

from pddm_lab import cli
from pddm_lab.config import TrainConfig
from pddm_lab.errors import RunError
from pddm_lab.gallery import changes
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.runs.compare import list_runs
from pddm_lab.runs.pack import is_plain_path, pack, unpack
from pddm_lab.runs.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with a gallery that was changed."""
    run = Run.create(TrainConfig(dataset="digits", dim=8, runs_root=str(tmp_path / "runs"), run_name="one"), DATASET,
                     "cpu", "32")  # fmt: skip
    run.log_metrics(1, "select", "train", "pddm", {"loss": 0.5})
    run.flush()
    gallery = make_gallery(run.path / "gallery", 20)
    changes.remove(changes.add(gallery, new_items(3)), ["new/1.png"])
    run.write_notes("Mine: é")
    run.update(status="finished")
    return run


@pytest.fixture
def packed(run: Run, tmp_path: Path) -> Path:
    pack(run, tmp_path / "one.zip")
    return tmp_path / "one.zip"


def content(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_a_run_comes_back_as_it_was(run: Run, packed: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    again = unpack(packed, tmp_path / "other", progress=lambda *step: steps.append(step))
    assert again.name == "one" and again.notes == "Mine: é" and again.config == run.config
    before, after = content(run.path), content(again.path)
    assert json.loads(before.pop("run.json")) == json.loads(after.pop("run.json"))
    assert before == after
    assert steps[-1][0] == steps[-1][1] > 0
    gallery = Gallery.open(again.path / "gallery" / "unseen", verify=True)
    assert gallery.search(gallery.features[:1], 1)[0][0, 0] == 0
    changes.undo(gallery)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["one"]


def test_a_name_that_is_taken_is_told_with_what_to_do(
    run: Run, packed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = run.path.parent
    with pytest.raises(RunError, match=r"exists already.*--name one-2`, .*pddm-lab runs remove one`"):
        unpack(packed, root)
    with pytest.raises(RunError, match="can't be a run's name"):
        unpack(packed, root, "a/b")
    monkeypatch.setenv("PDDM_LAB_RUNS", str(root))
    cli.main(["runs", "unpack", str(packed), "--name", "one-2"])
    assert "pddm-lab dashboard one-2" in capsys.readouterr().out
    assert json.loads((root / "one-2" / "run.json").read_text())["name"] == "one-2"
    with pytest.raises(RunError, match="exists already: name another file"):
        pack(run, packed)


def test_what_is_trained_changed_or_damaged_is_not_packed(run: Run, tmp_path: Path) -> None:
    out, features = tmp_path / "two.zip", run.path / "gallery" / "unseen" / "features.npy"
    run.update(status="running")
    with pytest.raises(RunError, match="is being trained"):
        pack(run, out)
    run.update(status="finished")

    def meanwhile(done: int, total: int, _: str) -> None:
        if done == total:
            changes.add(Gallery.open(features.parent), new_items(1, first=7))

    with pytest.raises(RunError, match="was changed while it was packed"):
        pack(run, out, meanwhile)
    (run.path / "link").symlink_to(tmp_path)
    with pytest.raises(RunError, match="is a link"):
        pack(run, out)
    (run.path / "link").unlink()
    data = bytearray(features.read_bytes())
    data[200] ^= 1
    features.write_bytes(data)
    with pytest.raises(RunError, match="expected the SHA-256 in the manifest"):
        pack(run, out)
    assert not out.exists() and not list(tmp_path.glob(".*"))


def test_an_unfinished_run_is_nobodys_where_it_is_unpacked(run: Run, tmp_path: Path) -> None:
    run.update(status="running", pid=2**22 - 1, process_started=1.0)
    pack(run, tmp_path / "two.zip")
    again = unpack(tmp_path / "two.zip", tmp_path / "other")
    assert again.status == "stopped" and "before it was finished" in again.reason


def rewritten(packed: Path, change: Callable[[dict[str, bytes], dict[str, Any]], object], tidy: bool = True) -> None:
    """Change the files of a packed run, and list them anew if `tidy`."""
    with zipfile.ZipFile(packed) as opened:
        files = {name: opened.read(name) for name in opened.namelist()}
    listed = json.loads(files.pop("pack.json"))
    change(files, listed)
    if tidy:
        listed["files"] = {name.removeprefix("run/"): _entry(data) for name, data in files.items()}
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            out.writestr(name, data)
        out.writestr("pack.json", json.dumps(listed))


def _entry(data: bytes) -> Mapping[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def refuse(packed: Path, root: Path, message: str, **choices: Any) -> None:
    """It is refused, and nothing is left of it."""
    with pytest.raises(RunError, match=message):
        unpack(packed, root, **choices)
    assert not root.exists() or not list(root.iterdir())
    assert list_runs(root) == []


@pytest.mark.parametrize(
    "name",
    ["../../outside", "/outside", "gallery/../../outside", "a\\..\\outside", "C:outside", ".hidden", "a//b", "a/./b",
     "a/\x01", "/".join("abcdefghi"), "x" * 201],
)  # fmt: skip
def test_no_file_leaves_the_runs_folder(packed: Path, tmp_path: Path, name: str) -> None:
    rewritten(packed, lambda files, _: files.update({f"run/{name}": b"x"}))
    refuse(packed, tmp_path / "inner" / "other", "no path inside of a run")
    assert not list(tmp_path.rglob("*outside*"))


@settings(max_examples=100, deadline=None, database=None)
@given(st.text(max_size=30))
@example("a/b.npy")
@example("é/ü-3.parquet")
def test_a_plain_path_stays_below_its_folder(name: str) -> None:
    if is_plain_path(name):
        below = Path("/runs/one")
        assert (below / name).resolve().is_relative_to(below) and name == str(Path(name))
        assert not any(part.startswith(".") for part in Path(name).parts)


def test_what_is_no_plain_file_is_refused(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    for kind in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFDIR):
        packed.write_bytes(whole)
        with zipfile.ZipFile(packed, "a") as opened:
            entry = zipfile.ZipInfo("run/odd")
            entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
            opened.writestr(entry, "/etc/passwd")
        refuse(packed, tmp_path / "other", "is a link, a folder, a device or encrypted")


def test_files_and_list_must_agree(packed: Path, tmp_path: Path) -> None:
    whole, other = packed.read_bytes(), tmp_path / "other"

    def flip(files: dict[str, bytes], _: Any) -> None:
        files["run/notes.md"] = files["run/notes.md"][:-1] + b"?"

    for change, message in (
        (flip, "notes.md is not the file that was packed"),
        (lambda files, _: files.pop("run/notes.md"), "lists other files or sizes"),
        (lambda files, _: files.update({"run/more": b""}), "lists other files or sizes"),
        (lambda files, _: files.update({"more": b""}), "lists other files or sizes"),
        (lambda files, listed: listed.update(format=2), "has another format, expected 1, got 2: update this lab"),
        (lambda files, listed: listed.pop("name"), "name: expected, but missing"),
        (lambda files, listed: listed.update(name="../x"), "can't be a run's name"),
    ):
        packed.write_bytes(whole)
        rewritten(packed, change, tidy=False)  # type: ignore[arg-type]
        refuse(packed, other, message)
    packed.write_bytes(whole)
    rewritten(packed, lambda files, _: files.update({"run/NOTES.md": b""}))
    refuse(packed, other, "upper and lower case")
    for data, message in (
        (b"", "no packed run"),
        (whole[:-400], "no packed run"),
        (whole[:100] + whole[300:], "Nothing was unpacked"),
    ):
        packed.write_bytes(data)
        refuse(packed, other, message)
    packed.unlink()
    refuse(packed, other, "does not exist")


def test_what_is_larger_than_allowed_is_refused_before_anything_is_written(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pddm_lab.runs import pack as module

    rewritten(packed, lambda files, _: files.update({"run/bomb": bytes(20_000_000)}))
    assert packed.stat().st_size < 1_000_000
    refuse(packed, tmp_path / "other", r"unpacks to 0.0 GB: expected at most 0.*--most-gb 1", most_gigabytes=0)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: module.shutil._ntuple_diskusage(1, 1, 1000))
    refuse(packed, tmp_path / "other", "Free space first")
    monkeypatch.setattr(module, "MOST_FILES", 5)
    refuse(packed, tmp_path / "other", "expected at most 5")


def test_a_file_that_holds_more_than_it_says_is_refused(packed: Path, tmp_path: Path) -> None:
    def grow(files: dict[str, bytes], _: Any) -> None:
        files["run/big"] = bytes(5_000_000)

    rewritten(packed, grow)
    data = packed.read_bytes()
    size = (5_000_000).to_bytes(4, "little")
    assert data.count(size) == 2, "in the local and in the central header"
    packed.write_bytes(data.replace(size, (50).to_bytes(4, "little")))
    refuse(packed, tmp_path / "other", "Nothing was unpacked")


def test_a_run_that_cannot_be_read_does_not_appear(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    for name, data in (
        ("run.json", b"{}"), ("gallery/unseen/manifest.json", b"{}"), ("gallery/unseen/features.npy", b"x"),
        ("model.safetensors", b"no weights"), ("last.ckpt", b"no checkpoint"), ("gallery/unseen/history/2.json", b"1"),
    ):  # fmt: skip
        packed.write_bytes(whole)
        rewritten(packed, lambda files, _, name=name, data=data: files.update({f"run/{name}": data}))  # type: ignore[misc]
        refuse(packed, tmp_path / "other", "holds a run that can't be read: .*Nothing was unpacked")
    packed.write_bytes(whole)
    rewritten(packed, lambda files, _: files.pop("run/run.json"))
    refuse(packed, tmp_path / "other", "holds a run that can't be read")
