"""Neighbourhoods built in a file: with all cells searched they are exact, and work that was broken off goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from local_reference import items

from pddm_lab.gallery.nearest import searching
from pddm_lab.gallery.store import IndexChoice
from pddm_lab.local import large
from pddm_lab.local.large import Source, build
from pddm_lab.local.sizes import LISTS
from pddm_lab.local.store import load
from pddm_lab.local.unit import LocalStructure
from pddm_lab.progress import Stopped

COUNT = 700
FEATURES = items(COUNT, classes=90).float()
ALL_CELLS = IndexChoice("ivf", COUNT)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "PART", 100)
    monkeypatch.setattr(large, "_SECONDS", 0.0)


def structure(passes: int = 2) -> LocalStructure:
    torch.manual_seed(0)
    made = LocalStructure(8, passes=passes)
    for unit in (made.first, made.second):
        if unit is not None:
            torch.nn.init.normal_(unit.score.weight, std=0.3)
    return made.eval().requires_grad_(False)


def source(choice: IndexChoice = ALL_CELLS, key: str = "these items") -> Source:
    return Source(COUNT, 8, lambda rows: FEATURES[rows], lambda z: searching(z, choice), key)


@pytest.mark.parametrize("passes", [1, 2])
def test_with_all_cells_searched_it_is_what_comparing_all_gives(tmp_path: Path, passes: int) -> None:
    made = structure(passes)
    expected = made.reference(FEATURES)
    reports: list[tuple[int, int, str]] = []
    actual = load(build(made, source(), tmp_path / "work", lambda *of: reports.append(of)), "these items")
    assert (actual.second is None) == (passes == 1)
    torch.testing.assert_close(actual.features, expected.features)
    for one, other in [(actual, expected), *([(actual.second, expected.second)] if passes == 2 else [])]:
        assert one is not None and other is not None and one.scales == other.scales
        # A neighbour may differ where two are equally near but for rounding.
        same = (one.neighbours == other.neighbours).all(1)
        assert same.float().mean() > 0.95
        for name in LISTS:
            ours, theirs = getattr(one, name)[same].float(), getattr(other, name)[same].float()
            assert torch.isclose(ours, theirs, atol=1e-3).float().mean() > 0.99, name
    done, total, _ = zip(*reports, strict=True)
    assert list(done) == sorted(done) and done[-1] == total[-1] == COUNT * (5 if passes == 1 else 8)


@pytest.mark.parametrize("count", [30, 60, 100, 101])
def test_a_gallery_of_few_items_lists_each_once_and_none_itself(tmp_path: Path, count: int) -> None:
    made, few = structure(), FEATURES[:count]
    choice = IndexChoice("ivf", count)
    of = Source(count, 8, lambda rows: few[rows], lambda z: searching(z, choice), "few items")
    actual, expected = load(build(made, of, tmp_path / "work"), "few items").second, made.reference(few).second
    assert actual is not None and expected is not None
    listed = actual.scores > -torch.inf
    assert torch.equal(listed, expected.scores > -torch.inf)
    for row, (named, there) in enumerate(zip(actual.neighbours, listed, strict=True)):
        names = named[there].tolist()
        assert row not in names and len(set(names)) == len(names)
    torch.testing.assert_close(actual.scores, expected.scores, atol=1e-3, rtol=1e-3)


def test_work_that_was_broken_off_goes_on(tmp_path: Path) -> None:
    made, whole = structure(), build(structure(), source(), tmp_path / "whole").read_bytes()
    calls = 0

    def stop(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls % 25 == 0:
            raise Stopped

    for _ in range(2):
        with pytest.raises(Stopped):
            build(made, source(), tmp_path / "work", stop)
    assert build(made, source(), tmp_path / "work", stop).read_bytes() == whole
    assert calls < 75, "each goes on where the last one stopped"


def test_work_on_something_else_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "work.json").write_text("broken")
    build(structure(), source(key="other items"), tmp_path / "work")
    with pytest.raises(Stopped):
        build(structure(), source(), tmp_path / "work", lambda done, *_: (_ for _ in ()).throw(Stopped()))
    assert not (tmp_path / "work" / "work.json").exists()
    file = build(structure(), source(), tmp_path / "work")
    assert len(load(file, "these items")) == COUNT


def test_the_cosines_of_an_index_are_exact_and_in_order() -> None:
    search = searching(FEATURES, IndexChoice("ivf", 1))
    assert search is not None and searching(FEATURES, IndexChoice("flat")) is None
    cosines, rows = search(FEATURES[:50], 5)
    expected = np.take_along_axis((FEATURES[:50] @ FEATURES.T).numpy(), rows.numpy(), axis=1)
    np.testing.assert_allclose(cosines.numpy(), expected, atol=1e-6)
    assert (cosines[:, 1:] <= cosines[:, :-1]).all()
    assert (rows[:, 0] == torch.arange(50)).all(), "each item's nearest is itself"
