"""The training notebook: in step with the configuration and with its pair, and it runs as papermill's users expect."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
from pathlib import Path

import jupytext
import nbformat
import pytest

from pddm_lab import config
from pddm_lab.config import PRESETS, TrainConfig

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
    """What the cell of parameters is to say: each field, its type, its meaning, and what the presets make of it."""
    lines, docs = [], field_docs()
    for field in dataclasses.fields(TrainConfig):
        quick, *others = (getattr(preset, field.name) for preset in PRESETS.values())
        kind = "str" if str(field.type).startswith(("Literal", "SimilarityName")) else field.type
        value = repr(quick).replace("'", '"') if field.name in ("preset", "dataset") else "None"
        differ = [f"{name} {other!r}" for name, other in zip(list(PRESETS)[1:], others, strict=True) if other != quick]
        default = f" [{'; '.join([repr(quick), *differ])}]" if value == "None" and quick != "" else ""
        lines.append(f"{field.name} = {value}  # {kind}, {docs[field.name]}{default}")
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


if __name__ == "__main__":  # `make notebooks`: write the cell of parameters anew
    source = (NOTEBOOKS / "train.py").read_text(encoding="utf-8")
    before, _, rest = source.partition("# fmt: off\n")
    (NOTEBOOKS / "train.py").write_text(
        f"{before}{parameters_cell()}{rest.partition('# fmt: on')[2]}", encoding="utf-8"
    )
