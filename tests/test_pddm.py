import pytest
import reference
import torch

from pddm_lab.model.pddm import PDDM


@pytest.mark.parametrize("normalize_input", [False, True])
@pytest.mark.parametrize("hidden", [0, 7])
def test_scores_equal_the_slow_reference(hidden, normalize_input):
    torch.manual_seed(0)
    unit = PDDM(dim=5, hidden=hidden, normalize_input=normalize_input).double()
    a, b = reference.unit_features(6, 5, 1), reference.unit_features(6, 5, 2)
    expected = [reference.pddm_score(unit, x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    torch.testing.assert_close(unit(a, b), torch.tensor(expected, dtype=torch.float64))


def test_known_value():
    unit = PDDM(dim=2).double()
    with torch.no_grad():
        for layer in (unit.difference, unit.position):
            layer.weight.copy_(torch.eye(2))
            layer.bias.zero_()
        unit.joint.weight.copy_(torch.cat([torch.eye(2), torch.eye(2)], dim=1))
        unit.joint.bias.zero_()
        unit.score.weight.fill_(1.0)
        unit.score.bias.fill_(3.0)
    a, b = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()
    # u = (1, 1), v = (.5, .5): both normalise to (1, 1) / sqrt(2), so c = (sqrt 2, sqrt 2).
    torch.testing.assert_close(unit(a, b), torch.tensor([2 * 2**0.5 + 3]).double())


def test_the_score_is_symmetric_and_broadcasts():
    unit = PDDM(dim=8).double()
    a, b = reference.unit_features(3, 8, 1), reference.unit_features(4, 8, 2)
    table = unit(a[:, None], b[None])
    assert table.shape == (3, 4)
    torch.testing.assert_close(table, unit(b[:, None], a[None]).T)


def test_gradients_of_features_and_weights():
    torch.manual_seed(0)
    unit = PDDM(dim=4).double()
    a, b = reference.unit_features(3, 4, 1).requires_grad_(), reference.unit_features(3, 4, 2).requires_grad_()
    assert torch.autograd.gradcheck(unit, (a, b))
    unit(a, b).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in unit.parameters())


def test_an_item_with_itself_gives_a_finite_score_and_gradient():
    unit = PDDM(dim=4)
    a = reference.unit_features(2, 4, dtype=torch.float32).requires_grad_()
    unit(a, a).sum().backward()
    assert torch.isfinite(a.grad).all()


def test_dropout_acts_in_training_only():
    unit = PDDM(dim=16, dropout=0.5)
    a, b = reference.unit_features(2, 16, 1, torch.float32), reference.unit_features(2, 16, 2, torch.float32)
    assert not torch.equal(unit(a, b), unit(a, b))
    unit.eval()
    assert torch.equal(unit(a, b), unit(a, b))


def test_a_unit_that_corrects_the_distance_starts_as_the_distance():
    unit = PDDM(6, global_weight=3.0).double()
    a, b = reference.unit_features(5, 6, 1), reference.unit_features(5, 6, 2)
    torch.testing.assert_close(unit(a, b) - unit.score.bias, -3 * (a - b).norm(dim=1))
    torch.nn.init.normal_(unit.score.weight)
    expected = [reference.pddm_score(unit, *pair) for pair in zip(a.tolist(), b.tolist(), strict=True)]
    torch.testing.assert_close(unit(a, b), torch.tensor(expected, dtype=torch.float64))
    assert torch.autograd.gradcheck(unit, (a.requires_grad_(), b.requires_grad_()))
    (at_zero,) = torch.autograd.grad(unit(a, a).sum(), a)
    assert at_zero.isfinite().all()


def test_without_its_place_a_pair_scores_alike_everywhere():
    torch.manual_seed(0)
    unit = PDDM(6, position=False).double()
    a, b = reference.unit_features(5, 6, 1), reference.unit_features(5, 6, 2)
    torch.testing.assert_close(unit(a, b), unit(a + 0.7, b + 0.7))
    assert (PDDM(6).double()(a, b) - PDDM(6).double()(a + 0.7, b + 0.7)).abs().max() > 0.01
    optimizer = torch.optim.AdamW(unit.parameters(), lr=0.1)
    unit(a, b).sum().backward()
    optimizer.step()
    assert not any(parameter.any() for parameter in unit.position.parameters())
