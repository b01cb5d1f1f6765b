"""The name of a run's folder: the given name, or one of data set, preset and time."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pydantic_core import from_json

from pddm_lab.config import TrainConfig
from pddm_lab.errors import ConfigError, RunError
from pddm_lab.runs.process import LOCK


def folder_name(config: TrainConfig, now: datetime) -> str:
    """The name of a new run's folder: `run_name`, or else data set, preset and local time.

    Raises:
        ConfigError: `run_name` is not a valid folder name.
    """
    name = config.run_name
    if name:
        return _checked(name, config.is_imported)
    dataset = re.sub(r"[^\w.+-]+", "-", re.split(r"[/\\:]", config.dataset.rstrip("/\\"))[-1]).strip("-.")[:60]
    return f"{dataset or 'folder'}-{config.preset}-{now.astimezone():%Y%m%d-%H%M%S}"


def is_valid_name(name: str) -> bool:
    """Whether a run can have this name."""
    return bool(re.fullmatch(r"\w[\w .+=-]{0,99}", name)) and not name.endswith((".", " "))


def check_new(root: Path, name: str) -> None:
    """Raise as `new_folder` does for an import of a name, before its features are computed."""
    path = root / _checked(name, is_imported=True)
    if not is_free(path):
        raise exists_already(path, is_imported=True)


def _checked(name: str, is_imported: bool) -> str:
    if not is_valid_name(name):
        flag = _flag(is_imported)
        raise ConfigError(f"{flag} expects up to 100 letters, digits, '-', '_' and '.', got {name!r}.")
    return name


def _flag(is_imported: bool) -> str:
    """How the command line calls a run's name."""
    return "NAME" if is_imported else "--run-name"


def exists_already(path: Path, is_imported: bool = False) -> RunError:
    """The error to raise if the folder of a new run, which may be an import, already exists."""
    hint = ": it isn't a run's"
    if (path / "run.json").exists():
        hint = f", or resume it: `pddm-lab resume {path.name}`"
        with suppress(OSError, ValueError, LookupError, TypeError):  # a damaged run can't be resumed, as resuming says
            if from_json((path / "run.json").read_bytes())["status"] == "finished":
                hint = f", or remove it: `pddm-lab runs remove {path.name}`"
    return RunError(f"{path} exists already: choose another {_flag(is_imported)}{hint}.")


def is_free(path: Path) -> bool:
    """Whether a run can begin there: there is nothing, or what a training left that was killed before it wrote."""
    try:
        return all(file.name == LOCK or file.suffix == ".tmp" for file in path.iterdir())
    except FileNotFoundError:
        return True
    except OSError:
        return False


def discard_unused(path: Path) -> None:
    """Delete the folder of a run that didn't begin."""
    with suppress(OSError):
        if is_free(path):
            for file in path.iterdir():
                file.unlink()
            path.rmdir()


def new_folder(root: Path, config: TrainConfig, now: datetime) -> Path:
    """An empty folder; a number keeps apart the runs of one second.

    Raises:
        RunError: `run_name` is taken, or the folder can't be created.
        ConfigError: `run_name` is not a valid folder name.
    """
    name = folder_name(config, now)
    for attempt in range(1, 1000):
        path = root / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            if config.run_name and is_free(path):
                return path
            if config.run_name:
                raise exists_already(path, config.is_imported) from None
        except OSError as error:
            raise RunError(f"{path} can't be created: {error.strerror}. Choose a folder with --runs-root.") from error
    raise RunError(f"{root} has 1000 runs of this second: choose a name with --run-name.")
