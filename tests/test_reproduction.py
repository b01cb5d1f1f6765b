"""The paper's experiment, rehearsed from start to table on small copies in the official layouts."""

from __future__ import annotations

import builtins
import dataclasses
from pathlib import Path
from typing import Any

import jupytext
import numpy as np
import pandas as pd
import plotly.io
import pytest
import torch
from no_maps import NoMaps
from PIL import Image
from test_data_benchmarks import make_cars, make_cub
from torchvision import models

from pddm_lab.applications import reproduction
from pddm_lab.config import PRESETS
from pddm_lab.data.sources import cars196, cub200
from pddm_lab.errors import ConfigError, RunError
from pddm_lab.runs.run import Run
from pddm_lab.study.published import published_rows
from pddm_lab.training import finish

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "reproduce_paper.py"
SMALL = {
    "image_size": 64, "resize": 64, "steps": 4, "eval_every": 2, "classes_per_batch": 3, "images_per_class": 2,
    "device": "cpu", "workers": 0, "val_class_share": 0.5, "selection_tolerance": 100.0,
}  # fmt: skip
"""What makes the rehearsal small; all else is the preset's."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """GoogLeNet as torchvision hands it out, with its second classifiers."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "googlenet.pth"
    torch.save(models.get_model("googlenet", weights=None, init_weights=False).state_dict(), path)
    return str(path)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finish, "start_map", NoMaps)
    monkeypatch.setattr(plotly.io.renderers, "default", plotly.io.renderers.default)


def with_pictures(root: Path) -> Path:
    """Noise in place of black pictures."""
    rng = np.random.default_rng(0)
    for path in sorted(root.rglob("*.jpg")):
        Image.fromarray(rng.integers(0, 256, (70, 80, 3), dtype=np.uint8)).save(path)
    return root


def cells(**parameters: Any) -> dict[str, Any]:
    """Execute the notebook's cells in this process, as papermill does: parameters after their cell."""
    namespace: dict[str, Any] = {"__builtins__": builtins, "__name__": "__main__"}
    for cell in jupytext.read(NOTEBOOK).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, str(NOTEBOOK), "exec"), namespace)
            if "parameters" in cell.metadata.get("tags", []):
                namespace |= parameters
    return namespace


@pytest.mark.slow
def test_cub_from_the_official_layout_to_the_table_with_a_stop_and_resume(
    tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_pictures(make_cub(tmp_path, classes=12, each=3))
    monkeypatch.setattr(cub200, "COUNTS", (36, 12))
    places = {"data_root": str(tmp_path), "runs_root": str(tmp_path / "runs")}
    parameters = {"dataset": "cub200", "train": True, "changes": {**SMALL, "weights": weights}, **places}
    stops = iter([False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr(Run, "stop_requested", lambda _: next(stops, True))
        with pytest.raises(RunError, match=r"is stopped: .* Run the same again to resume it"):
            cells(**parameters)
    stopped = Run.open(tmp_path / "runs" / "paper-cub200-seed0")
    assert stopped.status == "stopped" and 0 < stopped.info["step"] < 4
    (run,) = cells(**parameters)["runs"]
    assert run.path == stopped.path and run.status == "finished"
    assert (run.config.mining, run.config.trunk, run.config.known_query_share) == ("batch", "googlenet", 0.0)
    log = run.metrics()
    steps = log[(log["phase"] == "select") & (log["metric"] == "loss")]["step"]
    assert steps.tolist() == [1, 2, 3, 4], "resumed, not trained again"
    again = cells(**{**parameters, "train": False})
    assert [one.path for one in again["runs"]] == [run.path]
    rows = again["table"].set_index(["method", "ranked by"])
    assert rows.loc[("PDDM+Quadruplet", "S"), "R@1"] == 58.3
    measured = run.info["metrics"]["unseen"]["pddm"]
    assert rows.loc[("this lab, PDDM+Quadruplet", "S"), "R@2"] == pytest.approx(100 * measured["recall@2"])
    assert rows.loc[("this lab, PDDM+Quadruplet", "S"), "source"] == "1 run"
    with pytest.raises(RunError, match="was trained with steps 4, not 5: give this one another run_name"):
        cells(**{**parameters, "changes": {**parameters["changes"], "steps": 5}})  # type: ignore[dict-item]


@pytest.mark.slow
def test_cars_from_the_official_kit(tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_pictures(make_cars(tmp_path, "devkit"))
    monkeypatch.setattr(cars196, "COUNTS", (12, 4))
    places = {"data_root": str(tmp_path), "runs_root": str(tmp_path / "runs")}
    small = {**SMALL, "classes_per_batch": 2, "steps": 2, "weights": weights}
    (run,) = cells(dataset="cars196", train=True, changes=small, **places)["runs"]
    assert set(run.info["metrics"]) == {"unseen"}
    assert not reproduction.table("cars196", [run]).isna().any().any()


def test_without_the_data_the_row_stays_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = cells(dataset="cars196", data_root=str(tmp_path), runs_root=str(tmp_path / "runs"))
    own = done["table"][done["table"]["source"] == "not run yet"]
    assert len(own) == 2 and own.filter(like="R@").isna().all().all()
    assert done["table"]["R@1"].tolist()[:5] == [21.7, 39.1, 49.0, 46.4, 57.4]
    with pytest.raises(ConfigError, match=r"Unknown parameter 'tain'\. Did you mean 'train'"):
        cells(tain=True)


def test_the_recipe_is_the_presets() -> None:
    config = reproduction.recipe("cub200")
    assert dataclasses.replace(config, run_name="", dataset="emoji") == PRESETS["paper"]
    assert (config.dim, config.image_size, config.score_margin, config.distance_margin) == (128, 227, 0.5, 1.0)
    with pytest.raises(ConfigError, match="cub200 and cars196, got 'grocery'"):
        reproduction.recipe("grocery")


@pytest.mark.parametrize(
    ("refit", "share", "steps"), [("passes", 0.2, 2250), ("steps", 0.2, 2000), ("none", 0.2, 1000), ("passes", 0, 1000)]
)
def test_the_time_it_takes_counts_both_phases(refit: str, share: float, steps: int) -> None:
    config = reproduction.recipe("cub200", {"steps": 1000, "refit": refit, "val_class_share": share})
    assert reproduction.training_images(config) == steps * 64
    table = reproduction.hours(config, (100.0,))
    assert table["hours"].tolist() == [pytest.approx(steps * 64 / 360_000)]


def test_the_published_rows_lead_the_table() -> None:
    table = reproduction.table("cub200")
    assert isinstance(table, pd.DataFrame)
    assert table["method"].tolist()[:5] == [row.method for row in published_rows("cub200")]
    assert table["ranked by"].tolist() == ["D", "D", "D", "S", "S", "S", "D"]
