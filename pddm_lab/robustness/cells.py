"""What is measured of a run's robustness, kept cell by cell: a cell is a corruption in a strength on one or both sides.

runs/<name>/robustness/<protocol>-<queries>-<items>-<seed>/
  settings.json              what is searched among what, by which model
  cells/<side>.<corruption>.<strength>.parquet   similarity, query, hit, precision: the outcome of each query
  cells/<side>.<corruption>.<strength>.json      the metrics of each similarity; written last
runs/<name>/robustness/viewpoint.parquet         a row a query, angle and similarity (viewpoint.py)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from pddm_lab.errors import RunError
from pddm_lab.files import Content, Count, Text, plain, read_json, read_table, replacing, write_file, writing
from pddm_lab.robustness.corruptions import CORRUPTIONS, SIDE, STRENGTHS
from pddm_lab.runs.run import PROTOCOLS, Run

if TYPE_CHECKING:
    from pddm_lab.robustness.sample import Sample

FOLDER = "robustness"
SIDES = ("query", "gallery", "both")
"""Whose pictures are corrupted."""
CLEAN = ("query", "clean", 0)
"""The cell of the pictures as they are, from which the others fall."""
METRICS = (
    "recall@1", "map@r", "auc", "positive_mean", "positive_deviation", "negative_mean", "negative_deviation",
)  # fmt: skip
OUTCOMES = {"similarity": "string", "query": "int32", "hit": "bool_", "precision": "float32"}
VIEWPOINT = "viewpoint.parquet"
VIEWS = {"angle": "int32", "similarity": "string", "query": "string", "label": "int32", "hit": "bool_"}
Key = tuple[str, str, int]
"""Side, corruption, strength."""


class Settings(Content):
    """settings.json."""

    format: Literal[1]
    protocol: Literal[PROTOCOLS]  # type: ignore[valid-type]
    queries: list[Text]
    """Ids, in the order of `query` in the cells."""
    classes: list[int]
    """The class of each query."""
    searched: Count
    """Items that are searched."""
    seed: Count
    side: Literal[SIDE]  # type: ignore[valid-type]
    model: Text
    """Hash of the model and of the similarity on local structure."""
    items: Text = ""
    """Hash of the sample (`items_hash`); earlier versions didn't note it."""
    refused: dict[Text, Text]
    """Corruption -> why it isn't offered for these pictures."""


class CellContent(Content):
    """A cell's JSON."""

    side: Literal[SIDES]  # type: ignore[valid-type]
    corruption: Literal[("clean", *CORRUPTIONS)]  # type: ignore[valid-type]
    strength: Literal[(0, *STRENGTHS)]  # type: ignore[valid-type]
    seconds: float = Field(ge=0)
    similarities: dict[Text, dict[Literal[METRICS], float | None]]  # type: ignore[valid-type]


@dataclass(frozen=True)
class Measurement:
    """A folder of cells. Create one with `Measurement.create`, read one with `Measurement.open`."""

    path: Path
    settings: dict[str, Any]

    @classmethod
    def create(
        cls, run: Run, protocol: str, sample: Sample, numbers: tuple[int, int, int], refused: Mapping[str, str]
    ) -> Measurement:
        """The folder for these choices; one that is there already is continued.

        Args:
            run: that is measured.
            protocol: of the gallery.
            sample: what is searched among what.
            numbers: queries, items and seed, as they were asked for.
            refused: corruption -> why it isn't offered.

        Raises:
            RunError: the folder is of another model or other items, or can't be written.
        """
        path = run.path / FOLDER / "-".join([protocol, *map(str, numbers)])
        settings = {
            "format": 1, "protocol": protocol, "queries": [sample.ids[row] for row in sample.query],
            "classes": sample.labels[sample.query].tolist(), "searched": len(sample.searched), "seed": numbers[2],
            "side": SIDE, "model": model_hash(run), "items": items_hash(sample), "refused": dict(refused),
        }  # fmt: skip
        if (path / "settings.json").is_file():
            opened = cls.open(path)
            same = ["queries", "classes", "searched", "model", *(["items"] if opened.settings.get("items") else [])]
            if any(opened.settings[name] != settings[name] for name in same):
                raise RunError(f"{path} is of another model or of other items: delete that folder to measure anew.")
            return opened
        with writing(path):
            (path / "cells").mkdir(parents=True, exist_ok=True)
        write_file(path / "settings.json", json.dumps(plain(settings), ensure_ascii=False))
        return cls(path, settings)

    @classmethod
    def open(cls, path: Path) -> Measurement:
        """The measurement in a folder.

        Raises:
            RunError: there is none, or it is damaged.
        """
        file = path / "settings.json"
        return cls(path, read_json(file, Settings, f"{path} has no measurement of robustness. {_advice(path)}",
                                   _advice(path)))  # fmt: skip

    def has(self, key: Key) -> bool:
        """Whether a cell is measured."""
        return self._file(key, "json").is_file()

    def write(self, key: Key, outcomes: pd.DataFrame, similarities: Mapping[str, Any], seconds: float) -> None:
        """Keep a cell: the outcome of each query (`OUTCOMES`) and the metrics of each similarity."""
        side, corruption, strength = key
        with replacing(self._file(key, "parquet")) as temporary:
            outcomes.to_parquet(temporary, index=False)
        cell = {"side": side, "corruption": corruption, "strength": strength, "seconds": seconds,
                "similarities": similarities}  # fmt: skip
        write_file(self._file(key, "json"), json.dumps(plain(cell)))

    def table(self) -> pd.DataFrame:
        """All cells: side, corruption, strength, seconds, similarity and `METRICS`, in the order of the corruptions.

        Raises:
            RunError: a cell is damaged.
        """
        rows = []
        for file in sorted((self.path / "cells").glob("*.json")):
            cell = read_json(file, CellContent, f"{file} is missing.", f"Delete it. {_advice(self.path)}")
            shared = {name: cell[name] for name in ("side", "corruption", "strength", "seconds")}
            rows += [shared | {"similarity": name} | values for name, values in cell["similarities"].items()]
        table = pd.DataFrame(rows, columns=["side", "corruption", "strength", "seconds", "similarity", *METRICS])
        order = {name: number for number, name in enumerate(("clean", *CORRUPTIONS))}
        places = [table["side"].map(SIDES.index), table["corruption"].map(order), table["strength"]]
        at = np.lexsort(places[::-1])
        return table.iloc[at].reset_index(drop=True)

    def outcomes(self, metric: str = "hit") -> pd.DataFrame:
        """The outcome of each query: a row a side, corruption, strength and query, and a column a similarity.

        Args:
            metric: hit (is the first result right) or precision (AP@R).

        Raises:
            RunError: a cell is damaged.
        """
        parts = []
        for file in sorted((self.path / "cells").glob("*.json")):
            side, corruption, strength = file.stem.split(".")
            hint = f"Delete both of its files. {_advice(self.path)}"
            cell = read_table(file.with_suffix(".parquet"), OUTCOMES, hint).to_pandas()
            wide = cell.pivot(index="query", columns="similarity", values=metric).astype(float).reset_index()
            parts.append(wide.assign(side=side, corruption=corruption, strength=int(strength)))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["side", "corruption"])

    def _file(self, key: Key, kind: str) -> Path:
        return self.path / "cells" / f"{'.'.join(map(str, key))}.{kind}"


def measurements(run: Run) -> list[Measurement]:
    """The measurements of a run, that with most cells first.

    Raises:
        RunError: one is damaged.
    """
    every = [Measurement.open(file.parent) for file in (run.path / FOLDER).glob("*/settings.json")]
    return sorted(every, key=lambda one: (-len(list((one.path / "cells").glob("*.json"))), one.path.name))


def read_viewpoint(run: Run) -> pd.DataFrame | None:
    """What `measure_viewpoint` kept of a run; None if nothing was.

    Raises:
        RunError: the file is damaged.
    """
    file = run.path / FOLDER / VIEWPOINT
    if not file.is_file():
        return None
    return read_table(file, VIEWS, f"Measure it again: `pddm-lab viewpoint {run.name}`.").to_pandas()


def model_hash(run: Run) -> str:
    """A hash of what a run's features and scores are computed with."""
    digest = hashlib.sha256()
    for name in ("model.safetensors", "local.safetensors"):
        if (run.path / name).is_file():
            digest.update((run.path / name).read_bytes())
    return digest.hexdigest()[:16]


def items_hash(sample: Sample) -> str:
    """A hash of what is searched among what: the items, their classes and roles, and the sizes of their pictures."""
    sizes = [path.stat().st_size for path in sample.paths]
    parts = [sample.ids, *(of.tolist() for of in (sample.labels, sample.query, sample.searched)), sizes]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _advice(path: Path) -> str:
    return f"Measure it: `pddm-lab robustness {path.parents[1].name}`."
