"""Neighbourhoods on disk: what was saved comes back, and bad files get a message."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from local_reference import items

from pddm_lab.errors import LabError
from pddm_lab.local.neighbourhoods import LISTS, Neighbourhoods
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
        opened = load(tmp_path / "new", reference.features)
        pairs = [(opened, reference)] + ([(opened.second, reference.second)] if passes == 2 else [])
        for one, other in pairs:
            assert one is not None and other is not None and one.scales == other.scales
            for name in LISTS:
                assert torch.equal(getattr(one, name), getattr(other, name)), name
            assert (one.stale is None) == (other.stale is None)
        queries = items(3, seed=5).float()
        torch.testing.assert_close(structure.matrix(opened, queries), structure.matrix(reference, queries))
    save(whole, tmp_path / "new")  # no list is stale any more
    again = load(tmp_path / "new", FEATURES)
    assert (again.second is None) == (passes == 1) and (again.second is None or again.second.stale is None)


def test_an_opened_gallery_changes_without_its_files(tmp_path: Path) -> None:
    save(Neighbourhoods.of(FEATURES), tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    change(load(tmp_path, FEATURES), FEATURES[2:], torch.arange(2, 60))
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


def test_bad_files_get_a_message(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"and there are none\. Compute the neighbourhoods anew"):
        load(tmp_path, FEATURES)
    reference = Neighbourhoods.of(FEATURES)
    save(replace(reference, scales=(2, 4)), tmp_path)
    with pytest.raises(LabError, match="Expected the features of 60 items"):
        load(tmp_path, FEATURES[:50])
    (tmp_path / "scores.npy").write_bytes(b"broken")
    with pytest.raises(LabError, match=r"Expected an array in .*scores.npy"):
        load(tmp_path, FEATURES)
