"""Scores of pairs by local structure are those of searches."""

from __future__ import annotations

import numpy as np
import pytest

from pddm_lab.analysis.local_pairs import local_similarity_to, score_local_pairs
from pddm_lab.analysis.pairs import sample_pairs
from pddm_lab.runs.local import load_local


@pytest.mark.parametrize("protocol", ["unseen", "known"])
def test_pairs_score_as_in_a_search(local_run, protocol: str) -> None:
    gallery, local = local_run.gallery(protocol), load_local(local_run)
    assert local is not None
    pairs = sample_pairs(gallery, 60)
    scores = score_local_pairs(gallery, local.structure, pairs["a"].to_numpy(), pairs["b"].to_numpy())
    for a, b, score in zip(pairs["a"], pairs["b"], scores, strict=True):
        result = gallery.search_by(gallery.features[a], [], len(gallery), a, local.structure).table
        assert score == pytest.approx(float(result.set_index("row")["local"][b]), abs=1e-4)


def test_the_other_way_round_where_only_the_first_is_searched(local_run) -> None:
    gallery, local = local_run.gallery("known"), load_local(local_run)
    assert local is not None
    queries, searched = (gallery.rows(role)[:2] for role in ("query", "gallery"))
    forth = score_local_pairs(gallery, local.structure, queries, searched)
    np.testing.assert_allclose(score_local_pairs(gallery, local.structure, searched, queries), forth)
    assert np.isnan(score_local_pairs(gallery, local.structure, queries[:1], queries[1:])).all()
    values = local_similarity_to(gallery, local.structure, int(queries[0]))
    assert values[searched[0]] == pytest.approx(forth[0], abs=1e-5) and np.isnan(values[queries[1]])
    assert values[queries[0]] == np.nanmax(values)
