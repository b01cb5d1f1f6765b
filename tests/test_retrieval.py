"""Metrics against slow loops in float64, scikit-learn and pytorch-metric-learning."""

from __future__ import annotations

import dataclasses
import math
import resource

import numpy as np
import pytest
import torch
from python_calls import calls_of
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import normalized_mutual_info_score, roc_auc_score, roc_curve
from torch import Tensor

from pddm_lab.errors import LabError
from pddm_lab.metrics import retrieval as module
from pddm_lab.metrics.retrieval import RECALLS, Evaluation, average_precisions, cluster, clustering_nmi, evaluate
from pddm_lab.metrics.separation import BINS, histogram, separation
from pddm_lab.model.pddm import PDDM
from pddm_lab.model.similarity import PDDMSimilarity, Similarity, make_similarity

SEPARATION = ("auc", "eer", "dprime", "tpr@1%fpr")


def rank(*arguments):
    """The ranking metrics alone of `evaluate`."""
    names = [*(f"recall@{k}" for k in RECALLS), "r_precision", "map@r"]
    return {name: value for name, value in evaluate(*arguments).metrics.items() if name in names}


class Euclidean:
    """-D by plain subtraction, in float64 so that loops give the same order."""

    name = "euclidean"

    def matrix(self, queries: Tensor, gallery: Tensor) -> Tensor:
        return -torch.cdist(queries.double(), gallery.double(), compute_mode="donot_use_mm_for_euclid_dist")


class Table:
    """Scores looked up: a feature is its row's or column's number."""

    name = "table"

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores

    def matrix(self, queries: Tensor, gallery: Tensor) -> Tensor:
        return self.scores[queries[:, 0].long()][:, gallery[:, 0].long()]


def toy(items: int, classes: int, dim: int = 6, seed: int = 0, spread: float = 0.8) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (items,), generator=random) * 3 + 5
    centres = torch.randn(classes, dim, generator=random)
    features = centres[(labels - 5) // 3] + spread * torch.randn(items, dim, generator=random)
    return torch.nn.functional.normalize(features, dim=1), labels


def unit_with_bias(bias: float) -> Similarity:
    torch.manual_seed(0)
    unit = PDDM(6)
    torch.nn.init.constant_(unit.score.bias, bias)
    return PDDMSimilarity(unit).eval()


def slow_metrics(scores: np.ndarray, query_labels: list[int], gallery_labels: list[int], loo: bool) -> dict[str, float]:
    sums = dict.fromkeys([*(f"recall@{k}" for k in RECALLS), "r_precision", "map@r"], 0.0)
    queries = 0
    for row, label in enumerate(query_labels):
        others = [column for column in range(len(gallery_labels)) if not (loo and column == row)]
        ranked = sorted(others, key=lambda column: (-scores[row][column], column))
        hits = [gallery_labels[column] == label for column in ranked]
        relevant = sum(hits)
        if not relevant:
            continue
        queries += 1
        for k in RECALLS:
            sums[f"recall@{k}"] += any(hits[:k])
        sums["r_precision"] += sum(hits[:relevant]) / relevant
        sums["map@r"] += sum(sum(hits[: n + 1]) / (n + 1) for n in range(relevant) if hits[n]) / relevant
    return {name: total / queries for name, total in sums.items()}


def slow_pairs(scores: np.ndarray, query_labels: list[int], gallery_labels: list[int], loo: bool):
    pairs = [(q, g) for q in range(len(query_labels)) for g in range(len(gallery_labels)) if not loo or q < g]
    same = np.array([query_labels[q] == gallery_labels[g] for q, g in pairs], dtype=bool)
    values = np.array([scores[q][g] for q, g in pairs], dtype=np.float32)
    return values[same], values[~same]


@pytest.mark.parametrize("chunk", [1 << 21, 100, 10])
@pytest.mark.parametrize("mirrored", [5600, 0])
@pytest.mark.parametrize("loo", [True, False])
def test_metrics_equal_slow_loops(monkeypatch: pytest.MonkeyPatch, chunk: int, mirrored: int, loo: bool) -> None:
    monkeypatch.setattr(module, "_CHUNK_SCORES", chunk)
    monkeypatch.setattr(module, "_MIRRORED_ITEMS", mirrored)
    gallery, gallery_labels = toy(90, 12)
    query, query_labels = (gallery, gallery_labels) if loo else toy(40, 14, seed=1)
    result = evaluate(Euclidean(), query, gallery, query_labels, gallery_labels, loo)
    scores = Euclidean().matrix(query, gallery).float().numpy()
    lists = query_labels.tolist(), gallery_labels.tolist()
    slow = slow_metrics(scores, *lists, loo)
    positive, negative = slow_pairs(scores, *lists, loo)
    slow |= separation(np.sort(positive), np.sort(negative))
    assert result.metrics == pytest.approx(slow, abs=1e-9)
    spread = result.distribution
    assert (spread.positive.sum(), spread.negative.sum()) == (len(positive), len(negative))
    assert spread.pairs_scored == spread.pairs_total == len(positive) + len(negative)
    np.testing.assert_array_equal(spread.positive, histogram(np.sort(positive), np.sort(negative), 0).positive)


@pytest.mark.parametrize("loo", [True, False])
def test_ranking_equals_pytorch_metric_learning(loo: bool) -> None:
    gallery, gallery_labels = toy(400, 30)
    query, query_labels = (gallery, gallery_labels) if loo else toy(150, 40, seed=1)
    names = {"precision_at_1": "recall@1", "r_precision": "r_precision", "mean_average_precision_at_r": "map@r"}
    calculator = AccuracyCalculator(include=tuple(names), k="max_bin_count")
    theirs = calculator.get_accuracy(query, query_labels, gallery, gallery_labels, ref_includes_query=loo)
    ours = rank(Euclidean(), query, gallery, query_labels, gallery_labels, loo)
    assert {names[name]: value for name, value in theirs.items()} == pytest.approx(
        {name: ours[name] for name in names.values()}, abs=1e-6
    )


def test_a_known_ranking() -> None:
    # One query of class 0, ranked: right, wrong, right, wrong, right. R = 3, so positions 1 to 3 count.
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]])
    metrics = rank(
        Table(scores),
        torch.zeros(1, 1),
        torch.arange(5.0)[:, None],
        torch.tensor([0]),
        torch.tensor([0, 1, 0, 1, 0]),
        False,
    )
    assert metrics["recall@1"] == 1
    assert metrics["r_precision"] == pytest.approx(2 / 3)
    assert metrics["map@r"] == pytest.approx((1 + 2 / 3) / 3)


def test_average_precisions_have_the_mean_and_error_of_evaluate() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(40, 5), torch.arange(40) // 4 % 9
    labels[0] = 99  # a class of one item has no query
    expected = evaluate(Euclidean(), features, features, labels, labels, True)
    every = average_precisions(Euclidean().matrix(features, features), labels, torch.arange(40))
    assert len(every) == expected.queries == 39
    assert float(every.mean()) == pytest.approx(expected.metrics["map@r"])
    assert float(every.std(correction=1)) / 39**0.5 == pytest.approx(expected.map_at_r_error)
    rows = torch.tensor([3, 0, 17])
    some = average_precisions(Euclidean().matrix(features[rows], features), labels, rows)
    assert torch.equal(some, every[[2, 16]]), "the lone item has no value, and the others move up"
    assert not len(average_precisions(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1, dtype=torch.long)))
    scores = torch.ones(2, 2, requires_grad=True)  # which may only be overwritten where no gradient is recorded
    assert not average_precisions(scores, torch.zeros(2), torch.arange(2)).requires_grad


@pytest.mark.parametrize("others", [1, 31, 32, 45])
def test_every_one_of_r_places_counts(others: int) -> None:
    """A class of any size, ranked without a fault, has MAP@R 1; without its last right item, (R - 1) / R."""
    items = others + 6
    labels = torch.tensor([0] * (others + 1) + [1] * 5)
    scores = (labels[:, None] == labels).float()
    rows = torch.arange(items)[:, None].float()
    for table, expected in ((scores, 1.0), (scores - 2 * torch.eye(items)[others], (others - 1) / others)):
        metrics = evaluate(Table(table), rows[:1], rows[1:], labels[:1], labels[1:], False).metrics
        assert metrics["map@r"] == metrics["r_precision"] == pytest.approx(expected)
        table = table.clone()
        assert average_precisions(table, labels, torch.arange(items))[0] == pytest.approx(expected)
    whole = evaluate(Table(scores), rows, rows, labels, labels, True).metrics
    assert whole["map@r"] == whole["r_precision"] == whole["recall@1"] == 1


def test_the_error_of_map_at_r() -> None:
    """Of two queries with 1 and 0 it is 0.5; of one it is unknown; of many with the same, 0 in spite of rounding."""
    gallery, labels = torch.arange(5.0)[:, None], torch.tensor([1, 1, 0, 0, 0])
    one = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]])
    rows = torch.arange(2.0)[:, None]
    two = evaluate(Table(torch.cat([one, -one])), rows, gallery, torch.tensor([1, 1]), labels, False)
    assert (two.metrics["map@r"], two.map_at_r_error) == (0.5, 0.5)
    for count in range(1, 40):
        rows, same = torch.arange(float(count))[:, None], torch.zeros(count, dtype=torch.long)
        result = evaluate(Table(one.expand(count, 5)), rows, gallery, same, labels, False)
        assert result.metrics["map@r"] == pytest.approx(1 / 9)
        assert math.isnan(result.map_at_r_error) if count == 1 else result.map_at_r_error == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("depth", [1, 7, 2999, 3000, 4000])
def test_the_best_of_many_equal_scores_are_the_first(depth: int) -> None:
    scores = torch.randint(4, (3, 3000), generator=torch.Generator().manual_seed(0)).float()
    expected = [sorted(range(3000), key=lambda column: (-row[column], column))[:depth] for row in scores.tolist()]
    assert module._top(scores, depth).tolist() == expected


def test_the_names_of_the_metrics() -> None:
    features, labels = toy(20, 3)
    result = evaluate(Euclidean(), features, features, labels, labels, True)
    recalls = [f"recall@{k}" for k in (1, 2, 4, 8, 16, 32)]
    assert list(result.metrics) == [*recalls, "r_precision", "map@r", "auc", "eer", "dprime", "tpr@1%fpr"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.queries = 0  # type: ignore[misc]
    assert len({result, evaluate(Euclidean(), features, features, labels, labels, True)}) == 2, "compared by identity"


@pytest.mark.parametrize("mirrored", [5600, 0])
@pytest.mark.parametrize("budget", [1_000_000, 300])
def test_an_item_is_no_pair_with_itself(monkeypatch: pytest.MonkeyPatch, mirrored: int, budget: int) -> None:
    monkeypatch.setattr(module, "_MIRRORED_ITEMS", mirrored)
    monkeypatch.setattr(module, "_POSITIVE_BUDGET", budget)
    monkeypatch.setattr(module, "_NEGATIVE_BUDGET", budget)
    monkeypatch.setattr(module, "_CHUNK_SCORES", 700)
    labels = torch.arange(60) % 3
    scores = (labels[:, None] == labels).float() + 1000 * torch.eye(60)
    rows = torch.arange(60.0)[:, None]
    result = evaluate(Table(scores), rows, rows, labels, labels, True)
    assert (result.distribution.edges[0], result.distribution.edges[-1]) == pytest.approx((0, 1), abs=0.01)
    assert result.metrics["auc"] == 1, "what counts as positive is positive"
    assert result.distribution.pairs_total == 60 * 59 // 2
    if budget == 300:
        assert 400 < result.distribution.pairs_scored <= 600


def test_the_seed_draws_the_sample_and_the_clusters() -> None:
    features, labels = toy(300, 8, spread=1.0)
    values = {seed: clustering_nmi(features, labels, seed) for seed in (0, 1, 7)}
    assert len(set(values.values())) == 3
    assert clustering_nmi(features, labels) == clustering_nmi(features.numpy(), labels.numpy()) == values[0]
    assert (cluster(features, 8) == cluster(features, 8, 0)).all()
    assert (cluster(features, 8, 1) != cluster(features, 8, 0)).any()
    for seed in (0, 7):
        result = evaluate(Euclidean(), features, features, labels, labels, True, nmi=True, seed=seed)
        assert result.metrics["nmi"] == values[seed]
    assert evaluate(Euclidean(), features, features, labels, labels, True, nmi=True).metrics["nmi"] == values[0]
    gallery, query = (features[:100], labels[:100]), (features[100:], labels[100:])
    apart = evaluate(Euclidean(), query[0], gallery[0], query[1], gallery[1], False, nmi=True).metrics["nmi"]
    assert apart == values[0], "queries and gallery, the gallery first"


def test_ties_rank_by_gallery_row() -> None:
    items = torch.arange(200.0)[:, None]
    labels = np.arange(200) % 7
    scores = torch.randint(3, (200, 200), generator=torch.Generator().manual_seed(0)).float() - 1
    scores = (scores + scores.T) * torch.where(torch.rand(200, 200) < 0.5, -0.0, 1.0)  # zeros of either sign are equal
    for loo in (True, False):
        if loo:
            scores = torch.triu(scores) + torch.triu(scores, 1).T
        expected = slow_metrics(scores.numpy(), labels.tolist(), labels.tolist(), loo)
        assert rank(Table(scores), items, items, labels, labels, loo) == pytest.approx(expected, abs=1e-12)


def test_extreme_scores_keep_their_order() -> None:
    row = torch.tensor([[-1e-40, math.inf, -3e38, 1e-40, 0.0, -0.0, 3e38, -1.0, 1.0, 1.0000001, -math.inf]])
    assert module._top(row, 11)[0].tolist() == [1, 6, 9, 8, 3, 4, 5, 0, 7, 2, 10]
    values = torch.randn(7, 501) * 10 ** torch.randint(-30, 30, (7, 501)).float()
    assert torch.equal(module._top(values, 501), values.argsort(dim=1, descending=True, stable=True))


def test_queries_without_a_relevant_item_are_left_out() -> None:
    gallery, labels = toy(30, 3)
    query, query_labels = gallery[:5].clone(), labels[:5].clone()
    query_labels[3:] = 99
    result = evaluate(Euclidean(), query, gallery, query_labels, labels, False)
    assert (result.queries, result.excluded) == (3, 2)
    assert result.metrics["recall@1"] == 1  # each query lies in the gallery itself
    lone = torch.tensor([0, 0, 1, 2])
    result = evaluate(Euclidean(), gallery[:4], gallery[:4], lone, lone, True)
    assert (result.queries, result.excluded) == (2, 2)
    assert result.metrics["recall@32"] == 1, "the other three are the whole gallery"


@pytest.mark.parametrize("loo", [True, False])
@pytest.mark.parametrize(("items", "classes"), [(0, 1), (1, 1), (5, 1), (5, 5)])
def test_degenerate_galleries(items: int, classes: int, loo: bool) -> None:
    features = torch.nn.functional.normalize(torch.randn(items, 4), dim=1)
    labels = torch.arange(items) % classes
    result = evaluate(Euclidean(), features, features, labels, labels, loo, nmi=True)
    ranked = items > 0 and not (loo and (items == 1 or classes == 5))
    assert math.isnan(result.metrics["map@r"]) == (not ranked)
    assert result.queries + result.excluded == items
    if ranked and classes == 1:
        assert result.metrics["map@r"] == result.metrics["recall@1"] == 1
    assert math.isnan(result.metrics["auc"]) == (classes == 1 or loo)
    assert math.isnan(result.distribution.auc()) == math.isnan(result.metrics["auc"])
    assert len(result.distribution.edges) == BINS + 1
    assert (np.diff(result.distribution.edges) > 0).all()


def test_one_value_for_all_pairs() -> None:
    features, labels = torch.ones(6, 3), torch.tensor([0, 0, 1, 1, 2, 2])
    result = evaluate(Euclidean(), features, features, labels, labels, True)
    assert result.metrics["auc"] == result.metrics["eer"] == 0.5
    assert result.metrics["dprime"] == result.metrics["tpr@1%fpr"] == 0
    assert result.distribution.positive.sum() == 3


def test_scores_that_are_not_numbers_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = toy(9, 3)
    features[4] = math.nan
    message = (
        "Expected numbers, but {} gives NaN from query {} on. The training diverged: lower --lr, or set --clip-norm."
    )
    with pytest.raises(LabError) as error:
        evaluate(Euclidean(), features, features, labels, labels, True)
    assert str(error.value) == message.format("euclidean", 0)
    monkeypatch.setattr(module, "_CHUNK_SCORES", 20)
    monkeypatch.setattr(module, "_CHUNK_ROWS", 2)
    with pytest.raises(LabError) as error:
        evaluate(Euclidean(), features[3:], features[:3], labels[3:], labels[:3], False)
    assert str(error.value) == message.format("euclidean", 0)
    broken = unit_with_bias(math.nan)
    features, _ = toy(9, 3)
    for shortlist in (0, 2):
        with pytest.raises(LabError) as error:
            evaluate(broken, features, features, labels, labels, True, shortlist=shortlist)
        assert str(error.value) == message.format("pddm", 0)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("apart", [-0.5, 0.0, 1.0, 9.0])
def test_separation_equals_scikit_learn(ties: bool, apart: float) -> None:
    random = np.random.default_rng(0)
    positive, negative = random.normal(apart, 1.5, 700).astype("f4"), random.normal(0, 1, 2500).astype("f4")
    if ties:
        positive, negative = positive.round(), negative.round()
    ours = separation(np.sort(positive), np.sort(negative))
    truth = np.r_[np.ones(700), np.zeros(2500)]
    fpr, tpr, _ = roc_curve(truth, np.r_[positive, negative], drop_intermediate=False)
    assert ours["auc"] == pytest.approx(roc_auc_score(truth, np.r_[positive, negative]), abs=1e-12)
    assert ours["tpr@1%fpr"] == pytest.approx(tpr[fpr <= 0.01].max(), abs=1e-12)
    pooled = math.sqrt((positive.astype("f8").var() + negative.astype("f8").var()) / 2)
    assert ours["dprime"] == pytest.approx((positive.astype("f8").mean() - negative.astype("f8").mean()) / pooled)
    crossing = np.interp(0, fpr + tpr - 1, fpr)  # along the curve, fpr - fnr = fpr + tpr - 1 never falls
    assert ours["eer"] == pytest.approx(crossing, abs=1e-9)
    assert separation(positive[:0], negative).keys() == set(SEPARATION)


@pytest.mark.parametrize(
    ("positive", "negative", "auc", "eer"),
    [([2, 3], [0, 1], 1, 0), ([0, 1], [2, 3], 0, 1), ([1, 3], [0, 2], 0.75, 0.5), ([1], [1], 0.5, 0.5)],
)
def test_known_separations(positive: list[int], negative: list[int], auc: float, eer: float) -> None:
    result = separation(np.array(positive, "f4"), np.array(negative, "f4"))
    assert (result["auc"], result["eer"]) == (auc, eer)


def test_a_distribution_serves_a_threshold_to_drag() -> None:
    random = np.random.default_rng(1)
    positive, negative = (
        np.sort(random.normal(1, 1, 4000)).astype("f4"),
        np.sort(random.normal(0, 1, 9000)).astype("f4"),
    )
    spread = histogram(positive, negative, 13000)
    np.testing.assert_array_equal(spread.negative, np.histogram(negative, spread.edges)[0])
    assert spread.auc() == pytest.approx(separation(positive, negative)["auc"], abs=1e-4)
    threshold = spread.threshold_at_fpr(0.01)
    assert (negative >= np.float32(threshold)).mean() <= 0.01
    tpr, fpr = spread.rates_at(threshold)
    assert tpr == pytest.approx(separation(positive, negative)["tpr@1%fpr"], abs=2e-3)
    assert 0.009 < fpr <= 0.01
    assert spread.rates_at(-100) == (1, 1)
    assert spread.rates_at(100) == (0, 0)
    roc = spread.roc()
    assert (roc.fpr[0], roc.tpr[0], roc.fpr[-1], roc.tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(roc.thresholds) < 0).all()


@pytest.mark.parametrize("loo", [True, False])
def test_a_shortlist_samples_pairs(monkeypatch: pytest.MonkeyPatch, loo: bool) -> None:
    torch.manual_seed(0)
    similarity = make_similarity("pddm", 6).eval()
    (query, query_labels), (gallery, gallery_labels) = toy(150, 4, seed=1), toy(200, 4, seed=2)
    if loo:
        query, query_labels = gallery, gallery_labels
    arguments = similarity, query, gallery, query_labels, gallery_labels, loo
    exact = evaluate(*arguments)
    monkeypatch.setattr(module, "_SAMPLED", (2000, 4000))
    sampled = evaluate(*arguments, shortlist=5)
    assert 5400 < sampled.distribution.pairs_scored <= 6000
    assert sampled.distribution.pairs_total == exact.distribution.pairs_total
    assert sampled.metrics["auc"] == pytest.approx(exact.metrics["auc"], abs=0.03)
    assert evaluate(*arguments, shortlist=5).metrics == evaluate(*arguments, shortlist=5, seed=0).metrics
    assert evaluate(*arguments, shortlist=5, seed=1).metrics["auc"] != sampled.metrics["auc"]
    monkeypatch.setattr(module, "_POSITIVE_BUDGET", 3000)
    monkeypatch.setattr(module, "_NEGATIVE_BUDGET", 3000)
    assert 5400 < evaluate(*arguments).distribution.pairs_scored <= 6000
    assert evaluate(*arguments).metrics == evaluate(*arguments, seed=0).metrics


def test_too_many_pairs_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = toy(500, 4)
    exact = evaluate(Euclidean(), features, features, labels, labels, True)
    monkeypatch.setattr(module, "_NEGATIVE_BUDGET", 20_000)
    monkeypatch.setattr(module, "_POSITIVE_BUDGET", 10_000)
    sampled = evaluate(Euclidean(), features, features, labels, labels, True)
    assert 27_000 < sampled.distribution.pairs_scored <= 30_000
    assert sampled.distribution.pairs_total == exact.distribution.pairs_total == 500 * 499 // 2
    assert {name: sampled.metrics[name] for name in SEPARATION} == pytest.approx(
        {name: exact.metrics[name] for name in SEPARATION}, abs=0.03
    )
    again = evaluate(Euclidean(), features, features, labels, labels, True)
    np.testing.assert_array_equal(again.distribution.negative, sampled.distribution.negative)
    assert again.metrics == sampled.metrics
    other = evaluate(Euclidean(), features, features, labels, labels, True, seed=5)
    assert other.metrics["auc"] != sampled.metrics["auc"]


def test_nmi_of_separable_clusters_is_one_and_repeats() -> None:
    features, labels = toy(300, 8, dim=32, spread=0.01)
    assert clustering_nmi(features, labels) == pytest.approx(1)
    result = evaluate(Euclidean(), features[:100], features[100:], labels[:100], labels[100:], False, nmi=True)
    assert result.metrics["nmi"] == pytest.approx(1)
    features, labels = toy(300, 8, spread=1.0)
    assert clustering_nmi(features, labels, seed=3) == clustering_nmi(features, labels, seed=3)
    actual = cluster(features, len(labels.unique()), seed=3)
    assert clustering_nmi(features, labels, seed=3) == pytest.approx(normalized_mutual_info_score(labels, actual))
    assert 0.05 < clustering_nmi(features, labels) < 0.9
    assert normalized_mutual_info_score(labels, labels) == 1


def test_arrays_from_a_read_only_file_will_do(tmp_path, recwarn: pytest.WarningsRecorder) -> None:
    features, labels = toy(50, 5)
    np.save(tmp_path / "f.npy", features.numpy())
    mapped = np.load(tmp_path / "f.npy", mmap_mode="r")
    expected = evaluate(Euclidean(), features, features, labels, labels, True).metrics
    assert evaluate(Euclidean(), mapped, mapped, labels.numpy(), labels.numpy(), True).metrics == expected
    apart = mapped[:20], mapped[20:], labels.numpy()[:20], labels.numpy()[20:]
    expected = evaluate(Euclidean(), features[:20], features[20:], labels[:20], labels[20:], False, nmi=True).metrics
    assert evaluate(Euclidean(), *apart, False, nmi=True).metrics == expected
    assert (cluster(mapped.astype("f8"), 5) == cluster(features, 5)).all()
    assert not recwarn.list


@pytest.mark.parametrize(("mirrored", "share"), [(1600, 0.54), (1599, 1.0)])
def test_each_pair_of_one_set_is_scored_once_where_all_scores_fit(
    monkeypatch: pytest.MonkeyPatch, mirrored: int, share: float
) -> None:
    class Counting(Euclidean):
        scored = 0

        def matrix(self, queries: Tensor, gallery: Tensor) -> Tensor:
            self.scored += len(queries) * len(gallery)
            return super().matrix(queries, gallery)

    monkeypatch.setattr(module, "_MIRRORED_ITEMS", mirrored)
    features, labels = toy(1600, 40)
    similarity = Counting()
    evaluate(similarity, features, features, labels, labels, True)
    assert share - 0.02 < similarity.scored / 1600**2 <= share
    similarity.scored = 0
    evaluate(similarity, features[:100], features[100:], labels[:100], labels[100:], False)
    assert similarity.scored == 100 * 1500


def test_six_thousand_items_are_ranked_without_a_loop_over_them_and_with_little_memory() -> None:
    class Fast:
        name = "cosine"

        def matrix(self, queries: Tensor, gallery: Tensor) -> Tensor:
            return queries @ gallery.T

    features, labels = toy(6000, 600, dim=128)
    evaluate(Fast(), features[:50], features[:50], labels[:50], labels[:50], True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results: list[Evaluation] = []
    assert calls_of(lambda: results.append(evaluate(Fast(), features, features, labels, labels, True))) < 6000
    assert results[0].distribution.pairs_scored == 6000 * 5999 // 2
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 280, "MB"


@pytest.mark.parametrize("loo", [True, False])
@pytest.mark.parametrize("shortlist", [1, 5, 1000])
@pytest.mark.parametrize("bias", [-50.0, 0.0, 50.0])
def test_a_shortlist_is_ordered_anew_and_the_rest_keeps_its_order(
    monkeypatch: pytest.MonkeyPatch, shortlist: int, loo: bool, bias: float
) -> None:
    monkeypatch.setattr(module, "_CHUNK_SCORES", 80)
    monkeypatch.setattr(module, "_CHUNK_ROWS", 7)
    similarity = unit_with_bias(bias)  # whatever its scores are, they rank above distances
    (query, query_labels), (gallery, gallery_labels) = toy(31, 6, seed=1), toy(90, 6, seed=2)
    if loo:
        query, query_labels = gallery, gallery_labels
    scores = similarity.matrix(query, gallery).numpy()
    distances = torch.cdist(query, gallery).numpy()
    expected = np.full_like(scores, -np.inf)
    for row, distance in enumerate(distances):
        order = [item for item in distance.argsort(kind="stable") if not (loo and item == row)]
        nearest = sorted(order[:shortlist], key=lambda item: -scores[row, item])
        expected[row, nearest + order[shortlist:]] = -np.arange(len(order))
    actual = evaluate(similarity, query, gallery, query_labels, gallery_labels, loo, shortlist=shortlist)
    slow = slow_metrics(expected, query_labels.tolist(), gallery_labels.tolist(), loo)
    for name, value in slow.items():
        assert actual.metrics[name] == pytest.approx(value), name
    whole = evaluate(similarity, query, gallery, query_labels, gallery_labels, loo)
    ranking = module.rank(similarity, query, gallery, query_labels, gallery_labels, loo, shortlist)
    assert list(ranking) == list(slow) and actual.metrics | ranking == actual.metrics, "the same without the pairs"
    assert whole.metrics | module.rank(similarity, query, gallery, query_labels, gallery_labels, loo) == whole.metrics
    assert actual.metrics["auc"] == pytest.approx(whole.metrics["auc"], abs=1e-4), "few pairs are all scored"
    assert actual.distribution.pairs_total == whole.distribution.pairs_total
