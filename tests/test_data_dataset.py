"""Reading: unreadable images are skipped and listed, protocols are disjoint, results are cached."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pddm_lab.data import dataset as module
from pddm_lab.data.dataset import SOURCES, Dataset, Protocol, read_dataset
from pddm_lab.data.sources import digits
from pddm_lab.errors import DataError


def make_folder(root: Path, counts: dict[str, int]) -> Path:
    """A folder of small pictures, root/<class>/<number>.png."""
    for shade, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (4 + number, 4), (shade * 20, number * 20, 99)).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "pictures", dict.fromkeys("abcdefgh", 6) | {"lone": 1})


def read(root: Path, **choices) -> Dataset:
    return read_dataset(f"folder:{root}", root.parent, **choices)


def test_protocols_are_disjoint_by_class_and_item(pictures: Path) -> None:
    data = read(pictures)
    assert data.unseen is not None
    assert data.known is not None
    assert data.unseen.leave_one_out
    assert not data.known.leave_one_out
    labels = data.labels
    assert not set(labels[data.unseen.gallery]) & set(labels[data.known.gallery])
    assert not set(data.known.query) & set(data.known.gallery)
    assert set(labels[data.known.query]) <= set(labels[data.train])
    assert set(data.train) <= set(data.known.gallery)
    everything = np.concatenate([data.unseen.gallery, data.known.gallery, data.known.query])
    assert sorted(everything) == list(range(len(data)))
    for array in (data.train, data.unseen.query, data.known.query, data.known.gallery, labels):
        assert array.dtype == np.int64


def test_a_class_with_one_image_stays_in_the_gallery_and_out_of_training(pictures: Path) -> None:
    lone_trains = next(s for s in range(20) if "lone" in _known_classes(read(pictures, split_seed=s)))
    data = read(pictures, split_seed=lone_trains)
    item = data.ids.index("lone/0.png")
    assert data.known is not None
    assert item in data.known.gallery
    assert item not in data.train
    assert item not in data.known.query
    assert any("1 class has only one image" in note for note in data.notes)


def _known_classes(data: Dataset) -> set[str]:
    assert data.known is not None
    return {data.class_names[c] for c in data.labels[data.known.gallery]}


def test_no_share_means_no_known_protocol(pictures: Path) -> None:
    data = read(pictures, known_query_share=0.0)
    assert data.known is None
    assert len(data.train) + len(data.unseen.query if data.unseen else []) in {len(data), len(data) - 1}


def test_unreadable_images_are_skipped_counted_and_listed(pictures: Path) -> None:
    before = read(pictures)
    (pictures / "a" / "0.png").write_bytes(b"no image")
    Image.effect_noise((64, 64), 90).save(pictures / "b" / "3.png")
    (pictures / "b" / "3.png").write_bytes((pictures / "b" / "3.png").read_bytes()[:2000])
    data = read(pictures)
    assert [skipped.id for skipped in data.skipped] == ["a/0.png", "b/3.png"]
    assert "not a picture the lab can read" in data.skipped[0].reason
    assert "damaged or incomplete" in data.skipped[1].reason
    assert len(data) == len(before) - 2
    assert "a/0.png" not in data.ids
    assert any(note.startswith("2 of 49 images cannot be read") for note in data.notes)
    assert data.fingerprint() != before.fingerprint()


def test_a_class_whose_images_are_all_broken_disappears(pictures: Path) -> None:
    halves = {name: name in _known_classes(read(pictures)) for name in "abcdefgh"}
    for path in (pictures / "c").iterdir():
        path.write_bytes(b"")
    data = read(pictures)
    assert "c" not in data.class_names
    assert set(data.labels) == set(range(len(data.class_names)))
    assert all(data.ids[i].startswith(data.class_names[c]) for i, c in enumerate(data.labels))
    halves.pop("c")
    assert halves == {name: name in _known_classes(data) for name in halves}, "the other classes keep their side"


def test_nothing_readable_is_one_clear_error(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pictures", {"a": 2, "b": 2})
    for path in root.glob("*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"None of the 4 images of .* can be read. The first is a/0.png"):
        read(root)


def test_too_little_to_train_on_is_one_clear_error(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "pictures", {"a": 1, "b": 1, "c": 5})
    with pytest.raises(DataError, match="has 1 class to train on"):
        read(root)


def test_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Unknown data set 'emojis'. Expected one of emoji, grocery, .*folder:PATH"):
        read_dataset("emojis", tmp_path)


def test_load_path_and_fingerprint(pictures: Path, tmp_path: Path) -> None:
    data = read(pictures)
    assert data.load(0).size == (4, 4)
    assert data.path(0) == pictures / "a" / "0.png"
    moved = tmp_path / "elsewhere" / "pictures"
    shutil.copytree(pictures, moved)
    assert read(moved).fingerprint() == data.fingerprint(), "equal data has an equal fingerprint wherever it lies"
    (pictures / "a" / "0.png").unlink()
    with pytest.raises(DataError, match="is missing"):
        data.load(0)


def test_answers_are_remembered_until_a_file_changes(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    opened: list[Path] = []
    check = module.why_unreadable

    def counted(path: Path) -> str:
        opened.append(path)
        return check(path)

    monkeypatch.setattr(module, "why_unreadable", counted)
    seen: list[tuple[int, int, str]] = []
    first = read(pictures, check_cache=cache, progress=lambda *step: seen.append(step))
    assert len(opened) == 49
    assert seen[-1] == (49, 49, "checking images")
    assert read(pictures, check_cache=cache).fingerprint() == first.fingerprint()
    assert len(opened) == 49
    (pictures / "d" / "2.png").write_bytes(b"broken now")
    assert [s.id for s in read(pictures, check_cache=cache).skipped] == ["d/2.png"]
    assert [path.name for path in opened[49:]] == ["2.png"]
    assert [s.id for s in read(pictures, check_cache=cache).skipped] == ["d/2.png"], "the reason is remembered too"
    assert len(opened) == 50


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a/0.png": [1]}', '{"a/0.png": 3}'])
def test_a_torn_or_foreign_cache_is_made_anew(pictures: Path, tmp_path: Path, content: str) -> None:
    cache = tmp_path / "cache"
    read(pictures, check_cache=cache)
    (file,) = cache.iterdir()
    file.write_text(content)
    assert read(pictures, check_cache=cache).skipped == []
    assert len(json.loads(file.read_text())) == 49


def test_a_cache_that_cannot_be_written_is_no_error(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert len(read(pictures, check_cache=tmp_path / "file" / "cache")) == 49


def test_protocol_knows_leave_one_out() -> None:
    items = np.arange(5)
    assert Protocol("unseen", items, items.copy()).leave_one_out
    assert not Protocol("known", items[:2], items).leave_one_out


def test_digits_are_written_on_first_reading(tmp_path: Path) -> None:
    data = read_dataset("digits", tmp_path / "new" / "data")
    assert len(data) == 1797
    assert data.class_names == list("0123456789")
    assert data.ids[0] == "0/0000.png"
    assert data.load(0).size == (8, 8)
    assert len(np.unique(data.labels[data.train])) == 5
    assert data.known is not None
    assert abs(len(data.known.query) / (len(data.train) + len(data.known.query)) - 0.2) < 0.01
    (data.root / "3" / "0003.png").unlink()
    assert not digits.is_present(tmp_path / "new" / "data")
    assert len(read_dataset("digits", tmp_path / "new" / "data")) == 1797, "a damaged copy is written again"
    assert [p.name for p in (tmp_path / "new" / "data").iterdir()] == ["digits"], "nothing is left beside it"


@pytest.mark.parametrize("name", ["digits", "emoji"])
def test_a_data_root_that_cannot_be_written_is_one_clear_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"Cannot write .*: pass --data-root or set PDDM_LAB_DATA"):
        SOURCES[name].fetch(tmp_path / "file" / "data", None)


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "digits"])
def test_a_missing_data_set_says_how_to_get_it(tmp_path: Path, name: str) -> None:
    assert not SOURCES[name].is_present(tmp_path)
    if by_hand := SOURCES[name].by_hand:
        where = re.escape(f"{by_hand} to {tmp_path / SOURCES[name].folder_name}, or point PDDM_LAB_DATA")
        with pytest.raises(DataError, match=rf"is not at .*{where}"):
            read_dataset(name, tmp_path)
        with pytest.raises(DataError, match=where):
            SOURCES[name].fetch(tmp_path, None)
        return
    with pytest.raises(DataError, match=rf"(There is no|is not at) .*pddm-lab data fetch {name}.*PDDM_LAB_DATA"):
        read_dataset(name, tmp_path)


def test_every_source_names_its_licence_and_authors() -> None:
    assert next(iter(SOURCES)) == "emoji"
    for name, source in SOURCES.items():
        assert source.name == name
        assert source.title
        assert source.size
        assert source.licence
        assert source.attribution
