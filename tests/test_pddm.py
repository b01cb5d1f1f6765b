import pytest
import reference
import torch

from pddm_lab.model.pddm import PDDM, safe_sqrt


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


@pytest.mark.parametrize("options", [{}, {"normalize_input": True}, {"global_weight": 2.0}])
def test_the_score_is_symmetric_and_broadcasts(options):
    unit = PDDM(dim=8, **options).double()
    a, b = reference.unit_features(3, 8, 1), reference.unit_features(4, 8, 2)
    table = unit(a[:, None], b[None])
    expected = [[reference.pddm_score(unit, x, y) for y in b.tolist()] for x in a.tolist()]
    torch.testing.assert_close(table, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(table, unit(b[:, None], a[None]).T)


def test_the_layers_are_as_wide_as_asked():
    assert PDDM().difference.weight.shape == (128, 128)
    for unit, width in ((PDDM(5), 5), (PDDM(5, hidden=7), 7)):
        assert unit.difference.weight.shape == unit.position.weight.shape == (width, 5)
        assert unit.joint.weight.shape == (width, 2 * width)
        assert unit.score.weight.shape == (1, width)


def test_a_unit_that_normalises_its_input_sees_no_length():
    a, b = reference.unit_features(4, 6, 1), reference.unit_features(4, 6, 2)
    for normalize_input in (True, False):
        torch.manual_seed(0)
        unit = PDDM(6, normalize_input=normalize_input).double()
        assert torch.allclose(unit(a, b), unit(3 * a, 3 * b)) == normalize_input


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


def test_dropout_acts_on_every_layer():
    torch.manual_seed(0)
    unit = PDDM(dim=8, hidden=200, dropout=0.5).double()
    layers = (unit.difference, unit.position, unit.joint)
    for layer in layers:
        torch.nn.init.constant_(layer.bias, 3.0)  # so that every output is positive
    a, b = reference.unit_features(2, 8)
    unit(a, b).backward()
    for layer in layers:
        dropped = torch.as_tensor(layer.bias.grad == 0).double().mean()  # what is dropped gets no gradient
        assert 0.3 < dropped < 0.7
    unit.zero_grad()
    unit.eval()(a, b).backward()
    assert all(torch.as_tensor(layer.bias.grad != 0).all() for layer in layers)


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
    assert all(parameter.grad is None for parameter in unit.position.parameters()), "it isn't trained"
    assert unit.difference.weight.grad is not None
    optimizer.step()
    assert not any(parameter.any() for parameter in unit.position.parameters())


def test_a_square_root_has_the_gradient_0_at_0():
    squares = torch.tensor([0.0, 0.25, 9.0], requires_grad=True)
    roots = safe_sqrt(squares)
    assert roots.tolist() == [0, 0.5, 3]
    roots.sum().backward()
    torch.testing.assert_close(squares.grad, torch.tensor([0, 1, 1 / 6]))
