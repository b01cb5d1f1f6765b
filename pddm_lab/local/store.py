"""Neighbourhoods on disk, memory-mapped when they are opened: a large gallery needs no memory for them.

folder/
  neighbours.npy scores.npy weights.npy reverse.npy squares.npy onward.npy   of the first pass, see `Neighbourhoods`
  second-neighbours.npy ...                                                  of the second pass, if there is one
  stale.npy                                                                  of the second pass, if lists are stale
  neighbourhoods.json                                                        scales of both, and the items; written last

The features stay where they are: a gallery has them already.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from pddm_lab.errors import LabError
from pddm_lab.files import Content, read_json, replacing, write_file
from pddm_lab.local.neighbourhoods import LISTS, Neighbourhoods, Search

_NAME = "neighbourhoods.json"
_HINT = "Compute the neighbourhoods anew."


class NeighbourhoodsContent(Content):
    """neighbourhoods.json."""

    items: Annotated[int, Field(ge=1)]
    first_part: Annotated[int, Field(ge=0)]
    scales: list[int]
    second_scales: list[int] | None


def save(reference: Neighbourhoods, folder: Path) -> None:
    """Write the neighbourhoods into a folder, which is created; files of the same names are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in (_NAME, "stale.npy"):
        (folder / old).unlink(missing_ok=True)
    second = reference.second
    arrays = {name: getattr(reference, name) for name in LISTS}
    if second is not None:
        arrays |= {f"second-{name}": getattr(second, name) for name in LISTS}
        arrays |= {} if second.stale is None else {"stale": second.stale}
    for name, values in arrays.items():
        with replacing(folder / f"{name}.npy") as path, path.open("wb") as file:
            np.save(file, values.numpy())
    content = {
        "items": len(reference), "first_part": reference.first_part, "scales": reference.scales,
        "second_scales": None if second is None else second.scales,
    }  # fmt: skip
    write_file(folder / _NAME, json.dumps(content))


def load(
    folder: Path, features: Float[Tensor, "items dim"], search: Search | None = None
) -> Neighbourhoods:  # fmt: skip
    """Open neighbourhoods. Their arrays stay on disk and are read where they are needed.

    Args:
        folder: as `save` wrote it.
        features: of the same items, z; they may be memory-mapped too.
        search: finds nearest items; None: compare with all.

    Raises:
        LabError: files that are missing or damaged, or that belong to other items.
    """
    missing = f"Expected neighbourhoods in {folder}, and there are none. {_HINT}"
    content = read_json(folder / _NAME, NeighbourhoodsContent, missing, _HINT)
    items = content["items"]
    if items != len(features):
        raise LabError(f"Expected the features of {items} items for {folder}, got {len(features)}. {_HINT}")

    def opened(prefix: str, scales: list[int], stale: Tensor | None = None) -> Neighbourhoods:
        lists: dict[str, Any] = {name: _mapped(folder / f"{prefix}{name}.npy", items) for name in LISTS}
        return Neighbourhoods(
            features=features, scales=tuple(scales), first_part=content["first_part"], search=search, stale=stale,
            **lists,
        )  # fmt: skip

    reference, scales = opened("", content["scales"]), content["second_scales"]
    if scales is None:
        return reference
    file = folder / "stale.npy"
    return replace(reference, second=opened("second-", scales, _mapped(file, items) if file.exists() else None))


def _mapped(file: Path, items: int) -> Tensor:
    try:
        values = torch.from_numpy(np.load(file, mmap_mode="c"))  # copied on writing: torch takes no read-only array
    except (OSError, ValueError) as error:
        raise LabError(f"Expected an array in {file}, got: {error}. {_HINT}") from error
    if len(values) != items:
        raise LabError(f"Expected {items} rows in {file}, got {len(values)}. {_HINT}")
    return values
