"""Local vs global: runs by itself in seconds, and looks at a run where one is named."""

from __future__ import annotations

import re

from pddm_lab.runs.run import Run

FIGURE = "application/vnd.plotly.v1+json"


def outputs(notebook) -> list:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def told(notebook) -> str:
    return "\n".join(output.get("text") or output.data.get("text/markdown", "") for output in outputs(notebook))


def test_it_teaches_with_a_run(execute, small_run: Run) -> None:
    notebook = execute("local_vs_global", steps=12, hidden=8, run=str(small_run.path), pairs=500)
    text = told(notebook)
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]
    assert len([output for output in outputs(notebook) if FIGURE in output.get("data", {})]) == 13
    assert "of the positive pairs D finds: dense **100 %**" in text
    assert re.search(r"\| Two grains, upright never trained \| \d+ \|", text)
    assert "**small, unseen classes**" in text and "**small, known classes**" in text
    assert "No run was named" not in text
