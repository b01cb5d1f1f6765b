"""The name of a run's folder: the given name, or one of data set, preset and time."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from pddm_lab.config import TrainConfig
from pddm_lab.errors import ConfigError, RunError


def folder_name(config: TrainConfig, now: datetime) -> str:
    """The name of a new run's folder: `run_name`, or else data set, preset and local time.

    Raises:
        ConfigError: `run_name` is not a valid folder name.
    """
    name = config.run_name
    if name:
        if not re.fullmatch(r"\w[\w .+=-]{0,99}", name) or name.endswith((".", " ")):
            raise ConfigError(f"--run-name expects up to 100 letters, digits, '-', '_' and '.', got {name!r}.")
        return name
    dataset = re.sub(r"[^\w.+-]+", "-", re.split(r"[/\\:]", config.dataset.rstrip("/\\"))[-1]).strip("-.")[:60]
    return f"{dataset or 'folder'}-{config.preset}-{now.astimezone():%Y%m%d-%H%M%S}"


def exists_already(path: Path) -> RunError:
    """The error to raise if a run's folder already exists."""
    return RunError(f"{path} exists already: choose another --run-name, or resume it: `pddm-lab resume {path.name}`.")


def new_folder(root: Path, config: TrainConfig, now: datetime) -> Path:
    """An empty folder with a new name; a number keeps apart the runs of one second."""
    name = folder_name(config, now)
    for attempt in range(1, 1000):
        path = root / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            if config.run_name:
                raise exists_already(path) from None
        except OSError as error:
            raise RunError(f"{path} can't be created: {error.strerror}. Choose a folder with --runs-root.") from error
    raise RunError(f"{root} has 1000 runs of this second: choose a name with --run-name.")
