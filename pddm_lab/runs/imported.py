"""What a run of imported features can't do by itself."""

from __future__ import annotations

from pddm_lab.config import ONNX, TORCHVISION
from pddm_lab.runs.run import Run


def why_not_embedded(run: Run) -> str:
    """Why a run's model can't embed pictures unless it is named, in a sentence; empty if it can."""
    model = str(run.info["dataset"].get("model") or "")
    if not run.config.is_imported or model.endswith(ONNX) or model.startswith(TORCHVISION):
        return ""
    return (
        f"The features of {run.name} were imported, and a run never runs foreign code by itself: name the model that "
        f"made them, as in `pddm-lab gallery add {run.name} FOLDER --model {model or 'package.module:callable'}`."
    )
