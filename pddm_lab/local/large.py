"""Neighbourhoods of a gallery that is too large for memory: built in a file, in parts that are kept.

The file is the one of store.py at its full size, and the parts fill it in, stage after stage. work.json in the same
folder counts what is done. Work that was broken off goes on there, and loses some seconds at most.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.errors import RunError
from pddm_lab.files import Content, Count, Text, map_tensors, read_json, write_file, writing
from pddm_lab.local.neighbourhoods import (
    Neighbourhoods,
    Searching,
    exact_search,
    look_back,
    measure,
    nearest_items,
    regions,
    weights_of,
)
from pddm_lab.local.sizes import LENGTH, NEAR, SCALES, SECOND_SCALES
from pddm_lab.local.store import create
from pddm_lab.local.unit import LocalStructure
from pddm_lab.progress import Progress

PART = 1 << 12
"""Items of a part."""
_FILE, _SCRATCH, _WORK = "neighbourhoods.safetensors", "scratch.safetensors", "work.json"
_SECONDS = 10.0
"""So often the parts are written to the disk and counted."""


class WorkContent(Content):
    """work.json."""

    key: Text
    """Of what the neighbourhoods are computed from."""
    done: list[Count]
    """Items that each stage has done."""


@dataclass(frozen=True)
class Source:
    """A large gallery."""

    items: int
    dim: int
    """Dimensions of z."""
    z: Callable[[Int[np.ndarray, " rows"]], Float[Tensor, "rows dim"]]
    """z of some items."""
    searching: Searching
    """Is given z of all, memory-mapped."""
    key: str
    """Stands for the items and for the similarity."""


@torch.no_grad()
def build(structure: LocalStructure, source: Source, folder: Path, progress: Progress | None = None) -> Path:
    """Build the neighbourhoods of both passes.

    Args:
        structure: the similarity.
        source: the gallery.
        folder: for the files; work on something else that it holds is deleted.
        progress: called with (done, total, what), where both count the items of all stages; may end the work, which a
            later call then goes on with.

    Returns:
        A file in the folder, as `load` reads it. Move it to where it belongs, then delete the folder.

    Raises:
        RunError: the files can't be written.
    """
    with writing(folder):
        work = _Work(folder, source, 5 if structure.second is None else 8, progress)
        second_scales = None if structure.second is None else SECOND_SCALES
        shape = (source.items, source.dim)
        whole = create(folder / _FILE, shape, structure.first_part, SCALES, second_scales, source.key)
        shapes = {"nearest": ((source.items, NEAR), "int32"), "region": ((source.items,), "int32")}
        scratch = map_tensors(folder / _SCRATCH, shapes, {})
        nearest, region = torch.from_numpy(scratch["nearest"]), torch.from_numpy(scratch["region"])
        for rows in work.parts("reading features"):
            whole.features[rows] = source.z(rows.numpy())
        for rows in work.parts("dividing it into regions"):
            region[rows] = regions(whole.features, rows).int()
        work.order = region.argsort(stable=True)
        search = source.searching(whole.features) or exact_search(whole.features)
        for rows in work.parts("searching for the nearest"):
            nearest[rows], cosines = nearest_items(whole.features[rows], source.items, NEAR, rows, search)
            _list(whole, rows, nearest[rows, : LENGTH + 1], cosines[:, : LENGTH + 1])
            whole.weights[rows] = weights_of(whole.scores[rows])
        _follow(whole, work)
        if whole.second is not None:
            first = replace(whole, search=search, second=None)
            others = min(NEAR, source.items - 1)  # what comes after them is padding
            for rows in work.parts("listing by S"):
                _list(whole.second, rows, *structure.second_lists(first, rows, nearest[rows, :others]))
                whole.second.weights[rows] = structure.probabilities(whole.second.scores[rows])
            _follow(whole.second, work)
    return folder / _FILE


class _Work:
    """What is done, stage by stage, in the order in which `parts` is called."""

    def __init__(self, folder: Path, source: Source, stages: int, progress: Progress | None) -> None:
        self._folder, self._items, self._key, self._progress = folder, source.items, source.key, progress
        self._stages, self._stage = stages, -1
        self.order = torch.arange(source.items)
        """In which the rows are done."""
        self._done = [0] * stages
        try:
            content = read_json(folder / _WORK, WorkContent, "", "")
            if content["key"] == source.key and len(content["done"]) == stages:
                self._done = content["done"]
        except RunError:
            pass  # there is none that could be read
        if not any(self._done) or not all((folder / name).is_file() for name in (_FILE, _SCRATCH)):
            self._done = [0] * stages
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)

    def parts(self, what: str) -> Iterator[Int[Tensor, " rows"]]:
        """The rows that the next stage has yet to do, in parts; each counts as done when the next is asked for."""
        self._stage += 1
        stage, items, noted = self._stage, self._items, time.monotonic()
        for start in range(self._done[stage], items, PART):
            if self._progress:
                self._progress(stage * items + start, self._stages * items, what)
            yield self.order[start : start + PART]
            self._done[stage] = min(start + PART, items)
            if self._done[stage] == items or time.monotonic() - noted > _SECONDS:
                self._note()
                noted = time.monotonic()
        if self._progress:
            self._progress((stage + 1) * items, self._stages * items, what)

    def _note(self) -> None:
        for name in (_FILE, _SCRATCH):  # what is counted must be on the disk
            with open(self._folder / name, "r+b") as file:
                os.fsync(file.fileno())
        write_file(self._folder / _WORK, json.dumps({"key": self._key, "done": self._done}))


def _list(of: Neighbourhoods, rows: Tensor, neighbours: Tensor, scores: Tensor) -> None:
    of.neighbours[rows], of.scores[rows] = neighbours, scores


def _follow(of: Neighbourhoods, work: _Work) -> None:
    """Compute what follows from the lists."""
    kept = LENGTH + 1
    for rows in work.parts("measuring expansions"):
        measure(of, rows)
    for rows in work.parts("looking back"):
        look_back(of, rows.repeat_interleave(kept), torch.arange(kept).repeat(len(rows)))
