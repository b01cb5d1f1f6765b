"""Train the unit on local structure from any array of features: seconds on a processor, no constant per data set."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pddm_lab.errors import DataError
from pddm_lab.local.episodes import Episode, Fold, episode, folds, map_at_r, splits
from pddm_lab.local.similarity import Expansion, LocalSimilarity
from pddm_lab.local.space import Array, Whitening, as_tensor, joined
from pddm_lab.local.unit import LocalStructure, NeighbourhoodUnit, first_inputs
from pddm_lab.progress import Progress

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 1.5)
"""w of the pretrained features to choose from."""
STEPS, QUERIES, CANDIDATES = 450, 48, 250
LEARNING_RATE, DECAY = 5e-3, 1e-3

Inputs = Callable[[Episode], tuple[Tensor, Tensor]]
Spaces = Sequence[tuple[Fold, Float[Tensor, "items dim"]]]
"""Folds, each with the features of all items in it."""


def listwise_loss(
    scores: Float[Tensor, "queries candidates"], positive: Bool[Tensor, "queries candidates"]
) -> Float[Tensor, ""]:
    """Mean of log(1 + sum of exp S of the negatives / exp S of a positive), over the positives, then over the queries.

    Queries without a positive or without a negative don't count; without any others the loss is 0.
    """
    against = scores.masked_fill(positive, -torch.inf).logsumexp(1, keepdim=True)
    ranked = positive.any(1) & ~positive.all(1)
    losses = F.softplus(against[ranked] - scores[ranked]).where(positive[ranked], 0)
    each = losses.sum(1) / positive[ranked].sum(1)
    return each.mean() if len(each) else scores.sum() * 0


def fit_local_structure(
    features: Float[Array, "items dim"], labels: Int[Array, " items"],
    pretrained: Float[Array, "items pretrained"] | None = None,
    fold_features: Callable[[int, Fold], Float[Array, "items dim"]] | None = None, passes: int = 2, seed: int = 0,
    progress: Progress | None = None, groups: Int[Array, " items"] | None = None, steps: int | None = None,
) -> LocalStructure:  # fmt: skip
    """Fit the similarity on local structure to training items.

    Args:
        features: of the training items, of any length.
        labels: their classes.
        pretrained: features of a frozen trunk, which z may hold too; the weight is chosen on the folds.
        fold_features: the features of all items by an embedding that was trained on a fold's `rest` alone. None: the
            same features in all folds. If their embedding was trained on the same labels, unseen classes then look
            easier in training than they are.
        passes: 1 or 2. The second costs more time per search and ranks better.
        seed: of the folds, the samples and the unit.
        progress: told of each step.
        groups: of near-duplicates (data/near_duplicates.py), of which none is held out without the others.
        steps: of each pass; None: `STEPS`.

    Raises:
        DataError: fewer than 4 classes of at least 2 items, values that are no numbers, or shapes that don't match.
    """
    x, y, p = _checked(features, labels, pretrained)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This gallery has")  # thinned galleries may be too small
        torch.manual_seed(seed)
        spaces = fold_spaces(x, y, seed, fold_features, groups)
        weight = 0.0 if p is None else choose_weight(spaces, p, y, seed)
        structure = LocalStructure(x.shape[1], p is not None, weight, passes)
        structure.whitening.fit(x, y)
        learned = episodes_of(spaces, p, weight, y, structure.first_part, seed)
        if not learned:
            raise DataError(f"Expected more items to learn neighbourhoods from, got {len(x)}. Add items or classes.")
        report = progress or (lambda done, total, what: None)
        steps = steps or STEPS
        total = steps * passes
        seen = train_unit(
            structure.first, learned, first_of, seed, lambda step: report(step, total, "first pass"), steps
        )  # fmt: skip
        if structure.second is not None:
            _calibrate(structure, learned, seen)
            learned = [_with_second(structure, one) for one in learned]
            again = partial(second_of, structure)
            train_unit(
                structure.second, learned, again, seed, lambda step: report(steps + step, total, "second pass"), steps
            )  # fmt: skip
    return structure.eval().requires_grad_(False)


def fold_spaces(
    features: Float[Tensor, "items dim"], labels: Int[Tensor, " items"], seed: int,
    fold_features: Callable[[int, Fold], Float[Array, "items dim"]] | None = None,
    groups: Int[Array, " items"] | None = None,
) -> Spaces:  # fmt: skip
    """The folds, each with x_w of all items, whitened on what the fold may fit on. Arguments: `fit_local_structure`."""
    spaces = []
    for at, fold in enumerate(folds(labels, seed, None if groups is None else as_tensor(groups).long())):
        x = features if fold_features is None else as_tensor(fold_features(at, fold)).float()
        spaces.append((fold, Whitening(x.shape[1]).fit(x[fold.rest], labels[fold.rest])(x)))
    return spaces


def episodes_of(
    spaces: Spaces, pretrained: Float[Tensor, "items pretrained"] | None, weight: float, labels: Int[Tensor, " items"],
    first_part: int, seed: int, full: bool = False,
) -> list[Episode]:  # fmt: skip
    """The episodes of all folds, with z = [x_w; w p].

    Args:
        first_part: as for `Neighbourhoods.of`.
        full: leave out the thinned galleries.
    """
    return [
        made for fold, white in spaces for split in splits(fold, labels, seed) if split.is_full or not full
        if (made := episode(split, _joined(white, pretrained, weight), labels, first_part, seed)) is not None
    ]  # fmt: skip


def quality(similarity: LocalSimilarity, episodes: Sequence[Episode]) -> float:
    """Mean log MAP@R. The logarithm keeps the known classes, whose values are larger, from deciding alone."""
    scored = ((similarity.candidates(one.reference, one.features, one.rows, one.own), one) for one in episodes)
    logs = [math.log(max(map_at_r(scores, one), 1e-6)) for scores, one in scored]
    return float(np.mean(logs)) if logs else 0.0


def choose_weight(
    spaces: Spaces, pretrained: Float[Tensor, "items pretrained"], labels: Int[Tensor, " items"], seed: int,
    by: LocalSimilarity | None = None,
) -> float:  # fmt: skip
    """w with the best `quality` over the full galleries of the folds, by both-sided expansion or what is given."""
    similarity = by or Expansion(both=True)
    return max(
        WEIGHTS, key=lambda weight: quality(
            similarity, episodes_of(spaces, pretrained, weight, labels, 0, seed, full=True)
        ),
    )  # fmt: skip


def train_unit(
    unit: NeighbourhoodUnit,
    episodes: Sequence[Episode],
    inputs: Inputs,
    seed: int,
    report: Callable[[int], None],
    steps: int = STEPS,
) -> list[tuple[Tensor, Tensor]]:
    """Train a unit in place by the listwise loss, on batches of queries from one episode at a time.

    Returns:
        u and v of each episode.
    """
    with torch.no_grad():
        seen = [_in_parts(inputs, one) for one in episodes]
    unit.standardise(*(torch.cat([one[part].flatten(0, 1) for one in seen]) for part in (0, 1)))
    random = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(unit.parameters(), lr=LEARNING_RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    order = torch.multinomial(torch.tensor([one.weight for one in episodes]), steps, True, generator=random)
    for step, at in enumerate(order.tolist(), 1):
        (u, v), positive = seen[at], episodes[at].positive
        query = torch.randperm(len(positive), generator=random)[:QUERIES, None]
        candidate = torch.randperm(positive.shape[1], generator=random)[:CANDIDATES]
        loss = listwise_loss(unit(u[query, candidate], v[query, candidate]), positive[query, candidate])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        report(step)
    return seen


def first_of(one: Episode) -> tuple[Tensor, Tensor]:
    """u and v of the first pass of an episode."""
    return first_inputs(one.reference, one.reference.queries(one.features, one.own), one.rows)


def second_of(structure: LocalStructure, one: Episode) -> tuple[Tensor, Tensor]:
    """u and v of the second pass of an episode whose gallery has the lists for it."""
    return structure.second_inputs(one.reference, one.reference.queries(one.features, one.own), one.rows)


def _in_parts(inputs: Inputs, whole: Episode) -> tuple[Tensor, Tensor]:
    """The inputs of an episode, some queries at a time: limits the memory."""
    parts = []
    for start in range(0, len(whole.rows), QUERIES):
        some = slice(start, start + QUERIES)
        own = None if whole.own is None else whole.own[some]
        parts.append(inputs(replace(whole, features=whole.features[some], rows=whole.rows[some], own=own)))
    us, vs = zip(*parts, strict=True)
    return torch.cat(us), torch.cat(vs)


@torch.no_grad()
def _with_second(structure: LocalStructure, one: Episode) -> Episode:
    return replace(one, reference=structure.with_second(one.reference))


@torch.no_grad()
def _calibrate(structure: LocalStructure, episodes: Sequence[Episode], seen: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Fit the probability of one class to the scores of the first pass: logistic, each episode by its weight."""
    from sklearn.linear_model import LogisticRegression

    scores, same, weights = [], [], []
    for one, (u, v) in zip(episodes, seen, strict=True):
        scores.append(structure.first(u, v).flatten())
        same.append(one.positive.flatten())
        weights.append(torch.full(scores[-1].shape, one.weight / len(scores[-1])))
    of_pairs = torch.cat(weights).double().numpy()
    logistic = LogisticRegression(C=1e6)
    logistic.fit(torch.cat(scores)[:, None].numpy(), torch.cat(same).numpy(), of_pairs * len(of_pairs))
    structure.calibration.copy_(torch.tensor([float(logistic.coef_[0, 0]), float(logistic.intercept_[0])]))


def _checked(features: Array, labels: Array, pretrained: Array | None) -> tuple[Tensor, Tensor, Tensor | None]:
    x, y = as_tensor(features).float(), as_tensor(labels).long()
    p = None if pretrained is None else as_tensor(pretrained).float()
    if x.ndim != 2 or y.shape != x.shape[:1] or (p is not None and (p.ndim != 2 or len(p) != len(x))):
        shapes = [tuple(part.shape) for part in (x, y, p) if part is not None]
        raise DataError(f"Expected features (items, dim), labels (items,) and one row each, got shapes {shapes}.")
    if not all(part.isfinite().all() for part in (x, p) if part is not None):
        raise DataError("Expected numbers in all features, got NaN or infinity. Compute these features anew.")
    return x, y.unique(return_inverse=True)[1], None if p is None else F.normalize(p, dim=1)


def _joined(white: Tensor, pretrained: Tensor | None, weight: float) -> Tensor:
    return joined(white, pretrained if weight else None, weight)
