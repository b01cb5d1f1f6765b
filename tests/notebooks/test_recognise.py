"""Recognise: it shows every result on a small run, in seconds."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from papermill.exceptions import PapermillExecutionError

from pddm_lab.applications.few_shot import METHODS
from pddm_lab.runs.run import Run
from pddm_lab.study.cells import table

FIGURE = "application/vnd.plotly.v1+json"


def text_of(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    texts = []
    for output in outputs:
        data = output.get("data", {})
        texts.append(output.get("text") or data.get("text/markdown") or data.get("text/plain") or "")
    return "\n".join(texts)


def test_it_recognises_with_a_run(execute, small_run: Run, tmp_path: Path) -> None:
    notebook = execute(
        "recognise", run=str(small_run.path), shots=[1, 2], ways=3, episodes=3, most_classes=1000, study="beyond",
        runs_root=str(tmp_path),
    )  # fmt: skip
    text = text_of(notebook)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert len([output for output in outputs if FIGURE in output.get("data", {})]) == 3
    assert len([output for output in outputs if "data:image/jpeg" in output.get("data", {}).get("text/html", "")]) == 6
    assert all(title in text for title in METHODS.values())
    assert "The run **small** was trained on folder:" in text
    assert "accuracy in %, 3 classes per episode, 3 episodes" in text
    assert "without it" in text and "0 %" in text
    assert "3,863,298" in text, "the lab's parameters, independent of the classes"
    kept = table(tmp_path / "studies" / "beyond")
    assert set(kept["part"]) == {"recognition"} and {"accuracy@1", "half@2"} < set(kept["metric"])
    assert "| 3-shot |" not in (tmp_path / "studies" / "beyond" / "tables" / "recognise.md").read_text()
    assert "pretrained" in text and "silhouette" in text


def test_an_unknown_parameter_is_an_error(execute) -> None:
    with pytest.raises(PapermillExecutionError, match=r"Unknown parameter 'shot'\. Did you mean 'shots'"):
        execute("recognise", shot=[1])
