"""What README.md tells a reader to type is real: commands, flags, targets, files and code."""

from __future__ import annotations

import functools
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import tyro

from pddm_lab import cli
from pddm_lab.config import PRESETS
from pddm_lab.data.dataset import SOURCES
from pddm_lab.data.sources.emoji import SOURCE as EMOJI

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    words
    for language, text in BLOCKS
    if language == "bash"
    for words in (shlex.split(line, comments=True) for line in text.splitlines())
    if words
]


def _parsers() -> tyro.extras.SubcommandApp:
    """The command line with nothing behind it: it takes the same words and does nothing."""

    def hollow(app: tyro.extras.SubcommandApp) -> tyro.extras.SubcommandApp:
        made = tyro.extras.SubcommandApp()
        for name, spec in app._subcommands.items():
            if isinstance(spec.target, tyro.extras.SubcommandApp):
                made.command(hollow(spec.target), name=name)
            else:
                made.command(name=name)(functools.wraps(spec.target)(lambda *_, **__: None))
        return made

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
    else:
        assert program == "bash"
        assert (ROOT / arguments[0]).stat().st_mode & 0o100


def test_there_are_commands() -> None:
    assert {words[0] for words in COMMANDS} == {"make", "pddm-lab", "papermill", "bash"}


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


def test_every_preset_and_data_set_is_told() -> None:
    for name in [*PRESETS, *SOURCES]:
        assert f"| `{name}` |" in README


def test_the_picture_names_its_artists() -> None:
    assert EMOJI.attribution in README


def test_files_that_are_named_exist() -> None:
    tree = next(text for language, text in BLOCKS if not language and "dashboard/" in text)
    for name in re.findall(r"^(\S+/)", tree, flags=re.MULTILINE):
        assert (ROOT / name).is_dir(), name
    for name in re.findall(r"`((?:pddm_lab|tests|notebooks|\.\w+)[\w./-]*\.\w+)`", README):
        assert (ROOT / name).exists(), name
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README):
        assert (ROOT / picture).is_file(), picture


def test_conda_users_find_the_environment() -> None:
    assert "conda env create -f environment.yml" in README
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["readme"] == "README.md"
