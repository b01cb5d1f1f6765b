"""All pairs of a unit: tiles that don't fit, compiled and plain, in 32 bits and with products in 16."""

from typing import Any

import pytest
import reference
import torch

from pddm_lab.model import all_pairs as scoring
from pddm_lab.model.all_pairs import all_pairs, has_compiler
from pddm_lab.model.pddm import PDDM

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "wide": {"hidden": 24},
    "normalised": {"normalize_input": True},
    "without place": {"position": False},
    "corrects D": {"global_weight": 2.0},
}


@pytest.fixture(params=OPTIONS.values(), ids=list(OPTIONS))
def unit(request) -> PDDM:
    torch.manual_seed(0)
    made = PDDM(16, **request.param).eval()
    torch.nn.init.normal_(made.score.weight)  # one that corrects a distance starts without a correction
    return made


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setitem(scoring.TILES, "cpu", (8, 16))


@pytest.mark.parametrize(("queries", "items"), [(8, 16), (19, 37), (3, 50), (50, 5), (1, 1), (0, 4), (4, 0)])
def test_every_size_agrees_with_float64(unit: PDDM, queries: int, items: int) -> None:
    a, b = reference.unit_features(queries, 16, 1), reference.unit_features(items, 16, 2)
    expected = unit.double()(a[:, None], b[None])
    torch.testing.assert_close(all_pairs(unit, a, b), expected, atol=1e-12, rtol=1e-12)
    actual = all_pairs(unit.float(), a.float(), b.float())
    torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("items", [0, 1, 2, 7, 16, 37, 50])
def test_pairs_of_one_set_are_exactly_symmetric(unit: PDDM, items: int) -> None:
    a = reference.unit_features(items, 16, 1, torch.float32)
    actual = all_pairs(unit, a, a)
    assert (actual == actual.T).all()
    torch.testing.assert_close(actual, unit(a[:, None], a[None]), atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not has_compiler(), reason="needs a C++ compiler for torch.compile")
def test_compiled_and_plain_agree() -> None:
    torch.manual_seed(0)
    unit = PDDM(16).eval()
    a, b = reference.unit_features(21, 16, 1, torch.float32), reference.unit_features(40, 16, 2, torch.float32)
    torch.testing.assert_close(
        all_pairs(unit, a, b, compiled=True), all_pairs(unit, a, b, compiled=False), atol=1e-6, rtol=1e-6
    )
    whole = all_pairs(unit, b, b, compiled=True)
    torch.testing.assert_close(whole, all_pairs(unit, b, b, compiled=False), atol=1e-6, rtol=1e-6)
    assert (whole == whole.T).all()


def test_products_in_16_bits_stay_near() -> None:
    torch.manual_seed(0)
    unit = PDDM(16).eval()
    a, b = reference.unit_features(21, 16, 1, torch.float32), reference.unit_features(40, 16, 2, torch.float32)
    exact = all_pairs(unit, a, b)
    near = all_pairs(unit, a, b, products=torch.bfloat16)
    assert near.dtype == torch.float32
    assert 0 < (near - exact).abs().max() < 0.02 * exact.std() + 0.01


def test_without_a_compiler_it_goes_on_plainly(monkeypatch) -> None:
    def broken(*_):
        raise torch._dynamo.exc.TorchDynamoException("no compiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    scoring._compiled_tile.cache_clear()
    unit = PDDM(16).eval()
    a, b = reference.unit_features(21, 16, 1, torch.float32), reference.unit_features(40, 16, 2, torch.float32)
    with pytest.warns(UserWarning, match="without torch.compile"):
        actual = all_pairs(unit, a, b, compiled=True)
    scoring._compiled_tile.cache_clear()
    torch.testing.assert_close(actual, all_pairs(unit, a, b, compiled=False))
