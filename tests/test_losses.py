import pytest
import reference
import torch

from pddm_lab.training.losses import distance_hinge, double_header_hinge, embedding_hinge, joint_objective, score_hinge


def objective(quads, alpha=0.5, beta=1.0, weight=0.5):
    s_ij, s_ik, s_jl, d_ij, d_ik, d_jl = quads.T
    return joint_objective(
        double_header_hinge(s_ij, s_ik, s_jl, alpha), embedding_hinge(d_ij, d_ik, d_jl, beta), weight
    )


def test_the_joint_objective_equals_the_slow_reference():
    quads = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss, terms = objective(quads)
    assert float(loss) == pytest.approx(reference.joint_objective(quads.tolist(), 0.5, 1.0, 0.5))
    assert float(terms["loss"]) == pytest.approx(float(terms["E_m"]) + 0.5 * float(terms["E_e"]))


def test_known_values():
    one = torch.tensor([1.0]), torch.tensor([0.75]), torch.tensor([1.25])
    assert double_header_hinge(*one, 0.5).item() == pytest.approx(0.25 + 0.75)
    assert embedding_hinge(*one, 1.0).item() == pytest.approx(1.25 + 0.75)
    assert score_hinge(one[0], one[1], 0.5).item() == pytest.approx(0.25)
    assert distance_hinge(one[0], one[1], 1.0).item() == pytest.approx(1.25)


def test_one_quadruplet_is_its_own_mean():
    loss, terms = objective(torch.tensor([[1.0, 0.75, 1.25, 1.0, 0.75, 1.25]], requires_grad=True))
    assert (terms["E_m"], terms["E_e"]) == (0.25 + 0.75, 1.25 + 0.75)
    assert loss == terms["loss"] == 1 + 0.5 * 2
    assert loss.requires_grad and not any(term.requires_grad for term in terms.values()), "terms are for the log"


def test_zero_where_every_margin_holds():
    loss, terms = objective(torch.tensor([[5.0, 1.0, 2.0, 0.1, 1.2, 1.3]]))
    assert loss == 0 and terms["E_m"] == 0 and terms["E_e"] == 0


def test_no_quadruplet_gives_a_differentiable_zero():
    quads = torch.empty(0, 6, requires_grad=True)
    loss, _ = objective(quads)
    loss.backward()
    assert loss == 0 and quads.grad is not None


def test_gradients():
    quads = torch.randn(7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda q: objective(q)[0], (quads,))
