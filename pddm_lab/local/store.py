"""Neighbourhoods in a file, memory-mapped when it is opened: a large gallery needs no memory for them.

It is a safetensors file: `features` are z, then come the lists of the first pass under the names of `Neighbourhoods`,
those of the second under second.<name>, and `stale`. A file from elsewhere is checked, since compiled loops follow the
rows in it without looking.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pddm_lab.errors import LabError
from pddm_lab.files import Content, Text, check, read_tensors, tensors_as_bytes
from pddm_lab.local.neighbourhoods import Neighbourhoods, Search
from pddm_lab.local.sizes import LENGTH, LISTS

_HINT = "Compute the neighbourhoods anew."
_SECOND = "second."
_KINDS = {"neighbours": torch.int32, "reverse": torch.uint8}
_Scales = Annotated[list[Annotated[int, Field(ge=1, le=LENGTH)]], Field(min_length=1)]


class NeighbourhoodsContent(Content):
    """The metadata of the file."""

    first_part: Annotated[int, Field(ge=0)]
    scales: _Scales
    second_scales: _Scales | None
    key: Text
    """Of what the neighbourhoods were computed from."""


def save(reference: Neighbourhoods, file: Path, key: str = "") -> None:
    """Write neighbourhoods; `key` stands for what they were computed from."""
    second = reference.second
    tensors = {"features": reference.features, **{name: getattr(reference, name) for name in LISTS}}
    if second is not None:
        tensors |= {_SECOND + name: getattr(second, name) for name in LISTS}
        tensors |= {} if second.stale is None else {"stale": second.stale}
    content = {
        "first_part": reference.first_part, "scales": reference.scales,
        "second_scales": None if second is None else second.scales, "key": key,
    }  # fmt: skip
    file.write_bytes(tensors_as_bytes(tensors, content))


def load(file: Path, key: str = "", search: Search | None = None) -> Neighbourhoods:
    """Open neighbourhoods. What is large stays on disk and is read where it is needed.

    Args:
        file: as `save` wrote it.
        key: as `save` took it.
        search: finds nearest items; None: compare with all.

    Raises:
        LabError: the file is missing or damaged, or the neighbourhoods were computed from something else.
    """
    tensors, content = read_tensors(file, _HINT)
    check(NeighbourhoodsContent, content, file, _HINT)
    if content["key"] != key:
        raise LabError(f"{file} has the neighbourhoods of another gallery or similarity. {_HINT}")
    features, first_part = tensors.get("features"), content["first_part"]
    if features is None or features.ndim != 2 or not len(features) or not _is_unit(features, first_part):
        raise LabError(f"{file} is damaged: expected features of unit length. {_HINT}")

    def opened(prefix: str, scales: list[int]) -> Neighbourhoods:
        if scales != sorted(set(scales)):
            raise LabError(f"{file} is damaged: expected ascending scales, got {scales}. {_HINT}")
        lists = {name: tensors.get(prefix + name) for name in LISTS}
        for name, values in lists.items():
            if values is None or not _is_valid(name, values, len(features), len(scales)):
                raise LabError(f"{file} is damaged: expected valid {prefix}{name} of {len(features)} items. {_HINT}")
        return Neighbourhoods(features, **lists, scales=tuple(scales), first_part=first_part, search=search)  # type: ignore[arg-type]

    reference, scales = opened("", content["scales"]), content["second_scales"]
    if scales is None:
        return reference
    stale = tensors.get("stale")
    if stale is not None and (stale.shape != features.shape[:1] or stale.dtype != torch.bool):
        raise LabError(f"{file} is damaged: expected whether each of {len(features)} items is stale. {_HINT}")
    return replace(reference, second=replace(opened(_SECOND, scales), stale=stale))


def _is_unit(features: Tensor, first_part: int) -> bool:
    if features.dtype != torch.float32 or first_part >= features.shape[1]:
        return False
    return all(bool(((part.square().sum(1) - 1).abs() < 1e-3).all()) for part in features.split(1 << 14))


def _is_valid(name: str, values: Tensor, items: int, scales: int) -> bool:
    """Whether a list has the right kind and size, and names rows that there are."""
    columns = scales if name in ("squares", "onward") else LENGTH + 1
    if values.shape != (items, columns) or values.dtype != _KINDS.get(name, torch.float32):
        return False
    if name == "neighbours":
        return int(values.min()) >= 0 and int(values.max()) < items
    if name == "reverse":
        return True
    return not values.isnan().any() and (name == "scores" or bool(values.isfinite().all()))
