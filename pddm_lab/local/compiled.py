"""The loops over pairs and their neighbours, compiled. Notation and formulas: evidence.py.

For each query the items that matter are its neighbours, the candidates, and their neighbours. Where these of all
queries together are few, as in a small gallery or of queries that are near to each other, the products of z_q and all
e_k(q) with them come in a table, since one product of matrices is faster, and the number of an item is its column.
Else each query's items are collected and numbered, and their products are computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
import numpy as np
from filelock import FileLock

LOCK = ".compiled.lock"
"""Beside what is kept."""


def _compiled(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called, and keep the result on disk where that is possible."""
    try:
        made = _compile(function, cache=True)
    except RuntimeError:  # there is no folder that can be written
        return _compile(function, cache=False)
    if made is not function:  # as it is under NUMBA_DISABLE_JIT
        made._cache.save_overload = _alone(made._cache)
    return made


def _compile(function: Callable[..., Any], cache: bool) -> Any:
    return numba.njit(function, cache=cache, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})


def _alone(cache: Any) -> Callable[..., None]:
    """Let one process at a time keep what it has compiled.

    Numba numbers its files: two processes that keep code for other types at the same moment would write one number
    both, and later ones would load code for the wrong types.
    """
    save = cache.save_overload

    def locked(*compiled: Any) -> None:
        with FileLock(Path(cache.cache_path) / LOCK):
            save(*compiled)

    return locked


@_compiled
def collect(wanted, count, numbered, keys, numbers, size, features, directions, products):  # type: ignore[no-untyped-def]
    """Write the numbers of the first `count` items of `wanted`, and return how many items have one.

    An item that is met first is given the next number, and its products with the directions are computed. `keys` and
    `numbers` are a hash table of a length that is a power of two; the factor is odd, so rows below it don't collide.
    """
    mask = len(keys) - 1
    for each in range(count):
        row = wanted[each]
        at = (row * 0x9E3779B1) & mask
        while keys[at] != row and keys[at] >= 0:
            at = (at + 1) & mask
        if keys[at] < 0:
            keys[at], numbers[at] = row, size
            for level in range(len(directions)):
                total = products.dtype.type(0)
                for d in range(features.shape[1]):
                    total += features[row, d] * directions[level, d]
                products[level, size] = total
            size += 1
        numbered[each] = numbers[at]
    return size


@_compiled
def _compare(  # type: ignore[no-untyped-def]
    features, neighbours, scores, weights, reverse, squares, onward, scales, first_part,
    directions, q_neighbours, q_scores, q_weights, q_reverse, own, rows, candidate_scores, table, columns, shared,
    reciprocal, values,
):  # fmt: skip
    """Fill `values`, (queries, kinds, candidates), in the order of the fields of `Evidence`.

    Args:
        features: this and the next are the gallery's, see `Neighbourhoods`.
        directions: z_q and each e_k(q), (queries, 1 + scales, dim).
        q_neighbours: this and the next are the queries', see `Queries`.
        own: rows of the queries in the gallery; -1: not in it.
        rows: the candidates.
        candidate_scores: the score of each candidate by which both sides' lists were made; no columns: the cosine.
        table: products of the directions with the items that matter, (queries, 1 + scales, columns), or with none:
            collect them.
        columns: of each item in the table, where it has one.
        shared: k of the shared neighbours.
        reciprocal: k of the reciprocal sets.
    """
    count, kinds, candidates = values.shape
    items, kept = neighbours.shape
    length, levels = q_neighbours.shape[1], len(scales)
    width = max(scales[-1], shared[-1], reciprocal[-1])
    small = table.shape[2] > 0
    most = table.shape[2] if small else min(items, candidates * (width + 1) + length)
    slots = 1
    while not small and slots < min(items, 2 * most):
        slots *= 2
    keys, numbers = np.empty(slots, np.int64), np.empty(slots, np.int64)
    products = table[0] if small else np.empty((1 + levels, most), table.dtype)
    place, own_place = np.empty(most, np.int64), np.empty(most, np.int64)
    wanted, near = np.empty(width + length + 1, np.int64), np.empty(width + length + 1, np.int64)
    back, w = np.empty(width, np.int64), np.empty(width, values.dtype)
    zero, one = values.dtype.type(0), values.dtype.type(1)
    for q in range(count):
        keys.fill(-1)
        place.fill(length)
        own_place.fill(-1)
        size, reach, itself, to_q = 0, 0, own[q], directions[q]
        named = np.int32(itself)  # of the type of the lists, or they would be converted
        if small:
            products = table[q]
        while reach < length and q_scores[q, reach] > -np.inf:
            wanted[reach] = q_neighbours[q, reach]
            reach += 1
        if small:
            for j in range(reach):
                near[j] = columns[wanted[j]]
        else:
            size = collect(wanted, reach, near, keys, numbers, size, features, to_q, products)
        for j in range(reach):
            place[near[j]] = j
        for c in range(candidates):
            g = rows[q, c]
            out, entries = kept, 0
            for j in range(kept):  # the list of g without q: what comes after q moves up
                h = neighbours[g, j]
                if itself >= 0 and h == itself and scores[g, j] > -np.inf:
                    out = j
                elif entries < width:
                    wanted[entries], w[entries], back[entries] = h, weights[g, j], reverse[g, j]
                    entries += 1
            for j in range(entries, width):
                wanted[j], w[j], back[j] = g, zero, kept
            wanted[width] = g
            if small:
                for j in range(width + 1):
                    near[j] = columns[wanted[j]]
            else:
                size = collect(wanted, width + 1, near, keys, numbers, size, features, to_q, products)
            at_g = near[width]
            if itself >= 0:
                for j in range(width):  # where q comes before g in the list of a neighbour, g moves up
                    h, number = wanted[j], near[j]
                    if back[j] > reciprocal[-1]:  # it is too far down to matter
                        continue
                    if own_place[number] < 0:
                        own_place[number], times = kept, 0
                        for i in range(kept):  # most lists don't name q, and counting takes few instructions
                            times += neighbours[h, i] == named
                        for i in range(kept if times else 0):
                            if neighbours[h, i] == itself and scores[h, i] > -np.inf:
                                own_place[number] = i
                    back[j] -= own_place[number] < back[j]

            cosine = products[0, at_g]
            score = candidate_scores[q, c] if candidate_scores.shape[1] else cosine
            r_qg, r_gq = place[at_g], 0
            for j in range(kept):
                r_gq += j != out and scores[g, j] > score
            r_gq = min(r_gq, length)
            kind = 0
            values[q, kind, c] = cosine
            if first_part:
                total, norm = zero, zero
                for d in range(first_part):
                    total += to_q[0, d] * features[g, d]
                    norm += to_q[0, d] * to_q[0, d]
                kind += 1
                values[q, kind, c] = total / norm  # its share is one everywhere
            kind += 1

            so_far, density, j = cosine, zero, 0
            for at in range(levels):
                k = scales[at]
                before = so_far
                while j < k:
                    before = so_far
                    so_far += w[j] * products[0, near[j]]
                    density += w[j]
                    j += 1
                square = squares[g, at]
                if out < k:  # E' = E - a q + b h, h the k-th without q; all products of these vectors are known
                    a, b = weights[g, out], w[k - 1]
                    square += 2 * b * (onward[g, at] - a * products[0, near[k - 1]]) + b * b - a * (2 * before + a)
                norm = 1 / np.sqrt(square)
                forth = products[1 + at, at_g]
                both = forth
                for i in range(k):
                    both += w[i] * products[1 + at, near[i]]
                values[q, kind + at, c] = forth
                values[q, kind + levels + at, c] = so_far * norm
                values[q, kind + 2 * levels + at, c] = both * norm
                for end in range(2):
                    if at == (0, levels - 1)[end]:
                        of_q = zero
                        for i in range(k):
                            of_q += q_weights[q, i]
                        values[q, kinds - 4 + 2 * end, c], values[q, kinds - 3 + 2 * end, c] = of_q / k, density / k
            kind += 3 * levels

            for at in range(len(shared)):
                k = shared[at]
                common, of_q, of_g = q_weights[q, r_qg] if r_qg < k else zero, one, one
                for j in range(k):
                    of_q += q_weights[q, j] * q_weights[q, j]
                    of_g += w[j] * w[j]
                    if place[near[j]] < k:
                        common += w[j] * q_weights[q, place[near[j]]]
                values[q, kind, c] = common / np.sqrt(of_q * of_g)
                kind += 1
            for at in range(len(reciprocal)):
                k = reciprocal[at]
                mutual = int(r_qg < k and r_gq < k)
                common, sizes = 2 * mutual, 2 + mutual
                for j in range(k):
                    sizes += int(q_reverse[q, j] < k) + int(back[j] < k)
                    common += int(back[j] < k and place[near[j]] < k and q_reverse[q, place[near[j]]] < k)
                values[q, kind, c] = common / (sizes - common)
                kind += 1
            values[q, kind, c], values[q, kind + 1, c] = np.log1p(r_qg), np.log1p(r_gq)


def compare(*arguments: np.ndarray | int) -> None:
    """Fill `values` as `_compare` does, also where a full disk can't keep what it and `collect` are compiled to."""
    for _ in range(2):
        with suppress(OSError):
            _compare(*arguments)
            return
    _compare(*arguments)
