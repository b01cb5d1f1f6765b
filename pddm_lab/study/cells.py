"""A study on disk: one small file per finished cell. A cell that is there is not computed again, so a study resumes.

studies/<name>/study.json: name, created, settings by part, versions, machine. studies/<name>/cells/<key>.json: a cell.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pddm_lab.config import runs_root
from pddm_lab.errors import ConfigError, RunError
from pddm_lab.files import plain, replacing

if TYPE_CHECKING:
    import pandas as pd

PARTS = ("search", "methods", "ablation", "recognition", "transfer")
"""What cells belong to; `search` holds the validation of the configurations that the other parts choose from."""
COLUMNS = ["part", "dataset", "method", "seed", "protocol", "similarity", "metric", "value"]
_CELL = {"key", "part", "dataset", "method", "seed", "settings", "seconds", "metrics", "curve"}


class Study:
    """A folder of cells. One process writes it; any number may read.

    Args:
        path: the study's folder, which holds study.json.

    Raises:
        RunError: study.json is missing, torn or foreign.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.info: dict[str, Any] = _read(self.path / "study.json", {"name", "created", "settings"})
        self._kept: dict[str, dict[str, Any]] = {}

    @classmethod
    def create(cls, name: str, root: str = "") -> Study:
        """The study of a name, begun where there is none.

        Args:
            name: its folder's name.
            root: the runs' root; empty: the default one.

        Raises:
            ConfigError: a name that is no folder's.
            RunError: the folder can't be written, or holds something else.
        """
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ConfigError(f"A study's name expects letters, digits, '-', '_' and '.', got {name!r}.")
        path = runs_root(root) / "studies" / name
        try:
            (path / "cells").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{path} can't be written: {error.strerror}. --runs-root names another folder.") from error
        if not (path / "study.json").exists():
            versions = {package: version(package) for package in ("torch", "pytorch-metric-learning", "scikit-learn")}
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            _write(path / "study.json", {
                "name": name, "created": datetime.now(UTC).isoformat(timespec="seconds"), "settings": {},
                "versions": versions | {"python": platform.python_version()},
                "machine": {"system": platform.platform(), "cores": cores},
            })  # fmt: skip
        return cls(path)

    def record_settings(self, part: str, settings: Mapping[str, Any]) -> None:
        """Keep what a part's cells depend on, or see that it is what they were made with.

        Settings that were not there before are added: a study may grow by methods and data sets.

        Raises:
            RunError: a setting differs from that of the cells that are there.
        """
        settings = plain(settings)
        before = self.info["settings"].get(part, {})
        if conflict := _conflict(before, settings):
            raise RunError(f"{self.path} was begun with other settings: {conflict}. Name another study for these.")
        merged = _merged(before, settings)
        if merged != before:
            self.info["settings"][part] = merged
            _write(self.path / "study.json", self.info)

    def has(self, key: str) -> bool:
        """Whether a cell is finished."""
        return key in self._kept or self._file(key).is_file()

    def cell(self, key: str) -> dict[str, Any]:
        """A finished cell.

        Raises:
            RunError: it is missing, torn or foreign.
        """
        if key not in self._kept:
            self._kept[key] = _read(self._file(key), _CELL)
        return self._kept[key]

    def cells(self, part: str = "") -> Iterator[dict[str, Any]]:
        """All finished cells, or those of a part, by key."""
        for file in sorted((self.path / "cells").glob("[!.]*.json")):
            cell = self.cell(file.stem)
            if part in ("", cell["part"]):
                yield cell

    def write(
        self, key: str, *, part: str, dataset: str, method: str, seed: int, settings: Mapping[str, Any],
        metrics: Mapping[str, Any], seconds: float = 0.0, curve: list[Any] | None = None, **more: Any,
    ) -> None:  # fmt: skip
        """Keep a finished cell: written under a temporary name and renamed.

        Args:
            key: as `key_of` makes it.
            part: one of `PARTS`.
            dataset: what it was measured on.
            method: by name.
            seed: of the training.
            settings: that it was computed with.
            metrics: protocol -> similarity -> metric -> value.
            seconds: it took.
            curve: rows of its training, where it has one.
            more: further entries, of JSON values.
        """
        cell = {
            "key": key, "part": part, "dataset": dataset, "method": method, "seed": seed, "settings": settings,
            "seconds": seconds, "metrics": metrics, "curve": curve or [], **more,
        }  # fmt: skip
        self._kept[key] = _write(self._file(key), cell)

    def _file(self, key: str) -> Path:
        return self.path / "cells" / f"{key}.json"


def key_of(*words: str | int) -> str:
    """A cell's key, which is its file's name: the words in order, those that no file can bear made safe."""
    return "-".join(_safe(str(word)) for word in words)


def _safe(word: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9_.]", "_", word)[-40:]
    return safe if safe == word else f"{safe}_{sha256(word.encode()).hexdigest()[:8]}"


def table(path: str | Path) -> pd.DataFrame:
    """All measurements of a study, long: part, dataset, method, seed, protocol, similarity, metric, value.

    Raises:
        RunError: no study, or a cell that is torn or foreign.
    """
    import pandas as pd

    rows = [
        (cell["part"], cell["dataset"], cell["method"], cell["seed"], protocol, similarity, metric,
         math.nan if value is None else float(value))
        for cell in Study(path).cells()
        for protocol, similarities in cell["metrics"].items()
        for similarity, values in similarities.items()
        for metric, value in values.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def list_studies(root: str = "") -> list[Path]:
    """The folders of all studies under a runs' root, by name."""
    return sorted(file.parent for file in (runs_root(root) / "studies").glob("*/study.json"))


def _write(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    content = dict(plain(content))
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return content


def _read(path: Path, expected: set[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing. `pddm-lab compare` makes a study.") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is torn: {error}. Delete it, and run the same command again.") from error
    if not isinstance(content, dict) or not expected <= set(content):
        raise RunError(f"{path} is foreign: expected {', '.join(sorted(expected))}. Delete it, or name another study.")
    return content


def _conflict(before: Any, now: Any, where: str = "") -> str:
    """The first setting that both have and that differs, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        both = (_conflict(before[name], now[name], f"{where}.{name}".lstrip(".")) for name in before if name in now)
        return next(filter(None, both), "")
    return "" if before == now else f"{where} was {before!r} and is {now!r}"


def _merged(before: Any, now: Any) -> Any:
    if isinstance(before, dict) and isinstance(now, dict):
        return before | {name: _merged(before.get(name), value) for name, value in now.items()}
    return now
