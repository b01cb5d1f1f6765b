"""The notebook of updates on a few digits: the matrices, the curves, and a study that it goes on with."""

from __future__ import annotations

from pathlib import Path

from pddm_lab.study.cells import Study
from pddm_lab.update.ways import WAYS

FIGURE = "application/vnd.plotly.v1+json"


def test_sessions_of_digits(execute, few_digits: Path, tmp_path: Path) -> None:
    notebook = execute(
        "update", dataset=f"folder:{few_digits}", runs_root=str(tmp_path / "runs"), sessions=1, classes=2, steps=2,
        update_steps=10, image_size=32,
    )  # fmt: skip
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert len([output for output in outputs if FIGURE in output.get("data", {})]) == 4
    assert not any("failed" in output.get("data", {}).get("text/markdown", "") for output in outputs)
    assert {cell["method"] for cell in Study(tmp_path / "runs" / "studies" / "sessions").cells()} == set(WAYS)
