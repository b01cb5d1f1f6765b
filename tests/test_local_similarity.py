"""The local similarities that need no training: against plain loops, and with a query taken out of its gallery."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from local_reference import Slow, items, k_reciprocal

from pddm_lab.errors import ConfigError, DataError
from pddm_lab.local import compiled
from pddm_lab.local.neighbourhoods import Neighbourhoods
from pddm_lab.local.reciprocal import KReciprocal
from pddm_lab.local.similarity import CSLS, Expansion, Global, LocalSimilarity
from pddm_lab.local.space import Whitening, joined

RIVALS = (Global(), Expansion(), Expansion(4, both=True), CSLS(), KReciprocal())


def slow_scores(name: str, gallery: torch.Tensor, query: torch.Tensor) -> np.ndarray:
    slow, rows = Slow(gallery, query), range(len(gallery))
    cosines = slow.z @ slow.q
    if name == "cosine":
        return cosines
    if name == "query expansion":
        return slow.z @ slow.expansion(None, 8)
    if name == "both-sided expansion":
        return np.array([slow.expansion(None, 4) @ slow.expansion(g, 4) for g in rows])
    if name == "CSLS":
        of_items = np.array([np.mean([slow.z[g] @ slow.z[h] for h in slow.lists[g][:10]]) for g in rows])
        return 2 * cosines - np.sort(cosines)[-10:].mean() - of_items
    return k_reciprocal(np.vstack([slow.z, slow.q]), len(gallery))[:-1]


def test_a_full_disk_that_keeps_no_compiled_code_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, similarity = items(70), Expansion(both=True)
    expected = similarity.matrix(Neighbourhoods.of(gallery), gallery[:4])
    fill, errors = compiled._compare, [OSError(28, "full"), OSError(28, "full")]

    def full(*arguments: object) -> None:
        if errors:  # numba writes when it has compiled
            raise errors.pop()
        fill(*arguments)

    monkeypatch.setattr(compiled, "_compare", full)
    assert torch.equal(similarity.matrix(Neighbourhoods.of(gallery), gallery[:4]), expected) and not errors


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_rivals_are_what_plain_loops_give(rival: LocalSimilarity) -> None:
    gallery, queries = items(70), items(4, seed=5)
    scores = rival.matrix(Neighbourhoods.of(gallery), queries)
    expected = np.stack([slow_scores(rival.name, gallery, query) for query in queries])
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("count", [14, 64])
@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_a_query_of_the_gallery_ranks_as_without_it(rival: LocalSimilarity, count: int) -> None:
    gallery = items(count, seed=4)
    reference, own = Neighbourhoods.of(gallery), torch.arange(count)
    scores = rival.matrix(reference, gallery, own)
    for row in range(0, count, 5):
        others = torch.cat([own[:row], own[row + 1 :]])
        expected = rival.matrix(Neighbourhoods.of(gallery[others]), gallery[row][None])[0]
        torch.testing.assert_close(scores[row, others], expected)


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_candidates_and_rerank_agree_with_the_matrix(rival: LocalSimilarity) -> None:
    gallery, queries = items(60), items(3, seed=5)
    reference = Neighbourhoods.of(gallery)
    rows = torch.stack([torch.randperm(60)[:9] for _ in range(3)])
    scores = rival.matrix(reference, queries)
    torch.testing.assert_close(rival.candidates(reference, queries, rows), scores.gather(1, rows))
    ordered, values = rival.rerank(reference, queries[0], rows[0])
    torch.testing.assert_close(values, scores[0, ordered])
    assert (values.diff() <= 0).all() and set(ordered.tolist()) == set(rows[0].tolist())
    assert rival.candidates(reference, queries, rows[:, :0]).shape == (3, 0)


def test_many_queries_are_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, queries = items(60), items(7, seed=5)
    reference = Neighbourhoods.of(gallery)
    own = torch.arange(7)
    whole = Expansion(both=True).matrix(reference, queries), Expansion(both=True).matrix(reference, gallery[:7], own)
    monkeypatch.setattr("pddm_lab.local.similarity.AT_ONCE", 10_000)
    torch.testing.assert_close(Expansion(both=True).matrix(reference, queries), whole[0])
    torch.testing.assert_close(Expansion(both=True).matrix(reference, gallery[:7], own), whole[1])


@pytest.mark.filterwarnings("ignore:This gallery has 5 items")
@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_a_gallery_of_few_items_is_ranked_by_the_cosine(rival: LocalSimilarity) -> None:
    gallery, queries = items(5), items(3, seed=5)
    reference = Neighbourhoods.of(gallery)
    assert "ranked by the cosine" in reference.note
    torch.testing.assert_close(rival.matrix(reference, queries), queries @ gallery.T)


def test_the_cosine_takes_limited_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    z, random = items(400).float(), torch.Generator().manual_seed(0)
    reference = Neighbourhoods.without_lists(z, 0, "not built")
    rows, sizes = torch.randint(400, (300, 10), generator=random), []
    expected = (z[:300] @ z.T).gather(1, rows)
    product = torch.einsum

    def sized(formula: str, queries: torch.Tensor, gathered: torch.Tensor) -> torch.Tensor:
        sizes.append(gathered[..., 0].numel())
        return product(formula, queries, gathered)

    monkeypatch.setattr("pddm_lab.local.similarity.AT_ONCE", 2000)
    monkeypatch.setattr(torch, "einsum", sized)
    torch.testing.assert_close(Global().candidates(reference, z[:300], rows), expected)
    assert len(sizes) > 1 and max(sizes) <= 2000


def test_a_scale_that_the_reference_lacks_is_named() -> None:
    with pytest.raises(ConfigError, match=r"one of the reference's scales \(2, 4\), got 8"):
        Expansion().matrix(Neighbourhoods.of(items(20), scales=(2, 4)), items(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CSLS(41), "k from 1 to 40"),
        (lambda: KReciprocal(0), "k1 from 1"),
        (lambda: KReciprocal(20, 50), "k2 from"),
    ],
)
def test_more_neighbours_than_a_list_has_are_refused(make: Callable[[], LocalSimilarity], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_whitening_makes_the_classes_round() -> None:
    """Within classes the covariance becomes a multiple of the identity, up to the ridge; collapsed features spread."""
    random = torch.Generator().manual_seed(0)
    stretch = torch.tensor([10.0, 1.0, 0.1])
    centres = 0.01 * torch.randn(30, 3, generator=random) * stretch + 5
    labels = torch.arange(3000) % 30
    x = centres[labels] + 1e-3 * torch.randn(3000, 3, generator=random) * stretch
    whitening = Whitening(3).fit(x, labels)
    centred = (x - x.mean(0)).double()
    means = torch.stack([centred[labels == label].mean(0) for label in range(30)])
    sigma = (centred - means[labels]).T @ (centred - means[labels]) / 3000
    expected = torch.linalg.inv(sigma + sigma.trace() / 3 * torch.eye(3, dtype=torch.float64))
    matrix = whitening.matrix.double()
    torch.testing.assert_close(matrix @ matrix, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    z = whitening(x)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(3000))
    assert (x / x.norm(dim=1, keepdim=True) @ (x[0] / x[0].norm())).min() > 0.9 and (z @ z[0]).min() < -0.5
    assert torch.equal(Whitening(3).fit(x[:30], labels[:30]).matrix, torch.eye(3))
    with pytest.raises(DataError, match="equal ones for all items"):
        Whitening(2).fit(torch.ones(4, 2), torch.tensor([0, 0, 1, 1]))


def test_joined_parts_have_the_cosine_of_both() -> None:
    x, p = items(6, 4).float(), items(6, 3, seed=2).float()
    z = joined(x, p, 0.5)
    torch.testing.assert_close(z @ z.T, (x @ x.T + 0.25 * p @ p.T) / 1.25)
    assert joined(x, None, 0.5) is x
