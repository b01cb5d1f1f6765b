"""Local vs global: it runs on its own in seconds, and examines a run if one is named."""

from __future__ import annotations

import re

from pddm_lab.runs.run import Run

FIGURE = "application/vnd.plotly.v1+json"


def outputs(notebook) -> list:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def text_of(notebook) -> str:
    return "\n".join(output.get("text") or output.data.get("text/markdown", "") for output in outputs(notebook))


def test_it_teaches_with_a_run(execute, small_run: Run) -> None:
    notebook = execute("local_vs_global", steps=12, hidden=8, run=str(small_run.path), pairs=500)
    text = text_of(notebook)
    assert not [output for output in outputs(notebook) if output.get("name") == "stderr"]
    assert len([output for output in outputs(notebook) if FIGURE in output.get("data", {})]) == 13
    assert "D accepts of the positive pairs: dense **100 %**" in text
    assert re.search(r"\| Two grains, upright never trained \| \d+ \|", text)
    assert "**small, unseen classes**" in text and "**small, known classes**" in text
    assert "No run is set" not in text
