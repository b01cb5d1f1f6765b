"""Everything that README.md tells a reader to type is real: commands, flags, targets, files and code."""

from __future__ import annotations

import functools
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import tyro

import pddm_lab
from pddm_lab import cli
from pddm_lab.config import PRESETS
from pddm_lab.dashboard_server import PAGES
from pddm_lab.data.dataset import SOURCES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
INLINE = re.findall(r"`((?:make|pddm-lab|papermill|bash) [^`]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))
COMMANDS = [
    words
    for text in (*(text for language, text in BLOCKS if language == "bash"), *INLINE)
    for words in (shlex.split(line, comments=True) for line in text.splitlines())
    if words
]


def _parsers() -> tyro.extras.SubcommandApp:
    """A command line that takes the same words as the lab's and does nothing."""

    def hollow(app: tyro.extras.SubcommandApp) -> tyro.extras.SubcommandApp:
        copy = tyro.extras.SubcommandApp()
        for name, spec in app._subcommands.items():
            if isinstance(spec.target, tyro.extras.SubcommandApp):
                copy.command(hollow(spec.target), name=name)
            else:
                copy.command(name=name, is_default=spec.is_default)(functools.wraps(spec.target)(lambda *_, **__: None))
        return copy

    return hollow(cli.app)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_is_real(words: list[str]) -> None:
    program, *arguments = words
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    elif program == "pddm-lab":
        _parsers().cli(
            prog=program, args=arguments, config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
        )
    elif program == "papermill":
        assert (ROOT / arguments[0]).is_file()
    elif program == "curl":  # test_service_process.py runs it
        assert re.match(r"localhost:8000/v1/\w+", arguments[-1])
    else:
        assert program == "bash"
        assert (ROOT / arguments[0]).stat().st_mode & 0o100


def test_every_program_is_mentioned() -> None:
    assert {words[0] for words in COMMANDS} == {"make", "pddm-lab", "papermill", "bash", "curl"}


def test_local_structure_works_as_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from pddm_lab.local import fit

    monkeypatch.setattr(fit, "STEPS", 2)
    shown = re.findall(r"`(s[ .][^`]*)`", README)
    (learn,) = [code for code in shown if "fit_local_structure" in code]
    (use,) = [code for code in shown if code.startswith("s.matrix")]
    features = torch.randn(60, 8)
    scope = {"pddm_lab": pddm_lab, "features": features, "labels": torch.arange(60) % 6}
    scope |= {"gallery": features[:40], "queries": features[40:]}
    exec(learn, scope)
    assert eval(use, scope).shape == (20, 40)
    assert {"Expansion", "CSLS", "KReciprocal"} <= set(pddm_lab.__all__)


def test_a_distance_for_another_library_works_as_shown() -> None:
    (code,) = [text for language, text in BLOCKS if language == "python" and "pytorch_metric_learning" in text]
    scope: dict[str, object] = {}
    exec(code, scope)

    import torch

    features = torch.nn.functional.normalize(torch.randn(8, 128), dim=1).requires_grad_()
    loss = scope["loss"](features, torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))  # type: ignore[operator]
    loss.backward()
    assert features.grad is not None
    assert all(weight.grad is not None for weight in scope["loss"].parameters())  # type: ignore[attr-defined]


def test_every_preset_and_data_set_has_a_row() -> None:
    for name in [*PRESETS, *SOURCES]:
        assert f"| `{name}` |" in README


def test_the_picture_names_its_artists() -> None:
    assert SOURCES["emoji"].attribution in README


def test_named_files_and_folders_exist() -> None:
    folders = re.findall(r"`((?:pddm_lab|dashboard|notebooks|tests)/[\w/]*)`", README)
    assert {"pddm_lab/", "dashboard/", "notebooks/", "tests/"} <= set(folders)
    for name in folders:
        assert (ROOT / name).is_dir(), name
    for name in re.findall(r"`((?:pddm_lab|dashboard|tests|notebooks|\.\w+)[\w./-]*\.\w+)`", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\(([^)]+)\)", README):
        assert name.startswith("https://") or (ROOT / name.partition("#")[0]).is_file(), name


def test_every_notebook_and_page_has_a_row() -> None:
    rows = "\n".join(line.split("|")[1] for line in README.splitlines() if line.startswith("|"))
    for path in (ROOT / "notebooks").glob("*.py"):
        assert f"`{path.stem}`" in rows, path.stem
    for page in PAGES.values():
        assert f" {page.title} " in rows, page.title


def test_the_public_names_it_uses_exist() -> None:
    names = re.findall(
        r"pddm_lab\.([A-Za-z]\w*)[(.]", "".join(text for language, text in BLOCKS if language == "python")
    )
    assert {"Run", "TrainConfig", "train"} <= set(names)
    for name in names:
        assert hasattr(pddm_lab, name), name


def test_it_has_at_most_200_lines() -> None:
    assert len(README.splitlines()) <= 200


def test_conda_users_find_the_environment() -> None:
    assert "conda env create -f environment.yml" in README
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["readme"] == "README.md"
