"""Local structure without torch scores as the lab does; files from elsewhere are checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from local_reference import items
from safetensors.numpy import load_file, save_file

from pddm_lab.errors import RunError
from pddm_lab.export.local import NEIGHBOURHOODS, WEIGHTS, ExportedLocal
from pddm_lab.files import write_tensors
from pddm_lab.local.store import save
from pddm_lab.local.unit import LocalStructure

X, P = items(400, seed=1).float().numpy(), items(400, seed=2).float().numpy()


def structure(passes: int, weight: float) -> LocalStructure:
    """All of its weights count, and its inputs are not yet standardised."""
    torch.manual_seed(passes)
    made = LocalStructure(8, weight > 0, weight, passes)
    made.whitening.fit(torch.from_numpy(X), torch.arange(400) % 20)
    for unit in (made.first, made.second):
        if unit is not None:
            torch.nn.init.normal_(unit.score.weight, std=0.3)
            torch.nn.init.normal_(unit.skip)
            unit.u_mean.normal_(std=0.1)
            unit.v_deviation.uniform_(0.5, 2)
    made.calibration.copy_(torch.tensor([0.7, -0.4]))
    return made.eval().requires_grad_(False)


def exported(folder: Path, made: LocalStructure, count: int) -> ExportedLocal:
    reference = made.reference(X[:count], P[:count])
    passes = 1 if reference.second is None else 2
    write_tensors(folder / WEIGHTS, made.state_dict(), {"weight": made.weight, "passes": passes})
    save(reference, folder / NEIGHBOURHOODS)
    return ExportedLocal(folder, "Export again.")


@pytest.mark.parametrize("weight", [0.0, 0.5])
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("count", [6, 25, 300])
def test_it_scores_as_the_lab_does(tmp_path: Path, passes: int, weight: float, count: int) -> None:
    """Less than a neighbourhood takes; lists that end early; enough."""
    made = structure(passes, weight)
    local = exported(tmp_path, made, count)
    reference = made.reference(X[:count], P[:count])
    queries = made.space(X[300:330], P[300:330])
    rows = torch.from_numpy(np.random.default_rng(0).permutation(count)[:60])
    expected = made.candidates(reference, queries, rows.expand(30, -1)).numpy()
    actual = np.stack([local.scores(X[300 + at], P[300 + at], rows.numpy()) for at in range(30)])
    # A rank may differ by one where two cosines are equal but for rounding.
    assert np.isclose(actual, expected, atol=1e-4).mean() > 0.995
    np.testing.assert_allclose(actual, expected, atol=0.05)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda of: of.pop("second.squares"), "expected neighbourhoods of each item"),
        (lambda of: of["neighbours"].__setitem__((0, 0), 40), "expected neighbourhoods of each item"),
        (lambda of: of["second.neighbours"].__setitem__((0, 0), -1), "expected neighbourhoods of each item"),
        (lambda of: of["weights"].__setitem__((0, 0), np.nan), "expected neighbourhoods of each item"),
        (lambda of: of["features"].__setitem__((0, 0), np.inf), "expected neighbourhoods of each item"),
    ],
)
def test_damaged_neighbourhoods_are_refused(tmp_path: Path, damage: Callable, expected: str) -> None:
    exported(tmp_path, structure(2, 0.0), 40)
    arrays = load_file(tmp_path / NEIGHBOURHOODS)
    damage(arrays)
    save_file(arrays, tmp_path / NEIGHBOURHOODS, {"first_part": "0"})
    with pytest.raises(RunError, match=f"{expected}.*Export again"):
        ExportedLocal(tmp_path, "Export again.")


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"local\.safetensors can't be read"):
        ExportedLocal(tmp_path, "Export again.")
    exported(tmp_path, structure(1, 0.0), 40)
    save_file(load_file(tmp_path / WEIGHTS), tmp_path / WEIGHTS, {"weight": "null", "passes": "1"})
    with pytest.raises(RunError, match="expected sizes of L"):
        ExportedLocal(tmp_path, "Export again.")
