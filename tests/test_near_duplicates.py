"""Groups of near-duplicates are those of a slow loop, stay inside a class, and a split never separates one."""

from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pddm_lab.data import near_duplicates
from pddm_lab.data.dataset import Dataset, read_dataset
from pddm_lab.data.near_duplicates import NEAR_DUPLICATE, joined_groups, near_duplicate_groups, print_of, read_prints
from pddm_lab.data.splits import hold_out_queries
from pddm_lab.progress import Stopped


def picture(seed: int, side: int = 96) -> Image.Image:
    """Blobs of colour: no two seeds look alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def encoded_again(image: Image.Image, quality: int = 60) -> Image.Image:
    buffer = io.BytesIO()
    image.resize((60, 60)).save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


@pytest.fixture
def photos(tmp_path: Path) -> Dataset:
    """A class of one burst, one with a copy and a mirror image, one of different pictures, one with a burst's copy."""
    base = picture(0)
    classes = {
        "burst": [encoded_again(base, quality) for quality in (90, 60, 40, 30)],
        "copies": [picture(1), encoded_again(picture(1)), picture(2), ImageOps.mirror(picture(2))],
        "different": [picture(seed) for seed in range(3, 9)],
        "elsewhere": [encoded_again(base, 75), *(picture(seed) for seed in range(9, 12))],
    }  # fmt: skip
    for name, images in classes.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number, image in enumerate(images):
            image.save(tmp_path / "photos" / name / f"{number}.png")
    return read_dataset(f"folder:{tmp_path / 'photos'}", "", known_query_share=0.0)


def slow_likeness(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(float).ravel() / 255, b.astype(float).ravel() / 255
    apart = sum((x - y) ** 2 for x, y in zip(a, b, strict=True))
    spread = sum((x - a.mean()) ** 2 for x in a) + sum((y - b.mean()) ** 2 for y in b)
    return float(1 - apart / (spread + len(a) * (a.mean() - b.mean()) ** 2))


def slow_groups(dataset: Dataset, items: np.ndarray, least: float = NEAR_DUPLICATE) -> set[frozenset[int]]:
    groups = [{int(item)} for item in items]
    prints = {int(item): print_of(dataset.load(item)) for item in items}
    for a, b in combinations(prints, 2):
        if dataset.labels[a] == dataset.labels[b] and slow_likeness(prints[a], prints[b]) >= least:
            first, second = (next(group for group in groups if end in group) for end in (a, b))
            if first is not second:
                groups.remove(second)
                first |= second
    return {frozenset(group) for group in groups}


def as_sets(items: np.ndarray, groups: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(items[groups == number].tolist()) for number in range(groups.max() + 1)}


def test_groups_are_those_of_a_slow_loop(photos: Dataset, tmp_path: Path) -> None:
    items = np.random.default_rng(0).permutation(len(photos))
    groups = near_duplicate_groups(photos, items, tmp_path / "cache")
    assert as_sets(items, groups) == slow_groups(photos, items)
    looser = near_duplicate_groups(photos, items, tmp_path / "cache", least=0.05)
    assert as_sets(items, looser) == slow_groups(photos, items, 0.05) != slow_groups(photos, items)
    names = {
        frozenset(photos.ids[item].removesuffix(".png") for item in group)
        for group in as_sets(items, groups)
        if len(group) > 1
    }
    assert names == {
        frozenset({"burst/0", "burst/1", "burst/2", "burst/3"}), frozenset({"copies/0", "copies/1"})
    }, "neither the mirror image nor the copy in another class"  # fmt: skip


def test_blocks_of_a_large_class_join_as_one(photos: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = np.arange(len(photos))
    whole = near_duplicate_groups(photos, items, tmp_path / "cache")
    monkeypatch.setattr(near_duplicates, "_CELLS", 5)  # one row at a time
    np.testing.assert_array_equal(near_duplicate_groups(photos, items, tmp_path / "cache"), whole)


def test_groups_of_nothing_and_of_one(photos: Dataset, tmp_path: Path) -> None:
    assert near_duplicate_groups(photos, np.empty(0, np.int64), tmp_path).shape == (0,)
    assert near_duplicate_groups(photos, np.array([3]), tmp_path).tolist() == [0]
    assert len(set(joined_groups(3, np.empty((0, 2), np.int64)).tolist())) == 3


def test_prints_are_made_once_per_content(photos: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, cache, made = [photos.path(item) for item in range(len(photos))], tmp_path / "cache", []
    read_print = near_duplicates._read_print

    def count(path: Path) -> np.ndarray:
        made.append(path)
        return read_print(path)

    monkeypatch.setattr(near_duplicates, "_FILES", 4)
    monkeypatch.setattr(near_duplicates, "_read_print", count)

    def stop(done: int, total: int, what: str) -> None:
        if done >= 8:
            raise Stopped

    with pytest.raises(Stopped):
        read_prints(paths, cache, stop)
    assert len(made) == 8
    first = read_prints(paths, cache)
    assert sorted(made) == sorted(paths), "what was made before the stop is kept"
    np.testing.assert_array_equal(read_prints(paths[::-1], cache), first[::-1])
    paths[1].write_bytes(paths[6].read_bytes())
    np.testing.assert_array_equal(read_prints(paths, cache)[1], first[6])
    assert len(made) == len(paths)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:70])
    np.testing.assert_array_equal(read_prints(paths, cache)[2:], first[2:])


@pytest.mark.parametrize("share", [0.1, 0.2, 0.35, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_held_out_whole(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.sort(rng.integers(0, 12, 150))
    items = rng.permutation(150)[:120]
    groups = labels[items] * 100 + rng.integers(0, 6, 120)
    train, query = hold_out_queries(labels, items, share, seed, groups)
    assert np.array_equal(np.sort(np.concatenate([train, query])), np.sort(items))
    group_of = dict(zip(items.tolist(), groups.tolist(), strict=True))
    assert not {group_of[item] for item in train.tolist()} & {group_of[item] for item in query.tolist()}
    for label in np.unique(labels[items]):
        members = items[labels[items] == label]
        most = min(max(1, round(share * len(members))), len(members) - 2)
        sizes = sorted(np.unique(groups[labels[items] == label], return_counts=True)[1].tolist())
        held = int((labels[query] == label).sum())
        assert (labels[train] == label).sum() >= min(2, len(members))
        if most <= 0 or len(sizes) == 1:
            assert held == 0
        elif sizes[0] > most:
            assert held == sizes[0], "the smallest"
        else:
            kept = np.unique(groups[(labels[items] == label) & np.isin(items, train)], return_counts=True)[1]
            assert held <= most and (kept > most - held).all(), "as many as the share allows"
    again = hold_out_queries(labels, items, share, seed, groups)
    assert np.array_equal(again[1], query)
    order = rng.permutation(len(items))
    assert np.array_equal(hold_out_queries(labels, items[order], share, seed, groups[order])[1], query)


def test_of_a_class_of_one_burst_nothing_is_held_out() -> None:
    labels, items = np.repeat([0, 1], 6), np.arange(12)
    groups = np.array([7, 7, 7, 7, 7, 7, 0, 0, 0, 1, 2, 2])
    train, query = hold_out_queries(labels, items, 0.2, 0, groups)
    assert query.tolist() == [9] and len(train) == 11
    assert len(hold_out_queries(labels, items, 0.0, 0, groups)[1]) == 0


def test_splits_of_existing_runs_stay_as_they_are() -> None:
    labels = np.repeat(np.arange(6), [3, 5, 8, 13, 21, 2])
    query = hold_out_queries(labels, np.arange(len(labels)), 0.2, 0)[1]
    assert query.tolist() == [2, 5, 8, 14, 21, 26, 28, 33, 37, 38, 45]
