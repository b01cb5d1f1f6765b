"""How local structure depends on the gallery, against scores in galleries that were changed on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pddm_lab.analysis import gallery_dependence
from pddm_lab.analysis.gallery_dependence import dependence
from pddm_lab.analysis.local_pairs import score_local_pairs
from pddm_lab.analysis.pairs import sample_pairs
from pddm_lab.gallery import changes
from pddm_lab.runs.local import load_local
from pddm_lab.runs.run import Run


def test_items_that_leave_change_the_scores_as_much_as_in_a_smaller_gallery(
    local_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery_dependence, "PAIRS", 12)
    monkeypatch.setattr(gallery_dependence, "LEFT_OUT", (0.5,))
    shutil.copytree(local_run.path, tmp_path / "local")
    gallery, local = Run.open(tmp_path / "local").gallery("unseen"), load_local(local_run)
    assert local is not None
    exchanged, fewer = dependence(gallery, local.structure, 2.0)
    pairs = sample_pairs(gallery, 12)
    a, b = pairs["a"].to_numpy(), pairs["b"].to_numpy()
    scores = score_local_pairs(gallery, local.structure, a, b)
    back = score_local_pairs(gallery, local.structure, b, a)
    assert (exchanged.left_out, exchanged.items, exchanged.pairs) == (0.0, len(gallery), 12)
    assert exchanged.mean == pytest.approx(np.abs(back - scores).mean() / scores.std(), abs=1e-6)
    others = np.random.default_rng(0).permutation(np.setdiff1d(np.arange(len(gallery)), np.union1d(a, b)))
    leave = others[: round(len(others) / 2)]
    smaller = changes.remove(gallery, gallery.items["id"].iloc[leave].tolist())
    place = np.array([np.searchsorted(np.sort(leave), row) for row in range(len(gallery))])
    after = score_local_pairs(smaller, local.structure, a - place[a], b - place[b])
    assert fewer.items == len(smaller)
    assert fewer.mean == pytest.approx(np.abs(after - scores).mean() / scores.std(), rel=1e-3)
    assert fewer.largest == pytest.approx(np.abs(after - scores).max() / scores.std(), rel=1e-3)
    assert fewer.crossed == pytest.approx(((after >= 2) != (scores >= 2)).mean())
