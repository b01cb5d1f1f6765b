"""All pairs of a unit: tiles that don't fit, compiled and plain, in 32 bits and with products in 16."""

import ctypes
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
import reference
import torch

from pddm_lab.model import all_pairs as scoring
from pddm_lab.model.all_pairs import all_pairs, has_compiler, own_pairs
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


@pytest.mark.parametrize("chunk", [(1, 1), (8, 16), (50, 50)])
@pytest.mark.parametrize("items", [3, 40])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_own_candidates_agree_with_float64(monkeypatch, unit: PDDM, count: int, items: int, chunk) -> None:
    monkeypatch.setitem(scoring.TILES, "cpu", chunk)
    if unit.normalize_input:
        return  # not its algebra
    a, b = reference.unit_features(5, 16, 1), reference.unit_features(items, 16, 2)
    rows = torch.randint(items, (5, count), generator=torch.Generator().manual_seed(0))
    expected = unit.double()(a[:, None], b[rows])
    torch.testing.assert_close(own_pairs(unit, a, b, rows), expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(own_pairs(unit, a[:1], b, rows[:1]), expected[:1], atol=1e-12, rtol=1e-12)


def test_a_layer_without_an_output_scores_as_in_the_unit(unit: PDDM) -> None:
    a = reference.unit_features(20, 16, 1)
    unit.double()
    for layer in (unit.difference, unit.position):
        torch.nn.init.constant_(layer.bias, -9.0)
        torch.testing.assert_close(all_pairs(unit, a[:9], a), unit(a[:9, None], a[None]), atol=1e-12, rtol=1e-12)


def test_no_gradient_is_recorded(unit: PDDM) -> None:
    a = reference.unit_features(5, 16, 1, torch.float32)
    assert not all_pairs(unit, a, a).requires_grad and not all_pairs(unit, a, a.clone()).requires_grad
    assert not own_pairs(unit, a, a, torch.zeros(5, 2, dtype=torch.long)).requires_grad


def test_an_unknown_device_has_the_tiles_of_a_processor(unit: PDDM) -> None:
    a, b = torch.empty(9, 16, device="meta"), torch.empty(30, 16, device="meta")
    unit.to("meta")
    scores = all_pairs(unit, a, b)
    assert (scores.shape, scores.device.type) == ((9, 30), "meta")
    if not unit.normalize_input:
        assert own_pairs(unit, a, b, torch.zeros(9, 4, dtype=torch.long, device="meta")).shape == (9, 4)


@pytest.fixture
def compiled_shapes(monkeypatch):
    """A compiler that compiles nothing: the shapes of the tiles that it was given."""
    shapes: list[tuple[torch.Size, ...]] = []

    def pretend(function, dynamic):
        assert dynamic is False

        def tile(a, b, a_position, b_position, layers):
            shapes.append((a.shape, b.shape, a_position.shape, b_position.shape))
            return function(a, b, a_position, b_position, layers)

        return tile

    monkeypatch.setattr(torch, "compile", pretend)
    monkeypatch.setattr(scoring, "COMPILED_PAIRS", 21 * 40)
    monkeypatch.setattr(scoring, "has_compiler", lambda: True)
    scoring._compiled_tile.cache_clear()
    yield shapes
    scoring._compiled_tile.cache_clear()


@pytest.mark.parametrize(("queries", "items"), [(8, 16), (9, 17), (21, 40), (50, 50)])
def test_a_compiled_tile_has_one_shape(compiled_shapes, queries: int, items: int) -> None:
    torch.manual_seed(0)
    unit = PDDM(16, hidden=5).eval()
    a, b = reference.unit_features(queries, 16, 1, torch.float32), reference.unit_features(items, 16, 2, torch.float32)
    for pair in ((a, b), (b, b)):
        actual = all_pairs(unit, *pair, compiled=True)
        torch.testing.assert_close(actual, all_pairs(unit, *pair, compiled=False), atol=1e-6, rtol=1e-6)
    assert (actual == actual.T).all()
    if items**2 > 2 * 8 * 16:  # less fits into one tile, of its own shape
        assert set(compiled_shapes) == {((8, 16), (1, 16, 16), (8, 5), (1, 16, 5))}


@pytest.mark.parametrize(
    ("queries", "items", "pays_off"),
    [(21, 40, True), (8, 105, True), (53, 16, True), (20, 41, False), (7, 500, False), (90, 15, False)],
)
def test_it_is_compiled_where_that_pays_off(monkeypatch, compiled_shapes, queries: int, items: int, pays_off) -> None:
    """From COMPILED_PAIRS on, if each side fills a tile and there is a compiler."""
    unit = PDDM(16).eval()
    a, b = reference.unit_features(queries, 16, 1, torch.float32), reference.unit_features(items, 16, 2, torch.float32)
    all_pairs(unit, a, b)
    assert bool(compiled_shapes) == pays_off
    compiled_shapes.clear()
    all_pairs(unit, a, b, compiled=False)
    monkeypatch.setattr(scoring, "has_compiler", lambda: False)
    all_pairs(unit, a, b)
    assert not compiled_shapes
    all_pairs(unit, a, b, compiled=True)
    assert bool(compiled_shapes) == (queries >= 8 and items >= 16)


@pytest.mark.parametrize("there", ["g++", "c++", "clang++"])
def test_any_compiler_will_do(monkeypatch, there: str) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == there else None)
    assert has_compiler()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not has_compiler()


def test_the_c_library_keeps_what_a_tile_frees(monkeypatch) -> None:
    asked: list[tuple[int, int]] = []
    library = SimpleNamespace(mallopt=lambda *option: asked.append(option))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library if name is None else None)
    scoring._keep_freed_blocks()
    assert asked == [(-3, 32 << 20), (-1, 64 << 20)], "M_MMAP_THRESHOLD and M_TRIM_THRESHOLD"
    for error in (AttributeError, OSError, TypeError):

        def missing(name, error=error):
            raise error

        monkeypatch.setattr(ctypes, "CDLL", missing)
        scoring._keep_freed_blocks()


@pytest.mark.slow
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
    assert torch.equal(exact, all_pairs(unit, a, b, products=torch.float32))
    assert near.dtype == torch.float32
    assert 0 < (near - exact).abs().max() < 0.02 * exact.std() + 0.01


def test_only_products_are_in_16_bits() -> None:
    """Small whole numbers are exact in 16 bits, and so are their products: then all the rest must be exact, too."""
    random = torch.Generator().manual_seed(0)
    unit = PDDM(6).eval()
    with torch.no_grad():
        for layer in (unit.difference, unit.position, unit.joint):
            layer.weight.copy_(torch.randint(-1, 2, layer.weight.shape, generator=random))
        unit.difference.bias.fill_(1)
        unit.position.bias.fill_(2)
    a, b = (2.0 * torch.randint(3, (count, 6), generator=random) for count in (21, 40))
    actual = all_pairs(unit, a, b, products=torch.bfloat16)
    torch.testing.assert_close(actual, all_pairs(unit, a, b), atol=1e-6, rtol=1e-6)


def test_without_a_compiler_it_goes_on_plainly(monkeypatch) -> None:
    def broken(*_):
        raise torch._dynamo.exc.TorchDynamoException("no compiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    scoring._compiled_tile.cache_clear()
    unit = PDDM(16).eval()
    a, b = reference.unit_features(21, 16, 1, torch.float32), reference.unit_features(40, 16, 2, torch.float32)
    with pytest.warns(UserWarning, match=r"Scoring continues without torch\.compile: no compiler"):
        actual = all_pairs(unit, a, b, compiled=True)
    scoring._compiled_tile.cache_clear()
    torch.testing.assert_close(actual, all_pairs(unit, a, b, compiled=False))
