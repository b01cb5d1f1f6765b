"""A unit of the paper's form whose u and v describe the neighbourhoods of two items, not their coordinates.

    S(q, g) = a . u + W_s relu(W_c [u'; v'])   with   u' = norm relu(W_u u), v' = norm relu(W_v v), norm x = x / ||x||

u and v (evidence.py) say how much both neighbourhoods agree and what kind of place it is, without labels. They mean the
same everywhere, so what the unit learns of some classes holds for classes it never met. It starts at S = cos z, up to
scale: a is 1 for the cosine and 0 elsewhere, W_s = 0.

The second pass lists everybody's neighbours by S instead of the cosine, weighed by the probability of one class, and
looks at these neighbourhoods with a unit of the same form, which starts at the S of the first pass.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pddm_lab.errors import DataError
from pddm_lab.local.evidence import evidence
from pddm_lab.local.neighbourhoods import Neighbourhoods, Queries, regions
from pddm_lab.local.similarity import AT_ONCE, LocalSimilarity
from pddm_lab.local.sizes import LENGTH, LIMIT, NEAR, SCALES, SECOND_SCALES
from pddm_lab.local.space import Array, Whitening, as_tensor, joined

HIDDEN = 32
_AGREEMENTS = {False: 2 * len(SCALES) + 6, True: 2 * len(SCALES) + 7}
_PLACES = len(SCALES) + 5


class NeighbourhoodUnit(nn.Module):
    """S of u and v; larger is more similar. The first value of u is what S starts at.

    Args:
        agreements: values in u.
        places: values in v.
    """

    u_mean: Tensor
    u_deviation: Tensor
    v_mean: Tensor
    v_deviation: Tensor

    def __init__(self, agreements: int, places: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.skip = nn.Parameter(F.one_hot(torch.tensor(0), agreements).float())
        self.agreement = nn.Linear(agreements, hidden)
        self.place = nn.Linear(places, hidden)
        self.joint = nn.Linear(2 * hidden, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.score.weight)
        for name, size in (("u", agreements), ("v", places)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_deviation", torch.ones(size))

    @torch.no_grad()
    def standardise(self, u: Float[Tensor, "*pairs agreements"], v: Float[Tensor, "*pairs places"]) -> None:
        """Take the mean and deviation of the inputs from examples; a value that never changes keeps the deviation 1."""
        for name, values in (("u", u.flatten(0, -2)), ("v", v.flatten(0, -2))):
            deviation = values.std(0)
            getattr(self, f"{name}_mean").copy_(values.mean(0))
            getattr(self, f"{name}_deviation").copy_(deviation.where(deviation > 1e-6, 1.0))

    def forward(self, u: Float[Tensor, "*pairs agreements"], v: Float[Tensor, "*pairs places"]) -> Tensor:
        """S, (pairs)."""
        u = ((u - self.u_mean) / self.u_deviation).clamp(-LIMIT, LIMIT)
        v = ((v - self.v_mean) / self.v_deviation).clamp(-LIMIT, LIMIT)
        agreement = F.normalize(F.relu(self.agreement(u)), dim=-1)
        place = F.normalize(F.relu(self.place(v)), dim=-1)
        joint = F.relu(self.joint(torch.cat([agreement, place], dim=-1)))
        return u @ self.skip + self.score(joint).squeeze(-1)


class LocalStructure(nn.Module, LocalSimilarity):
    """The similarity on local structure. `fit_local_structure` makes one.

    Args:
        dim: of the features.
        pretrained: whether z holds pretrained features too.
        weight: w of the pretrained features.
        passes: 1 or 2.
    """

    name = "local"
    calibration: Tensor

    def __init__(self, dim: int, pretrained: bool = False, weight: float = 0.0, passes: int = 2) -> None:
        super().__init__()
        self.dim, self.weight = dim, weight if pretrained else 0.0
        self.whitening = Whitening(dim)
        first, second = _AGREEMENTS[self.first_part > 0], 2 * len(SECOND_SCALES) + 5
        self.first = NeighbourhoodUnit(first, _PLACES)
        self.second: NeighbourhoodUnit | None = None
        if passes == 2:
            self.second = NeighbourhoodUnit(1 + first + second, _PLACES + len(SECOND_SCALES) + 5)
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    @property
    def first_part(self) -> int:
        """Dimensions of x in z = [x; w p]; 0 if z is x alone."""
        return self.dim if self.weight else 0

    @torch.no_grad()
    def space(
        self, features: Float[Array, "n dim"], pretrained: Float[Array, "n pretrained"] | None = None
    ) -> Float[Tensor, "n z"]:
        """z of features, of unit length. A similarity that was fitted with pretrained features needs them here too.

        Raises:
            DataError: the pretrained features are missing.
        """
        if not self.weight:
            return self.whitening(as_tensor(features))
        if pretrained is None:
            raise DataError("Expected pretrained features too, since this similarity was fitted with them. Pass them.")
        return joined(self.whitening(as_tensor(features)), F.normalize(as_tensor(pretrained), dim=1), self.weight)

    def reference(
        self, features: Float[Array, "items dim"], pretrained: Float[Array, "items pretrained"] | None = None
    ) -> Neighbourhoods:
        """The gallery as this similarity sees it, with the lists of the second pass."""
        z = self.space(features, pretrained)
        if self.second is None:
            return Neighbourhoods.of(z, first_part=self.first_part)
        return self.with_second(*Neighbourhoods.with_nearest(z, first_part=self.first_part))

    @torch.no_grad()
    def with_second(
        self, reference: Neighbourhoods, nearest: Int[Tensor, "items near"] | None = None
    ) -> Neighbourhoods:  # fmt: skip
        """Add the lists of the second pass: everybody's best by S, in the gallery as it is.

        Args:
            reference: the gallery.
            nearest: rows of each item's `NEAR` nearest others; None: they are searched for.
        """
        if self.second is None or reference.note:
            return reference
        order = regions(reference.features, torch.arange(len(reference))).argsort(stable=True)
        listed = self.second_lists(reference, order, None if nearest is None else nearest[order])
        neighbours, best = (each[order.argsort()] for each in listed)
        second = reference.relisted(neighbours, best, self.probabilities(best), SECOND_SCALES)
        return replace(reference, second=second)

    def second_lists(
        self, reference: Neighbourhoods, rows: Int[Tensor, " rows"], nearest: Int[Tensor, "rows near"] | None = None
    ) -> tuple[Int[Tensor, "rows kept"], Float[Tensor, "rows kept"]]:
        """The best of some items by S, and their S; `nearest` as in `with_second`."""
        neighbours, scores = [], []
        for at in torch.arange(len(rows)).split(max(AT_ONCE // NEAR, 1)):
            own = rows[at]
            queries = reference.queries(reference.features[own], own)
            near = reference.shortlist(queries, NEAR) if nearest is None else nearest[at].long()
            best, listed = _listed(near, self.first(*first_inputs(reference, queries, near)), LENGTH + 1)
            neighbours.append(listed)
            scores.append(best)
        return torch.cat(neighbours), torch.cat(scores)

    def probabilities(self, scores: Float[Tensor, "*pairs"]) -> Float[Tensor, "*pairs"]:
        """The probability of one class by the S of the first pass."""
        return torch.sigmoid(self.calibration[0] * scores + self.calibration[1])

    def second_inputs(
        self, reference: Neighbourhoods, queries: Queries, rows: Int[Tensor, "queries candidates"]
    ) -> tuple[Tensor, Tensor]:
        """u and v of the second pass: the S and the inputs of the first, and the neighbourhoods by S."""
        assert reference.second is not None
        u, v = first_inputs(reference, queries, rows)
        scores = self.first(u, v)
        if queries.nearest is None:
            again = reference.second.queries(queries.features, queries.own)
        else:
            near = queries.nearest.long()
            start = rows[:, : near.shape[1]]  # usually the candidates are a shortlist, which starts with the nearest
            is_shortlist = start.shape == near.shape and torch.equal(start.sort(1).values, near.sort(1).values)
            of_near = (
                scores[:, : near.shape[1]] if is_shortlist else self.first(*first_inputs(reference, queries, near))
            )
            best, listed = _listed(start if is_shortlist else near, of_near, LENGTH)
            again = reference.second.listed_queries(queries.features, listed, best, self.probabilities(best))
        seen = evidence(reference.second, again, rows, scores)
        more_u, more_v = torch.stack(seen.u(), dim=-1), torch.stack(seen.v(), dim=-1)
        return torch.cat([scores[..., None], u, more_u], dim=-1), torch.cat([v, more_v], dim=-1)

    def _candidates(self, reference: Neighbourhoods, queries: Queries, rows: Tensor) -> Tensor:
        if self.second is None or reference.second is None:
            return self.first(*first_inputs(reference, queries, rows))
        return self.second(*self.second_inputs(reference, queries, rows))


def _listed(rows: Tensor, scores: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The best scores and their rows, padded where there are fewer."""
    best, at = scores.topk(min(length, scores.shape[1]), dim=1)
    missing = (0, length - best.shape[1])
    return F.pad(best, missing, value=-torch.inf), F.pad(rows.gather(1, at), missing).to(torch.int32)


def first_inputs(
    reference: Neighbourhoods, queries: Queries, rows: Int[Tensor, "queries candidates"]
) -> tuple[Float[Tensor, "queries candidates u"], Float[Tensor, "queries candidates v"]]:
    """u and v of the first pass; the first value of u is the cosine."""
    seen = evidence(reference, queries, rows)
    parts = [] if seen.first_part is None else [seen.first_part]
    return torch.stack([seen.cosine, *parts, *seen.u()], dim=-1), torch.stack(seen.v(), dim=-1)
