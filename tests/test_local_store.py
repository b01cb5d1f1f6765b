"""Neighbourhoods on disk: what was saved comes back, and bad files get a message."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from local_reference import items

from pddm_lab.errors import LabError
from pddm_lab.local.neighbourhoods import Neighbourhoods
from pddm_lab.local.sizes import LISTS
from pddm_lab.local.store import load, save
from pddm_lab.local.unit import LocalStructure
from pddm_lab.local.upkeep import change

FEATURES = items(60).float()


@pytest.mark.parametrize("passes", [1, 2])
def test_what_was_saved_comes_back(tmp_path: Path, passes: int) -> None:
    structure = LocalStructure(8, passes=passes).requires_grad_(False)
    whole = structure.with_second(Neighbourhoods.of(FEATURES))
    changed = change(whole, FEATURES[:58], torch.arange(58))
    for reference in (whole, changed):
        save(reference, tmp_path / "new")
        opened = load(tmp_path / "new")
        assert torch.equal(opened.features, reference.features)
        pairs = [(opened, reference)] + ([(opened.second, reference.second)] if passes == 2 else [])
        for one, other in pairs:
            assert one is not None and other is not None and one.scales == other.scales
            for name in LISTS:
                assert torch.equal(getattr(one, name), getattr(other, name)), name
            assert (one.stale is None) == (other.stale is None)
        queries = items(3, seed=5).float()
        torch.testing.assert_close(structure.matrix(opened, queries), structure.matrix(reference, queries))
    save(whole, tmp_path / "new")  # no list is stale any more
    again = load(tmp_path / "new")
    assert (again.second is None) == (passes == 1) and (again.second is None or again.second.stale is None)


def test_an_opened_gallery_changes_without_its_file(tmp_path: Path) -> None:
    save(Neighbourhoods.of(FEATURES), tmp_path / "new")
    before = (tmp_path / "new").read_bytes()
    opened = load(tmp_path / "new")
    change(opened, FEATURES[2:], torch.arange(2, 60))
    opened.scores[0] = 7
    assert before == (tmp_path / "new").read_bytes()


def test_bad_files_get_a_message(tmp_path: Path) -> None:
    file = tmp_path / "new"
    with pytest.raises(LabError, match=r"is missing\. Compute the neighbourhoods anew"):
        load(file)
    file.write_bytes(b"broken")
    with pytest.raises(LabError, match="is damaged"):
        load(file)
    save(Neighbourhoods.of(FEATURES), file, "of this gallery")
    with pytest.raises(LabError, match="of another gallery or similarity"):
        load(file, "of another")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda of: replace(of, features=of.features * 2), "features of unit length"),
        (lambda of: replace(of, features=of.features.double()), "features of unit length"),
        (lambda of: replace(of, first_part=8), "features of unit length"),
        (lambda of: replace(of, neighbours=of.neighbours + 1), "valid neighbours of 60 items"),
        (lambda of: replace(of, neighbours=of.neighbours - 1), "valid neighbours of 60 items"),
        (lambda of: replace(of, neighbours=of.neighbours.long()), "valid neighbours of 60 items"),
        (lambda of: replace(of, scores=of.scores * torch.nan), "valid scores of 60 items"),
        (lambda of: replace(of, weights=of.weights / 0), "valid weights of 60 items"),
        (lambda of: replace(of, reverse=of.reverse[:, :40]), "valid reverse of 60 items"),
        (lambda of: replace(of, squares=of.squares[:50]), "valid squares of 60 items"),
        (lambda of: replace(of, scales=(2, 4)), "valid squares of 60 items"),
        (lambda of: replace(of, scales=(8, 4, 2, 16, 32)), "ascending scales"),
        (lambda of: replace(of, scales=(2, 4, 8, 16, 41)), "was not written by this lab: scales"),
        (lambda of: replace(of, second=replace(of, stale=torch.zeros(59, dtype=torch.bool))), "each of 60 items is"),
        (lambda of: replace(of, second=replace(of, neighbours=of.neighbours + 1)), r"valid second\.neighbours"),
    ],
)
def test_what_compiled_loops_would_follow_blindly_is_refused(tmp_path: Path, damage, expected: str) -> None:
    save(damage(Neighbourhoods.of(FEATURES)), tmp_path / "new")
    with pytest.raises(LabError, match=expected):
        load(tmp_path / "new")
