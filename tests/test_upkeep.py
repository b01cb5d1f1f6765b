"""Neighbourhoods of a gallery that changes: after any changes they are those of a gallery built anew."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from local_reference import items

from pddm_lab.errors import LabError
from pddm_lab.local.evidence import evidence
from pddm_lab.local.neighbourhoods import Neighbourhoods
from pddm_lab.local.sizes import LISTS
from pddm_lab.local.unit import LocalStructure
from pddm_lab.local.upkeep import change, refresh
from pddm_lab.metrics.retrieval import average_precisions

POOL = items(400, seed=1)
EXAMPLES = int(os.environ.get("PDDM_LAB_CHURN_EXAMPLES", "0"))
"""Sequences of changes: `make churn` tries many, and others each time."""


def assert_as_anew(changed: Neighbourhoods) -> None:
    anew = Neighbourhoods.of(changed.features, changed.scales, changed.first_part)
    for name in LISTS:
        torch.testing.assert_close(getattr(changed, name), getattr(anew, name), msg=name)
    queries = POOL[-3:]
    rows = torch.arange(len(anew)).expand(3, -1)
    seen, expected = (evidence(one, one.queries(queries), rows) for one in (changed, anew))
    torch.testing.assert_close(torch.stack(seen.u()), torch.stack(expected.u()), atol=1e-6, rtol=0)


@settings(max_examples=EXAMPLES or 25, derandomize=not EXAMPLES, database=None, deadline=None)
@given(
    start=st.integers(10, 90),
    steps=st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.integers(0, 9)), max_size=4
    ),
)
def test_any_changes_give_what_a_gallery_built_anew_has(start: int, steps: list[tuple[int, int, int, int]]) -> None:
    """Each step adds, replaces and removes some items, in a random order."""
    reference, used = Neighbourhoods.of(POOL[:start]), start
    for added, replaced, removed, seed in steps:
        random = torch.Generator().manual_seed(seed)
        origin = torch.randperm(len(reference), generator=random)[min(removed, len(reference) - 10) :]
        origin[: min(replaced, len(origin))] = -1
        origin = torch.cat([origin, torch.full((added,), -1)])[torch.randperm(len(origin) + added, generator=random)]
        fresh = int((origin < 0).sum())
        features = reference.features[origin.clamp(min=0)]
        features[origin < 0] = POOL[used : used + fresh]
        used += fresh
        before = [getattr(reference, name).clone() for name in LISTS]
        changed = change(reference, features, origin)
        assert all(torch.equal(getattr(reference, name), kept) for name, kept in zip(LISTS, before, strict=True))
        reference = changed
    assert_as_anew(reference)


def test_a_gallery_that_was_or_becomes_too_small() -> None:
    """Below the least number of items there is nothing to keep up."""
    with pytest.warns(UserWarning, match="takes 10"):
        few = Neighbourhoods.of(POOL[:9])
    assert_as_anew(change(few, POOL[: 9 + 40], torch.cat([torch.arange(9), torch.full((40,), -1)])))
    with pytest.warns(UserWarning, match="takes 10"):
        assert change(Neighbourhoods.of(POOL[:40]), POOL[:5], torch.arange(5)).note


@pytest.fixture(scope="module")
def structure() -> LocalStructure:
    """A unit whose S is no cosine."""
    torch.manual_seed(0)
    structure = LocalStructure(8).double()
    for unit in (structure.first, structure.second):
        assert unit is not None
        torch.nn.init.normal_(unit.score.weight, std=0.3)
    return structure.requires_grad_(False)


def test_refreshed_lists_of_the_second_pass_rank_as_a_gallery_built_anew(structure: LocalStructure) -> None:
    """Within 0.1 points of MAP@R over 200 queries; the work is that of the lists near the change."""
    pool, labels = items(1040, seed=5, classes=130), torch.arange(1040) % 130
    before = structure.with_second(Neighbourhoods.of(pool[:1000]))
    assert before.second is not None and before.second.stale is None
    origin = torch.cat([torch.arange(3, 995), torch.full((12,), -1)])
    features = torch.cat([pool[3:995], pool[1000:1012]])
    of_items = torch.cat([labels[3:995], labels[1000:1012]])
    changed = change(before, features, origin)
    assert changed.second is not None and changed.second.stale is not None
    listed = changed.second.scores > -torch.inf
    assert not listed[-12:].any() and listed[:-12, :30].all()
    assert 12 < changed.second.stale.sum() < 900
    first = refresh(structure, changed, 40)
    assert first.second is not None and first.second.stale is not None
    assert first.second.stale.sum() == changed.second.stale.sum() - 40
    refreshed = refresh(structure, first)
    assert refreshed.second is not None and refreshed.second.stale is not None and not refreshed.second.stale.any()
    assert refresh(structure, refreshed) is refreshed
    anew = structure.with_second(Neighbourhoods.of(features))
    assert anew.second is not None
    same = (refreshed.second.neighbours == anew.second.neighbours).double().mean()
    assert same > (changed.second.neighbours == anew.second.neighbours).double().mean() and same > 0.9
    own = torch.linspace(0, len(features) - 1, 200).long()  # old items and new ones
    quality = [
        average_precisions(structure.matrix(one, features[own], own), of_items, own).mean().item()
        for one in (changed, refreshed, anew)
    ]
    assert quality[1] == pytest.approx(quality[2], abs=0.001) and quality[0] == pytest.approx(quality[2], abs=0.02)


def test_a_second_pass_begins_where_there_was_none(structure: LocalStructure) -> None:
    first = Neighbourhoods.of(POOL[:50])
    anew, refreshed = structure.with_second(first), refresh(structure, first)
    assert anew.second is not None and refreshed.second is not None
    assert torch.equal(anew.second.neighbours, refreshed.second.neighbours)


def test_wrong_rows_get_a_message() -> None:
    reference = Neighbourhoods.of(POOL[:20])
    for origin in (torch.arange(19), torch.zeros(20, dtype=torch.long), torch.arange(1, 21)):
        with pytest.raises(LabError, match="earlier row of each of 20 items, below 20"):
            change(reference, POOL[:20], origin)
    with pytest.raises(LabError, match="to have their earlier features"):
        change(reference, POOL[1:21], torch.arange(20))
