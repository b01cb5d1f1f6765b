"""How local structure depends on the gallery, against scores in galleries that were changed on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pddm_lab.analysis import gallery_dependence, metric_axioms
from pddm_lab.analysis.gallery_dependence import dependence, examine_local
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


def test_its_axioms_are_those_of_its_searches(local_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_axioms, "CHAINS", 200)
    monkeypatch.setattr(metric_axioms, "TRIPLE_ITEMS", 12)
    monkeypatch.setattr(metric_axioms, "_SYMMETRY_ITEMS", 6)
    gallery, local = local_run.gallery("known"), load_local(local_run)  # queries aren't searched: rows aren't places
    assert local is not None
    reference, ticks = gallery.reference(local.structure), []
    searched = reference.rows
    of_pair = {
        (int(a), int(b)): float(score_local_pairs(gallery, local.structure, np.array([a]), np.array([b]))[0])
        for a in searched[:3] for b in searched[:8] if a != b
    }  # fmt: skip
    threshold = float(np.quantile(list(of_pair.values()), 0.8))
    axioms = examine_local(
        local.structure, reference, threshold, rows=len(searched), progress=lambda *of: ticks.append(of)
    )
    assert axioms.items == len(searched) and np.isin(axioms.rows, searched).all() and ticks
    assert np.isin(axioms.rival, searched).all()
    assert np.array_equal(np.flatnonzero(np.isfinite(axioms.own)), searched)
    for at, row in list(enumerate(axioms.rows))[:4]:
        result = gallery.search_by(gallery.features[row], [], len(gallery), int(row), local.structure).table
        values = result.set_index("row")["local"]
        assert values[axioms.rival[at]] == pytest.approx(values.max(), abs=1e-4) == axioms.rival_score[at]
        copied = gallery.search_by(
            gallery.features[row], [], len(gallery), local=local.structure,
            pretrained=None if gallery.pretrained is None else gallery.pretrained[row],
        ).table.set_index("row")["local"]  # fmt: skip
        # In the lists of others the copy ties with its item, so its ranks there depend on rounding.
        assert axioms.own[row] == pytest.approx(copied[row], abs=0.2)
    i, _, k = axioms.chains.worst[0]
    mean = (score_local_pairs(gallery, local.structure, np.array([i, k]), np.array([k, i]))).mean()
    assert axioms.chains.worst_scores[0, 2] == pytest.approx(mean, abs=1e-4)
    assert axioms.chains.worst_scores[0, :2].min() >= threshold
    symmetric = next(check for check in axioms.checks() if check.name == "symmetric")
    assert axioms.symmetry.pairs_largest < 1e-6 < axioms.symmetry.matrix_largest and symmetric.holds is False
