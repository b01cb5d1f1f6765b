"""The benchmark of local similarities measures each of them on a gallery of its size."""

from __future__ import annotations

import pytest
import torch

from pddm_lab.bench import local
from pddm_lab.local import fit


def test_every_part_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "STEPS", 5)
    for name, value in {"BATCH": 8, "SINGLE": 3, "TRAINING_ITEMS": 160, "SHORTLIST": 60}.items():
        monkeypatch.setattr(local, name, value)
    threads = torch.get_num_threads()
    log: list[str] = []
    measures = {measure.what: measure for measure in local.measure(400, log.append)}
    assert torch.get_num_threads() == threads
    assert "the neighbourhoods of 400 items" in log
    assert all(measure.value > 0 for measure in measures.values())
    assert 0.5 < measures["memory an item beside the features"].value < 2
    for name in ("query expansion", "both-sided expansion", "CSLS", "k-reciprocal", "unit, first pass"):
        assert f"{name}, a query beyond the search" in measures
    assert 10 <= measures["upkeep, stale lists of the second pass"].value <= 400
    targets = {what: measure.target for what, measure in measures.items() if measure.target is not None}
    assert targets == {
        "training the unit": 60, "offline, both passes": 3, "memory an item beside the features": 4.5,
        "unit, both passes, a query beyond the search": 2, "unit, both passes, a single query": 6,
    }  # fmt: skip


def test_a_large_gallery_is_built_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "STEPS", 2)
    for name, value in {"BATCH": 8, "SINGLE": 3, "TRAINING_ITEMS": 160, "SHORTLIST": 60, "FLAT_ITEMS": 500}.items():
        monkeypatch.setattr(local, name, value)
    monkeypatch.setattr("pddm_lab.gallery.store.FLAT_ITEMS", 500)
    log: list[str] = []
    measures = {measure.what: measure for measure in local.measure(1500, log.append)}
    assert "reading features" in log and "listing by S" in log
    assert measures["recall of the lists"].value > 0.9
    assert measures["offline, both passes, half of the processor time"].target == 45 * 60
    assert 1 < measures["disk an item beside the features"].value < 1.5
    assert measures["unit, both passes, a single query"].value > 0
