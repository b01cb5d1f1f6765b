"""The first lines of a notebook: they check the parameters and open a run."""

from __future__ import annotations

import ast
import dataclasses
import os
from pathlib import Path

import plotly.io
import pytest
from IPython.core.interactiveshell import InteractiveShell

from pddm_lab.errors import ConfigError, RunError
from pddm_lab.runs.run import Run
from pddm_lab.training.notebook import begin, run_named

DATASET_INFO = {"name": "digits", "fingerprint": "ab12", "items": 1797, "classes": 10}

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(autouse=True)
def renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plotly.io.renderers, "default", plotly.io.renderers.default)


def test_an_unknown_parameter_is_an_error_in_a_fresh_kernel() -> None:
    namespace = {"In": [], "_": "", "os": os, "seed": 1, "sede": 2}
    with pytest.raises(ConfigError, match=r"Unknown parameter 'sede'. Did you mean 'seed'\? Known: seed, steps."):
        begin(namespace, "seed", "steps")
    del namespace["sede"]
    begin(namespace, "seed", "steps")
    assert plotly.io.renderers.default == "plotly_mimetype+pddm_png"
    namespace["results"] = 3  # from a later cell, when the first is run again
    begin(namespace, "seed", "steps")


def test_an_error_of_the_lab_is_shown_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    shell = InteractiveShell()
    shell.run_cell("from pddm_lab.errors import RunError\nraise RunError('Train one.')")
    assert capsys.readouterr().out.strip() == "RunError: Train one."


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.py")), ids=lambda path: path.stem)
def test_a_notebook_declares_all_its_parameters(path: Path) -> None:
    body = path.read_text(encoding="utf-8")
    begins = [node for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Call) and _named(node) == "begin"]
    if not begins:
        assert "config_of(globals())" in body
        return
    (call,) = begins
    cell = body.partition('tags=["parameters"]')[2].partition("\n")[2].partition("\n# %%")[0]
    lines = (node for node in ast.parse(cell).body if isinstance(node, ast.Assign | ast.AnnAssign))
    given = [ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target) for node in lines]
    assert sorted(ast.literal_eval(argument) for argument in call.args[1:]) == sorted(given)


def _named(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def test_a_notebook_opened_in_its_folder_moves_to_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("notebooks", "pddm_lab"):
        (tmp_path / folder).mkdir()
    (tmp_path / "notebooks" / "train.ipynb").touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    begin({})
    assert Path.cwd() == tmp_path
    begin({})
    assert Path.cwd() == tmp_path


def test_a_run_is_opened_by_name_by_path_or_as_the_newest(small_run: Run, tmp_path: Path) -> None:
    root = str(small_run.path.parent)
    for name in ("small", str(small_run.path), ""):
        assert run_named(name, root).path == small_run.path
    with pytest.raises(RunError, match="`pddm-lab train quick`"):
        run_named("", str(tmp_path))
    with pytest.raises(RunError, match="is not a run"):
        run_named("nothing", str(tmp_path))
    config = dataclasses.replace(small_run.config, runs_root=str(tmp_path), run_name="other")
    unfinished = Run.create(config, DATASET_INFO, "cpu", "32")
    with pytest.raises(RunError, match="other is running"):
        run_named("other", str(tmp_path))
    unfinished.update(status="failed", reason="It diverged.")
    with pytest.raises(RunError, match="other is failed: It diverged"):
        run_named("other", str(tmp_path))
