"""Compare, ablate and converge run a study on a few digits and show it; a second notebook opens the same study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from papermill.exceptions import PapermillExecutionError

from pddm_lab.study import list_studies


@pytest.fixture(scope="module")
def small(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Parameters of a study that takes seconds."""
    return {
        "datasets": [f"folder:{few_digits}"], "seeds": 2, "steps": 4, "eval_every": 2, "processes": 1,
        "base": {"resize": 32, "image_size": 32, "views": 1, "classes_per_batch": 4, "workers": 0},
        "runs_root": str(tmp_path_factory.mktemp("runs")),
    }  # fmt: skip


def texts(notebook: Any) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(str(output.get("data", {}).get("text/markdown", "")) for output in outputs)


def figures(notebook: Any) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("application/vnd.plotly.v1+json" in output.get("data", {}) for output in outputs)


def test_compare_and_converge_share_a_study(execute: Callable[..., Any], small: dict[str, Any]) -> None:
    chosen = {**small, "methods": ["pddm", "triplet_hard", "pretrained"], "configurations": 1}
    compared = execute("compare", **chosen)
    assert figures(compared) == 1
    text = texts(compared)
    for part in ("PDDM+Quadruplet", "Pretrained features", "p (Holm)", "TPR sparse", "58.3"):
        assert part in text, part
    (path,) = list_studies(small["runs_root"])
    converged = execute("converge", study=path.name, runs_root=small["runs_root"])
    assert figures(converged) == 2
    assert "steps to the target" in texts(converged)


@pytest.mark.slow
def test_ablate_shows_what_each_choice_does(execute: Callable[..., Any], small: dict[str, Any]) -> None:
    ablated = execute("ablate", **small, variants=["default", "e_m_only"])
    assert figures(ablated) == 1
    assert "loss: E_m only" in texts(ablated) and "difference in %" in texts(ablated)


def test_an_unknown_parameter_is_an_error(execute: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(PapermillExecutionError, match="Unknown parameter 'stduy'"):
        execute("converge", stduy="main")
    assert isinstance(nbformat.read(tmp_path / "out.ipynb", as_version=4), nbformat.NotebookNode)
