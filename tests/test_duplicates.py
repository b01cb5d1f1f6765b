"""Planted duplicates are found, all of them and nothing else; what they do to Recall@1 is that of a slow loop."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pddm_lab.analysis import duplicates
from pddm_lab.analysis.duplicate_effect import Matches, best_matches, effect
from pddm_lab.analysis.duplicates import (
    across_splits,
    compare_files,
    find_duplicates,
    groups_of,
    print_of_thumb,
    read_pictures,
)
from pddm_lab.data.near_duplicates import NEAR_DUPLICATE
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.model.similarity import Euclidean


def picture(seed: int, side: int = 96) -> Image.Image:
    """Blobs of colour: no two seeds look alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def encoded_again(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.resize((40, 40)).save(buffer, "JPEG", quality=60)
    return Image.open(buffer).convert("RGB")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Gallery]:
    """24 pictures in the unseen gallery; 6 of its own kind and 4 copies of those in the known one."""
    root = tmp_path_factory.mktemp("planted")
    unseen = [picture(seed) for seed in range(24)]
    copies = [unseen[0].copy(), encoded_again(unseen[1]), unseen[2].transpose(Image.Transpose.FLIP_LEFT_RIGHT),
              encoded_again(unseen[3])]  # fmt: skip
    known = [picture(seed) for seed in range(100, 106)] + copies
    made = {}
    for name, images, roles, first in (
        ("unseen", unseen, ["both"] * 24, 0),
        ("known", known, ["query", "gallery"] * 5, 50),
    ):
        labels = first + np.arange(len(images)) // 2
        if name == "known":
            labels[-1] = 1  # its original's class; the other three copies have another
        frame = pd.DataFrame(
            {"id": [f"{name}/{n:02}.png" for n in range(len(images))], "label": labels,
             "class_name": [f"class {label}" for label in labels], "role": roles}
        )  # fmt: skip
        features = np.random.default_rng(first).normal(size=(len(images), 4)).astype(np.float32)
        made[name] = Gallery.write(root / name, name, features, frame, images.__getitem__, {})
    return made


def test_planted_copies_are_found_and_nothing_else(planted: dict[str, Gallery]) -> None:
    told: list[tuple[int, int, str]] = []
    pictures = read_pictures(planted, progress=lambda *at: told.append(at))
    assert told[-1] == (34, 34, "pictures")
    alike = find_duplicates(pictures, NEAR_DUPLICATE, progress=lambda *at: told.append(at))
    assert told[-1] == (34 * 33 // 2, 34 * 33 // 2, "pairs")
    found = {(row.a, row.b): (row.kind, row.same_label) for row in alike.pairs.itertuples()}
    assert found == {
        (0, 30): ("identical", False), (1, 31): ("near", False), (2, 32): ("mirrored", False), (3, 33): ("near", True),
    }  # fmt: skip
    assert alike.pairs["likeness"].iloc[0] == 1 and alike.left_out == 0
    table = across_splits(pictures.items, alike.pairs).set_index(["split_a", "split_b"])
    assert table.loc[("known", "unseen")].to_dict() == {
        "pairs": 2, "identical": 1, "near": 0, "mirrored": 1, "conflicts": 2, "items": 4,
    }  # fmt: skip
    assert table.loc[("train", "unseen"), ["pairs", "near", "conflicts"]].tolist() == [2, 2, 1]
    assert table.loc[("unseen", "unseen"), "pairs"] == 0


def test_only_identical_ones_are_looked_for_where_asked(planted: dict[str, Gallery]) -> None:
    pairs = find_duplicates(read_pictures(planted, prints=False), 1.0).pairs
    assert pairs[["a", "b", "kind"]].to_numpy().tolist() == [[0, 30, "identical"]]


def test_likeness_is_that_of_a_slow_loop(planted: dict[str, Gallery]) -> None:
    pictures = read_pictures(planted)
    pairs = find_duplicates(pictures, -1.0).pairs
    assert len(pairs) == 34 * 33 // 2
    for row in pairs.sample(60, random_state=0).itertuples():
        if row.kind == "identical":
            continue
        a, b = (pictures.prints[at].astype(float) / 255 for at in (row.a, row.b))
        values = []
        for other in (b, b[:, ::-1]):
            between = (a.mean() - other.mean()) ** 2
            values.append(1 - ((a - other) ** 2).mean() / (a.var() + other.var() + between))
        assert row.likeness == pytest.approx(max(values), abs=1e-4)
        assert (row.kind == "mirrored") == (values[1] > values[0] + 0.01)


def test_the_strongest_pairs_are_kept_where_there_are_too_many(planted: dict[str, Gallery]) -> None:
    pictures = read_pictures(planted)
    few = find_duplicates(pictures, 0.0, most=10)
    every = find_duplicates(pictures, 0.0)
    assert len(few.pairs) == 10 and few.left_out == len(every.pairs) - 10
    assert few.pairs["likeness"].tolist() == every.pairs["likeness"].head(10).tolist()


def test_one_plain_colour_is_like_itself_alone() -> None:
    buffers = []
    for colour in ("white", "white", "red", "black"):
        buffer = io.BytesIO()
        Image.new("RGB", (30, 20), colour).save(buffer, "JPEG")
        buffers.append(buffer.getvalue())
    items = pd.DataFrame({"id": list("abcd"), "label": 0, "class_name": "c", "split": "train", "protocol": "known",
                          "row": range(4)})  # fmt: skip
    prints = np.array([print_of_thumb(data) for data in buffers])
    alike = find_duplicates(duplicates.Pictures(items, prints, [b"1", b"2", b"3", b"4"]))
    assert alike.pairs[["a", "b", "kind"]].to_numpy().tolist() == [[0, 1, "near"]]


def test_pairs_join_into_groups() -> None:
    groups = groups_of(6, pd.DataFrame({"a": [0, 1, 4], "b": [1, 2, 5]}))
    assert groups[0] == groups[1] == groups[2] != groups[3] and groups[4] == groups[5]
    assert len(np.unique(groups)) == 3
    assert len(np.unique(groups_of(3, pd.DataFrame({"a": [], "b": []}, dtype=np.int64)))) == 3


def test_files_confirm_what_thumbnails_say(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    picture(1).save(tmp_path / "c.bmp")
    picture(2).save(tmp_path / "d.png")
    others = [tmp_path / name for name in ("b.png", "c.bmp", "d.png", "e.png")]
    assert [compare_files(tmp_path / "a.png", other) for other in others] == [
        "same file", "same pixels", "same thumbnail only", "",
    ]  # fmt: skip
    assert compare_files(None, others[0]) == compare_files(others[0], None) == ""


def test_best_matches_give_the_recall_that_the_run_measured(digits_run) -> None:
    for protocol in ("unseen", "known"):
        gallery = digits_run.gallery(protocol)
        matches = best_matches(Euclidean(), gallery)
        assert len(matches.queries) == matches.total
        labels = gallery.items["label"].to_numpy()
        right = labels[matches.best[:, 0]] == labels[matches.queries]
        assert right.mean() == pytest.approx(digits_run.info["metrics"][protocol]["euclidean"]["recall@1"], abs=2e-3)
    some = best_matches(Euclidean(), gallery, budget=50 * int(matches.searched.sum()))
    assert len(some.queries) == 50 and set(some.queries) < set(matches.queries)


def test_the_effect_of_near_duplicates_is_that_of_a_slow_loop() -> None:
    labels = np.array([0, 0, 1, 1, 0, 2])
    searched = np.array([True, True, True, True, False, True])
    best = np.array([[1, 2, 3, 5, 0], [3, 0, 1, 5, 2], [0, 1, 2, 3, 5], [0, 1, 2, 3, 5]])
    matches = Matches(np.array([0, 2, 4, 5]), 4, searched, best, np.array([1, 1, 2, 0]))
    found = effect("euclidean", matches, labels, [(0, 1), (4, 0), (4, 1), (2, 5)])
    # Query 5 has nothing to find. 0 finds 1, its twin, and nothing else is left; 2 finds 3 and keeps it; 4 finds 0, a
    # twin, and has nothing left without both.
    assert (found.queries, found.duplicated) == (3, 3)
    assert (found.recall, found.recall_duplicated) == (1, 1) and np.isnan(found.recall_others)
    assert (found.recall_removed, found.removed_queries) == (1, 1)
    found = effect("euclidean", matches, labels, [(4, 0)])
    assert (found.duplicated, found.recall_others, found.recall_removed, found.removed_queries) == (1, 1, 1, 3)
    found = effect("euclidean", matches, labels, [(2, 3), (2, 0)])  # 2's right answer is gone; nothing left to find
    assert (found.duplicated, found.removed_queries) == (2, 2)
