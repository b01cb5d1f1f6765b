"""What holds the project together: imports that go one way, one list of dependencies, notebooks without outputs."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]

# A module imports only from modules above it.
# fmt: off
ORDER = [
    "errors", "published", "config", "naming", "runfiles", "runlog", "mined", "hardness",
    "data.images", "data.splits", "data.sampler", "data.source", "data.download", "data.npm", "data.render",
    "data.emoji_sets", "data.emoji", "data.digits", "data.folder", "data.imagenet", "data.grocery", "data.cub200",
    "data.cars196", "data.products", "data.dataset",
    "pddm", "scoring", "similarity", "familiarity", "explain", "miner", "losses", "backbones", "model", "features",
    "learner", "separation", "evaluate", "neighbourhoods", "anchor", "mistakes",
    "gallery_files", "maps", "index", "gallery", "upkeep", "shortlist", "pairs", "verdicts", "run", "runs",
    "convergence", "exports", "baselines", "measure", "newcomers", "training", "trainer",
    "study.cells", "study", "study.work", "study.material", "study.objectives", "study.methods", "study.fit",
    "study.density", "study.search", "study.ablation", "study.compare", "study.statistics",
    "study.tables", "scenes", "plane", "teaching",
    "audit", "calibration", "duplicates", "twins", "licences", "margins", "spaces", "recognition", "growth",
    "transfer", "reproduction",
    "figures.looks", "figures.audit", "figures.beyond", "figures.maps", "figures.pairs", "figures.plane",
    "figures.quadruplets", "figures.retrieval", "figures.study", "figures.training", "figures",
    "cards.block", "cards.audit", "cards.classes", "cards.confusions", "cards.pairs", "cards.explanation",
    "cards.pictures", "cards.quadruplets", "cards.tables", "cards", "notebook", "serving", "beyond_tables",
    "bench.report", "bench.timing", "bench.scoring", "bench.mining", "bench.search", "bench.evaluation",
    "bench.training", "bench.synthetic", "bench.browser",
    "bench.pages", "bench.dashboard", "bench.commands", "beyond_commands", "gallery_commands", "study_commands", "cli",
]
# fmt: on

FREE_OF_FILES = ("pddm", "miner", "losses")


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
EMPTY = {"pddm_lab", "pddm_lab.bench", "pddm_lab.data"}
"""Packages that hold nothing of their own."""
OUTSIDE = sorted(
    path for folder in ("dashboard", "notebooks") for path in (ROOT / folder).rglob("*.py") if ".ipynb" not in str(path)
)


@pytest.mark.parametrize("module", [name for name in PACKAGE if name not in EMPTY])
def test_a_module_imports_only_from_above_it(module: str) -> None:
    place = ORDER.index(module.removeprefix("pddm_lab."))
    imported = _imports(PACKAGE[module]) & set(PACKAGE) - EMPTY
    below = [name for name in imported if ORDER.index(name.removeprefix("pddm_lab.")) >= place]
    assert not below, f"{module} imports {below}, which come after it in the order of the house"


def test_the_order_names_no_module_that_is_gone() -> None:
    names = {name.removeprefix("pddm_lab.") for name in set(PACKAGE) - EMPTY}
    assert set(ORDER) == names


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
        name for name in _imports(path) if re.match(r"pddm_lab\.(runs|runlog|gallery|data|config|trainer)", name)
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
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "pddm_lab").rglob("*.py")} <= packed
