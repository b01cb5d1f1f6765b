"""k-reciprocal re-ranking (Zhong, Zheng, Cao, Li: Re-ranking Person Re-identification, CVPR 2017), without training.

Paper -> code:  N(p, k) -> near   R(p, k) -> mutual   R*(p, k1) -> expanded   V_p -> vectors   lambda -> distance_weight

As in the paper the query belongs to the pool whose neighbourhoods are looked at: a query that is not in the gallery is
put into the lists of all that it is near to. So a query that is in the gallery needs no taking out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pddm_lab.local.neighbourhoods import Neighbourhoods, Queries
from pddm_lab.local.similarity import LocalSimilarity, check_length

_ENTRIES = 1 << 14  # cosines at a time


class KReciprocal(LocalSimilarity):
    """S = -(1 - l) d_J - l d: d_J the Jaccard distance of both k-reciprocal vectors, d = 1 - z_q . z_g.

    Args:
        k1: neighbours in the reciprocal sets, at most `LENGTH` (sizes.py).
        k2: items whose vectors are averaged, the item itself included.
        distance_weight: l.
    """

    name = "k-reciprocal"

    def __init__(self, k1: int = 20, k2: int = 6, distance_weight: float = 0.3) -> None:
        check_length("k1", k1)
        check_length("k2", k2)
        self.k1, self.k2, self.distance_weight = k1, k2, distance_weight
        self._length = max(k1, k2)  # of the lists that are looked at
        self._of_galleries: WeakKeyDictionary[Neighbourhoods, Any] = WeakKeyDictionary()

    def _candidates(self, reference: Neighbourhoods, queries: Queries, rows: Tensor) -> Tensor:
        cosines = queries.features @ reference.features.T
        overlaps = [
            self._inside(reference, int(queries.own[q]), rows[q].cpu().numpy()) if queries.own is not None else
            self._outside(reference, queries, q, cosines[q], rows[q].cpu().numpy())
            for q in range(len(queries))
        ]  # fmt: skip
        overlap = torch.as_tensor(np.stack(overlaps)).to(cosines)
        jaccard = 1 - overlap / (2 - overlap)  # vectors sum to 1: the sum of maxima is 2 - the sum of minima
        return -(1 - self.distance_weight) * jaccard - self.distance_weight * (1 - cosines.gather(1, rows))

    def _inside(self, reference: Neighbourhoods, row: int, rows: np.ndarray) -> np.ndarray:
        if reference not in self._of_galleries:
            pool = _Pool.of(reference, self._length)
            self._of_galleries[reference] = self._averaged(pool, pool.vectors(np.arange(len(reference)), self.k1))
        vectors = self._of_galleries[reference]
        return _overlaps(vectors[row], vectors[rows])

    def _outside(self, reference: Neighbourhoods, queries: Queries, q: int, cosines: Tensor, rows: np.ndarray) -> Any:
        pool = _Pool.of(reference, self._length).joined_by(reference, queries, q, cosines)
        compared = np.append(rows, len(reference))
        needed = np.unique(np.append(pool.near[compared, : self.k2 - 1], compared))
        vectors = self._averaged(pool, pool.vectors(needed, self.k1), needed, compared)
        return _overlaps(vectors[-1], vectors[:-1])

    def _averaged(self, pool: _Pool, vectors: Any, needed: Any = None, rows: Any = None) -> Any:
        """Mean vector of each item and its k2 - 1 nearest; `vectors` are those of the items `needed`."""
        rows = np.arange(len(pool.near)) if rows is None else rows
        members = _sparse(pool.near[rows, : self.k2 - 1], pool.real[rows, : self.k2 - 1], len(pool.near), rows)
        members = members if needed is None else members[:, needed]
        return (members.multiply(1 / members.sum(1)).tocsr() @ vectors).tocsr()


@dataclass(frozen=True, eq=False)
class _Pool:
    """All items that have neighbours."""

    features: Float[np.ndarray, "items dim"]
    near: Int[np.ndarray, "items length"]
    reverse: Int[np.ndarray, "items length"]
    """Place of the item in the list of each neighbour."""
    real: np.ndarray
    """False where a list has ended."""

    @staticmethod
    def of(reference: Neighbourhoods, length: int) -> _Pool:
        """The first entries of the lists of a gallery."""
        near, scores, reverse = (
            values[:, :length].cpu().numpy()
            for values in (reference.neighbours, reference.scores, reference.reverse)
        )  # fmt: skip
        return _Pool(reference.features.cpu().numpy(), near, reverse.astype(np.int64), scores > -np.inf)

    def joined_by(self, reference: Neighbourhoods, queries: Queries, q: int, cosines: Tensor) -> _Pool:
        """The pool with a query, which has the last row."""
        items, length = self.near.shape
        place = (reference.scores[:, :length] > cosines[:, None]).sum(1).cpu().numpy()  # of the query in each list
        in_its_own = np.full(items, length)
        named, real = (values[q, :length].cpu().numpy() for values in (queries.neighbours, queries.scores > -np.inf))
        in_its_own[named[real]] = np.flatnonzero(real)
        at, where = np.arange(length), place[:, None]
        lists = (
            (self.near, items), (self.reverse + (self.reverse >= place[self.near]), in_its_own[:, None]),
            (self.real, True),
        )  # fmt: skip
        before = np.maximum(at - (at > where), 0)
        own = (named, place[named], real)
        near, reverse, kept = (
            np.vstack([np.where(at == where, new, np.take_along_axis(old, before, 1)), last])
            for (old, new), last in zip(lists, own, strict=True)
        )
        features = np.vstack([self.features, queries.features[q].cpu().numpy()])
        return _Pool(features, near, reverse, kept)

    def vectors(self, rows: Int[np.ndarray, " rows"], k1: int) -> Any:
        """V of some items, (rows, items), sparse: exp(-d) for the members of R*, made to sum to 1."""
        mutual = self._mutual(rows, k1)
        members = np.unique(mutual.indices)
        halves = self._mutual(members, round(k1 / 2))
        shared = mutual[:, members].multiply(mutual @ halves.T).tocsr()
        sizes = np.asarray(halves.sum(1)).ravel()
        shared.data = (shared.data >= 2 / 3 * sizes[shared.indices]).astype(np.float64)
        expanded = (mutual + shared @ halves).tocoo()
        present = expanded.data > 0
        at, member = expanded.row[present], expanded.col[present]
        cosines = np.concatenate([
            np.einsum("nd,nd->n", self.features[rows[at[start : start + _ENTRIES]]],
                      self.features[member[start : start + _ENTRIES]])
            for start in range(0, len(at), _ENTRIES)
        ])  # fmt: skip
        weights = np.exp(cosines - 1).astype(np.float64)
        weights /= np.bincount(at, weights)[at]
        return _csr(weights, at, member, expanded.shape)

    def _mutual(self, rows: Int[np.ndarray, " rows"], k: int) -> Any:
        """R(p, k) of some items, and p itself, as a sparse matrix of 0 and 1, (rows, items)."""
        belongs = self.real[rows, :k] & (self.reverse[rows, :k] < k)
        return _sparse(self.near[rows, :k], belongs, len(self.near), rows)


def _sparse(near: np.ndarray, belongs: np.ndarray, items: int, own: np.ndarray) -> Any:
    """Rows of 0 and 1: each item's members and the item itself."""
    at, entry = belongs.nonzero()
    row, column = np.append(at, np.arange(len(near))), np.append(near[at, entry], own)
    return _csr(np.ones(len(row)), row, column, (len(near), items))


def _csr(values: np.ndarray, row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix((values, (row, column)), shape=shape)


def _overlaps(vector: Any, others: Any) -> Float[np.ndarray, " others"]:
    """Sums of the minima of one sparse vector with others."""
    dense = vector.toarray()[0]
    minima = np.append(np.minimum(dense[others.indices], others.data), 0.0)
    sums = np.add.reduceat(minima, others.indptr[:-1])
    return np.where(np.diff(others.indptr) > 0, sums, 0.0)
