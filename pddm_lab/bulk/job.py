"""A job of embedding on disk: what is to be embedded, and the shards that are done.

    job.json, pictures.parquet                  what embeds; the pictures, a row group a shard
    shards/00000.npy, 00000.json, ...           features of a shard; their SHA-256, and which pictures are skipped
    features.npy, items.parquet, skipped.csv    all shards together, as `pddm-lab import` takes them

Any process that sees the folder can work on a shard, and a shard is done once its .json is there. That names the job
and the SHA-256 of the features, so a damaged or a foreign shard is noticed and computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic import Field

from pddm_lab.bulk.pictures import Listed
from pddm_lab.errors import RunError
from pddm_lab.files import TEMPORARY, Content, Count, Text, read_json, replacing, sha256_of, write_file

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_OWN = {"job.json", "pictures.parquet", ".lock"}


class JobContent(Content):
    """job.json."""

    format: Literal[1]
    run: Text
    model: _Sha256
    """Stands for what embeds: the run's model, or the one from elsewhere."""
    dataset: Text
    root: Text
    dim: Annotated[int, Field(ge=1, le=2**16)]
    pictures: Annotated[int, Field(ge=1, le=2**40)]
    shard_size: Annotated[int, Field(ge=1, le=10**7)]
    list: _Sha256
    """Of pictures.parquet."""


class ShardContent(Content):
    """<number>.json of a shard."""

    job: _Sha256
    features: _Sha256
    """Of <number>.npy."""
    skipped: dict[Annotated[str, Field(pattern=r"^\d{1,7}$")], Text]
    """Place in the shard -> why that picture can't be read."""
    pictures: Count


@dataclass(frozen=True, eq=False)
class Job:
    """A job in its folder. Make one with `Job.begin`, read one with `Job.open`."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def begin(cls, path: Path, listed: Listed, shard_size: int, facts: Mapping[str, Any]) -> Job:
        """Write a new job: what is to be embedded, once and for all.

        Args:
            path: its folder, new or empty.
            listed: the pictures.
            shard_size: pictures in a shard.
            facts: run, model, dataset and dim of `JobContent`.

        Raises:
            RunError: the folder has other files, or can't be written.
        """
        others = [file.name for file in path.iterdir() if file.name not in _OWN and not TEMPORARY.fullmatch(file.name)]
        if others:
            raise RunError(f"{path} has other files, such as {others[0]}: expected a new or an empty folder for --out.")
        with replacing(path / "pictures.parquet") as file:
            listed.table.astype("string").to_parquet(file, index=False, row_group_size=shard_size)
        content = {
            "format": 1, **facts, "root": str(listed.root.resolve()), "pictures": len(listed.table),
            "shard_size": shard_size, "list": sha256_of(path / "pictures.parquet"),
        }  # fmt: skip
        write_file(path / "job.json", json.dumps(content, indent=1))
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Job:
        """The job in a folder.

        Raises:
            RunError: there is none, or its files are damaged or not written by this lab.
        """
        hint = "Delete the folder and begin again."
        content = read_json(path / "job.json", JobContent, f"{path} has no job: expected job.json in it. {hint}", hint)
        listed = path / "pictures.parquet"
        if not listed.is_file() or sha256_of(listed) != content["list"]:
            raise RunError(f"{listed} is damaged: expected the list that job.json names. {hint}")
        (path / "shards").mkdir(exist_ok=True)
        return cls(path, content)

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-self.content["pictures"] // self.content["shard_size"])

    @property
    def root(self) -> Path:
        """The folder that the pictures' paths are relative to."""
        return Path(self.content["root"])

    @cached_property
    def _key(self) -> str:
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()

    def pictures(self, shard: int) -> pd.DataFrame:
        """The lines of a shard's pictures."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path / "pictures.parquet") as file:
            return file.read_row_group(shard).to_pandas()

    def size(self, shard: int) -> int:
        """How many pictures a shard has."""
        return min(self.content["shard_size"], self.content["pictures"] - shard * self.content["shard_size"])

    def write(self, shard: int, features: Float[np.ndarray, "readable dim"], skipped: Mapping[int, str]) -> None:
        """Store a shard; it is done when this returns, and not before."""
        features_file, about = self._files(shard)
        with replacing(features_file) as temporary, open(temporary, "wb") as file:
            np.save(file, np.ascontiguousarray(features, dtype=np.float32))
        content = {
            "job": self._key, "features": sha256_of(features_file), "pictures": self.size(shard),
            "skipped": {str(place): reason for place, reason in skipped.items()},
        }  # fmt: skip
        write_file(about, json.dumps(content, ensure_ascii=False))

    def is_done(self, shard: int) -> bool:
        """Whether a shard is done.

        Raises:
            RunError: it is damaged, or of another job.
        """
        features_file, about = self._files(shard)
        if not about.exists():
            return False
        skipped, size = self.skipped(shard), self.size(shard)
        if any(place >= size for place in skipped):
            raise RunError(f"{about} is damaged: expected places below {size}.")
        if not features_file.is_file() or sha256_of(features_file) != self._about(shard)["features"]:
            raise RunError(f"{features_file} is damaged: expected the features that {about.name} names.")
        shape = self.features(shard).shape
        if shape != (expected := (size - len(skipped), self.content["dim"])):
            raise RunError(f"{features_file} is damaged: expected {expected} values, got {shape}.")
        return True

    def features(self, shard: int) -> Float[np.ndarray, "readable dim"]:
        """The features of a shard's pictures without those that are skipped, memory-mapped."""
        is_empty = self.size(shard) == len(self.skipped(shard))
        return np.load(self._files(shard)[0], mmap_mode=None if is_empty else "r")

    def skipped(self, shard: int) -> dict[int, str]:
        """Place in the shard -> why that picture can't be read."""
        return {int(place): reason for place, reason in self._about(shard)["skipped"].items()}

    def _about(self, shard: int) -> dict[str, Any]:
        about = self._files(shard)[1]
        content = read_json(about, ShardContent, f"{about} is missing.", "It is computed again.")
        if content["job"] != self._key or content["pictures"] != self.size(shard):
            raise RunError(f"{about} is of another job.")
        return content

    def _files(self, shard: int) -> tuple[Path, Path]:
        stem = self.path / "shards" / f"{shard:05d}"
        return stem.with_suffix(".npy"), stem.with_suffix(".json")
