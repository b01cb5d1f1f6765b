"""Local structure: both regions of the plane, and a few digits under both protocols."""

from __future__ import annotations

import re
from pathlib import Path

FIGURE = "application/vnd.plotly.v1+json"


def test_it_teaches_on_a_plane_and_on_pictures(execute, few_digits: Path, tmp_path: Path) -> None:
    notebook = execute(
        "local_structure", dataset=f"folder:{few_digits}", runs_root=str(tmp_path / "runs"), steps=5, image_size=32,
        shown=4,
    )  # fmt: skip
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert len([output for output in outputs if FIGURE in output.get("data", {})]) == 3
    text = "\n".join(
        output.get("data", {}).get("text/markdown") or output.get("data", {}).get("text/plain", "")
        for output in outputs
    )  # fmt: skip
    assert "100 pictures of 10 classes" in text
    assert "where we train" in text and "unit on neighbourhoods" in text
    for method in ("Distance", "Query expansion", "k-reciprocal", "Unit, second pass"):
        assert re.search(rf"{method} +\d+\.\d +\d+\.\d +\d+\.\d +\d+\.\d", text), method
    assert re.search(r"By the \*\*unit\*\*: \d of 4 are right", text)
