"""The commands `export` and `search-exported`: the catalogue where there is one, and a search names its gallery."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pandas as pd
import pytest

from pddm_lab import cli
from pddm_lab.export.folder import CONTENT, Exported
from pddm_lab.runs.run import Run

SOME = (
    "The gallery has the unseen classes of {0} alone, to measure with. "
    "`pddm-lab export {0} --gallery catalogue` copies all items of the run."
)


@pytest.fixture(autouse=True, scope="module")
def plain_signatures() -> Iterator[None]:
    """The test run's checks of shapes look at sizes, which fixes them in a trace."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def last_line(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The last line that a command prints."""
    cli.main([str(word) for word in words])
    return capsys.readouterr().out.splitlines()[-1]


def test_the_catalogue_is_exported_into_the_run(digits_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["export", str(digits_run.path), "--precision", "fp16"])
    folder = digits_run.path / "export" / "onnx-fp16"
    out = capsys.readouterr().out
    assert f"pddm-lab search-exported {folder} IMAGE" in out
    assert f"The gallery is the catalogue of {digits_run.name}." in out
    exported, ids = Exported(folder), digits_run.gallery("catalogue").items["id"].tolist()
    assert exported.content["gallery"] == "catalogue"
    assert pd.read_parquet(folder / "items.parquet")["id"].tolist() == exported.gallery().ids == ids
    picture, known = Path(digits_run.info["dataset"]["root"]) / ids[0], digits_run.path / "gallery" / "known"
    cli.main(["search-exported", str(folder), str(picture), "--k", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["1", ids[0]] and lines[-1] == f"The gallery is the catalogue of {digits_run.name}."
    searched = last_line(capsys, "search-exported", folder, picture, "--gallery", known)
    assert searched == f"The gallery is {known}."
    content = folder / CONTENT
    content.write_text(json.dumps(json.loads(content.read_text()) | {"gallery": "unseen"}))
    assert last_line(capsys, "search-exported", folder, picture) == SOME.format(digits_run.name)
    shutil.rmtree(digits_run.path / "export")  # other tests use the run, too


@pytest.mark.slow
def test_a_gallery_of_some_classes_says_so_at_each_search(
    digits_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("unseen", "known"):
        shutil.copytree(digits_run.path / "gallery" / name, tmp_path / "early" / "gallery" / name)
    for name in ("run.json", "model.safetensors"):
        shutil.copy(digits_run.path / name, tmp_path / "early")
    cli.main(["export", str(tmp_path / "early")])
    folder = tmp_path / "early" / "export" / "onnx-32"
    assert SOME.format("early") in capsys.readouterr().out.splitlines()
    picture = Path(digits_run.info["dataset"]["root"]) / Exported(folder).gallery().ids[0]
    assert last_line(capsys, "search-exported", folder, picture) == SOME.format("early")


def test_a_folder_that_is_not_there_is_not_blamed_on_the_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["search-exported", str(tmp_path / "nowhere"), "photo.jpg"])
    error = capsys.readouterr().err
    assert "nowhere does not exist: expected a folder that `pddm-lab export RUN` wrote." in error
    assert "again" not in error
