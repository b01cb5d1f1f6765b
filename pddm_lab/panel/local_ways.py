"""Every way to rank a gallery by one embedding, global and local, fitted on the same training items (local.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pddm_lab.config import runs_root
from pddm_lab.data.dataset import Protocol
from pddm_lab.data.near_duplicates import near_duplicate_groups
from pddm_lab.local import fit
from pddm_lab.local.episodes import Episode, shortlist_size
from pddm_lab.local.fit import choose_weight, episodes_of, fit_local_structure, fold_spaces, quality, train_unit
from pddm_lab.local.neighbourhoods import Neighbourhoods
from pddm_lab.local.reciprocal import KReciprocal
from pddm_lab.local.similarity import CSLS, Expansion, Global, LocalSimilarity
from pddm_lab.local.sizes import SCALES
from pddm_lab.local.space import joined
from pddm_lab.local.unit import LocalStructure, NeighbourhoodUnit
from pddm_lab.metrics.separation import highest_rejected
from pddm_lab.model.familiarity import PretrainedPart
from pddm_lab.panel.recipes import RECIPES, RecipeTraining, configured
from pddm_lab.study.material import Material

RIVALS: dict[str, Sequence[LocalSimilarity]] = {
    "expansion": [Expansion(k) for k in SCALES],
    "both_expansion": [Expansion(k, both=True) for k in SCALES],
    "csls": [CSLS(k) for k in (5, 10, 20)],
    "k_reciprocal": [KReciprocal(6, 2), KReciprocal(20, 6)],
}
"""Without training; each with the settings to choose from."""
METRIC_RATE = 1e-4
"""Learning rate of the linear metric; on folds 1e-3 costs it 2 to 7 points of MAP@R on unseen classes."""
PAIRS, NEGATIVES = 500, 100
"""Queries whose pairs are measured by a threshold, and negative pairs of each."""
THIRDS = ("sparse", "middle", "dense")
"""Of the queries, by their density."""


@dataclass(frozen=True, eq=False)
class Ranked:
    """How well each query was ranked."""

    hit: Bool[Tensor, " queries"]
    """Whether the best item is of its class."""
    precision: Float[Tensor, " queries"]
    """AP@R."""
    classes: Int[Tensor, " queries"]
    rates: Mapping[str, float] = field(default_factory=dict)
    """Of pairs, see `Pairs.rates`; empty if they weren't measured."""

    @classmethod
    def of(
        cls, scores: Float[Tensor, "queries candidates"], same: Bool[Tensor, "queries candidates"],
        relevant: Int[Tensor, " queries"], classes: Int[Tensor, " queries"],
    ) -> Ranked:  # fmt: skip
        """Rank candidates by their scores.

        Args:
            same: whether a candidate is of the query's class.
            relevant: items of the query's class in the gallery; queries without any don't count.
        """
        depth = min(int(relevant.max()), scores.shape[1])
        place = torch.arange(1, depth + 1)
        hits = same.gather(1, scores.topk(depth, dim=1).indices)
        within = hits & (place <= relevant[:, None])
        precision = (within.cumsum(1) / place * within).sum(1) / relevant.clamp(min=1)
        counts = relevant > 0
        return cls(hits[counts, 0], precision[counts], classes[counts])

    def means(self) -> dict[str, float]:
        """R@1 and MAP@R over the queries, and the rates of pairs."""
        return {"recall@1": float(self.hit.float().mean()), "map@r": float(self.precision.mean()), **self.rates}

    def of_classes(self) -> dict[str, list[float]]:
        """Of each class, in order: its queries, how many have a hit, and the sum of AP@R."""
        names, number, counts = self.classes.unique(return_inverse=True, return_counts=True)
        sums = [torch.zeros(len(names)).index_add_(0, number, each.float()) for each in (self.hit, self.precision)]
        return {
            "queries": counts.tolist(), "hits": sums[0].tolist(),
            "precisions": [round(value, 5) for value in sums[1].tolist()],
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Pairs:
    """A positive pair and `NEGATIVES` negative ones of up to `PAIRS` queries, which one threshold has to tell apart."""

    queries: Int[Tensor, " some"]
    """Places among the queries."""
    rows: Int[Tensor, "some items"]
    """Of the gallery; the positive one comes first."""
    third: Int[Tensor, " some"]
    """Of the queries by density, as numbered in `THIRDS`."""

    @classmethod
    def of(
        cls, same: Bool[Tensor, "queries items"], own: Int[Tensor, " queries"] | None,
        density: Float[Tensor, " queries"], seed: int,
    ) -> Pairs:  # fmt: skip
        """Draw pairs of queries and items, never of an item and itself."""
        random = torch.Generator().manual_seed(seed)
        useful = same.any(1).nonzero()[:, 0]
        queries = useful[torch.randperm(len(useful), generator=random)[:PAIRS]]
        others = ~same[queries]
        if own is not None:
            others[torch.arange(len(queries)), own[queries]] = False
        count = min(NEGATIVES, int(others.sum(1).min()))
        rows = [torch.multinomial(which.float(), each, generator=random)
                for which, each in ((same[queries], 1), (others, count))]  # fmt: skip
        order = density[queries].argsort().argsort()
        return cls(queries, torch.cat(rows, dim=1), order * len(THIRDS) // len(order))

    def rates(self, scores: Float[Tensor, "some items"]) -> dict[str, float]:
        """The TPR at a threshold that 1 % of all negative pairs pass, and both rates at that threshold by third."""
        positive, negative = scores[:, 0], scores[:, 1:]
        threshold = float(highest_rejected(np.sort(negative.flatten().numpy()), 0.01))
        rates = {"tpr@1%fpr": float((positive > threshold).float().mean())}
        for number, name in enumerate(THIRDS):
            of_third = self.third == number
            rates[f"{name} tpr"] = float((positive[of_third] > threshold).float().mean())
            rates[f"{name} fpr"] = float((negative[of_third] > threshold).float().mean())
        return rates


class LinearMetric(nn.Module):
    """S = -|M (a - b)|^2, the Mahalanobis distance of a learned matrix, which starts at the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.matrix = nn.Linear(dim, dim, bias=False)
        self.scale = nn.Parameter(torch.tensor(10.0))
        nn.init.eye_(self.matrix.weight)

    def forward(
        self, queries: Float[Tensor, "queries dim"], items: Float[Tensor, "items dim"],
        rows: Int[Tensor, "queries candidates"],
    ) -> Float[Tensor, "queries candidates"]:  # fmt: skip
        """Scores of queries with their candidates, which are rows of the items."""
        left, right = self.matrix(queries), self.matrix(items)
        squares = left.square().sum(1)[:, None] + right.square().sum(1) - 2 * left @ right.T
        return -self.scale * squares.gather(1, rows)

    def fit(self, episodes: Sequence[Episode], seed: int) -> LinearMetric:
        """Learn by the loss and as long as the unit on local structure does."""
        random = torch.Generator().manual_seed(seed)
        optimiser = torch.optim.AdamW(self.parameters(), lr=METRIC_RATE, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, fit.STEPS)
        order = torch.multinomial(torch.tensor([one.weight for one in episodes]), fit.STEPS, True, generator=random)
        for at in order.tolist():
            one = episodes[at]
            query = torch.randperm(len(one.rows), generator=random)[: fit.QUERIES]
            candidate = torch.randperm(one.rows.shape[1], generator=random)[: fit.CANDIDATES]
            rows = one.rows[query][:, candidate]
            scores = self(one.features[query], one.reference.features, rows)
            optimiser.zero_grad()
            fit.listwise_loss(scores, one.positive[query][:, candidate]).backward()
            optimiser.step()
            schedule.step()
        return self.requires_grad_(False)


class Cosines:
    """A network of the cosines of [x; p] and of x: global, since it looks at no neighbourhood."""

    def __init__(self, episodes: Sequence[Episode], seed: int) -> None:
        self.split = episodes[0].reference.first_part
        self.unit = NeighbourhoodUnit(2 if self.split else 1, 1)
        inputs = lambda one: self._inputs(one.features, one.reference.features, one.rows)  # noqa: E731
        train_unit(self.unit, episodes, inputs, seed, lambda step: None)

    @torch.no_grad()
    def candidates(
        self, queries: Float[Tensor, "queries dim"], gallery: Float[Tensor, "items dim"],
        rows: Int[Tensor, "queries candidates"],
    ) -> Float[Tensor, "queries candidates"]:  # fmt: skip
        """Scores of queries with their candidates, some queries at a time."""
        parts = zip(queries.split(fit.QUERIES), rows.split(fit.QUERIES), strict=True)
        return torch.cat([self.unit(*self._inputs(some, gallery, of_some)) for some, of_some in parts])

    def _inputs(self, queries: Tensor, gallery: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        parts = [(queries, gallery)]
        if self.split:
            parts.append((F.normalize(queries[:, : self.split], dim=1), F.normalize(gallery[:, : self.split], dim=1)))
        cosines = [torch.einsum("qd,qcd->qc", left, right[rows]) for left, right in parts]
        return torch.stack(cosines, dim=-1), torch.zeros(*rows.shape, 1)


@dataclass(frozen=True, eq=False)
class Ways:
    """One embedding of a material, and all that was learned or chosen on its training items."""

    labels: Int[Tensor, " all"]
    train: Int[Tensor, " items"]
    x: Float[Tensor, "all dim"]
    """Features of all items."""
    p: Float[Tensor, "all pretrained"] | None
    """Pretrained features of all items; None: x are these."""
    scores: Callable[[Tensor, Tensor, Tensor], Tensor] | None
    """S of the paper's unit, of queries, gallery, and rows; None: there is none, or it ranks like D."""
    has_unit: bool
    structure: LocalStructure
    rivals: Mapping[str, LocalSimilarity]
    weight: float
    """w of the global metrics."""
    metric: LinearMetric
    cosines: Cosines
    chosen: Mapping[str, Any]
    """What was chosen, for the record."""

    @classmethod
    def of(
        cls, material: Material, embedding: str, items: Int[np.ndarray, " items"], steps: int, seed: int
    ) -> Ways:  # fmt: skip
        """Train an embedding on some items, and everything else on top of it."""
        dataset, inputs, train = material.dataset, material.inputs, torch.from_numpy(items)
        groups = near_duplicate_groups(dataset, items, runs_root(material.config.runs_root) / ".features")
        x, p, of_folds, scores, chosen = F.normalize(inputs, dim=1), None, None, None, {}
        if has_unit := embedding != "pretrained":
            config = configured(material.config, embedding, steps, seed)
            has_unit = RECIPES[embedding].scores
            training = RecipeTraining(material, config, items, has_unit)
            model = training.train()
            x, chosen = training.embed(model), {**training.shares, "trained_steps": training.steps}
            scores = model.similarity("pddm").candidates if training.scores else None
            part = PretrainedPart(inputs.shape[1])
            part.fit(inputs[train])
            p = F.normalize(part(inputs), dim=1)
            heads = training.fold_features(groups)
            of_folds = lambda at, _: heads[at]  # noqa: E731
        y = torch.from_numpy(np.unique(dataset.labels[items], return_inverse=True)[1])
        mine, known = (x[train], y), None if p is None else p[train]
        structure = fit_local_structure(*mine, known, of_folds, seed=seed, groups=groups)
        spaces = fold_spaces(*mine, seed, of_folds, groups)
        weight = 0.0 if known is None else choose_weight(spaces, known, y, seed, Global())
        full = episodes_of(spaces, known, structure.weight, y, structure.first_part, seed, full=True)
        rivals = {name: max(each, key=lambda one: quality(one, full)) for name, each in RIVALS.items()}
        of_metric = episodes_of(spaces, known, weight, y, 0, seed)
        both = episodes_of(spaces, known, 1.0, y, 0 if known is None else x.shape[1], seed)
        settings = {name: {key: value for key, value in vars(one).items() if key in ("k", "k1", "k2")}
                    for name, one in rivals.items()}  # fmt: skip
        return cls(
            torch.from_numpy(dataset.labels), train, x, p, scores, has_unit, structure, rivals, weight,
            LinearMetric(of_metric[0].features.shape[1]).fit(of_metric, seed), Cosines(both, seed),
            {**chosen, "local_weight": structure.weight, "global_weight": weight, "rivals": settings},
        )  # fmt: skip

    @torch.no_grad()
    def measure(self, protocol: Protocol, seed: int, with_pairs: bool = False) -> Iterator[tuple[str, Ranked]]:
        """Every way of ranking by name, measured on queries and a gallery."""
        query, gallery = torch.from_numpy(protocol.query), torch.from_numpy(protocol.gallery)
        own = torch.arange(len(query)) if protocol.leave_one_out else None
        same = self.labels[query, None] == self.labels[gallery]
        if own is not None:
            same[own, own] = False
        relevant, classes = same.sum(1), self.labels[query]
        pairs = Pairs.of(same, own, self._densities(query, gallery, own), seed) if with_pairs else None

        def with_rates(ranked: Ranked, of_rows: Callable[[Tensor, Tensor], Tensor]) -> Ranked:
            return replace(ranked, rates=pairs.rates(of_rows(pairs.queries, pairs.rows))) if pairs else ranked

        def whole(features: Tensor) -> Ranked:
            left, right = features[query], features[gallery]
            scores = _closeness(left, right, own)
            return with_rates(
                Ranked.of(scores, same, relevant, classes), lambda at, rows: scores[at].gather(1, rows)
            )  # fmt: skip

        white = self.structure.whitening(self.x)
        z = joined(white, self.p if self.weight else None, self.weight)
        d = whole(self.x)
        yield "euclidean", d
        yield "whitened", whole(white)
        yield "joined", whole(z)
        yield "linear", whole(self.metric.matrix(z))
        z = self.structure.space(self.x, self.p)
        one_pass = Neighbourhoods.of(z[gallery], first_part=self.structure.first_part)
        largest = int(self.labels[gallery].bincount().max())
        size = min(shortlist_size(largest), len(gallery) - protocol.leave_one_out)
        shortlist = one_pass.shortlist(one_pass.queries(z[query], own), size)

        def shortlisted(of_rows: Callable[[Tensor, Tensor], Tensor]) -> Ranked:
            scores = of_rows(torch.arange(len(query)), shortlist)
            return with_rates(Ranked.of(scores, same.gather(1, shortlist), relevant, classes), of_rows)

        def local(similarity: LocalSimilarity, reference: Neighbourhoods) -> Ranked:
            return shortlisted(lambda at, rows: similarity.candidates(
                reference, z[query[at]], rows, None if own is None else own[at]
            ))  # fmt: skip

        both, paper = joined(white, self.p, 1.0), self.scores
        yield "cosines", shortlisted(lambda at, rows: self.cosines.candidates(both[query[at]], both[gallery], rows))
        if paper is not None:
            yield "pddm", shortlisted(lambda at, rows: paper(self.x[query[at]], self.x[gallery], rows))
        elif self.has_unit:
            yield "pddm", d
        yield "inductive", whole(self._expanded_by_training_items(z))
        for name, similarity in {**self.rivals, "local, first pass": self.structure}.items():
            yield name, local(similarity, one_pass)
        yield "local", local(self.structure, self.structure.with_second(one_pass))

    def _densities(self, query: Tensor, gallery: Tensor, own: Tensor | None) -> Float[Tensor, " queries"]:
        """How close the 10 nearest items of the gallery are by D."""
        scores = _closeness(self.x[query], self.x[gallery], own)
        return scores.topk(min(10, scores.shape[1] - 1), dim=1).values.mean(1)

    def _expanded_by_training_items(self, z: Tensor) -> Float[Tensor, "all z"]:
        """Both-sided expansion by neighbours among the training items alone; these are taken out of their own."""
        among = Neighbourhoods.of(z[self.train], first_part=self.structure.first_part)
        at = among.scales.index(getattr(self.rivals["both_expansion"], "k"))  # noqa: B009
        directions = among.queries(z).directions[:, at].clone()
        directions[self.train] = among.queries(z[self.train], torch.arange(len(self.train))).directions[:, at]
        return directions


def _closeness(left: Tensor, right: Tensor, own: Tensor | None) -> Float[Tensor, "queries items"]:
    """The negated squared distance; of a query with its own row -inf."""
    scores = 2 * left @ right.T - right.square().sum(1) - left.square().sum(1)[:, None]
    if own is not None:
        scores[torch.arange(len(left)), own] = -torch.inf
    return scores
