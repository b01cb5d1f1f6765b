"""Caltech 101 and Fruits-360: small copies in their layouts, the real ones where they are, and a run on each."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pddm_lab.config import TrainConfig
from pddm_lab.data.dataset import Dataset, read_dataset
from pddm_lab.data.source import Use
from pddm_lab.data.sources import caltech101, fruits360
from pddm_lab.errors import DataError


def _picture(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (shade % 255, 90, 0)).save(path)


def make_caltech(data_root: Path, each: int = 5) -> Path:
    root = data_root / "Caltech101" / "101_ObjectCategories"
    for number, name in enumerate(["Leopards", "bass", "crab", "emu", "lamp", "BACKGROUND_Google", "Faces_easy"]):
        for item in range(1, each + 1):
            _picture(root / name / f"image_{item:04}.jpg", 30 * number + item)
    (root / "BACKGROUND_Google" / "tmp").touch()
    return root


def make_fruits(data_root: Path, each: int = 24) -> Path:
    root = data_root / "Fruits-360-varieties"
    varieties = [
        "Training/Apple 1",
        "Training/Plum 1",
        "Training/Plum 2",
        "Test/Apple 2",
        "Test/Kiwi 1",
        "Test/Apple 21",
    ]
    for number, name in enumerate(varieties):
        for axis in ("r0_", "r1_") if number % 2 else ("", "r_", "r2_"):
            for view in range(each):
                _picture(root / name / f"{axis}{view * 12}_100.jpg", 40 * number + view)
    return root


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caltech101, "COUNTS", (25, 5))
    monkeypatch.setattr(fruits360, "COUNTS", (48 * 2 + 72 * 3, 5))


def ids(data: Dataset, items: np.ndarray) -> set[str]:
    return {data.ids[item] for item in items}


@pytest.mark.usefixtures("few")
def test_half_of_the_things_train_by_name(tmp_path: Path) -> None:
    root = make_caltech(tmp_path)
    data = read_dataset("caltech101", tmp_path)
    assert data.root == root and data.class_names == ["Leopards", "bass", "crab", "emu", "lamp"]
    assert data.unseen is not None and data.known is not None
    assert {item.split("/")[0] for item in ids(data, data.unseen.query)} == {"emu", "lamp"}
    assert data.unseen.leave_one_out and len(data.unseen.query) == 10
    assert {item.split("/")[0] for item in ids(data, data.train)} == {"Leopards", "bass", "crab"}
    assert len(data.known.query) == 3 and len(data.train) == 12, "a fifth of each class"
    other = read_dataset("caltech101", tmp_path, split_seed=1)
    assert other.known is not None and ids(other, other.known.query) != ids(data, data.known.query)


@pytest.mark.usefixtures("few")
def test_queries_are_an_arc_of_each_turn_and_its_neighbours_are_left_out(tmp_path: Path) -> None:
    make_fruits(tmp_path)
    data = read_dataset("fruits360", tmp_path)
    assert data.class_names == ["Apple 1", "Plum 1", "Plum 2", "Apple 2", "Kiwi 1"], "and no twin"
    assert data.unseen is not None and data.known is not None
    assert {item.split("/")[0] for item in ids(data, data.unseen.query)} == {"Test"} and data.unseen.leave_one_out
    assert {item.split("/")[0] for item in ids(data, data.train)} == {"Training"}
    assert ids(data, data.known.gallery) == ids(data, data.train)
    turns = 3 + 2 + 3
    assert len(data) == 13 * 24 - turns * 2 * fruits360.GAP, "5 varieties have 13 turns"
    assert data.notes == [f"{6 * turns} views beside the queries are left out, because they are nearly equal to them."]
    of_turn: dict[str, list[int]] = {}
    for item in ids(data, data.known.query):
        turn, number = turn_and_number(item)
        of_turn.setdefault(turn, []).append(number)
    for item in ids(data, data.train):
        turn, number = turn_and_number(item)
        steps = [abs(number - query) for query in of_turn[turn]]
        assert min(min(step, 24 - step) for step in steps) > fruits360.GAP, item


def turn_and_number(item: str) -> tuple[str, int]:
    """The turn of a view and its place in it, of a fruit that `make_fruits` wrote."""
    turn, _, number = item.removesuffix("_100.jpg").replace("/", "|").rpartition("_" if "_" in item[:-8] else "|")
    return turn, int(number) // 12


@pytest.mark.parametrize("views", [24, 25, 36, 72])
def test_an_arc_is_whole_and_its_place_is_seeded(views: int) -> None:
    uses = fruits360.arc(views, "0:Apple:r")
    kinds = [int((uses == use).sum()) for use in (Use.QUERY, 0, Use.TRAIN | Use.GALLERY)]
    assert kinds == [round(views / 5), 6, views - 6 - round(views / 5)]
    edges = (np.diff(np.append(uses, uses[0]).astype(int)) != 0).sum()
    assert edges == 4, "queries, gap, gallery, gap: one after the other on a closed turn"
    places = {int(np.flatnonzero(np.roll(fruits360.arc(views, f"{seed}:Apple:r"), 1) == 0)[0]) for seed in range(9)}
    assert len(places) > 1


@pytest.mark.usefixtures("few")
def test_a_full_copy_gives_the_same_number_of_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_fruits(tmp_path, each=60)
    monkeypatch.setattr(fruits360, "COUNTS", (72 * 5, 5))
    data = read_dataset("fruits360", tmp_path)
    turn = sorted(int(re.findall(r"r_(\d+)_", item)[0]) for item in data.ids if item.startswith("Training/Apple 1/r_"))
    assert len(data) == 5 * 72 - 6 * 8
    assert len(turn) == 24 - 6 and max(np.diff(turn) // 12) <= 3 * 7


@pytest.mark.parametrize(("name", "make"), [("caltech101", make_caltech), ("fruits360", make_fruits)])
def test_an_incomplete_copy_says_what_is_missing(tmp_path: Path, name: str, make) -> None:
    make(tmp_path)
    with pytest.raises(
        DataError, match=r"lists \d+ images of 5 classes; .* The copy is incomplete .* Get .*and copy its"
    ):
        read_dataset(name, tmp_path)


@pytest.mark.usefixtures("few", "no_maps")
@pytest.mark.parametrize(("name", "make"), [("caltech101", make_caltech), ("fruits360", make_fruits)])
def test_a_run_trains_on_it(tmp_path: Path, name: str, make) -> None:
    from pddm_lab.training.trainer import train

    make(tmp_path)
    run = train(
        TrainConfig(
            dataset=name, data_root=str(tmp_path), runs_root=str(tmp_path / "runs"), weights="none", run_name="run",
            views=1, steps=2, image_size=32, resize=32, classes_per_batch=2, images_per_class=2, val_class_share=0.0,
            workers=0,
        ),
        progress=False,
    )  # fmt: skip
    assert run.status == "finished" and sorted(run.protocols()) == ["known", "unseen"]
    assert run.info["dataset"]["licence"] in ("CC-BY-4.0", "CC-BY-SA-4.0")


@pytest.mark.parametrize(
    ("name", "items", "classes", "train", "known", "unseen"),
    [
        ("caltech101", 6868, 95, 3183, (797, 3183), (2888, 2888)),
        ("fruits360", 3978, 65, 2121, (705, 2121), (1152, 1152)),
    ],
)
def test_the_real_data_set(name: str, items: int, classes: int, train: int, known, unseen) -> None:
    data_root = Path(os.environ.get("PDDM_LAB_DATA", ""))
    source = {"caltech101": caltech101, "fruits360": fruits360}[name]
    if not os.environ.get("PDDM_LAB_DATA") or not source.is_present(data_root):
        pytest.skip(f"{name} is not in $PDDM_LAB_DATA")
    data = read_dataset(name, data_root)
    assert (len(data), len(data.class_names), data.skipped, len(data.train)) == (items, classes, [], train)
    assert data.unseen is not None and data.known is not None
    assert (len(data.known.query), len(data.known.gallery)) == known
    assert (len(data.unseen.query), len(data.unseen.gallery)) == unseen
