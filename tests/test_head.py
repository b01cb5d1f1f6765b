"""The head in closed form, against slow float64 references."""

import math

import numpy as np
import torch

from pddm_lab.model.head import START_POWER, Scatter, UsedHead, components, interpolated, principal_components, whitened


def head_of(inputs: int = 6, outputs: int = 4, seed: int = 0) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(inputs, outputs).requires_grad_(False)


def items(count: int = 40, dim: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(0.2, 3, dim)
    return torch.randn(count, dim, generator=generator) * scales + 5, torch.arange(count) % 8


def test_few_items_have_principal_components() -> None:
    """LAPACK's solver of eigenvalues fails for some matrices in which most are 0."""
    inputs = torch.randn(21, 300, generator=torch.Generator().manual_seed(0))
    centred = (inputs - inputs.mean(0)).double()
    variances, directions = components(centred)
    torch.testing.assert_close((directions * variances) @ directions.T * 21, centred.T @ centred)
    assert len(variances) == 21 and (variances.diff() >= 0).all()
    more = torch.randn(50, 12).double()
    torch.testing.assert_close(components(more)[0], torch.linalg.eigvalsh(more.T @ more / 50))


def test_the_start_is_scaled_principal_components() -> None:
    inputs, _ = items()
    head = head_of()
    principal_components(head, inputs)
    x = inputs.double().numpy()
    centred = x - x.mean(0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ directions[:4].T * (singular[:4] ** 2 / len(x)) ** START_POWER
    expected /= np.linalg.norm(expected, axis=1).mean()
    np.testing.assert_allclose(np.abs(head(inputs).numpy()), np.abs(expected), atol=1e-4)
    assert math.isclose(float(head(inputs).norm(dim=1).mean()), 1, abs_tol=1e-4)


def test_the_start_of_few_or_equal_items_is_finite() -> None:
    for inputs in (items(3)[0], torch.ones(5, 6), torch.full((5, 6), 1e-9)):
        head = head_of(outputs=8)
        principal_components(head, inputs)
        assert head.weight.isfinite().all() and head.bias.isfinite().all()


def test_a_whitened_head_is_the_formula() -> None:
    """normalise((Sigma_w + mean eigenvalue I)^(-1/2) (h - mean)), item by item."""
    inputs, labels = items()
    head = head_of()
    white = whitened(head, Scatter.of(inputs, labels))
    h = head(inputs).double().numpy()
    within = np.zeros((4, 4))
    for label in range(8):
        own = h[labels.numpy() == label]
        for one in own:
            difference = one - own.mean(0)
            within += np.outer(difference, difference) / len(h)
    values, directions = np.linalg.eigh(within + np.trace(within) / 4 * np.eye(4))
    expected = (h - h.mean(0)) @ (directions * values**-0.5 @ directions.T)
    np.testing.assert_allclose(white(inputs).numpy(), expected, rtol=1e-3, atol=1e-4)


def test_classes_without_variation_leave_the_head_alone() -> None:
    inputs, head = torch.eye(6)[[0, 0, 1, 1]], head_of()
    white = whitened(head, Scatter.of(inputs, torch.tensor([0, 0, 1, 1])))
    assert torch.equal(white.weight, head.weight) and torch.equal(white.bias, head.bias)


def test_heads_between_start_and_end() -> None:
    start, end = head_of(seed=0), head_of(seed=1)
    torch.testing.assert_close(interpolated(start, end, 0.25).weight, 0.75 * start.weight + 0.25 * end.weight)
    end.weight.fill_(math.nan)
    assert torch.equal(interpolated(start, end, 0.0).weight, start.weight), "a diverged end leaves the start as it is"
    assert torch.equal(UsedHead(0.0)(start, end).bias, start.bias)
