"""A run that trains in two seconds, and a way to execute notebooks with papermill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from digit_pictures import write_digits
from no_maps import NoMaps

from pddm_lab.config import TrainConfig
from pddm_lab.runs.run import Run
from pddm_lab.training import finish

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten digits of each class as a folder of pictures."""
    return write_digits(tmp_path_factory.mktemp("few") / "digits", 10)


@pytest.fixture(scope="session")
def small_run(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run on few digits, without maps, which take most of a short training's time."""
    from pddm_lab.training.trainer import train

    config = TrainConfig(
        dataset=f"folder:{few_digits}", runs_root=str(tmp_path_factory.mktemp("runs")), run_name="small", views=1,
        image_size=32, resize=32, steps=6, classes_per_batch=4, val_class_share=0.0, workers=0,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "start_map", NoMaps)
        return train(config, progress=False)


@pytest.fixture
def execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function that executes a notebook with parameters in a folder outside the repository and returns the result."""
    import papermill

    def executed(name: str, **parameters: Any) -> Any:
        papermill.execute_notebook(
            str(NOTEBOOKS / f"{name}.ipynb"), str(tmp_path / "out.ipynb"), parameters, kernel_name="python3",
            progress_bar=False, cwd=str(tmp_path), start_timeout=600, iopub_timeout=600,
        )  # fmt: skip
        return nbformat.read(tmp_path / "out.ipynb", as_version=4)

    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    for variable in ("PDDM_LAB_DATA", "PDDM_LAB_RUNS"):
        monkeypatch.delenv(variable, raising=False)
    return executed
