"""The training notebook matches the configuration and its pair, and runs as users of papermill expect."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jupytext
import nbformat
import pytest
from papermill.translators import PythonTranslator

from pddm_lab import config
from pddm_lab.config import PRESETS, TrainConfig
from pddm_lab.runs.run import Run

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def field_docs() -> dict[str, str]:
    """The docstring under each field of TrainConfig."""
    body = ast.parse(inspect.getsource(config)).body
    (lines,) = [node.body for node in body if isinstance(node, ast.ClassDef) and node.name == "TrainConfig"]
    docs = {}
    for field, doc in itertools.pairwise(lines):
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
            docs[ast.unparse(field.target)] = str(doc.value.value)
    return docs


def parameters_cell() -> str:
    """The expected cell of parameters: each field with its type, its meaning and the presets' values."""
    lines, docs = [], field_docs()
    for field in dataclasses.fields(TrainConfig):
        quick, *others = (getattr(preset, field.name) for preset in PRESETS.values())
        value = repr(quick).replace("'", '"') if field.name in ("preset", "dataset") else "None"
        differ = [f"{name} {other!r}" for name, other in zip(list(PRESETS)[1:], others, strict=True) if other != quick]
        default = f" [{'; '.join([repr(quick), *differ])}]" if value == "None" and quick != "" else ""
        lines.append(f"{field.name} = {value}  # {type(quick).__name__}, {docs[field.name]}{default}")
    lines.append("resume = None  # bool, Resume the stopped run `run_name` instead of starting a new one. [False]")
    return "\n".join(["# fmt: off", *lines, "# fmt: on"])


def notebooks() -> list[Path]:
    return sorted(NOTEBOOKS.glob("*.py"))


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_the_pair_is_in_step(path: Path) -> None:
    source, notebook = jupytext.read(path), nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    assert [(cell.cell_type, cell.source, cell.metadata) for cell in notebook.cells] == [
        (cell.cell_type, cell.source, cell.metadata) for cell in source.cells
    ], "run `make notebooks`"


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_no_notebook_has_outputs(path: Path) -> None:
    assert path.with_suffix(".py").is_file(), "every notebook has its source beside it"
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.outputs or cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert "papermill" not in notebook.metadata


def test_the_parameters_are_the_configuration() -> None:
    notebook = nbformat.read(NOTEBOOKS / "train.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert cell.source == parameters_cell()


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_papermill_understands_every_parameter(path: Path) -> None:
    (cell,) = [
        cell for cell in nbformat.read(path, as_version=4).cells if "parameters" in cell.metadata.get("tags", [])
    ]
    lines = [line for line in ast.parse(cell.source).body if isinstance(line, ast.Assign | ast.AnnAssign)]
    names = [ast.unparse(line.targets[0] if isinstance(line, ast.Assign) else line.target) for line in lines]
    parsed = PythonTranslator.inspect(cell)
    assert [parameter.name for parameter in parsed] == names
    assert all(parameter.help for parameter in parsed)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory outside the repository, with its own data and runs."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    for name in ("PDDM_LAB_DATA", "PDDM_LAB_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def program(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment."""
    return subprocess.run(
        [str(Path(sys.executable).with_name(words[0])), *words[1:]],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )


def test_training_from_the_command_line_executes_the_notebook(elsewhere: Path) -> None:
    done = program(
        "pddm-lab", "train", "quick", "--dataset", "digits", "--steps", "20", "--eval-every", "10", "--resize", "32",
        "--image-size", "32", "--run-name", "one",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = Run.open(elsewhere / "runs" / "one")
    assert run.status == "finished"
    assert (run.config.dataset, run.config.steps, run.config.image_size) == ("digits", 20, 32)
    assert "select" in done.stderr, "the progress of the training is passed on"
    for protocol, similarities in run.info["metrics"].items():
        for similarity, values in similarities.items():
            (line,) = [line for line in done.stdout.splitlines() if line.split()[:2] == [protocol, similarity]]
            assert line.split()[2] == f"{100 * values['recall@1']:.1f}"
    assert "pddm-lab dashboard one" in done.stdout

    kept = nbformat.read(run.path / "notebook.ipynb", as_version=4)
    assert all(cell.execution_count for cell in kept.cells if cell.cell_type == "code")
    outputs = [output for cell in kept.cells for output in cell.get("outputs", [])]
    figures = [output for output in outputs if "application/vnd.plotly.v1+json" in output.get("data", {})]
    pictures = [output for output in outputs if "data:image/jpeg" in output.get("data", {}).get("text/html", "")]
    assert len(figures) >= 5
    assert len(pictures) >= 5
    text = (run.path / "notebook.ipynb").read_text(encoding="utf-8")
    assert "cdn" not in text.lower(), "figures need no network"
    assert len(text) < 5e6
    assert not [output for output in outputs if output.get("name") == "stderr" and "Warning" in output.text]


@pytest.mark.parametrize(("notebook", "name"), [("train", "run"), ("evaluate", "opened")])
def test_the_notebook_of_a_run_shows_its_warnings(notebook: str, name: str) -> None:
    cells = jupytext.read(NOTEBOOKS / f"{notebook}.py").cells
    (source,) = [cell.source for cell in cells if "warnings" in cell.source]
    loop = source[source.index("for warning in") :].split("\ntable")[0]
    shown: list[str] = []
    run = SimpleNamespace(info={"warnings": ["It collapsed.", "Few classes."]})
    exec(loop, {name: run, "display": shown.append, "Markdown": str})
    assert shown == ["**Warning:** It collapsed.", "**Warning:** Few classes."]


def test_papermill_fails_on_an_unknown_parameter(elsewhere: Path) -> None:
    notebook = str(NOTEBOOKS / "train.ipynb")
    done = program(
        "papermill", notebook, "out.ipynb", "-p", "dataset", "digits", "-p", "stpes", "3", "--start-timeout", "600"
    )
    assert done.returncode != 0
    assert "Unknown parameter 'stpes'. Did you mean 'steps'?" in done.stderr
    assert "Unknown parameter" in (elsewhere / "out.ipynb").read_text()
    assert not (elsewhere / "runs").exists()


if __name__ == "__main__":  # `make notebooks`: write the cell of parameters again
    source = (NOTEBOOKS / "train.py").read_text(encoding="utf-8")
    before, _, rest = source.partition("# fmt: off\n")
    (NOTEBOOKS / "train.py").write_text(
        f"{before}{parameters_cell()}{rest.partition('# fmt: on')[2]}", encoding="utf-8"
    )
