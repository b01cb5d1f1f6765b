"""Recognition by plain methods on features: episodes, votes, and the predictions of each method, against slow loops."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from pddm_lab.applications.feature_spaces import Space
from pddm_lab.applications.few_shot import (
    METHODS,
    Episodes,
    by_mean,
    by_score,
    classifier,
    keep,
    recognise,
    recognise_run,
    summary,
    vote,
)
from pddm_lab.errors import ConfigError, LabError
from pddm_lab.model.similarity import make_similarity
from pddm_lab.study.cells import Study
from pddm_lab.study.cells import table as kept_table

LABELS = np.repeat(np.arange(6), 8)
ALL = np.arange(len(LABELS))


def clustered(spread: float = 0.3, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(6, 16, generator=random)
    return F.normalize(centres[LABELS] + spread * torch.randn(len(LABELS), 16, generator=random), dim=1)


@pytest.mark.parametrize("same", [True, False])
def test_episodes_are_seeded_and_disjoint(same: bool) -> None:
    gallery, query = (ALL, ALL) if same else (ALL[ALL % 4 != 0], ALL[ALL % 4 == 0])
    made = [Episodes(LABELS, gallery, query, shots=(1, 2), ways=3, queries=4, seed=5) for _ in range(2)]
    for number in range(5):
        one, again = (episodes.episode(number) for episodes in made)
        assert one.support.tolist() == again.support.tolist() and one.query.tolist() == again.query.tolist()
        assert one.support.shape == (3, 2)
        assert not set(one.support.ravel()) & set(one.query)
        assert set(one.support.ravel()) <= set(gallery) and set(one.query) <= set(query)
        for line in one.support:
            assert len(set(LABELS[line])) == 1 and len(set(line)) == len(line)
        assert set(LABELS[one.query]) == set(LABELS[one.support[:, 0]])
        assert max(Counter(LABELS[one.query].tolist()).values()) == (4 if same else 2)
    assert made[0].episode(0).support.tolist() != made[0].episode(1).support.tolist()
    other = Episodes(LABELS, gallery, query, shots=(1, 2), ways=3, seed=6).episode(0)
    assert other.support.tolist() != made[0].episode(0).support.tolist()


def test_shots_that_half_of_the_classes_cannot_give_are_left_out() -> None:
    labels = np.repeat([0, 1, 2, 3], [3, 6, 6, 12])
    items = np.arange(len(labels))
    episodes = Episodes(labels, items, items, shots=(10, 5, 1), ways=0)
    assert episodes.shots == (1, 5)
    assert episodes.classes.tolist() == [1, 2, 3]
    assert episodes.ways == 3
    with pytest.raises(LabError, match="at least two classes with 1 pictures"):
        Episodes(np.arange(5), np.arange(5), np.arange(5))
    with pytest.raises(ConfigError, match="--shots expects"):
        Episodes(labels, items, items, shots=())


def slow_vote(neighbours: list[int]) -> int:
    """Most votes; among equals the smaller sum of places, then the smaller class."""
    return min(
        set(neighbours),
        key=lambda c: (-neighbours.count(c), sum(place for place, one in enumerate(neighbours) if one == c), c),
    )


def test_votes_equal_a_slow_count() -> None:
    neighbours = np.random.default_rng(0).integers(0, 4, (200, 5))
    assert vote(neighbours).tolist() == [slow_vote(line) for line in neighbours.tolist()]
    assert vote(np.array([[7, 3, 3], [2, 1, 0]])).tolist() == [3, 2]


def test_neighbours_equal_a_slow_search() -> None:
    features = clustered(1.0)
    support, queries = ALL[ALL % 2 == 0], ALL[ALL % 2 == 1]
    points = features.double().tolist()
    expected = []
    for q in queries:
        order = sorted(support, key=lambda s: math.dist(points[q], points[s]))
        expected.append(slow_vote([int(LABELS[s]) for s in order[:5]]))
    model = classifier("knn", 5).fit(features[support].numpy(), LABELS[support])
    assert model.predict(features[queries].numpy()).tolist() == expected
    predicted = by_score(make_similarity("euclidean", 16), features[queries], features[support], LABELS[support])
    assert predicted.tolist() == expected


def test_neighbours_by_a_score_equal_a_slow_search() -> None:
    torch.manual_seed(0)
    similarity = make_similarity("pddm", 16).double().eval()
    features = clustered(1.0).double()
    support, queries = ALL[ALL % 2 == 0], ALL[ALL % 2 == 1]
    expected = []
    for q in queries:
        near = sorted(support, key=lambda s: math.dist(features[q].tolist(), features[s].tolist()))[:10]
        with torch.no_grad():
            scores = {s: float(similarity(features[q], features[s])) for s in near}
        best = sorted(near, key=lambda s: -scores[s])[:3]
        expected.append(slow_vote([int(LABELS[s]) for s in best]))
    predicted = by_score(similarity, features[queries], features[support], LABELS[support], neighbours=3, shortlist=10)
    assert predicted.tolist() == expected


def test_the_nearest_mean_equals_a_slow_search() -> None:
    features, support, queries = clustered(1.0), ALL[ALL % 2 == 0], ALL[ALL % 2 == 1]
    points, expected = features.double().tolist(), []
    means = {
        c: [sum(column) / 4 for column in zip(*(points[s] for s in support if LABELS[s] == c), strict=True)]
        for c in range(6)
    }
    for q in queries:
        expected.append(min(means, key=lambda c: math.dist(points[q], means[c])))
    assert by_mean(features[queries], features[support], LABELS[support]).tolist() == expected


def test_every_method_recognises_separated_classes() -> None:
    torch.manual_seed(0)
    known = {"euclidean": make_similarity("euclidean", 16), "pddm": make_similarity("euclidean", 16)}
    easy, bare = Space("easy", clustered(0.01), known), Space("bare", clustered(0.01), {})
    episodes = Episodes(LABELS, ALL, ALL, shots=(1, 2, 5), ways=4)
    table = recognise([easy, bare], LABELS, episodes, 3)
    assert set(table[table["space"] == "easy"]["method"]) == set(METHODS)
    assert "pddm" not in set(table[table["space"] == "bare"]["method"])
    assert (table["accuracy"] == 1).all()
    assert len(table) == 3 * 3 * (5 + 4)


def test_accuracy_is_chance_where_all_features_are_equal() -> None:
    same = Space("same", torch.ones(len(LABELS), 16), {})
    episodes = Episodes(LABELS, ALL, ALL, shots=(1, 2), ways=4)
    table = recognise([same], LABELS, episodes, 3, methods=("knn", "svm", "mean"))
    assert (table["accuracy"] == 0.25).all()


def test_an_unknown_method() -> None:
    with pytest.raises(ConfigError, match="Unknown method 'forest'"):
        classifier("forest")


def test_intervals_are_students() -> None:
    table = pd.DataFrame({"space": "a", "method": "knn", "episode": range(4), "accuracy": [0.5, 0.6, 0.7, 0.8]})
    (row,) = summary(table).to_dict("records")
    assert row["accuracy"] == pytest.approx(0.65)
    half = 3.182446 * math.sqrt(sum((x - 0.65) ** 2 for x in (0.5, 0.6, 0.7, 0.8)) / 3) / 2
    assert (row["low"], row["high"]) == (pytest.approx(0.65 - half), pytest.approx(0.65 + half))
    assert row["episodes"] == 4


def test_a_run_is_recognised_from_its_galleries(digits_run, tmp_path: Path) -> None:
    table = recognise_run(digits_run, 2, shots=(1, 5), ways=0)
    assert set(table["protocol"]) == {"unseen", "known"}
    assert list(dict.fromkeys(table["space"])) == ["pretrained", digits_run.name]
    assert set(table["ways"]) == {5}
    assert table["accuracy"].mean() > 0.5
    study = Study.create("kept", str(tmp_path))
    keep(study, "digits", table, 0, {"episodes": 2})
    kept = kept_table(study.path).set_index(["method", "protocol", "similarity", "metric"])["value"]
    chosen = table[(table["space"] == "pretrained") & (table["protocol"] == "known") & (table["method"] == "svm")]
    expected = chosen[chosen["shots"] == 5]["accuracy"].mean()
    assert kept["pretrained", "known", "svm", "accuracy@5"] == pytest.approx(expected)
