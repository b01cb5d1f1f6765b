"""The benchmark of search measures a real gallery and reports its changes correctly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pddm_lab.bench import search
from pddm_lab.gallery.gallery import Gallery
from pddm_lab.model.similarity import make_similarity


@pytest.mark.slow
def test_every_part_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDDM_LAB_INDEX", "ivf")
    monkeypatch.setattr(search, "trained_unit", lambda: make_similarity("pddm", 128).eval())
    for name, value in {"QUERIES": 20, "BATCH": 30, "CHANGED": 40, "_PART": 900, "CEILING_QUERIES": 50}.items():
        monkeypatch.setattr(search, name, value)
    log: list[str] = []
    measures = {measure.what: measure for measure in search.measure(tmp_path, 2000, log.append)}
    gallery = Gallery.open(tmp_path / "unseen", verify=True)
    assert len(gallery) == 2000
    assert gallery.items["id"].is_unique
    np.testing.assert_allclose(np.linalg.norm(gallery.features, axis=1), 1, atol=1e-5)
    assert 0.9 < measures["recall of the index against flat"].value <= 1
    assert measures["removed items that still appear in results"].value == 0
    assert measures["added items that are their own nearest"].value == 100
    assert measures["updated items that are their own nearest"].value == 100
    curve = [measures[f"right items in a shortlist of {size}"].value for size in search.SIZES]
    assert curve == sorted(curve)
    assert 0 < curve[0] < curve[-1] <= 100
    for what in ("opening the gallery", "building its index", "searching", "re-ranking 100 adds", "adding", "removing"):
        assert measures[what].value > 0
    assert log[0] == "a gallery of 2,000 items"
