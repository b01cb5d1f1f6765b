"""Where the names of classes are written on a map, against plain loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
from app_pages.map.spots import CELL, MOST, SHARE, named_groups, spots


def group(places: np.ndarray, peak: tuple[int, int]) -> np.ndarray:
    """Places in three by three cells around a cell."""
    return np.array(
        [
            place
            for place in places
            if max(abs(int(at) // CELL - cell) for at, cell in zip(place, peak, strict=True)) <= 1
        ]
    )


def by_loops(places: np.ndarray, labels: np.ndarray) -> list[tuple[int, tuple[float, float], int]]:
    """Size, middle and label of each spot."""
    made = []
    for label in sorted(set(labels.tolist())):
        members = places[labels == label].astype(int)
        left = {tuple(place // CELL) for place in members}
        for turn in range(MOST):
            sizes = {cell: len(group(members, cell)) for cell in left}
            if not sizes or (turn and max(sizes.values()) < max(SHARE * len(members), 2)):
                break
            peak = min((cell for cell in sizes if sizes[cell] == max(sizes.values())), key=lambda cell: cell[::-1])
            made.append((sizes[peak], tuple(group(members, peak).mean(0)), label))
            left = {cell for cell in left if max(abs(a - b) for a, b in zip(cell, peak, strict=True)) > 2}
    return made


def test_names_stand_in_the_middle_of_the_densest_groups_of_a_class() -> None:
    random = np.random.default_rng(0)
    middles = random.integers(0, 65536, (4, 2))
    places = (middles[random.integers(0, 4, 400)] + random.normal(0, 900, (400, 2))).clip(0, 65535).astype(np.uint16)
    labels = random.integers(0, 5, 400)
    made, expected = spots(places, labels), by_loops(places, labels)
    assert len(expected) > 5
    sizes = {(label, *np.round(middle).astype(int)): size for size, middle, label in expected}
    assert {(label, x, y) for x, y, label in made.tolist()} == set(sizes)
    order = [sizes[label, x, y] for x, y, label in made.tolist()]
    assert order == sorted(order, reverse=True)


def test_single_items_at_the_edges_have_their_names_where_they_are() -> None:
    places = np.array([[0, 0], [65535, 65535], [0, 65535]], np.uint16)
    assert spots(places, np.array([2, 0, 1])).tolist() == [[65535, 65535, 0], [0, 65535, 1], [0, 0, 2]]
    assert spots(places[:0], np.array([], int)).shape == (0, 3)


def test_groups_without_labels_are_named_by_what_they_share() -> None:
    random = np.random.default_rng(0)
    middles = np.array([[8000, 8000], [50000, 9000], [30000, 55000], [9000, 50000]])
    kind = np.repeat(np.arange(4), 16)
    places = (middles[kind] + random.normal(0, 300, (64, 2))).astype(np.uint16)
    ids = [f"{['fruit/apple', 'milk', 'mixed', 'mixed'][of]}/{number}.jpg" for number, of in enumerate(kind)]
    shelf = pd.DataFrame({"shelf": ["1", "2", "3", "4"], "by": "all"}).iloc[kind].reset_index(drop=True)
    made, names = named_groups(places, ids, shelf)
    of = {names[at]: (x, y) for x, y, at in made.tolist()}
    assert set(of) == {"apple", "milk", "shelf 3", "shelf 4"}
    for name, number in (("apple", 0), ("milk", 1), ("shelf 3", 2), ("shelf 4", 3)):
        np.testing.assert_allclose(of[name], places[kind == number].mean(0), atol=1)


def test_groups_with_nothing_in_common_have_the_name_of_the_item_in_the_middle() -> None:
    places = np.array([[0, 0], [100, 0], [200, 0], [60000, 60000]], np.uint16)
    made, names = named_groups(np.repeat(places, 2, 0), [f"item-{at}.png" for at in range(8)], pd.DataFrame())
    assert len(made) == 4 and set(names) == {"item-0", "item-2", "item-4", "item-6"}
    assert named_groups(places[:0], [], pd.DataFrame())[0].shape == (0, 3)
