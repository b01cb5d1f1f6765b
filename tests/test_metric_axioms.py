"""The audit of a similarity against slow loops in float64, and against faults that were planted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from pddm_lab.analysis import metric_axioms
from pddm_lab.analysis.metric_axioms import SLACK_EDGES, examine
from pddm_lab.model.similarity import Cosine, Euclidean, Similarity, make_similarity
from pddm_lab.progress import Stopped


def unit_length(items: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(items, dim))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


class Leaning(Similarity):
    """Asymmetric: what comes first counts a little more."""

    name = "leaning"

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(-1) + 0.1 * a[..., 0]

    def _matrix(self, queries: Tensor, gallery: Tensor) -> Tensor:
        return self(queries[:, None], gallery[None])


class OnALine(Similarity):
    """Minus the square of a distance on a line: the textbook's broken triangle inequality."""

    name = "line"

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return -(a - b).square().sum(-1)

    def _matrix(self, queries: Tensor, gallery: Tensor) -> Tensor:
        return self(queries[:, None], gallery[None])


def answers(of: metric_axioms.Axioms) -> dict[str, metric_axioms.PropertyCheck]:
    return {finding.name: finding for finding in of.checks()}


def test_a_metric_passes_every_question() -> None:
    axioms = examine(Euclidean(), unit_length(60), -1.0, rows=60)
    found = answers(axioms)
    assert list(found) == list(metric_axioms.PROPERTIES)
    assert all(found[name].holds for name in ("symmetric", "self", "closest", "triangle", "chains"))
    assert found["transitive"].holds is None
    assert axioms.offset == 0
    assert found["triangle"].scored == found["triangle"].total == 60 * 59 * 58 // 6


def test_a_planted_asymmetry_is_measured() -> None:
    features = unit_length(40)
    axioms = examine(Leaning(), features, 0.0, rows=40)
    assert axioms.symmetry.pairs == 400
    # |S(a,b) - S(b,a)| is a tenth of the difference of the first coordinates: no larger than that of the extremes.
    assert 0.02 < axioms.symmetry.pairs_largest <= 0.1 * np.ptp(features[:, 0]) + 1e-6
    assert axioms.symmetry.matrix_largest == pytest.approx(axioms.symmetry.pairs_largest, rel=1e-4)
    assert answers(axioms)["symmetric"].holds is False


def test_a_planted_triangle_violation_is_found_and_shown_first() -> None:
    line = np.array([[0.0], [1.0], [2.0], [9.0]], dtype=np.float32)
    axioms = examine(OnALine(), line, -1.5, rows=4)
    triangles = axioms.triangles
    # Squared distances on a line: the middle of any three is always a shortcut.
    assert (triangles.triples, triangles.violated) == (4, 4)
    assert triangles.longest == pytest.approx(4 / 2)  # 0 to 2 directly, and by way of 1
    assert {*triangles.worst[0][[0, 2]]} == {0, 3} and triangles.worst[0][1] == 2  # slack 4 + 49 - 81
    assert sorted(triangles.worst_scores[0]) == [-81, -49, -4]
    assert triangles.needed == pytest.approx(81 - 49 - 4)
    # Accepted within 1.5: 0-1, 1-2. Their one chain ends 4 apart.
    assert (axioms.chains.possible, axioms.chains.chains, axioms.chains.broken, axioms.chains.violated) == (1, 1, 1, 1)
    assert axioms.chains.worst[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["cosine", "pddm"])
def test_every_number_is_that_of_a_slow_loop(name: str) -> None:
    torch.manual_seed(0)
    similarity = make_similarity(name, 8)
    features = unit_length(14, seed=3)
    points = torch.from_numpy(features).double()
    with torch.no_grad():
        s = similarity.double()(points[:, None], points[None]).numpy()
    threshold = float(np.quantile(s, 0.7)) + 1e-4
    axioms = examine(similarity.float(), features, threshold, rows=14)
    n, tolerance = len(features), metric_axioms.ROUNDING * axioms.spread
    off = ~np.eye(n, dtype=bool)
    assert axioms.spread == pytest.approx(s[off].std(), rel=1e-4)
    assert axioms.offset == pytest.approx(s.max(), abs=1e-5)
    assert np.allclose(axioms.own, s.diagonal(), atol=1e-5)
    for row, rival, score, closer in zip(axioms.rows, axioms.rival, axioms.rival_score, axioms.closer, strict=True):
        others = np.where(np.arange(n) == row, -np.inf, s[row])
        assert rival == others.argmax() and score == pytest.approx(others.max(), abs=1e-5)
        assert closer == (others > s[row, row] + tolerance).sum()
    d = s.max() - s
    violated, longest, slacks = 0, 0.0, []
    for i, j, k in itertools.permutations(range(n), 3):
        if i < k:
            slacks.append(d[i, j] + d[j, k] - d[i, k])
            violated += slacks[-1] < -tolerance
            longest = max(longest, d[i, k] / (d[i, j] + d[j, k]))
    assert axioms.triangles.violated == violated
    assert axioms.triangles.longest == pytest.approx(longest, rel=1e-3)
    assert axioms.triangles.slack.sum() == len(slacks)
    expected = np.histogram(np.clip(np.array(slacks) / axioms.spread, SLACK_EDGES[0], SLACK_EDGES[-1]), SLACK_EDGES)[0]
    assert np.abs(axioms.triangles.slack - expected).sum() <= 4  # a slack on an edge may fall to either side
    chains = [
        (i, j, k)
        for j in range(n)
        for i, k in itertools.combinations([o for o in range(n) if o != j and s[j, o] >= threshold], 2)
    ]
    assert axioms.chains.possible == axioms.chains.chains == len(chains) > 0
    assert axioms.chains.broken == sum(s[i, k] < threshold - tolerance for i, _, k in chains)
    assert axioms.chains.violated == sum(d[i, j] + d[j, k] - d[i, k] < -tolerance for i, j, k in chains)


def test_a_sample_of_chains_stands_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    features = unit_length(72, seed=5)
    every = examine(Cosine(), features, 0.2, rows=72).chains
    monkeypatch.setattr(metric_axioms, "CHAINS", 2000)
    some = examine(Cosine(), features, 0.2, rows=72).chains
    assert every.chains == every.possible == some.possible > some.chains == 2000
    assert some.broken / some.chains == pytest.approx(every.broken / every.chains, abs=0.04)


def test_what_is_drawn_depends_on_the_seed_alone_and_progress_is_told() -> None:
    told: list[tuple[int, int, str]] = []
    runs = [
        examine(Cosine(), unit_length(90), 0.2, rows=40, seed=seed, progress=lambda *at: told.append(at))
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(runs[0].rows, runs[1].rows) and not np.array_equal(runs[0].rows, runs[2].rows)
    assert runs[0].checks() == runs[1].checks()
    assert told[2][:2] == (40, 40)
    assert [what for *_, what in told[:7]] == ["items compared with all"] * 3 + [
        "items whose triangles are checked"
    ] * 4
    with pytest.raises(ValueError, match="three items"):
        examine(Cosine(), unit_length(2), 0.0)


@pytest.mark.parametrize("last", ["items compared with all", "items whose triangles are checked"])
def test_progress_can_end_the_work_in_each_part(last: str) -> None:
    def stop(_done: int, _total: int, what: str) -> None:
        if what == last:
            raise Stopped

    with pytest.raises(Stopped):
        examine(Cosine(), unit_length(90), 0.2, rows=40, progress=stop)


def test_findings_become_a_table() -> None:
    table = metric_axioms.checks_table(examine(Cosine(), unit_length(30), 0.2).checks(), "known")
    assert len(table) == len(metric_axioms.PROPERTIES)
    assert set(table["protocol"]) == {"known"} and (table["scored"] <= table["of"]).all()


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 10, "0 %"), (10, 10, "100 %"), (1, 8, "12.5 %"), (1, 1000, "0.10 %"), (1, 10**6, "0.0001 %"), (0, 0, "0 %")],
)
def test_shares_are_never_rounded_to_nothing(part: int, whole: int, text: str) -> None:
    assert metric_axioms.percent(part, whole) == text
