"""Viewpoint: the gallery has no view that is nearer than the angle, and the outcomes are those of plain loops."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pddm_lab import cli
from pddm_lab.data.images import open_image
from pddm_lab.data.sources import fruits360
from pddm_lab.errors import RunError
from pddm_lab.robustness import viewpoint
from pddm_lab.robustness.cells import read_viewpoint
from pddm_lab.robustness.corruptions import square_of
from pddm_lab.runs.model import embedder
from pddm_lab.runs.run import Run

VIEWS = 12


@pytest.fixture
def fruits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four varieties on a turntable, two of them for tests, one with two axes."""
    rng = np.random.default_rng(0)
    for number, (name, axes) in enumerate({"Training/A 1": ("",), "Training/B 1": ("",), "Test/C 1": ("r0_", "r1_"),
                                           "Test/D 1": ("r_",)}.items()):  # fmt: skip
        for axis in axes:
            for view in range(VIEWS):
                file = tmp_path / "data" / fruits360.FOLDER / name / f"{axis}{view * 27}_100.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                noise = rng.integers(0, 60, (20, 20, 3)) + np.array([60 * number, 15 * view, 90])
                Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(file)
    monkeypatch.setattr(fruits360, "COUNTS", (5 * VIEWS, 4))
    monkeypatch.setattr(viewpoint, "ANGLES", (30, 90, 180))
    return tmp_path / "data"


def test_outcomes_are_those_of_plain_loops(local_run, fruits: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(local_run.path, tmp_path / "local")
    run = Run.open(tmp_path / "local")
    assert read_viewpoint(run) is None
    cli.main(["viewpoint", str(run.path), "--rounds", "2", "--processes", "1", "--data-root", str(fruits)])
    kept, out, embed = read_viewpoint(run), capsys.readouterr().out, embedder(run)
    assert kept is not None and "8 queries an angle" in out, "two varieties, two axes, two rounds"
    feature: dict[str, np.ndarray] = {}
    for path in sorted((fruits / fruits360.FOLDER / "Test").rglob("*.jpg")):
        square = square_of(open_image(path))
        item = path.relative_to(fruits / fruits360.FOLDER).as_posix()
        feature[item] = embed.embed_all([embed.prepare(Image.fromarray(square))])[0][0]

    def views(variety: str, axis: str) -> list[str]:
        own = [item for item in feature if item.startswith(f"Test/{variety}/{axis}_")]
        return sorted(own, key=lambda item: int(item.rpartition("/")[2].split("_")[1]))

    for angle in (30, 90, 180):
        hits = []
        for place in (0, VIEWS // 2):
            for axis in ("r0", "r1"):
                turns = {"C 1": views("C 1", axis), "D 1": views("D 1", "r")}
                far = [
                    (variety, item)
                    for variety, turn in turns.items()
                    for at, item in enumerate(turn)
                    if min(abs(at - place), VIEWS - abs(at - place)) * 360 / VIEWS >= angle
                ]
                for variety, turn in turns.items():
                    distances = [np.linalg.norm(feature[turn[place]] - feature[item]) for _, item in far]
                    hits.append(far[int(np.argmin(distances))][0] == variety)
        part = kept[(kept["angle"] == angle) & (kept["similarity"] == "euclidean")]
        assert part["hit"].mean() == pytest.approx(np.mean(hits)) and len(part) == len(hits)
    (run.path / "robustness" / "viewpoint.parquet").write_bytes(b"no parquet")
    with pytest.raises(RunError, match="Measure it again: `pddm-lab viewpoint local`"):
        read_viewpoint(run)


def test_a_turn_is_closed() -> None:
    assert viewpoint.angles_to(1, 8).tolist() == [45, 0, 45, 90, 135, 180, 135, 90]
    assert fruits360.turn_of("Test/Apple 10/r0_12_100.jpg") == "Test/Apple 10/r0"
    assert fruits360.turn_of("Test/Apple 10/12_100.jpg") == "Test/Apple 10/"


def test_the_values_at_an_angle_have_intervals() -> None:
    from pddm_lab.robustness.findings import by_angle

    outcomes = pd.DataFrame(
        {"angle": 30, "similarity": "local", "label": [1, 1, 2, 3], "hit": [True, True, False, True]}
    )
    (row,) = by_angle(outcomes).to_dict("records")
    assert row["value"] == 0.75 and row["low"] < 0.75 < row["high"] and row["queries"] == 4
