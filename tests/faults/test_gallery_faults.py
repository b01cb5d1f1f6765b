"""Every change of a gallery, broken off anywhere, leaves the gallery as it was or as it was to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from faults import MODES, Operation, sweep
from test_changes import new_items
from test_gallery import make, make_features, make_items

from pddm_lab.gallery import changes, umap_layout
from pddm_lab.gallery.files import NEIGHBOURHOODS, file_name
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.gallery.umap_layout import write_map
from pddm_lab.gallery.upkeep import keep_up
from pddm_lab.local.unit import LocalStructure

OLD, STAYS = 12, "class 4/image é9.png"
STRUCTURE = LocalStructure(8).eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def quick_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(umap_layout, "_umap", lambda of, *_: of[:, :2])
    monkeypatch.setattr(umap_layout, "trust", lambda places, distances, rows: (distances[:, 0], distances[:, 0]))


def nothing(folder: Path) -> None:
    """No gallery yet."""


def with_map(folder: Path) -> None:
    make(folder, OLD)
    write_map(folder / "unseen")


def changed(folder: Path) -> None:
    changes.remove(changes.add(make(folder, OLD), new_items(3)), ["new/0.png"])


def changed_with_map(folder: Path) -> None:
    changed(folder)
    write_map(folder / "unseen")


def write(folder: Path) -> None:
    make(folder, 10, features=make_features(10, seed=4))


def add(folder: Path) -> None:
    changes.add(Gallery.open(folder / "unseen"), new_items(4, first=20))


def update(folder: Path) -> None:
    new = changes.NewItems(make_items(OLD).iloc[[1, 6]], make_features(2, seed=5), [b"a", b"bc"])
    changes.update(Gallery.open(folder / "unseen"), new)


def remove(folder: Path) -> None:
    gallery = Gallery.open(folder / "unseen")
    changes.remove(gallery, gallery.items["id"].iloc[[0, 3]].tolist())


def draw(folder: Path) -> None:
    write_map(folder / "unseen")


def with_local(folder: Path) -> None:
    with_map(folder)
    keep(folder)


def changed_with_local(folder: Path) -> None:
    """Some neighbourhoods of the second pass are stale."""
    with_local(folder)
    add_local(folder)


def add_local(folder: Path) -> None:
    changes.add(Gallery.open(folder / "unseen"), new_items(4, first=20), STRUCTURE)


def update_local(folder: Path) -> None:
    new = changes.NewItems(make_items(OLD).iloc[[1, 6]], make_features(2, seed=5), [b"a", b"bc"])
    changes.update(Gallery.open(folder / "unseen"), new, STRUCTURE)


def remove_local(folder: Path) -> None:
    gallery = Gallery.open(folder / "unseen")
    changes.remove(gallery, gallery.items["id"].iloc[[0, 3]].tolist(), STRUCTURE)


def keep(folder: Path) -> None:
    keep_up(Gallery.open(folder / "unseen"), STRUCTURE)


def state(folder: Path) -> Any:
    """All that a reader sees, every file verified."""
    if not (folder / "unseen" / "manifest.json").exists():
        return "no gallery"
    gallery = Gallery.open(folder / "unseen", verify=True)
    thumbs, map_ = [gallery.thumb(row) for row in range(len(gallery))], gallery.map
    if map_ is not None:
        assert map_["id"].tolist() == gallery.items["id"].tolist()
    drawn = map_ is not None and map_.to_json()
    assert list(gallery.distributions) == ["pddm", "euclidean"]
    seen = gallery.reference(STRUCTURE)
    assert bool(file_name(gallery.manifest, NEIGHBOURHOODS)) == seen.is_stored, "what is stored fits"
    lists = seen.is_stored, seen.stale, seen.neighbourhoods.neighbours.tolist()
    features, counts = np.array(gallery.features).tobytes(), gallery.manifest.get("changed")
    return gallery.items.to_json(), features, thumbs, drawn, counts, lists


def go_on(folder: Path) -> None:
    """Change it once more; nothing of what was broken off may stay."""
    path = folder / "unseen"
    before = Gallery.open(path)
    ids = [name for name in before.items["id"] if name != STAYS]
    new = new_items(2, first=40)
    changes.add(changes.remove(before, [STAYS]), new)
    write_map(path)
    after = Gallery.open(path, verify=True)
    assert after.items["id"].tolist() == [*ids, *new.items["id"]]
    np.testing.assert_array_equal(after.features[-2:], new.features)
    np.testing.assert_array_equal(after.features[:-2], before.features[before.items["id"] != STAYS])
    assert after.map is not None
    assert {file.name for file in path.iterdir()} == {"manifest.json", "history", *after.manifest["files"]}


WORK = [
    (nothing, write), (with_map, write), (changed_with_map, write), (with_map, add), (changed, add), (with_map, update),
    (changed_with_map, update), (with_map, remove), (changed, remove), (changed, draw), (changed_with_map, draw),
    (with_local, write), (with_local, add_local), (changed_with_local, update_local), (with_local, remove_local),
    (with_local, remove), (changed_with_map, keep), (changed_with_local, keep), (changed_with_local, draw),
]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("prepare", "work"), WORK, ids=lambda function: function.__name__)
def test_a_change_of_a_gallery(prepare, work, mode: str, tmp_path: Path, faults_size, count_points) -> None:
    operation = Operation(f"{work.__name__} ({prepare.__name__})", prepare, work, state, go_on)
    count_points(mode, sweep(operation, mode, tmp_path, faults_size))


def test_a_reader_meanwhile_reads_on(tmp_path: Path) -> None:
    changed_with_map(tmp_path)
    before = Gallery.open(tmp_path / "unseen")
    features, thumb = np.array(before.features), before.thumb(5)
    for work in (add, update, remove, draw, write):
        work(tmp_path)
        np.testing.assert_array_equal(before.features, features)
        assert before.thumb(5) == thumb
    pd.testing.assert_frame_equal(Gallery.open(tmp_path / "unseen").items, make_items(10))
