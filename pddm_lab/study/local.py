"""When is a local metric worth it? Local and global metrics on one embedding, with the same ingredients.

A cell trains one embedding (recipes.py) and measures on it, on full and on thinned galleries:

    global   D; D of the whitened features, and of [x; w p] with a w of its own; a linear metric and a network of both
             cosines that learn on [x; w p]; the paper's unit, where the embedding has one
    local    the similarities without training, each with the k that is best on the folds; the unit on local structure,
             first pass and both

All that learns or is chosen beyond the embedding learns from the same episodes: held-out training classes and held-out
pictures, in full and thinned galleries (local/episodes.py). What is local re-ranks one shortlist, by z; so do the
network and the paper's unit. All else ranks the whole gallery.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pddm_lab.config import PRESETS, TrainConfig, runs_root
from pddm_lab.data.dataset import Protocol
from pddm_lab.data.near_duplicates import near_duplicate_groups
from pddm_lab.errors import ConfigError, unknown_name
from pddm_lab.local import fit
from pddm_lab.local.episodes import SHORTLIST, Episode
from pddm_lab.local.fit import choose_weight, episodes_of, fit_local_structure, fold_spaces, quality, train_unit
from pddm_lab.local.neighbourhoods import SCALES, Neighbourhoods
from pddm_lab.local.reciprocal import KReciprocal
from pddm_lab.local.similarity import CSLS, Expansion, Global, LocalSimilarity
from pddm_lab.local.space import joined
from pddm_lab.local.unit import LocalStructure, NeighbourhoodUnit
from pddm_lab.model.familiarity import PretrainedPart
from pddm_lab.study.cells import Study, key_of
from pddm_lab.study.material import FOLDS, Material, material_of
from pddm_lab.study.recipes import RECIPES, RecipeTraining, compute_on_materials, config_of, configured, split_of
from pddm_lab.study.work import Outcome, Task

EMBEDDINGS = ("quick", "arcface", "joint", "pretrained")
"""Recipes of the panel, and the frozen trunk's features as they are."""
DATASETS = ("emoji", "grocery", "caltech101", "fruits360")
THINNED = (1, 2, 3, 5, 10)
"""Items a class in the galleries besides the full one."""
RIVALS: dict[str, Sequence[LocalSimilarity]] = {
    "expansion": [Expansion(k) for k in SCALES],
    "both_expansion": [Expansion(k, both=True) for k in SCALES],
    "csls": [CSLS(k) for k in (5, 10, 20)],
    "k_reciprocal": [KReciprocal(6, 2), KReciprocal(20, 6)],
}
"""Without training; each with the settings to choose from."""
MOST_QUERIES = 1000
"""Of a thinned gallery."""
METRIC_RATE = 1e-3
"""Learning rate of the linear metric."""


def run_local(
    study: Study, part: str = "local", datasets: Sequence[str] = (), embeddings: Sequence[str] = (), *,
    base: Mapping[str, Any], folds: int = FOLDS, seeds: int = 0, steps: int = 0, processes: int = 1,
    progress: bool = True,
) -> Outcome:  # fmt: skip
    """Compute the cells of this part of a study that it doesn't have yet.

    Args:
        study: that keeps them.
        part: local, on the test classes; or local-folds, where each seed holds out a fold of the training classes.
        datasets: the materials; empty: `DATASETS`.
        embeddings: of `EMBEDDINGS`; empty: all.
        base: fields of `TrainConfig`, such as data_root.
        folds: of the training classes.
        seeds: trainings of each embedding; 0: five, or one for each fold.
        steps: of each training; 0: the default's.
        processes: that compute in parallel, each with one thread.
        progress: show bars while the trunk's features are computed.

    Raises:
        ConfigError: no such embedding.
        LabError: missing data, or a study with other settings.
    """
    for name in embeddings:
        if name not in EMBEDDINGS:
            raise ConfigError(unknown_name("embedding", name, EMBEDDINGS))
    steps, on_test = steps or PRESETS["quick"].steps, part == "local"
    study.record_settings(part, {"folds": folds, "steps": steps})
    configs = {name: config_of(name, base) for name in datasets or DATASETS}
    tasks = [
        Task(
            key_of(part, name, embedding, "test" if on_test else seed % folds, seed), measure_local,
            {"part": part, "config": config, "name": name, "embedding": embedding, "folds": folds,
             "fold": None if on_test else seed % folds, "seed": seed, "steps": steps},
            cost=400.0 * steps,
        )
        for seed in range(seeds or (5 if on_test else folds)) for name, config in configs.items()
        for embedding in embeddings or EMBEDDINGS
    ]  # fmt: skip
    return compute_on_materials(study, tasks, folds, processes, progress)


def measure_local(
    needed: Sequence[Mapping[str, Any]], *, part: str, config: TrainConfig, name: str, embedding: str, folds: int,
    fold: int | None, seed: int, steps: int,
) -> dict[str, Any]:  # fmt: skip
    """The cell of one embedding and all that is measured on it.

    Args:
        needed: unused; every task of a study takes it.
        part: of the study that the cell belongs to.
        config: of the material.
        name: of the material in the tables.
        fold: of the training classes that plays the unseen ones; None: the test's protocols.
    """
    material = material_of(config, folds)
    items, protocols = split_of(material, fold)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This gallery has")  # thinned galleries may be too small
        torch.manual_seed(seed)
        field = Field.of(material, embedding, items, steps, seed)
        metrics: dict[str, Any] = {}
        classes: dict[str, Any] = {}
        for protocol in protocols:
            for thinned, searched in galleries(material.dataset.labels, protocol, seed):
                ranked = dict(field.measure(searched))
                under = f"{protocol.name}, {thinned} a class" if thinned else protocol.name
                metrics[under] = {way: one.means() for way, one in ranked.items()}
                if not thinned:
                    classes[under] = {way: one.of_classes() for way, one in ranked.items()}
    return {
        "part": part, "dataset": name, "method": embedding, "seed": seed, "metrics": metrics, "classes": classes,
        "settings": {"embedding": embedding, "fold": fold, "steps": steps, **field.chosen},
    }  # fmt: skip


def galleries(labels: Int[np.ndarray, " items"], protocol: Protocol, seed: int) -> Iterator[tuple[int, Protocol]]:
    """The full gallery (0), and thinned ones by items a class, as long as classes have more.

    Under the unseen protocol all that isn't in a thinned gallery is a query.
    """
    yield 0, protocol
    random = np.random.default_rng(seed)
    shuffled = random.permutation(protocol.gallery)
    _, number, counts = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    order = np.argsort(number, kind="stable")
    within = np.empty(len(order), dtype=int)
    within[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    for count in (count for count in THINNED if count < np.median(counts)):
        kept, others = shuffled[within < count], shuffled[within >= count]
        queries = others if protocol.leave_one_out else protocol.query
        yield count, Protocol(protocol.name, random.permutation(queries)[:MOST_QUERIES], kept)


@dataclass(frozen=True, eq=False)
class Ranked:
    """How well each query was ranked."""

    hit: Bool[Tensor, " queries"]
    """Whether the best item is of its class."""
    precision: Float[Tensor, " queries"]
    """AP@R."""
    classes: Int[Tensor, " queries"]

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
        """R@1 and MAP@R over the queries."""
        return {"recall@1": float(self.hit.float().mean()), "map@r": float(self.precision.mean())}

    def of_classes(self) -> dict[str, list[float]]:
        """Of each class, in order: its queries, how many have a hit, and the sum of AP@R."""
        names, number, counts = self.classes.unique(return_inverse=True, return_counts=True)
        sums = [torch.zeros(len(names)).index_add_(0, number, each.float()) for each in (self.hit, self.precision)]
        return {
            "queries": counts.tolist(), "hits": sums[0].tolist(),
            "precisions": [round(value, 5) for value in sums[1].tolist()],
        }  # fmt: skip


class LinearMetric(nn.Module):
    """S = -|M (a - b)|^2, the Mahalanobis distance of a learned matrix, which starts at the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.matrix = nn.Linear(dim, dim, bias=False)
        self.scale = nn.Parameter(torch.tensor(10.0))
        nn.init.eye_(self.matrix.weight)

    def forward(
        self, queries: Float[Tensor, "queries dim"], items: Float[Tensor, "queries candidates dim"]
    ) -> Float[Tensor, "queries candidates"]:
        """Scores of queries with their candidates."""
        return -self.scale * (self.matrix(queries)[:, None] - self.matrix(items)).square().sum(-1)

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
            scores = self(one.features[query], one.reference.features[rows])
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
class Field:
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
    ) -> Field:  # fmt: skip
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
    def measure(self, protocol: Protocol) -> Iterator[tuple[str, Ranked]]:
        """Every way of ranking by name, measured on queries and a gallery."""
        query, gallery = torch.from_numpy(protocol.query), torch.from_numpy(protocol.gallery)
        own = torch.arange(len(query)) if protocol.leave_one_out else None
        same = self.labels[query, None] == self.labels[gallery]
        if own is not None:
            same[own, own] = False
        relevant, classes = same.sum(1), self.labels[query]

        def whole(features: Tensor) -> Ranked:
            left, right = features[query], features[gallery]
            scores = 2 * left @ right.T - right.square().sum(1)
            if own is not None:
                scores[own, own] = -torch.inf
            return Ranked.of(scores, same, relevant, classes)

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
        size = min(max(SHORTLIST, round(1.25 * largest)), len(gallery) - protocol.leave_one_out)
        rows = one_pass.shortlist(one_pass.queries(z[query], own), size)

        def shortlisted(scores: Tensor) -> Ranked:
            return Ranked.of(scores, same.gather(1, rows), relevant, classes)

        both = joined(white, self.p, 1.0)
        yield "cosines", shortlisted(self.cosines.candidates(both[query], both[gallery], rows))
        if self.scores is not None:
            yield "pddm", shortlisted(self.scores(self.x[query], self.x[gallery], rows))
        elif self.has_unit:
            yield "pddm", d
        yield "inductive", whole(self._expanded_by_training_items(z, protocol.gallery))
        ways = {**self.rivals, "local, first pass": self.structure}
        for name, similarity in ways.items():
            yield name, shortlisted(similarity.candidates(one_pass, z[query], rows, own))
        two_passes = self.structure.with_second(one_pass)
        yield "local", shortlisted(self.structure.candidates(two_passes, z[query], rows, own))

    def _expanded_by_training_items(self, z: Tensor, gallery: Int[np.ndarray, " items"]) -> Float[Tensor, "all z"]:
        """Both-sided expansion by neighbours among the training items alone; these are taken out of their own."""
        among = Neighbourhoods.of(z[self.train], first_part=self.structure.first_part)
        at = among.scales.index(getattr(self.rivals["both_expansion"], "k"))  # noqa: B009
        directions = among.queries(z).directions[:, at].clone()
        directions[self.train] = among.queries(z[self.train], torch.arange(len(self.train))).directions[:, at]
        return directions
