"""What each dimension of a pair adds to D, D_M and S, against slow loops."""

import math

import numpy as np
import pytest
import reference
import torch

from pddm_lab.analysis.explain import explain
from pddm_lab.model.pddm import PDDM
from pddm_lab.model.similarity import Mahalanobis

DIM = 12


def make_unit(hidden: int = 0, normalize_input: bool = False, seed: int = 0) -> PDDM:
    torch.manual_seed(seed)
    unit = PDDM(DIM, hidden, normalize_input=normalize_input)
    with torch.no_grad():  # an untrained unit scores all pairs nearly alike
        unit.score.weight.mul_(20)
        unit.joint.weight.mul_(4)
    return unit


def pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = reference.unit_features(2, DIM, seed).float().numpy()
    return a, b


@pytest.mark.parametrize("normalize_input", [False, True])
@pytest.mark.parametrize("hidden", [0, 7, 40])
@pytest.mark.parametrize("seed", range(4))
def test_the_contributions_of_the_dimensions_sum_to_the_score(hidden: int, normalize_input: bool, seed: int) -> None:
    unit = make_unit(hidden, normalize_input, seed)
    a, b = pair(seed)
    why = explain(a, b, unit)
    assert why.score == pytest.approx(reference.pddm_score(unit, a.tolist(), b.tolist()), abs=1e-9)
    total = why.score - why.score_of_equals
    assert why.score_parts.sum() == pytest.approx(total, abs=1e-3 * max(abs(why.score), abs(why.score_of_equals)))
    assert abs(total) > 1e-2, "a pair that tells the two apart"


def test_the_parts_are_the_slopes_along_the_path() -> None:
    unit, (a, b) = make_unit(9).double(), pair(5)
    u, v = (torch.tensor(x, dtype=torch.float64) for x in (abs(a.astype("f8") - b), (a.astype("f8") + b) / 2))
    steps, slow = 2000, [0.0] * DIM
    for step in range(steps):
        at = ((step + 0.5) / steps * u).requires_grad_()
        (slope,) = torch.autograd.grad(unit.score_of(at, v), at)
        slow = [so_far + float(one) / steps for so_far, one in zip(slow, slope * u, strict=True)]
    why = explain(a, b, unit)
    np.testing.assert_allclose(why.score_parts, slow, atol=2e-3)
    assert why.score_of_equals == pytest.approx(float(unit.score_of(torch.zeros_like(u), v).detach()))
    np.testing.assert_allclose(why.u, u)
    np.testing.assert_allclose(why.v, v)


def test_a_dimension_that_the_unit_cannot_see_adds_nothing() -> None:
    unit = make_unit()
    with torch.no_grad():
        unit.difference.weight[:, 3] = 0
    why = explain(*pair(1), unit)
    assert why.score_parts[3] == 0
    assert why.distance_shares[3] > 0


def test_squared_distances_are_shared_out_exactly() -> None:
    torch.manual_seed(0)
    metric = Mahalanobis(DIM)
    torch.nn.init.normal_(metric.map.weight)
    a, b = pair(2)
    why = explain(a, b, make_unit(), metric)
    differences = [float(x) - float(y) for x, y in zip(a, b, strict=True)]
    squares = [x * x for x in differences]
    assert why.distance == pytest.approx(math.sqrt(sum(squares)))
    np.testing.assert_allclose(why.distance_shares, [x / sum(squares) for x in squares])
    weight = metric.map.weight.double().tolist()
    m = [[sum(row[i] * row[j] for row in weight) for j in range(DIM)] for i in range(DIM)]
    parts = [differences[i] * sum(m[i][j] * differences[j] for j in range(DIM)) for i in range(DIM)]
    assert why.mahalanobis == pytest.approx(math.sqrt(sum(parts)))
    assert why.mahalanobis == pytest.approx(-metric(torch.tensor(a), torch.tensor(b)).item(), rel=1e-5)
    assert why.mahalanobis_shares is not None
    np.testing.assert_allclose(why.mahalanobis_shares, [x / sum(parts) for x in parts])


@pytest.mark.parametrize("normalize_input", [False, True])
def test_the_same_difference_elsewhere(normalize_input: bool) -> None:
    unit = make_unit(9, normalize_input).double()
    a, b = pair(3)
    places = reference.unit_features(5, DIM, 9).numpy()
    why = explain(a, b, unit, places=places)
    slow = []
    for place in places:
        u, v = torch.tensor(why.u), torch.tensor(place * np.linalg.norm(why.v))
        if normalize_input:
            u, v = u / u.norm(), v / v.norm()
        slow.append(float(unit.score_of(u, v)))
    np.testing.assert_allclose(why.elsewhere, slow)
    assert why.gain == pytest.approx(why.score - sum(slow) / 5)
    assert why.places_below == sum(score < why.score for score in slow) / 5


def test_an_identical_pair_has_nothing_to_share_out() -> None:
    a, _ = pair(4)
    why = explain(a, a, make_unit(), Mahalanobis(DIM))
    assert (why.distance, why.mahalanobis, why.score) == (0, 0, why.score_of_equals)
    for parts in (why.distance_shares, why.mahalanobis_shares, why.score_parts):
        np.testing.assert_array_equal(parts, 0)
    assert math.isnan(why.places_below)
    assert why.gain == 0


def test_the_strongest_dimensions_weigh_most_in_both() -> None:
    why = explain(*pair(6), make_unit())
    parts = abs(why.score_parts) / abs(why.score_parts).sum()
    order = sorted(range(DIM), key=lambda d: -(why.distance_shares[d] + parts[d]))
    assert why.strongest(5).tolist() == order[:5]
    assert len(why.strongest(100)) == DIM


def test_explaining_leaves_the_unit_as_it_was() -> None:
    unit = make_unit()
    before = {name: value.clone() for name, value in unit.state_dict().items()}
    explain(*pair(7), unit.train())
    assert unit.training
    assert all(torch.equal(value, before[name]) for name, value in unit.state_dict().items())
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in unit.parameters())
