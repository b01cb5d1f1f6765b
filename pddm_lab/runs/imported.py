"""What a run of imported features can't do by itself."""

from __future__ import annotations

from pddm_lab.config import ONNX, TORCHVISION
from pddm_lab.errors import OptionError
from pddm_lab.runs.run import Run


def why_not_embedded(run: Run) -> str:
    """Why a run's model can't embed pictures unless it is named, in a sentence; empty if it can."""
    if (error := unnamed_model(run)) is None:
        return ""
    return f"{error.message}, as in `pddm-lab gallery add {run.name} FOLDER {error.option}`."


def unnamed_model(run: Run) -> OptionError | None:
    """The error of a command that embeds pictures by a run's model, which must be named; None if it needn't be."""
    model = str(run.info["dataset"].get("model") or "")
    if not run.config.is_imported or model.endswith(ONNX) or model.startswith(TORCHVISION):
        return None
    return OptionError(
        f"The features of {run.name} were imported, and a run never runs foreign code by itself: name the model that "
        "made them", f"--model {model or 'package.module:callable'}",
    )  # fmt: skip
