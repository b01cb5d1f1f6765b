"""A study on disk: one small file per finished cell. Existing cells are not computed again, so a study can resume.

studies/<name>/study.json: name, created, settings by part, versions, machine. studies/<name>/cells/<key>.json: a cell.
"""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from pddm_lab.config import runs_root
from pddm_lab.errors import ConfigError, RunError
from pddm_lab.files import Content, Count, Text, check, plain, read_json, write_file

if TYPE_CHECKING:
    import pandas as pd

PARTS = (
    "search", "methods", "ablation", "recognition", "transfer", "recipes", "sweep", "finalists", "local", "local-folds",
    "augmentation", "augmentation-folds",
)  # fmt: skip
"""The parts of a study. The first five choose configurations by the results in `search`."""
COLUMNS = ["part", "dataset", "method", "seed", "protocol", "similarity", "metric", "value"]
_HINT = "Delete it and run the same command again, or choose another study name."


class PartContent(Content):
    """The settings of a part."""

    configurations: dict[Text, list[dict[str, Any]]] = Field(default_factory=dict)


class MachineContent(Content):
    """The machine that began a study."""

    cores: Count | None = None


class StudyContent(Content):
    """study.json."""

    name: Text
    created: Text
    settings: dict[Text, PartContent]
    versions: dict[Text, Text] = Field(default_factory=dict)
    machine: MachineContent | None = None


class CurveContent(Content):
    """A row of a training's curve; the other fields are similarity -> map@r, error."""

    step: Count
    seconds: float


class ChosenContent(Content):
    """The step that a search chose."""

    step: Count
    similarity: Text
    value: Annotated[float, Field(alias="map@r")]
    error: float


class CellContent(Content):
    """cells/<key>.json."""

    key: Text
    part: Text
    dataset: Text
    method: Text
    seed: int
    settings: dict[str, Any]
    seconds: float
    metrics: dict[Text, dict[Text, dict[Text, float | None]]]
    curve: list[CurveContent]


class SearchContent(CellContent):
    """The cell of a search."""

    key: Annotated[str, Field(pattern="^search-.+-")]
    chosen: ChosenContent


class Study:
    """A folder of cells, with a study.json. One process writes it; any number may read.

    Raises:
        RunError: study.json is missing, damaged, or not written by this lab.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.info: dict[str, Any] = _read(self.path / "study.json", StudyContent)
        self._kept: dict[str, dict[str, Any]] = {}

    @classmethod
    def create(cls, name: str, root: str = "") -> Study:
        """The study with a name under a runs' root (empty: the default one), created if there is none.

        Raises:
            ConfigError: the name can't be a folder's.
            RunError: the folder can't be written, or holds something else.
        """
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ConfigError(f"A study's name expects letters, digits, '-', '_' and '.', got {name!r}.")
        path = runs_root(root) / "studies" / name
        try:
            (path / "cells").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{path} can't be written: {error.strerror}. Choose another folder: --runs-root.") from error
        if not (path / "study.json").exists():
            import joblib

            versions = {package: version(package) for package in ("torch", "pytorch-metric-learning", "scikit-learn")}
            _write(path / "study.json", {
                "name": name, "created": datetime.now(UTC).isoformat(timespec="seconds"), "settings": {},
                "versions": versions | {"python": platform.python_version()},
                "machine": {"system": platform.platform(), "cores": joblib.cpu_count()},
            })  # fmt: skip
        return cls(path)

    def record_settings(self, part: str, settings: Mapping[str, Any]) -> None:
        """Store the settings that a part's cells depend on; new ones, such as another method's, are added.

        Raises:
            RunError: a setting differs from that of the existing cells.
        """
        before = self.info["settings"].get(part, {})
        try:
            merged = _merge(before, plain(settings))
        except ValueError as conflict:
            raise RunError(f"{self.path} has other settings: {conflict}. Choose another study name.") from None
        if merged != before:
            self.info["settings"][part] = merged
            _write(self.path / "study.json", self.info)

    def has(self, key: str) -> bool:
        """Whether a cell is finished."""
        return key in self._kept or self._file(key).is_file()

    def cell(self, key: str) -> dict[str, Any]:
        """A finished cell.

        Raises:
            RunError: it is missing, damaged, or not written by this lab.
        """
        if key not in self._kept:
            file = self._file(key)
            cell = _read(file, CellContent)
            if cell["part"] == "search":
                check(SearchContent, cell, file, _HINT)
            self._kept[key] = cell
        return self._kept[key]

    def cells(self, part: str = "") -> Iterator[dict[str, Any]]:
        """All finished cells, or those of a part, sorted by key."""
        for file in sorted((self.path / "cells").glob("[!.]*.json")):
            cell = self.cell(file.stem)
            if part in ("", cell["part"]):
                yield cell

    def write(
        self, key: str, *, part: str, dataset: str, method: str, seed: int, settings: Mapping[str, Any],
        metrics: Mapping[str, Any], seconds: float = 0.0, curve: list[Any] | None = None, **more: Any,
    ) -> None:  # fmt: skip
        """Store a finished cell: written under a temporary name, then renamed.

        Args:
            key: from `key_of`.
            part: one of `PARTS`.
            dataset, method, seed, settings: of the training that was measured.
            metrics: protocol -> similarity -> metric -> value.
            seconds: duration.
            curve: rows of the training's curve, if it has one.
            more: further JSON values.
        """
        cell = {
            "key": key, "part": part, "dataset": dataset, "method": method, "seed": seed, "settings": settings,
            "seconds": seconds, "metrics": metrics, "curve": curve or [], **more,
        }  # fmt: skip
        self._kept[key] = _write(self._file(key), cell)

    def _file(self, key: str) -> Path:
        return self.path / "cells" / f"{key}.json"


def key_of(*words: str | int) -> str:
    """A cell's key, which names its file: the words in order, with a hash for words that can't be in a file name."""
    return "-".join(_safe(str(word)) for word in words)


def _safe(word: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9_.]", "_", word)[-40:]
    return safe if safe == word else f"{safe}_{sha256(word.encode()).hexdigest()[:8]}"


def table(path: str | Path) -> pd.DataFrame:
    """All measurements of a study, long: part, dataset, method, seed, protocol, similarity, metric, value.

    Raises:
        RunError: no study, or a cell that is damaged or not written by this lab.
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
    write_file(path, json.dumps(content, indent=1))
    return content


def _read(path: Path, kind: type[Content]) -> dict[str, Any]:
    missing = f"{path} is missing. `pddm-lab compare` creates a study."
    return read_json(path, kind, missing, _HINT)


def _merge(before: Any, now: Any, where: str = "") -> Any:
    """Add settings to those from before; raises ValueError about the first one that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        inner = {
            name: _merge(before.get(name, value), value, f"{where}.{name}".lstrip(".")) for name, value in now.items()
        }
        return before | inner
    if before != now:
        raise ValueError(f"{where} was {before!r} and is {now!r}")
    return now
