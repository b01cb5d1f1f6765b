"""Why two items are similar by local structure, against slow references."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pddm_lab.analysis.explain_local import DENSITY, INPUTS, NEAR, explain_local
from pddm_lab.gallery.reference import Reference
from pddm_lab.local.sizes import LENGTH
from pddm_lab.local.unit import LocalStructure


def structure(passes: int, weight: float) -> LocalStructure:
    torch.manual_seed(0)
    made = LocalStructure(6, weight > 0, weight, passes)
    for unit in (made.first, made.second):
        if unit is not None:
            torch.nn.init.normal_(unit.score.weight)
    return made.eval().requires_grad_(False)


def gallery(items: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    centres = random.normal(size=(8, 6))
    x = centres[np.arange(items) % 8] + random.normal(size=(items, 6))
    return x.astype(np.float32), random.normal(size=(items, 4)).astype(np.float32)


@pytest.mark.parametrize(("passes", "weight"), [(1, 0.0), (2, 0.0), (2, 0.5)])
def test_the_contributions_add_up_and_the_neighbours_are_those_of_both(passes: int, weight: float) -> None:
    made, (x, p) = structure(passes, weight), gallery(90)
    searched = np.arange(5, 90)
    reference = Reference.of(made, x[searched], p[searched] if weight else None, searched)
    shortlist, query, row = np.arange(10, 40), 7, 21
    explained = explain_local(reference, x[query], p[query], row, shortlist, exclude=query)
    scores = reference.scores(x[query], p[query], np.array([row, *shortlist[shortlist != row]]), query)
    assert explained.score == pytest.approx(float(scores[0]), abs=1e-4)
    assert set(explained.parts) == set(INPUTS)
    assert sum(explained.parts.values()) == pytest.approx(explained.score - explained.average, abs=0.02)

    z = made.space(x, p).double().numpy()
    cosines = z @ z.T

    def nearest(item: int, without: int) -> list[int]:
        return [int(one) for one in searched[np.argsort(-cosines[item, searched])] if one not in (item, without)]

    of_query, of_row = nearest(query, query), nearest(row, query)
    assert [item for item, *_ in explained.shared] == [one for one in of_query[:NEAR] if one in of_row[:NEAR]]
    for item, to_query, to_row in explained.shared:
        assert (to_query, to_row) == pytest.approx((cosines[query, item], cosines[row, item]), abs=1e-5)
    forward = of_query.index(row) + 1
    backward = 1 + sum(cosines[row, one] > cosines[row, query] for one in of_row)
    assert explained.ranks == tuple(rank if rank <= LENGTH else None for rank in (forward, backward))
    expected = cosines[query, of_query[:DENSITY]].mean(), cosines[row, of_row[:DENSITY]].mean()
    assert explained.densities == pytest.approx(expected, abs=1e-5)
    assert f"They share {len(explained.shared)} of their {NEAR} nearest" in " ".join(explained.sentences())


def test_a_query_from_elsewhere_is_explained_too() -> None:
    made, (x, p) = structure(2, 0.5), gallery(60)
    reference = Reference.of(made, x[:50], p[:50], np.arange(50))
    explained = explain_local(reference, x[55], p[55], 3, np.arange(20))
    assert explained.score == pytest.approx(float(reference.scores(x[55], p[55], np.array([3]))[0]), abs=1e-4)


def test_a_small_gallery_says_that_it_has_no_neighbourhoods() -> None:
    made, (x, _) = structure(2, 0.0), gallery(8)
    explained = explain_local(Reference.of(made, x, None, np.arange(8)), x[0], None, 3, np.arange(8), exclude=0)
    assert explained.sentences() == [explained.note] and "This gallery has 8 items" in explained.note
    assert not explained.parts and not explained.shared
