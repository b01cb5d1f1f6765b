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
from pddm_lab.files import Content, Text, check, map_tensors, read_tensors
from pddm_lab.local.neighbourhoods import Neighbourhoods, Searching
from pddm_lab.local.sizes import LENGTH, LISTS

_HINT = "Compute the neighbourhoods anew."
_SECOND = "second."
_KINDS = {"neighbours": "int32", "reverse": "uint8"}
"""Kinds of numbers in the lists; of others float32."""
_BY_SCALE = ("squares", "onward")
"""Lists with a value for each scale; others have one for each neighbour."""
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
    shapes = {name: (tuple(values.shape), str(values.numpy().dtype)) for name, values in tensors.items()}
    content = _content(reference.first_part, reference.scales, None if second is None else second.scales, key)
    for name, stored in map_tensors(file, shapes, content).items():
        stored[:] = tensors[name].numpy()


def create(
    file: Path, shape: tuple[int, ...], first_part: int, scales: tuple[int, ...],
    second_scales: tuple[int, ...] | None, key: str,
) -> Neighbourhoods:  # fmt: skip
    """Neighbourhoods to be filled in, memory-mapped from a file; one that was created so before stays as it is.

    Args:
        file: as `load` reads it once all is filled in.
        shape: of the features.
        first_part: as this and the next of `Neighbourhoods`.
        scales: of the first pass.
        second_scales: of the second; None: there is none.
        key: stands for what they are computed from.
    """
    shapes = {"features": (shape, "float32")}
    for prefix, levels in (("", scales), (_SECOND, second_scales)):
        for name in LISTS if levels is not None else ():
            columns = len(levels or ()) if name in _BY_SCALE else LENGTH + 1
            shapes[prefix + name] = ((shape[0], columns), _KINDS.get(name, "float32"))
    content = _content(first_part, scales, second_scales, key)
    tensors = {name: torch.from_numpy(values) for name, values in map_tensors(file, shapes, content).items()}

    def mapped(prefix: str, scales: tuple[int, ...]) -> Neighbourhoods:
        lists = {name: tensors[prefix + name] for name in LISTS}
        return Neighbourhoods(tensors["features"], **lists, scales=scales, first_part=first_part)  # type: ignore[arg-type]

    first = mapped("", scales)
    return first if second_scales is None else replace(first, second=mapped(_SECOND, second_scales))


def _content(
    first_part: int, scales: tuple[int, ...], second_scales: tuple[int, ...] | None, key: str
) -> dict[str, object]:
    return {"first_part": first_part, "scales": scales, "second_scales": second_scales, "key": key}


def load(file: Path, key: str = "", searching: Searching = lambda _: None) -> Neighbourhoods:
    """Open neighbourhoods. What is large stays on disk and is read where it is needed.

    Args:
        file: as `save` wrote it.
        key: as `save` took it.
        searching: given z of all items, what finds the nearest.

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

    search = searching(features)

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
    columns = scales if name in _BY_SCALE else LENGTH + 1
    if values.shape != (items, columns) or values.dtype != getattr(torch, _KINDS.get(name, "float32")):
        return False
    if name == "neighbours":
        return int(values.min()) >= 0 and int(values.max()) < items
    if name == "reverse":
        return True
    return not values.isnan().any() and (name == "scores" or bool(values.isfinite().all()))
