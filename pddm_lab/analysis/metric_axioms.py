"""Which axioms of a metric a similarity S violates, how often and by how much, on a gallery's features.

The axioms of a metric D are symmetry, identity (D is 0 between an item and itself, and larger between different items)
and the triangle inequality: D(i,k) <= D(i,j) + D(j,k). Training doesn't require them of S. Here each is measured with
the same calls as mining, search and evaluation, on items and pairs drawn with a seed.

As a dissimilarity, S becomes d = c - S with the smallest c for which no measured d is below 0. For S = -D that is c = 0
and D itself. With a larger c any similarity keeps the triangle inequality: d(i,j) + d(j,k) - d(i,k) grows with c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from pddm_lab.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

    from pddm_lab.model.similarity import Similarity

ROUNDING = 1e-3
"""Share of the spread of S below which two scores count as equal: float32 rounding stays below it."""
TRIPLE_ITEMS = 240
"""Items whose triples are all checked: 2.3 million."""
CHAINS = 20_000
"""Most chains i ~ j ~ k that are checked."""
EXAMPLES = 24
"""Worst cases kept of each kind."""
SLACK_EDGES = np.linspace(-8, 32, 401)
"""Edges of the histogram of slack, in spreads of S; the outermost bins include everything beyond."""
_CELLS = 40_000_000  # scores held at a time: 160 MB
_ROWS = 16  # scored at a time, between reports of progress
_MIDDLES = 24  # items whose triangles are checked between reports of progress
_SYMMETRY_ITEMS = 128  # on each side: 16,384 pairs


@dataclass(frozen=True)
class PropertyCheck:
    """The check of one property of one similarity: whether it holds, the measured value, and a sentence."""

    similarity: str
    name: str
    """A key of the module's `PROPERTIES`."""
    holds: bool | None
    """None if a metric needn't have the property either."""
    value: float
    scored: int
    """Pairs, items or triples checked."""
    total: int
    """All pairs, items or triples."""
    text: str


PROPERTIES: dict[str, tuple[str, str]] = {
    "symmetric": ("Symmetry", "S(a,b) = S(b,a). Measured: the largest difference, as a share of the spread of S."),
    "self": ("Identity: one value",
        "S(i,i) is the same for all items, as D(i,i) = 0 is. Measured: its range, in spreads of S."),
    "closest": ("Identity: closest to itself",
        "No other item is more similar to i than i itself. Measured: the share of items that have one."),
    "triangle": ("Triangle inequality",
        "d(i,k) ≤ d(i,j) + d(j,k). Measured: the share of random triples that violate it."),
    "chains": ("Triangle inequality in chains",
        "The same, where i~j and j~k are accepted at 1 % FPR. Measured: the share of such chains that violate it."),
    "transitive": ("Transitivity",
        "Where i~j and j~k are accepted at 1 % FPR, i~k is too. Measured: the share of such chains whose ends are not "
        "accepted. A metric may fail here too, but its ends are within twice the threshold."),
}  # fmt: skip
"""What is checked of every similarity: a title, and how it is measured."""


@dataclass(frozen=True, eq=False)
class Symmetry:
    """Differences between both orders of the same pairs, and between both ways to score them."""

    pairs: int
    pairs_largest: float
    """Largest |S(a,b) - S(b,a)| of `Similarity.pairs`."""
    pairs_mean: float
    matrix_largest: float
    """Largest |S(a,b) - S(b,a)| of `Similarity.matrix`."""
    paths_largest: float
    """Largest difference between `pairs` and `matrix`."""


@dataclass(frozen=True, eq=False)
class Triangles:
    """All triples of some items. Slack: d(i,j) + d(j,k) - d(i,k); below 0 the detour through j is shorter."""

    items: int
    triples: int
    violated: int
    """Triples that violate one of their three inequalities; no triple violates more than one."""
    longest: float
    """Largest d(i,k) / (d(i,j) + d(j,k)); at most 1 for a metric."""
    slack: Int[np.ndarray, " bins"]
    """Histogram of the slack in spreads of S, over `SLACK_EDGES`."""
    worst: Int[np.ndarray, "examples 3"]
    """Rows i, j, k of violated inequalities, the smallest slack first."""
    worst_scores: Float[np.ndarray, "examples 3"]
    """S(i,j), S(j,k), S(i,k) of each."""
    needed: float
    """The smallest c with which d = c - S keeps every checked inequality."""


@dataclass(frozen=True, eq=False)
class Chains:
    """Chains i ~ j ~ k of accepted pairs, and the similarity of their ends."""

    threshold: float
    chains: int
    possible: int
    """All chains around the items drawn."""
    broken: int
    """Chains with S(i,k) below the threshold."""
    violated: int
    """Chains whose slack is below 0."""
    worst: Int[np.ndarray, "examples 3"]
    """Rows i, j, k, the least similar ends first."""
    worst_scores: Float[np.ndarray, "examples 3"]


@dataclass(frozen=True, eq=False)
class Axioms:
    """The measurements of one similarity."""

    similarity: str
    items: int
    spread: float
    """Standard deviation of S over the pairs drawn, the unit of differences."""
    offset: float
    """c of d = c - S: the largest S measured."""
    symmetry: Symmetry
    own: Float[np.ndarray, " items"]
    """S(i,i) of every item; NaN of items that aren't checked."""
    rows: Int[np.ndarray, " rows"]
    """Items that were compared with all others."""
    rival: Int[np.ndarray, " rows"]
    """The other item most similar to each."""
    rival_score: Float[np.ndarray, " rows"]
    closer: Int[np.ndarray, " rows"]
    """How many others are more similar to each than it is to itself."""
    triangles: Triangles
    chains: Chains

    @property
    def beaten(self) -> Bool[np.ndarray, " rows"]:
        """Whether another item is more similar to it than it is to itself."""
        return self.closer > 0

    def checks(self) -> list[PropertyCheck]:
        """Check every property, in the order of `PROPERTIES`."""
        n, s, t, c = self.items, self.symmetry, self.triangles, self.chains
        unequal = max(s.pairs_largest, s.matrix_largest) / self.spread
        ranged = float(np.nanmax(self.own) - np.nanmin(self.own)) / self.spread
        beaten = int(self.beaten.sum())
        every_triple = math.comb(n, 3)
        symmetric, same = unequal <= ROUNDING, ranged <= ROUNDING
        answers: dict[str, tuple[bool | None, float, int, int, str]] = {
            "symmetric": (
                symmetric, unequal, s.pairs, n * (n - 1) // 2,
                ("Both orders of a pair score the same" + ("" if unequal == 0 else " but for rounding"))
                if symmetric else f"The order of a pair changes its score by up to {unequal:.2g} spreads",
            ),
            "self": (
                same, ranged, n, n,
                "Every item has the same similarity to itself" if same
                else f"The self-similarity S(i,i) depends on the item, with a range of {ranged:.1f} spreads",
            ),
            "closest": (
                not beaten, beaten / max(len(self.rows), 1), len(self.rows), n,
                "No item is more similar to another than to itself" if not beaten
                else f"{percent(beaten, len(self.rows))} of items are more similar to another item than to themselves",
            ),
            "triangle": (
                not t.violated, t.violated / max(t.triples, 1), t.triples, every_triple,
                "No detour through a third item is shorter" if not t.violated
                else f"In {percent(t.violated, t.triples)} of random triples the detour through a third item is "
                f"shorter than the direct way, by a factor of up to {t.longest:.3g}",
            ),
            "chains": (
                not c.violated, c.violated / max(c.chains, 1), c.chains, c.possible,
                "No detour is shorter in chains of accepted pairs" if not c.violated
                else f"The detour is shorter in {percent(c.violated, c.chains)} of the chains of accepted pairs",
            ),
            "transitive": (
                None, c.broken / max(c.chains, 1), c.chains, c.possible,
                f"The ends of {percent(c.broken, c.chains)} of the chains of accepted pairs are not accepted",
            ),
        }  # fmt: skip
        return [PropertyCheck(self.similarity, question, *answer) for question, answer in answers.items()]


def percent(part: int, whole: int) -> str:
    """A share as text: only exactly none is 0 %, and only exactly all is 100 %."""
    share = 100 * part / max(whole, 1)
    if 0 < share < 0.01:
        return f"{share:.1g} %"
    if 0 < share < 1 or 99 < share < 100:
        return f"{share:.2f} %"
    return f"{share:.0f} %" if share in (0, 100) else f"{share:.1f} %"


class Scores(Protocol):
    """A similarity of items that go by their numbers, from 0."""

    name: str
    items: int

    def pairs(self, left: Int[np.ndarray, " pairs"], right: Int[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
        """S of pairs."""

    def matrix(
        self, left: Int[np.ndarray, " left"], right: Int[np.ndarray, " right"]
    ) -> Float[np.ndarray, "left right"]:
        """S of each with each, as search takes it."""

    def own(self) -> Float[np.ndarray, " items"]:
        """S(i,i) of every item."""


class _OfFeatures:
    """A similarity that needs only the features of a pair."""

    def __init__(self, similarity: Similarity, features: Float[np.ndarray, "items dim"]) -> None:
        self.name, self.items = similarity.name, len(features)
        self._similarity, self._points = similarity, torch.from_numpy(np.array(features, dtype=np.float32))

    def pairs(self, left: Int[np.ndarray, " pairs"], right: Int[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
        return self._similarity.pairs(self._points[left], self._points[right]).double().numpy()

    def matrix(
        self, left: Int[np.ndarray, " left"], right: Int[np.ndarray, " right"]
    ) -> Float[np.ndarray, "left right"]:
        return self._similarity.matrix(self._points[left], self._points[right]).numpy()

    def own(self) -> Float[np.ndarray, " items"]:
        return self._similarity.pairs(self._points, self._points).double().numpy()


def examine(
    similarity: Similarity, features: Float[np.ndarray, "items dim"], threshold: float, *, rows: int = 200,
    seed: int = 0, progress: Progress | None = None,
) -> Axioms:  # fmt: skip
    """Check a similarity for the axioms of a metric.

    Args:
        similarity: on the CPU.
        features: of a gallery, (items, dim) float32; at least three items.
        threshold: the smallest accepted similarity, for the chains.
        rows: items that are compared with all others; fewer if the gallery is very large.
        progress: called with (done, total, what) several times a second, so that it can end the work: first of the
            items compared with all, then of the items whose triangles are checked.

    Raises:
        ValueError: fewer than three items.
    """
    return examine_scores(_OfFeatures(similarity, features), threshold, rows=rows, seed=seed, progress=progress)


def examine_scores(
    of: Scores, threshold: float, *, rows: int = 200, seed: int = 0, progress: Progress | None = None
) -> Axioms:
    """As `examine`, for scores of any kind."""
    if of.items < 3:
        raise ValueError(f"expected at least three items, got {of.items}")
    random = np.random.default_rng(seed)
    order = random.permutation(of.items)
    drawn = np.sort(order[: max(min(rows, _CELLS // of.items), 1)])
    scores, everything = np.empty((len(drawn), of.items), dtype=np.float32), np.arange(of.items)
    for start in range(0, len(drawn), _ROWS):
        part = slice(start, start + _ROWS)
        scores[part] = of.matrix(drawn[part], everything)
        if progress:
            progress(min(start + _ROWS, len(drawn)), len(drawn), "items compared with all")
    places = np.arange(len(drawn))
    scores[places, drawn] = np.nan
    spread = float(np.nanstd(scores, dtype=np.float64)) or 1.0
    scores[places, drawn] = -np.inf
    tried = order[:TRIPLE_ITEMS]
    among, own = _square(of, tried), of.own()
    offset = float(max(own.max(), scores.max(), among.max()))
    rival = scores.argmax(axis=1)
    return Axioms(
        of.name, of.items, spread, offset, _symmetry(of, order),
        own, drawn, rival, scores[places, rival].astype(np.float64),
        (scores > (own[drawn] + ROUNDING * spread)[:, None]).sum(axis=1),
        _triangles(among, tried, offset, spread, progress),
        _chains(of, scores, drawn, threshold, offset, spread, random),
    )  # fmt: skip


def _symmetry(of: Scores, order: np.ndarray) -> Symmetry:
    """Score pairs between two halves of the items drawn in both orders and in both ways."""
    half = min(_SYMMETRY_ITEMS, len(order) // 2)
    left, right = order[:half], order[half : 2 * half]
    a, b = np.repeat(left, half), np.tile(right, half)
    there, back = of.pairs(a, b), of.pairs(b, a)
    block, turned = of.matrix(left, right).astype(np.float64), of.matrix(right, left).astype(np.float64).T
    differences = np.abs(there - back)
    return Symmetry(
        half * half, float(differences.max()), float(differences.mean()), float(np.abs(block - turned).max()),
        float(np.abs(block.ravel() - there).max()),
    )  # fmt: skip


def _square(of: Scores, rows: np.ndarray) -> Float[np.ndarray, "rows rows"]:
    """S of all pairs of some items, by `pairs`: for distances near 0, `matrix` is only accurate to 1e-3."""
    above = np.triu_indices(len(rows), 1)
    scores = np.full((len(rows), len(rows)), -np.inf)
    scores[above] = of.pairs(rows[above[0]], rows[above[1]])
    return np.maximum(scores, scores.T)


def _triangles(
    among: np.ndarray, rows: np.ndarray, offset: float, spread: float, progress: Progress | None
) -> Triangles:
    """Check every inequality d(i,k) <= d(i,j) + d(j,k) of some items, i < k."""
    count = len(rows)
    ends = np.triu_indices(count, 1)
    direct = among[ends]
    histogram = np.zeros(len(SLACK_EDGES) - 1, dtype=np.int64)
    violated, longest, needed = 0, 0.0, -math.inf
    worst_of: list[np.ndarray] = []
    for middle in range(count):
        kept = (ends[0] != middle) & (ends[1] != middle)
        first, second = among[ends[0][kept], middle], among[middle, ends[1][kept]]
        over = first + second - direct[kept]
        slack = offset - over
        needed = max(needed, float(over.max(initial=-math.inf)))
        histogram += np.histogram((slack / spread).clip(SLACK_EDGES[0], SLACK_EDGES[-1]), SLACK_EDGES)[0]
        detour = 2 * offset - first - second
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = (offset - direct[kept]) / detour
        violations = np.flatnonzero(slack < -ROUNDING * spread)
        violated += len(violations)
        longest = max(longest, float(ratio[np.isfinite(ratio)].max(initial=0)))
        worst = violations[slack[violations].argsort()[:EXAMPLES]]
        i, k = ends[0][kept][worst], ends[1][kept][worst]
        worst_of.append(np.column_stack([slack[worst], i, np.full(len(worst), middle), k]))
        if progress and middle % _MIDDLES == 0:
            progress(middle, count, "items whose triangles are checked")
    every = np.concatenate(worst_of) if worst_of else np.empty((0, 4))
    every = every[every[:, 0].argsort()[:EXAMPLES]]
    i, j, k = every[:, 1:].astype(np.int64).T
    scores = np.column_stack([among[i, j], among[j, k], among[i, k]])
    return Triangles(
        count, math.comb(count, 3), violated, longest, histogram, rows[np.column_stack([i, j, k])], scores, needed
    )


def _chains(
    of: Scores, scores: np.ndarray, hubs: np.ndarray, threshold: float, offset: float,
    spread: float, random: np.random.Generator,
) -> Chains:  # fmt: skip
    """Check chains whose middle item, j, is one of the items drawn; every chain is equally likely."""
    accepted = [np.flatnonzero(row >= threshold) for row in scores]
    each = np.array([math.comb(len(one), 2) for one in accepted], dtype=np.int64)
    possible = int(each.sum())
    if not possible:
        none = np.empty((0, 3))
        return Chains(threshold, 0, 0, 0, 0, none.astype(np.int64), none)
    count = min(CHAINS, possible)
    numbers = np.sort(random.choice(possible, count, replace=False) if possible < 5_000_000 else
                      np.unique(random.integers(0, possible, count)))  # fmt: skip
    hub = np.searchsorted(each.cumsum(), numbers, side="right")
    within = numbers - (each.cumsum() - each)[hub]
    # A pair (low < high) of one hub's accepted items has the number high (high - 1) / 2 + low.
    high = ((1 + np.sqrt(1 + 8 * within.astype(np.float64))) / 2).astype(np.int64)
    high -= high * (high - 1) // 2 > within
    high += (high + 1) * high // 2 <= within
    low = within - high * (high - 1) // 2
    i = np.array([accepted[one][at] for one, at in zip(hub, low, strict=True)])
    k = np.array([accepted[one][at] for one, at in zip(hub, high, strict=True)])
    ends = of.pairs(i, k)
    first, second = scores[hub, i].astype(np.float64), scores[hub, k].astype(np.float64)
    slack = offset + ends - first - second
    worst = ends.argsort(kind="stable")[:EXAMPLES]
    triples = np.column_stack([i, hubs[hub], k])
    return Chains(
        threshold, len(numbers), possible, int((ends < threshold - ROUNDING * spread).sum()),
        int((slack < -ROUNDING * spread).sum()), triples[worst], np.column_stack([first, second, ends])[worst],
    )  # fmt: skip


def checks_table(checks: list[PropertyCheck], protocol: str) -> pd.DataFrame:
    """Checks as a table to download."""
    import pandas as pd

    table = pd.DataFrame([vars(check) for check in checks], columns=[field.name for field in fields(PropertyCheck)])
    table.insert(0, "protocol", protocol)
    return table.rename(columns={"name": "property", "total": "of", "text": "finding"})
