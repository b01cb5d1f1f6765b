"""Neighbourhoods and what they say of a pair: against plain loops, and against a gallery rebuilt without the query."""

from __future__ import annotations

import warnings

import pytest
import torch
from local_reference import LENGTH, Slow, items

from pddm_lab.errors import LabError
from pddm_lab.local.evidence import Evidence, evidence
from pddm_lab.local.neighbourhoods import Neighbourhoods
from pddm_lab.local.sizes import RECIPROCAL, SCALES, SHARED


def flat(seen: Evidence) -> torch.Tensor:
    """All of it, (ingredients, queries, candidates)."""
    densities = [one for pair in seen.densities for one in pair]
    parts = [] if seen.first_part is None else [seen.first_part]
    lists = [*seen.forth, *seen.back, *seen.both, *seen.shared, *seen.reciprocal, *seen.ranks, *densities, *parts]
    return torch.stack([seen.cosine, *lists])


def without(features: torch.Tensor, row: int) -> torch.Tensor:
    return torch.cat([features[:row], features[row + 1 :]])


@pytest.mark.parametrize("count", [12, 43, 90])
def test_every_ingredient_is_what_plain_loops_give(count: int) -> None:
    """Computed with a table, as in a small gallery. Large ones: the next test."""
    gallery, queries = items(count), items(5, seed=3)
    reference = Neighbourhoods.of(gallery)
    rows = torch.arange(count).expand(5, -1)
    seen = evidence(reference, reference.queries(queries), rows)
    for q in range(5):
        slow = Slow(gallery, queries[q])
        for g in range(count):
            for at, k in enumerate(SCALES):
                e_q, e_g = slow.expansion(None, k), slow.expansion(g, k)
                assert seen.forth[at][q, g] == pytest.approx(e_q @ slow.z[g])
                assert seen.back[at][q, g] == pytest.approx(slow.q @ e_g)
                assert seen.both[at][q, g] == pytest.approx(e_q @ e_g)
            for at, k in enumerate(SHARED):
                assert seen.shared[at][q, g] == pytest.approx(slow.shared(g, k))
            for at, k in enumerate(RECIPROCAL):
                assert seen.reciprocal[at][q, g] == pytest.approx(slow.reciprocal(g, k))
            assert seen.ranks[0][q, g].expm1() == pytest.approx(slow.rank_in_query(g))
            assert seen.ranks[1][q, g].expm1() == pytest.approx(slow.rank_of_query(g))
            for at, k in enumerate((SCALES[0], SCALES[-1])):
                assert seen.densities[at][0][q, g] == pytest.approx(sum(slow.weights(None, k).values()) / k)
                assert seen.densities[at][1][q, g] == pytest.approx(sum(slow.weights(g, k).values()) / k)


@pytest.mark.parametrize("own", [None, torch.tensor([3, 40, 44, 7])])
def test_large_galleries_collect_what_small_ones_have_in_a_table(
    own: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = items(300)
    reference = Neighbourhoods.of(gallery)
    queries = reference.queries(items(4, seed=3) if own is None else gallery[own], own)
    rows = torch.stack(
        [torch.arange(300)[torch.arange(300) != (-1 if own is None else own[q])][:200] for q in range(4)]
    )
    expected = flat(evidence(reference, queries, rows))
    monkeypatch.setattr("pddm_lab.local.evidence._SMALL", 0)
    torch.testing.assert_close(flat(evidence(reference, queries, rows)), expected)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        torch.testing.assert_close(flat(evidence(reference, queries, rows)), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("count", [13, 42, 120])
def test_a_query_of_the_gallery_is_taken_out_of_every_ingredient(count: int) -> None:
    gallery = torch.cat([items(count, 3, seed=1), 0.5 * items(count, 5, seed=1)], dim=1) / 1.25**0.5
    reference = Neighbourhoods.of(gallery, first_part=3)
    for row in range(0, count, max(count // 12, 1)):
        own = torch.tensor([row])
        others = torch.tensor([[g for g in range(count) if g != row]])
        rebuilt = Neighbourhoods.of(without(gallery, row), first_part=3)
        every = torch.arange(count - 1)[None]
        expected = flat(evidence(rebuilt, rebuilt.queries(gallery[own]), every))
        torch.testing.assert_close(flat(evidence(reference, reference.queries(gallery[own], own), others)), expected)


def test_lists_made_by_scores_lose_the_query_too() -> None:
    """The second pass: the lists of the others, and how they score the query, stay as they are."""
    count, gallery = 60, items(60, seed=2)
    random = torch.Generator().manual_seed(0)
    scores = torch.rand(count, count, generator=random, dtype=torch.float64)

    def listed(features: torch.Tensor, table: torch.Tensor) -> Neighbourhoods:
        best, rows = table.clone().fill_diagonal_(-torch.inf).topk(LENGTH + 1, dim=1)
        return Neighbourhoods.of(features).relisted(rows.int(), best, best.sigmoid(), (5, 15, 40))

    reference = listed(gallery, scores)
    for row in range(0, count, 7):
        keep = torch.tensor([g for g in range(count) if g != row])
        rebuilt = listed(gallery[keep], scores[keep][:, keep])
        own, to_others = torch.tensor([row]), scores[row, keep][None]
        best, rows = to_others.topk(LENGTH, dim=1)
        inside = reference.listed_queries(gallery[own], keep[rows].int(), best, best.sigmoid(), own)
        outside = rebuilt.listed_queries(gallery[own], rows.int(), best, best.sigmoid())
        asked = scores[keep, row][None]
        torch.testing.assert_close(
            flat(evidence(reference, inside, keep[None], asked)),
            flat(evidence(rebuilt, outside, torch.arange(count - 1)[None], asked)),
        )


def test_a_query_with_twins_is_taken_out_itself() -> None:
    """45 equal items: the query need not be among its own nearest, and must not be listed."""
    single = items(30)
    gallery = torch.cat([single[:1].repeat(45, 1), single[1:]])
    reference = Neighbourhoods.of(gallery)
    own = torch.arange(len(gallery))
    seen = reference.queries(gallery, own)
    assert (reference.neighbours != own[:, None]).all() and (seen.neighbours != own[:, None]).all()
    assert (reference.scores > -1).all() and (seen.scores > -1).all()
    shortlist = reference.shortlist(seen, 50)
    assert shortlist.shape == (74, 50) and (shortlist != own[:, None]).all()


def test_a_search_of_ones_own_finds_the_neighbours() -> None:
    gallery = items(80)
    calls = []

    def search(queries: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(k)
        scores, rows = (queries @ gallery.T).topk(k, dim=1)
        return scores, rows

    exact, with_search = Neighbourhoods.of(gallery), Neighbourhoods.of(gallery, search=search)
    assert torch.equal(exact.neighbours, with_search.neighbours) and calls == [LENGTH + 2]
    assert torch.equal(exact.queries(gallery[:3]).neighbours, with_search.queries(gallery[:3]).neighbours)


def test_memory_is_lean() -> None:
    reference = Neighbourhoods.of(items(1000).float())
    stored = sum(value.nbytes for name, value in vars(reference).items() if isinstance(value, torch.Tensor))
    assert (stored - reference.features.nbytes) / 1000 < 1000  # bytes an item


def test_a_gallery_that_is_too_small_says_so() -> None:
    with pytest.warns(UserWarning, match="has 9 items, and a neighbourhood takes 10: it is ranked by the cosine"):
        assert Neighbourhoods.of(items(9)).note
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not Neighbourhoods.of(items(10)).note


def test_bad_input_gets_a_message() -> None:
    with pytest.raises(LabError, match="at least one item"):
        Neighbourhoods.of(torch.empty(0, 4))
    with pytest.raises(LabError, match="ascending scales from 1 to 40"):
        Neighbourhoods.of(items(20), scales=(8, 4))
