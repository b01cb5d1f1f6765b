"""What holds the project together: imports that go one way, one list of dependencies, notebooks without outputs."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]

ORDER = (
    "errors", "similarities", "validation", "wording", "config", "files", "progress", "static", "data", "metrics",
    "model", "local", "gallery", "runs", "bulk", "training", "analysis", "review", "teaching", "figures", "cards",
    "lesson", "study", "panel", "applications", "robustness", "change", "update", "dashboard_server", "export",
    "service", "bench", "commands", "cli",
)  # fmt: skip
"""A folder imports only from folders before it, and inside itself; the package's own __init__ loads lazily."""

FREE_OF_FILES = ("model.pddm", "training.miner", "training.losses")


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imports(path: Path) -> set[str]:
    """Dotted names of all that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


PACKAGE = {_module(path): path for path in sorted((ROOT / "pddm_lab").rglob("*.py"))}
OUTSIDE = sorted(
    path for folder in ("dashboard", "notebooks") for path in (ROOT / folder).rglob("*.py") if ".ipynb" not in str(path)
)


def _folder(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("module", [name for name in PACKAGE if name != "pddm_lab"])
def test_a_folder_imports_only_from_folders_before_it(module: str) -> None:
    own = _folder(module)
    imported = {name for name in _imports(PACKAGE[module]) if name.startswith("pddm_lab.")}
    after = [name for name in imported if ORDER.index(_folder(name)) > ORDER.index(own)]
    assert not after, f"{module} imports {after}, which come after {own} in the order of the house"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: (_imports(path) & set(PACKAGE)) - {name, "pddm_lab"} for name, path in PACKAGE.items()}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_the_order_names_what_is_there() -> None:
    assert set(ORDER) == {_folder(name) for name in PACKAGE if name != "pddm_lab"}


def test_the_public_surface_loads_lazily() -> None:
    code = "import pddm_lab, sys; print(*({'torch', 'numpy', 'pandas', 'sklearn'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not loaded
    import pddm_lab

    declared = {alias.name for node in ast.parse(PACKAGE["pddm_lab"].read_text()).body if isinstance(node, ast.If)
                for line in node.body if isinstance(line, ast.ImportFrom) for alias in line.names}  # fmt: skip
    assert declared == set(pddm_lab.__all__) <= set(dir(pddm_lab))
    for name in pddm_lab.__all__:
        value = getattr(pddm_lab, name)
        assert getattr(value, "__module__", "pddm_lab").startswith("pddm_lab")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pddm_lab.nothing


def test_a_page_knows_shared_and_no_other_page() -> None:
    pages = ROOT / "dashboard" / "app_pages"
    for path in (ROOT / "dashboard").rglob("*.py"):
        own = path.relative_to(pages).parts[0] if pages in path.parents else ""
        others = {name.split(".")[1] for name in _imports(path) if name.startswith("app_pages.")} - {own}
        assert not others, f"{path.relative_to(ROOT)} imports from the page {others}"


def test_a_folder_is_a_concept_and_a_file_one_idea() -> None:
    house = [path for folder in ("pddm_lab", "dashboard", "notebooks") for path in (ROOT / folder).rglob("*.py")]
    files = Counter(path.parent for path in house if path.name != "__init__.py")
    assert not {str(folder.relative_to(ROOT)): count for folder, count in files.items() if count > 16}
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in house}
    assert not {name: count for name, count in lines.items() if count > 400}


def test_the_core_knows_nothing_of_its_users() -> None:
    for module, path in PACKAGE.items():
        roots = {name.partition(".")[0] for name in _imports(path)}
        assert not roots & {"streamlit", "dashboard", "notebooks", "tests"}, module


@pytest.mark.parametrize("module", FREE_OF_FILES)
def test_the_mathematics_knows_no_files_runs_or_devices(module: str) -> None:
    path = PACKAGE[f"pddm_lab.{module}"]
    roots = {name.partition(".")[0] for name in _imports(path)}
    assert not roots & {"pathlib", "os", "io", "json", "pandas", "pyarrow", "lightning_fabric", "safetensors"}
    assert not {
        name
        for name in _imports(path)
        if re.match(r"pddm_lab\.(runs|gallery|data|config|files|training\.trainer)", name)
    }
    assert "cuda" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_dashboard_and_notebooks_never_import_each_other(path: Path) -> None:
    other = {"dashboard": "notebooks", "notebooks": "dashboard"}[path.relative_to(ROOT).parts[0]]
    assert other not in {name.partition(".")[0] for name in _imports(path)}


def test_conda_environment_follows_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == project["name"]
    *conda, pip = environment["dependencies"]
    python = {entry.partition("=")[0]: entry.partition("=")[2] for entry in conda}
    assert set(python) == {"python", "pip"}, "all but Python and pip comes from pyproject.toml"
    lowest = tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))
    assert tuple(map(int, python["python"].split("."))) >= lowest
    (install,) = pip["pip"]
    extras = re.fullmatch(r"-e \.\[(.+)\]", install)
    assert extras, install
    assert set(extras[1].split(",")) <= set(project["optional-dependencies"])


def test_pre_commit_runs_the_versions_that_the_checks_run() -> None:
    dev = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    pinned = {entry for entry in dev if "==" in entry}
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    named = {entry for hook in hooks for entry in hook.get("additional_dependencies", [])}
    assert {entry.partition("==")[0] for entry in pinned} == {"ruff", "mypy"}
    assert named == {entry for entry in pinned if entry.startswith("ruff")}


def test_a_wheel_brings_the_notebook_and_the_dashboard(tmp_path: Path) -> None:
    for name in ("pddm_lab", "dashboard", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    pip = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "-w", "made"]
    subprocess.run(pip, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "made").glob("*.whl")
    packed = {name.partition(".data/data/")[2] or name for name in zipfile.ZipFile(wheel).namelist()}
    shared = [path for folder in ("dashboard", "notebooks") for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in shared:
        if "__pycache__" not in path.parts and path != ROOT / "notebooks" / f"{path.stem}.py":
            assert f"share/pddm-lab/{path.relative_to(ROOT)}" in packed
    own = [path for kind in ("py", "html", "css", "js") for path in (ROOT / "pddm_lab").rglob(f"*.{kind}")]
    assert {str(path.relative_to(ROOT)) for path in own} <= packed
