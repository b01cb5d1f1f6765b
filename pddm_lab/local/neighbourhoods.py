"""The neighbourhoods of a gallery's items and of queries, from which every local similarity is computed.

Notation -> code: z_a -> features   h_1, h_2, ... the nearest others of a -> neighbours   w_1, w_2, ... -> weights
E_k(a) = z_a + w_1 z_h1 + ... + w_k z_hk, the expansion of a; e_k(a) = E_k(a) / ||E_k(a)||.

Expansions of gallery items are not stored, only their lengths: z . E_k(a) is a sum over cosines of z with the
neighbours of a. That takes less than 0.6 KB an item, and a query that is itself an item of the gallery can be taken out
of every neighbourhood exactly: the next neighbour takes its place. All of it is in the memory of the processor.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pddm_lab.errors import LabError
from pddm_lab.local.sizes import FEWEST, LENGTH, NEAR, POWER, SCALES

Search = Callable[[Tensor, int], tuple[Tensor, Tensor]]
"""Cosines and rows of each query's nearest items, best first, (queries, k) each."""
Searching = Callable[[Tensor], Search | None]
"""What finds nearest items among some, given their z; None: compare with all."""

_AT_ONCE = 1 << 22  # values at a time: 16 MB
_REGION = 256  # items, about


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """The neighbourhoods of a gallery. Build them with `Neighbourhoods.of`, or with `relisted` from other scores.

    A list with fewer than `LENGTH` + 1 others ends in entries of weight 0 and score -inf.
    """

    features: Float[Tensor, "items dim"]
    """z, of unit length."""
    neighbours: Int[Tensor, "items kept"]
    """Rows of each item's nearest others, best first; int32."""
    scores: Float[Tensor, "items kept"]
    """How similar they are: cosines, or the scores that listed them."""
    weights: Float[Tensor, "items kept"]
    """w, 0 to 1."""
    reverse: Int[Tensor, "items kept"]
    """The item's own place in the list of each neighbour, 0 is nearest; `kept` if it isn't there. uint8."""
    squares: Float[Tensor, "items scales"]
    """||E_k||^2."""
    onward: Float[Tensor, "items scales"]
    """E_k . z of the neighbour after the k-th; 0 if there is none."""
    scales: tuple[int, ...]
    """k of the expansions, ascending; at most `LENGTH`."""
    first_part: int
    """Dimensions of z that form its first part, x of [x; w p], which has one length in all items; 0: z is one whole."""
    search: Search | None = None
    """Finds nearest items; None: compare with all."""
    second: Neighbourhoods | None = None
    """The same items, listed by the score of a first pass; None: there is no second pass."""
    stale: Bool[Tensor, " items"] | None = None
    """Which lists of a second pass a change of the gallery may have overtaken; None: none."""
    missing: str = ""
    """Why there are no lists; empty: there are."""

    @classmethod
    @torch.no_grad()
    def of(
        cls, features: Float[Tensor, "items dim"], scales: tuple[int, ...] = SCALES, first_part: int = 0,
        search: Search | None = None,
    ) -> Neighbourhoods:  # fmt: skip
        """The neighbourhoods of a gallery by cosine; exact without `search`.

        Args:
            features: of unit length.
            scales: k of the expansions, ascending, 1 to `LENGTH`.
            first_part: dimensions of x in features [x; w p] / sqrt(1 + w^2), as `joined` makes them; 0: none.
            search: finds each query's nearest items in a large gallery; None: compare with all.

        Raises:
            LabError: no items, or scales out of order.
        """
        return cls.with_nearest(features, scales, first_part, search, LENGTH + 1)[0]

    @classmethod
    @torch.no_grad()
    def with_nearest(
        cls, features: Float[Tensor, "items dim"], scales: tuple[int, ...] = SCALES, first_part: int = 0,
        search: Search | None = None, count: int = NEAR,
    ) -> tuple[Neighbourhoods, Int[Tensor, "items near"]]:  # fmt: skip
        """As `of`, and the rows of each item's nearest others, best first, which a second pass chooses from."""
        if not len(features):
            raise LabError("Expected at least one item for neighbourhoods, got an empty gallery. Add items first.")
        if list(scales) != sorted(set(scales)) or not 1 <= scales[0] <= scales[-1] <= LENGTH:
            raise LabError(f"Expected ascending scales from 1 to {LENGTH}, got {scales}.")
        features = features.cpu().contiguous()
        own = torch.arange(len(features))
        nearest, cosines = nearest_items(features, len(features), count, own, search or exact_search(features))
        neighbours, scores = (each[:, : LENGTH + 1].contiguous() for each in (nearest, cosines))
        built = _complete(features, neighbours, scores, weights_of(scores), scales, first_part, search)
        if built.note:
            warnings.warn(built.note, stacklevel=3)
        return built, nearest[:, : len(features) - 1]

    @classmethod
    def without_lists(cls, features: Float[Tensor, "items dim"], first_part: int, missing: str) -> Neighbourhoods:
        """A gallery that is ranked by the cosine, since its lists are `missing`."""
        none = features.new_empty(len(features), 0)
        return cls(features, none.int(), none, none, none.byte(), none, none, (), first_part, missing=missing)

    def __len__(self) -> int:
        return len(self.features)

    @property
    def note(self) -> str:
        """Why local similarities rank this gallery by the cosine; empty if they don't."""
        if self.missing or len(self) >= FEWEST:
            return self.missing
        return f"This gallery has {len(self)} items, and a neighbourhood takes {FEWEST}: it is ranked by the cosine."

    @torch.no_grad()
    def queries(self, features: Float[Tensor, "queries dim"], own: Int[Tensor, " queries"] | None = None) -> Queries:
        """Look at queries from this gallery, listed as its items are.

        Args:
            features: of unit length.
            own: the row of each query in this gallery, which it is taken out of: it has the features of that row; None:
                they are not in it, and are listed by cosine.
        """
        if own is not None:
            neighbours, scores, weights = (each[own, :LENGTH] for each in (self.neighbours, self.scores, self.weights))
            return self.listed_queries(features, neighbours, scores, weights, own)
        nearest, cosines = nearest_items(features, len(self), NEAR, None, self.search or exact_search(self.features))
        scores = cosines[:, :LENGTH]
        queries = self.listed_queries(features, nearest[:, :LENGTH], scores, weights_of(scores))
        return replace(queries, nearest=nearest[:, : len(self)])

    @torch.no_grad()
    def listed_queries(
        self, features: Float[Tensor, "queries dim"], neighbours: Int[Tensor, "queries length"],
        scores: Float[Tensor, "queries length"], weights: Float[Tensor, "queries length"],
        own: Int[Tensor, " queries"] | None = None,
    ) -> Queries:  # fmt: skip
        """As `queries`, with given lists: rows, scores and weights, best first, padded to `LENGTH` as the gallery's."""
        kept = self.neighbours.shape[1]
        places = torch.full(neighbours.shape, kept)
        if own is not None:
            places = place_of(own[:, None].expand_as(neighbours), self.neighbours[neighbours], self.scores[neighbours])
        reverse = ranks(self.scores[neighbours], scores, places).where(scores > -torch.inf, kept)
        expansions = torch.stack(list(_expansions(features, self.features[neighbours], weights, self.scales)), dim=1)
        directions = F.normalize(expansions, dim=-1)
        return Queries(features, own, neighbours, scores, weights, reverse, directions, None)

    def relisted(
        self, neighbours: Int[Tensor, "items kept"], scores: Float[Tensor, "items kept"],
        weights: Float[Tensor, "items kept"], scales: tuple[int, ...],
    ) -> Neighbourhoods:  # fmt: skip
        """The same items with other lists, as a second pass makes them: best first, `LENGTH` + 1 others each."""
        return _complete(self.features, neighbours, scores, weights, scales, self.first_part, self.search)

    def shortlist(self, queries: Queries, size: int) -> Int[Tensor, "queries size"]:
        """Rows of each query's nearest items by cosine, best first, without the query itself."""
        others = len(self) - (queries.own is not None)
        search = self.search or exact_search(self.features)
        return nearest_items(queries.features, len(self), min(size, others), queries.own, search)[0].long()

    def cosines(
        self, directions: Float[Tensor, "queries dim"], rows: Int[Tensor, "queries candidates"]
    ) -> Float[Tensor, "queries candidates"]:
        """Products of each query's direction with its own candidates."""
        if rows.shape[1] * 30 > len(self):  # one product with all is faster than to gather so many
            return (directions @ self.features.T).gather(1, rows)
        return torch.einsum("qd,qcd->qc", directions, self.features[rows])


@dataclass(frozen=True, eq=False)
class Queries:
    """Queries as a gallery sees them. Make them with `Neighbourhoods.queries`."""

    features: Float[Tensor, "queries dim"]
    own: Int[Tensor, " queries"] | None
    """Rows of the queries in the gallery; None: they are not in it."""
    neighbours: Int[Tensor, "queries length"]
    scores: Float[Tensor, "queries length"]
    weights: Float[Tensor, "queries length"]
    reverse: Int[Tensor, "queries length"]
    """The query's place in the list of each neighbour, were it in the gallery."""
    directions: Float[Tensor, "queries scales dim"]
    """e_k."""
    nearest: Int[Tensor, "queries near"] | None
    """Rows of the `NEAR` nearest, best first; None with `own`, since a gallery's items have their lists."""

    def __len__(self) -> int:
        return len(self.features)

    def part(self, rows: slice) -> Queries:
        """Some of the queries."""
        fields: dict[str, Any] = {
            name: None if value is None else value[rows] for name, value in vars(self).items()
        }  # fmt: skip
        return Queries(**fields)


def weights_of(cosines: Float[Tensor, "*lists"]) -> Float[Tensor, "*lists"]:
    """w = max(0, cosine)^3."""
    return cosines.clamp(min=0).pow(POWER)


def first(values: Float[Tensor, "*pairs kept"], k: int, out: Int[Tensor, "*pairs"] | None) -> Float[Tensor, "*pairs"]:
    """The sum over the first k entries of lists from which the entry at place `out` is taken.

    Args:
        values: one value per entry, for more than k entries if some are taken out.
        out: the place that is left out, any place beyond the first k for none; None: none anywhere.
    """
    total = values[..., :k].sum(-1)
    if out is None:
        return total
    taken = values.gather(-1, out.clamp(max=values.shape[-1] - 1)[..., None])[..., 0]
    return total + (values[..., k] - taken).where(out < k, 0)


def ranks(
    lists: Float[Tensor, "*pairs kept"], scores: Float[Tensor, "*pairs"], out: Int[Tensor, "*pairs"]
) -> Int[Tensor, "*pairs"]:
    """How many entries of a list have a larger score; the entry at place `out` doesn't count.

    Where the result is `LENGTH`, the list doesn't reach that far.
    """
    kept = lists.shape[-1]
    better = (lists > scores[..., None]).sum(-1)
    own = lists.gather(-1, out.clamp(max=kept - 1)[..., None])[..., 0]
    return (better - ((out < kept) & (own > scores)).long()).clamp(max=LENGTH)


def _expansions(
    features: Float[Tensor, "n dim"], near: Float[Tensor, "n listed dim"], weights: Float[Tensor, "n listed"],
    scales: tuple[int, ...],
) -> Iterator[Float[Tensor, "n dim"]]:  # fmt: skip
    """E_k at each scale."""
    expansion = features
    for start, k in zip((0, *scales), scales, strict=False):
        expansion = expansion + torch.einsum("nm,nmd->nd", weights[:, start:k], near[:, start:k])
        yield expansion


def nearest_items(
    queries: Tensor, items: int, k: int, own: Tensor | None, search: Search
) -> tuple[Int[Tensor, "queries k"], Float[Tensor, "queries k"]]:
    """Rows and cosines of the k nearest without the query itself, padded where there are fewer."""
    reach = min(k + (own is not None), items)
    scores, rows = search(queries, reach)
    if own is not None:  # identical items may push a query out of its own list: then the last entry is one too many
        itself = rows == own[:, None]
        itself[:, -1] |= ~itself.any(1) & (reach == k + 1)
        scores, rows = scores.masked_fill(itself, -torch.inf), rows.masked_fill(itself, 0)
        order = itself.long().argsort(dim=1, stable=True)[:, :k]
        scores, rows = scores.gather(1, order), rows.gather(1, order)
    missing = (0, k - scores.shape[1])
    return F.pad(rows, missing).to(torch.int32), F.pad(scores, missing, value=-torch.inf)


def regions(features: Float[Tensor, "items dim"], rows: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """To which of some items, drawn with a seed, each row is nearest; of work on rows of one region much is shared."""
    random = torch.Generator().manual_seed(0)
    centres = features[torch.randint(len(features), (-(-len(features) // _REGION),), generator=random)].T
    step = max(_AT_ONCE // centres.shape[1], 1)
    return torch.cat([(features[part] @ centres).argmax(1) for part in rows.split(step)])


def exact_search(gallery: Float[Tensor, "items dim"]) -> Search:
    def search(queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        parts = [(part @ gallery.T).topk(k, dim=1) for part in queries.split(max(_AT_ONCE // len(gallery), 1))]
        scores, rows = (torch.cat(each) for each in zip(*parts, strict=True))
        return scores, rows

    return search


def place_of(
    rows: Int[Tensor, "*lists"], lists: Int[Tensor, "*lists kept"], scores: Float[Tensor, "*lists kept"]
) -> Int[Tensor, "*lists"]:
    """The place of a row in a list; `kept` where it isn't in it."""
    present = (lists == rows[..., None].to(lists.dtype)) & (scores > -torch.inf)
    return present.byte().argmax(-1).where(present.any(-1), lists.shape[-1])


def _complete(
    features: Tensor, neighbours: Tensor, scores: Tensor, weights: Tensor, scales: tuple[int, ...], first_part: int,
    search: Search | None,
) -> Neighbourhoods:  # fmt: skip
    """What follows from the lists."""
    items, kept = neighbours.shape
    squares, onward = weights.new_empty(items, len(scales)), weights.new_empty(items, len(scales))
    reverse = torch.empty(items, kept, dtype=torch.uint8)
    built = Neighbourhoods(
        features, neighbours, scores, weights, reverse, squares, onward, scales, first_part, search
    )  # fmt: skip
    for rows in torch.arange(items).split(_AT_ONCE // kept):
        measure(built, rows)
        look_back(built, rows.repeat_interleave(kept), torch.arange(kept).repeat(len(rows)))
    return built


def measure(built: Neighbourhoods, rows: Int[Tensor, " rows"]) -> None:
    """Compute the lengths of some items' expansions, in place."""
    kept, dim = built.neighbours.shape[1], built.features.shape[1]
    for part in rows.split(max(_AT_ONCE // (kept * dim), 1)):
        near = built.features[built.neighbours[part]]
        for at, expansion in enumerate(_expansions(built.features[part], near, built.weights[part], built.scales)):
            built.squares[part, at] = expansion.square().sum(1)
            after = built.scales[at]
            onward = (expansion * near[:, after]).sum(1)
            built.onward[part, at] = onward.where(built.scores[part, after] > -torch.inf, 0)


def look_back(built: Neighbourhoods, rows: Int[Tensor, " entries"], entries: Int[Tensor, " entries"]) -> None:
    """Find the places of items in the lists of those that they list at some entries, in place."""
    kept = built.neighbours.shape[1]
    for row, entry in zip(rows.split(_AT_ONCE // kept), entries.split(_AT_ONCE // kept), strict=True):
        named = built.neighbours[row, entry]
        place = place_of(row, built.neighbours[named], built.scores[named])
        built.reverse[row, entry] = place.where(built.scores[row, entry] > -torch.inf, kept).to(torch.uint8)
