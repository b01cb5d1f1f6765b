"""Hard quadruplets: it trains on a folder of pictures, and shows the log of a run if one is named."""

from __future__ import annotations

from pathlib import Path

from pddm_lab.runs.run import Run


def test_it_teaches_on_any_folder_and_opens_a_run(execute, few_digits: Path, small_run: Run) -> None:
    notebook = execute(
        "hard_quadruplets", dataset=f"folder:{few_digits}", runs_root=str(small_run.path.parent), image_size=32,
        steps=30, classes_per_batch=4, images_per_class=3, wrong=0.2, run="small",
    )  # fmt: skip
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    text = "\n".join(output.get("text") or output.data.get("text/markdown", "") for output in outputs)
    for part in ("is the lowest of 12 positive pairs", "of the hardest tenth", "E_m = "):
        assert part in text, part
    assert "No run is set" not in text
    assert sum("application/vnd.plotly.v1+json" in output.get("data", {}) for output in outputs) == 8
    pages = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert any("batch, 20 % wrong" in page for page in pages)
    assert sum("data:image/png" in page for page in pages) >= 7
