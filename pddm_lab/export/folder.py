"""An export on disk, opened and checked. No torch.

FOLDER/
  embedding.onnx   images (n, 3, side, side) uint8 -> features (n, dim), unit length; pretrained features may follow in
                   each row, for the similarity on local structure
  score.onnx       features of both ends of pairs, (n, dim) and (n, dim) -> scores (n,)
  features.npy     (items, dim) float32, and items.parquet: id, label, class_name; optional: the items that are searched
  local.safetensors, neighbourhoods.safetensors   of the similarity on local structure, if the run has one (local.py)
  export.json      sizes, the picture's preparation, and size and SHA-256 of every file

OpenVINO's graphs are embedding.xml and embedding.bin. A folder may come from anywhere: names, sizes and hashes are
checked, nothing is unpickled, and nothing outside the folder is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from pddm_lab.data.prepare import prepare, side_to_read
from pddm_lab.errors import RunError
from pddm_lab.export.engines import Graph, load_graph
from pddm_lab.export.local import NEIGHBOURHOODS, WEIGHTS, ExportedLocal
from pddm_lab.export.schema import EMBEDDING, ENDINGS, SCORE, ExportContent
from pddm_lab.files import fingerprint, read_json, read_table

CONTENT = "export.json"
FEATURES, ITEMS = "features.npy", "items.parquet"
AGAIN = "Export the run again: `pddm-lab export RUN`."
_AT_ONCE = 32
_COLUMNS = {"id": "string", "label": "int64", "class_name": "string"}


class Exported:
    """An exported model: pictures to features, and pairs of features to scores.

    Args:
        path: the folder.
        threads: cores to use; 0: all there are.

    Raises:
        RunError: no export there, a damaged one, or one that was not written by this lab.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.path, self._threads = path, threads
        if not path.is_dir():
            reason = "is no folder" if path.exists() else "does not exist"
            raise RunError(f"{path} {reason}: expected a folder that `pddm-lab export RUN` wrote.")
        missing = f"{path} is no export: expected {CONTENT} in it. {AGAIN}"
        self.content: dict[str, Any] = read_json(path / CONTENT, ExportContent, missing, AGAIN)
        needed = [name + ending for name in (EMBEDDING, SCORE) for ending in ENDINGS[self.content["engine"]]]
        needed += [FEATURES, ITEMS] if self.content["gallery"] else []
        needed += [WEIGHTS, NEIGHBOURHOODS] if self.content.get("local") else []
        for name in needed:
            if name not in self.content["files"]:
                raise RunError(f"{path / CONTENT} was not written by this lab: expected {name} in its files. {AGAIN}")
        for name, expected in self.content["files"].items():
            _check_file(path, name, expected)

    @cached_property
    def _embedding(self) -> Graph:
        return load_graph(self._file(EMBEDDING), self._threads)

    @cached_property
    def _score(self) -> Graph:
        return load_graph(self._file(SCORE), self._threads)

    @cached_property
    def local(self) -> ExportedLocal | None:
        """The similarity on local structure for the export's own copy of a gallery; None if it has none.

        Raises:
            RunError: its files are damaged, or of other items.
        """
        if not self.content.get("local"):
            return None
        read = ExportedLocal(self.path, AGAIN)
        if len(read) != len(self.gallery().ids):
            raise RunError(f"{self.path} is damaged: expected neighbourhoods of each item of the gallery. {AGAIN}")
        return read

    def _file(self, graph: str) -> Path:
        return self.path / (graph + ENDINGS[self.content["engine"]][0])

    @property
    def shorter(self) -> int:
        """For `pddm_lab.data.images.verify`: how large a picture must be read."""
        return side_to_read(self.content["image"]["resize"])

    def prepared(self, image: Image.Image) -> UInt8[np.ndarray, "3 side side"]:
        """An RGB picture as the embedding takes it."""
        return prepare(image, self.content["image"]["resize"], self.content["image"]["side"])

    def embed(self, images: UInt8[np.ndarray, "n 3 side side"]) -> Float[np.ndarray, "n dim"]:
        """Unit-length features of prepared pictures."""
        return self.embed_both(images)[0]

    def embed_both(
        self, images: UInt8[np.ndarray, "n 3 side side"]
    ) -> tuple[Float[np.ndarray, "n dim"], Float[np.ndarray, "n pretrained"] | None]:
        """Unit-length features of prepared pictures, and pretrained ones where the export has them."""
        rows, dim = self._embedding(np.ascontiguousarray(images)), self.content["dim"]
        further = self.content.get("pretrained_dim", 0)
        if rows.shape[1] != dim + further:
            raise RunError(f"{self.path} is damaged: expected rows of {dim + further} values. {AGAIN}")
        return rows[:, :dim], rows[:, dim:] if further else None

    def scores(self, a: Float[np.ndarray, "n dim"], b: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, " n"]:
        """Scores of pairs; larger is more similar."""
        return self._score(np.ascontiguousarray(a), np.ascontiguousarray(b))

    def gallery(self, folder: Path | None = None) -> Items:
        """The items to search: the export's own copy, or those of another folder.

        Raises:
            RunError: there are none, they are damaged, or of features with other dimensions.
        """
        if folder is None and not self.content["gallery"]:
            raise RunError(f"{self.path} has no copy of a gallery: name a folder with --gallery, or export it again.")
        return Items.read(folder or self.path, self.content["dim"])


@dataclass(frozen=True, eq=False)
class Items:
    """The items that are searched."""

    ids: list[str]
    labels: list[int]
    class_names: list[str]
    features: Float[np.ndarray, "items dim"]
    """Memory-mapped."""

    @staticmethod
    def read(folder: Path, dim: int) -> Items:
        """The items of features.npy and items.parquet in a folder: an export, or a run's gallery as it was written.

        Args:
            folder: of both files. If the table has roles, the items that are only queries are left out.
            dim: dimensions that a feature must have.

        Raises:
            RunError: a file is missing, damaged, or doesn't match the other.
        """
        file, hint = folder / FEATURES, "Name an export, or the folder of a gallery that was not changed."
        try:
            features: np.ndarray = np.lib.format.open_memmap(file, mode="r")  # no pickle, no archive
        except (OSError, ValueError) as error:
            raise RunError(f"{file} can't be read: expected an array of features. {hint}") from error
        table = read_table(folder / ITEMS, {**_COLUMNS, "role": "string"}, hint, optional=("role",))
        if features.dtype != np.float32 or features.shape != (len(table), dim):
            shape = f"{len(table)} rows of {dim} float32 values"
            raise RunError(f"{file} doesn't match the items or the model: expected {shape}. {hint}")
        searched = np.flatnonzero([role != "query" for role in table["role"].to_pylist()])
        if len(searched) < len(table):
            table, features = table.take(searched), features[searched]
        if not len(searched):
            raise RunError(f"{folder} has no item to search. {hint}")
        ids, labels, class_names = (table[name].to_pylist() for name in _COLUMNS)
        return Items(ids, labels, class_names, features)


def embed_in_parts(graph: Graph, images: UInt8[np.ndarray, "n 3 side side"]) -> Float[np.ndarray, "n dim"]:
    """Features of any number of prepared pictures, `_AT_ONCE` at a time."""
    return np.concatenate([graph(images[start : start + _AT_ONCE]) for start in range(0, len(images), _AT_ONCE)])


def _check_file(folder: Path, name: str, expected: dict[str, Any]) -> None:
    file = folder / name
    if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
        raise RunError(f"{file} is missing: expected a file in the folder. {AGAIN}")
    if any(expected[key] != value for key, value in fingerprint(file).items()):
        raise RunError(f"{file} has changed: expected the size and SHA-256 in {CONTENT}. {AGAIN}")
