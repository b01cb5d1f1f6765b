"""The notebooks of bad pictures and of drift, on a small run: their charts, also as pictures, and what they say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pddm_lab.robustness.cells import Measurement
from pddm_lab.runs.run import Run

FIGURE = "application/vnd.plotly.v1+json"
PNG = "image/png"


@pytest.fixture
def run(small_run: Run, tmp_path: Path) -> Run:
    """A copy, to keep results with."""
    return Run.open(shutil.copytree(small_run.path, tmp_path / "small"))


def texts(outputs: list) -> str:
    return "\n".join(output.get("data", {}).get("text/markdown", "") for output in outputs)


def outputs_of(notebook) -> list:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_what_bad_pictures_cost(execute, run: Run) -> None:
    outputs = outputs_of(execute(
        "robustness", run=str(run.path), corruptions=["pixelate", "occlusion"], strengths=[3], queries=20, items=40,
    ))  # fmt: skip
    figures = [output["data"] for output in outputs if FIGURE in output.get("data", {})]
    assert len(figures) == 3 and all(PNG in figure for figure in figures)
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert "**Pixelate**" in texts(outputs)
    kept = Measurement.open(run.path / "robustness" / "unseen-20-40-0")
    assert set(kept.table()["corruption"]) == {"clean", "pixelate", "occlusion"}


def test_drift_of_worse_pictures(execute, run: Run, few_digits: Path) -> None:
    outputs = outputs_of(execute(
        "drift", run=str(run.path), kind="noise", amount="much", before=20, after=20, window=20, streams=30,
        queries=str(few_digits),
    ))  # fmt: skip
    figures = [output["data"] for output in outputs if FIGURE in output.get("data", {})]
    assert len(figures) == 4 and all(PNG in figure for figure in figures)
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert texts(outputs).count("larm") >= 2 and "check whether these pictures are in the catalogue" in texts(outputs)
