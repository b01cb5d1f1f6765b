"""Neighbourhoods of a gallery that changes: only what a change touches is computed anew.

    reference = change(reference, features, origin)   # items added, replaced, removed: the first pass is exact
    reference = refresh(structure, reference, 500)    # some of the lists of the second pass that are stale

A list of the first pass changes where it names an item that left, or where a new one is nearer than its last. The
second pass lists by a score that depends on other lists, which depend on others: lists near a change are marked as
stale, and serve as they are until they are refreshed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.errors import LabError
from pddm_lab.local.neighbourhoods import (
    Neighbourhoods,
    Search,
    exact_search,
    look_back,
    measure,
    nearest_items,
    weights_of,
)
from pddm_lab.local.sizes import FEWEST, LENGTH, LISTS, NEAR
from pddm_lab.local.unit import LocalStructure

_AT_ONCE = 1 << 22  # cosines at a time: 16 MB


@torch.no_grad()
def change(
    reference: Neighbourhoods, features: Float[Tensor, "items dim"], origin: Int[Tensor, " items"],
    search: Search | None = None,
) -> Neighbourhoods:  # fmt: skip
    """The neighbourhoods of what a gallery has become. The old ones stay as they are.

    Args:
        reference: of the gallery before.
        features: of the gallery now, of unit length, in any order.
        origin: the row that each item had before, with the same features; -1: it is new, or replaces another. Items
            whose rows aren't named have left.
        search: finds nearest items in the gallery now; None: compare with all.

    Raises:
        LabError: rows that the gallery didn't have or that occur twice, or features that aren't as before.
    """
    features = features.cpu().contiguous()
    _check(reference, features, origin)
    if reference.missing:
        return Neighbourhoods.without_lists(features, reference.first_part, reference.missing)
    if reference.note or len(features) < FEWEST:
        return Neighbourhoods.of(features, reference.scales, reference.first_part, search)
    now, touched = _renumbered(reference, features, origin, search)
    new, kept = (origin < 0).nonzero()[:, 0], torch.ones(len(features), dtype=torch.bool)
    kept[touched] = False
    find = search or exact_search(features)
    nearest, cosines = nearest_items(features[touched], len(features), LENGTH + 1, touched, find)
    now.neighbours[touched], now.scores[touched], now.weights[touched] = nearest, cosines, weights_of(cosines)
    changed = torch.cat([touched, _enter(now, kept.nonzero()[:, 0], new)])
    _follow(now, changed)
    if reference.second is None:
        return now
    second, touched = _renumbered(reference.second, features, origin, search)
    _follow(second, touched)
    stale = torch.zeros(len(features), dtype=torch.bool) if second.stale is None else second.stale
    near, _ = nearest_items(features[new], len(features), min(NEAR, len(features) - 1), new, find)
    for rows in (changed, touched, near.flatten().long()):
        stale[rows] = True
    return replace(now, second=replace(second, stale=stale))


@torch.no_grad()
def refresh(structure: LocalStructure, reference: Neighbourhoods, at_most: int | None = None) -> Neighbourhoods:
    """List stale items of the second pass anew. The old neighbourhoods stay as they are.

    Args:
        structure: the similarity that made the second pass.
        reference: the gallery, as `change` returns it.
        at_most: so many items, the next call goes on; None: all of them.
    """
    second = reference.second
    if second is None:
        return structure.with_second(reference)
    if second.stale is None or not second.stale.any():
        return reference
    rows = second.stale.nonzero()[:at_most, 0]
    copies: dict[str, Any] = {name: getattr(second, name).clone() for name in LISTS}
    stale = second.stale.clone()
    second = replace(second, stale=stale, **copies)
    second.neighbours[rows], second.scores[rows] = structure.second_lists(reference, rows)
    second.weights[rows] = structure.probabilities(second.scores[rows])
    _follow(second, rows)
    stale[rows] = False
    return replace(reference, second=second)


def _check(reference: Neighbourhoods, features: Tensor, origin: Tensor) -> None:
    named = origin[origin >= 0]
    if origin.shape != features.shape[:1] or len(named.unique()) < len(named) or (named >= len(reference)).any():
        raise LabError(
            f"Expected the earlier row of each of {len(features)} items, below {len(reference)} and each at most once, "
            "or -1; got others. Pass -1 for new items."
        )
    if not torch.equal(features[origin >= 0], reference.features[named]):
        raise LabError("Expected items with an earlier row to have their earlier features. Pass -1 for replaced items.")


def _renumbered(
    before: Neighbourhoods, features: Tensor, origin: Tensor, search: Search | None
) -> tuple[Neighbourhoods, Int[Tensor, " touched"]]:
    """Lists without the items that left, those of new items empty; and rows whose lists aren't as before."""
    old, is_new = origin.clamp(min=0), origin < 0
    rows = torch.full((len(before),), -1, dtype=torch.int32)
    rows[origin[~is_new]] = (~is_new).nonzero()[:, 0].int()
    lists = {name: getattr(before, name)[old] for name in LISTS}
    named, was_there = rows[lists["neighbours"]], lists["scores"] > -torch.inf
    gone = (was_there & (named < 0)) | is_new[:, None]
    lists["neighbours"] = named.masked_fill(gone | ~was_there, 0)
    lists["scores"].masked_fill_(gone, -torch.inf)
    lists["weights"].masked_fill_(gone, 0)
    touched = gone.any(1).nonzero()[:, 0]
    order = gone[touched].long().argsort(dim=1, stable=True)  # what comes after a gap moves up
    for values in (lists["neighbours"], lists["scores"], lists["weights"], lists["reverse"]):
        values[touched] = values[touched].gather(1, order)
    stale = None if before.stale is None else before.stale[old]
    return replace(before, features=features, search=search, second=None, stale=stale, **lists), touched


def _enter(now: Neighbourhoods, rows: Int[Tensor, " rows"], new: Int[Tensor, " new"]) -> Int[Tensor, " changed"]:
    """Put new items into the lists of others, in place, where they are nearer than the last; return those rows."""
    changed = [rows[:0]]
    for part in rows.split(max(_AT_ONCE // max(len(new), 1), 1)) if len(new) else ():
        cosines = now.features[part] @ now.features[new].T
        nearer = (cosines > now.scores[part, -1:]).any(1)
        part, (best, at) = part[nearer], cosines[nearer].topk(min(LENGTH + 1, len(new)), dim=1)
        scores, order = torch.cat([now.scores[part], best], dim=1).topk(LENGTH + 1, dim=1)
        now.neighbours[part] = torch.cat([now.neighbours[part], new[at].int()], dim=1).gather(1, order)
        now.scores[part], now.weights[part] = scores, weights_of(scores)
        changed.append(part)
    return torch.cat(changed)


def _follow(now: Neighbourhoods, changed: Int[Tensor, " changed"]) -> None:
    """Compute what follows from changed lists, in place: their lengths, and the places in them that others keep."""
    measure(now, changed)
    is_changed = torch.zeros(len(now), dtype=torch.bool)
    is_changed[changed] = True
    look_back(now, *(is_changed[now.neighbours] | is_changed[:, None]).nonzero(as_tuple=True))
