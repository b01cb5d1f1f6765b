"""Evaluate: the numbers computed by hand agree with the lab's, on a run that trains in seconds."""

from __future__ import annotations

import nbformat

from pddm_lab.runs.run import Run


def test_it_measures_a_run_by_hand_and_as_the_lab_does(execute, small_run: Run) -> None:
    notebook: nbformat.NotebookNode = execute("evaluate", runs_root=str(small_run.path.parent), pairs=300)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    text = "\n".join(output.get("text") or output.data.get("text/markdown", "") for output in outputs)
    assert "The run **small**" in text
    for part in ("Recall@1 = ", "R-precision = ", "AP@R = ", "NMI = ", " comparisons."):
        assert part in text, part
    assert "differs by at most 0.00 points of MAP@R" in text
    pages = "".join(output.data["text/html"] for output in outputs if "text/html" in output.get("data", {}))
    for part in ("pl-tiles", "pl-strip", "pl-thirds", "pretrained", "silhouette"):
        assert part in pages, part
    assert sum("application/vnd.plotly.v1+json" in output.get("data", {}) for output in outputs) == 12
