"""Scores of all pairs of two sets under a PDDM unit, tile by tile, at the speed of a matrix product.

Algebra: W_v v = (W_v a + W_v b) / 2 is a sum of two products per item, which leaves 6 d^2 of the unit's 8 d^2
operations per pair; and S is symmetric, so half of the pairs of one set are copied. Hardware: a tile's blocks stay in a
core's cache from one step to the next; when compiled, the steps between two matrix products become one loop.

Paper -> code:  W_u, b_u -> difference   W_c, b_c -> joint   W_s, b_s -> score
its halves that multiply u' and v' -> joint_u, joint_v   W_v a / 2 + b_v, W_v b / 2 -> a_position, b_position
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import shutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.model.pddm import PDDM

SMALLEST_NORM = 1e-12
"""Smallest length to divide by, as in torch.nn.functional.normalize."""
COMPILED_PAIRS = 50_000_000
"""From this many pairs on, compiling pays off; it takes some 20 s the first time."""
TILES = {"cpu": (32, 256), "cuda": (512, 1024)}
"""Rows and columns of a tile: on a CPU the blocks of 8192 pairs share the second-level caches of two cores."""
_KEPT = {-3: 32 << 20, -1: 64 << 20}  # glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, in bytes


def _keep_freed_blocks() -> None:
    """Let the C library keep up to 64 MB of freed memory: fetching a tile's blocks of some MB from the system again
    and again took as long as scoring."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # a system without glibc
        for option, value in _KEPT.items():
            ctypes.CDLL(None).mallopt(option, value)


_keep_freed_blocks()


class _Layers(NamedTuple):
    """A unit's weights as a tile needs them; those of matrix products are in the precision of products."""

    difference: Float[Tensor, "dim hidden"]
    difference_bias: Float[Tensor, " hidden"]
    joint_u: Float[Tensor, "hidden hidden"]
    joint_v: Float[Tensor, "hidden hidden"]
    joint_bias: Float[Tensor, " hidden"]
    score: Float[Tensor, " hidden"]
    score_bias: Float[Tensor, 1]
    global_weight: Float[Tensor, 1] | None

    @staticmethod
    def of(unit: PDDM, products: torch.dtype) -> _Layers:
        of_u, of_v = unit.joint.weight.T.to(products).chunk(2)
        return _Layers(
            unit.difference.weight.T.to(products), unit.difference.bias, of_u, of_v, unit.joint.bias,
            unit.score.weight[0], unit.score.bias, unit.global_weight,
        )  # fmt: skip


@torch.no_grad()
def all_pairs(
    unit: PDDM, queries: Float[Tensor, "queries dim"], gallery: Float[Tensor, "items dim"], *,
    products: torch.dtype | None = None, compiled: bool | None = None,
) -> Float[Tensor, "queries items"]:  # fmt: skip
    """S of every query with every gallery item; for one set with itself, each pair is scored once.

    Args:
        unit: in evaluation mode. With `normalize_input` the algebra doesn't hold, and tiles use the plain formula.
        queries: features, (queries, dim).
        gallery: features, (items, dim); the same tensor for all pairs of one set.
        products: precision of the matrix products only; None for the features' own. bfloat16 is faster on processors
            that support it.
        compiled: use torch.compile; None: if it pays off and there is a compiler.

    Returns:
        (queries, items), in the features' precision; a few MB are used beside it, for any size.
    """
    layers, position = _Layers.of(unit, products or queries.dtype), unit.position
    query_positions, gallery_positions = (x @ position.weight.T / 2 for x in (queries, gallery))
    query_positions = query_positions + position.bias
    scores = queries.new_empty(len(queries), len(gallery))
    rows, columns = TILES.get(queries.device.type, TILES["cpu"])
    if compiled is None:
        compiled = scores.numel() >= COMPILED_PAIRS and has_compiler()
    compiled = compiled and len(queries) >= rows and len(gallery) >= columns
    score_tile = _compiled_tile() if compiled else _score_tile
    if unit.normalize_input:
        score_tile = lambda a, b, *_: unit(a[:, None], b)  # noqa: E731
    if queries is gallery and 0 < len(queries) ** 2 <= 2 * rows * columns:  # each pair once: they fit into a tile
        parts = query_positions, _followers(gallery_positions)
        return _symmetric(score_tile(queries, _followers(gallery), *parts, layers))
    windows = _full_windows if compiled else _windows
    for top, q in windows(0, len(queries), rows):
        bottom = q.stop
        # For pairs of one set, those left of the diagonal are copied from the right.
        for left, g in windows(top if queries is gallery else 0, len(gallery), columns):
            tile = score_tile(queries[q], gallery[None, g], query_positions[q], gallery_positions[None, g], layers)
            scores[top:bottom, left : g.stop] = tile[top - q.start :, left - g.start :]
        if queries is gallery:
            scores[bottom:, top:bottom] = scores[top:bottom, bottom:].T
            square = scores[top:bottom, top:bottom]
            square.copy_(square.triu() + square.triu(1).T)  # equal to the last bit, like the rest
    return scores


@torch.no_grad()
def own_pairs(
    unit: PDDM, queries: Float[Tensor, "queries dim"], gallery: Float[Tensor, "items dim"],
    candidates: Int[Tensor, "queries candidates"],
) -> Float[Tensor, "queries candidates"]:  # fmt: skip
    """S of every query with its own candidates, rows of the gallery; uses as little memory as `all_pairs`.

    Args:
        unit: in evaluation mode, without `normalize_input`.
        candidates: rows of the gallery, (queries, candidates).
    """
    if candidates.numel() < len(gallery):  # only keep the rows that are used
        used, candidates = candidates.unique(return_inverse=True)
        gallery = gallery[used]
    layers, position = _Layers.of(unit, queries.dtype), unit.position
    query_positions, gallery_positions = (x @ position.weight.T / 2 for x in (queries, gallery))
    query_positions = query_positions + position.bias
    rows, columns = TILES.get(queries.device.type, TILES["cpu"])
    at_once = max(rows * columns // max(candidates.shape[1], 1), 1)
    scores = queries.new_empty(candidates.shape)
    for start in range(0, len(queries), at_once):
        q = slice(start, start + at_once)
        own = candidates[q]
        scores[q] = _score_tile(queries[q], gallery[own], query_positions[q], gallery_positions[own], layers)
    return scores


def _followers(rows: Float[Tensor, "items dim"]) -> Float[Tensor, "items half dim"]:
    """Each item and the next half of the items after it on a circle: a view that holds every pair, without copies."""
    half = len(rows) // 2
    return torch.cat([rows, rows[:half]]).unfold(0, half + 1, 1).transpose(1, 2)


def _symmetric(scores: Float[Tensor, "items half"]) -> Float[Tensor, "items items"]:
    """The table of all pairs from the scores of each item with its `_followers`."""
    items, half = scores.shape
    item = torch.arange(items, device=scores.device)[:, None]
    follower = (item + torch.arange(half, device=scores.device)) % items
    table = scores.new_full((items, items), -torch.inf).scatter_(1, follower, scores)
    return table.maximum(table.T)  # an even circle scores opposite items twice, maybe with another last bit


def _windows(start: int, stop: int, size: int) -> Iterator[tuple[int, slice]]:
    """Windows over start..stop, each with the start of its new part."""
    for begin in range(start, stop, size):
        yield begin, slice(begin, min(begin + size, stop))


def _full_windows(start: int, stop: int, size: int) -> Iterator[tuple[int, slice]]:
    """Windows of one size, which a compiled tile needs: the last one overlaps the one before."""
    for begin, window in _windows(start, stop, size):
        yield begin, slice(max(window.stop - size, 0), window.stop)


def _score_tile(
    a: Float[Tensor, "a dim"], b: Float[Tensor, "#a b dim"], a_position: Float[Tensor, "a hidden"],
    b_position: Float[Tensor, "#a b hidden"], layers: _Layers,
) -> Float[Tensor, "a b"]:  # fmt: skip
    """S of every a with its own row of b, or with one shared row, from features and the summands of W_v v + b_v."""
    products, exact = layers.difference.dtype, a.dtype
    u = (a[:, None] - b).abs_().flatten(0, 1)
    u_hidden = (u.to(products) @ layers.difference).to(exact).add_(layers.difference_bias).relu_()
    v_hidden = (a_position[:, None] + b_position).relu_().flatten(0, 1)
    # W_c [u'; v'] is a sum of two products, and dividing by a length after the product gives the same.
    joint = (u_hidden.to(products) @ layers.joint_u).to(exact).mul_(_inverse_length(u_hidden))
    joint.addcmul_((v_hidden.to(products) @ layers.joint_v).to(exact), _inverse_length(v_hidden))
    joint.add_(layers.joint_bias).relu_()
    scores = joint.mul_(layers.score).sum(1).add_(layers.score_bias)
    if layers.global_weight is not None:
        scores.sub_(layers.global_weight * u.norm(dim=1))
    return scores.view(len(a), -1)


def _inverse_length(rows: Float[Tensor, "pairs hidden"]) -> Float[Tensor, "pairs 1"]:
    return rows.norm(dim=1, keepdim=True).clamp_(min=SMALLEST_NORM).reciprocal_()


def has_compiler() -> bool:
    """Whether there is a C++ compiler for torch.compile."""
    return any(map(shutil.which, ("g++", "c++", "clang++")))


@functools.cache
def _compiled_tile() -> Callable[..., Tensor]:
    """The compiled tile; the plain one, with a warning, if compiling fails."""
    compiled = torch.compile(_score_tile, dynamic=False)

    @functools.wraps(_score_tile)
    def score(*arguments: Any) -> Tensor:
        try:
            return compiled(*arguments)
        except torch._dynamo.exc.TorchDynamoException as error:
            warnings.warn(f"Scoring continues without torch.compile: {error}", stacklevel=2)
            return _score_tile(*arguments)

    return score
