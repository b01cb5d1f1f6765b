"""What the folder of a run is called: what was asked for, or data set, preset and time."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from pddm_lab.config import TrainConfig
from pddm_lab.errors import ConfigError, RunError


def folder_name(config: TrainConfig, now: datetime) -> str:
    """The name a new run's folder is to have: the one that was given, else one of data set, preset and local time.

    Raises:
        ConfigError: a `run_name` that is no folder name.
    """
    name = config.run_name
    if name:
        if not re.fullmatch(r"\w[\w .+=-]{0,99}", name) or name.endswith((".", " ")):
            raise ConfigError(f"--run-name expects up to 100 letters, digits, '-', '_', '.', got {name!r}.")
        return name
    dataset = re.sub(r"[^\w.+-]+", "-", re.split(r"[/\\:]", config.dataset.rstrip("/\\"))[-1]).strip("-.")[:60]
    return f"{dataset or 'folder'}-{config.preset}-{now.astimezone():%Y%m%d-%H%M%S}"


def exists_already(path: Path) -> RunError:
    """What to raise where a run's folder is there already."""
    hint = f"choose another --run-name, or go on with it: `pddm-lab resume {path.name}`"
    return RunError(f"{path} exists already: {hint}.")


def new_folder(root: Path, config: TrainConfig, now: datetime) -> Path:
    """An empty folder of a new name; making it is what keeps two runs of one second apart."""
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
            hint = "--runs-root names another folder"
            raise RunError(f"{path} can't be made: {error.strerror}. {hint}.") from error
    raise RunError(f"{root} has 1000 runs of this second: name one with --run-name.")
