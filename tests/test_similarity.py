import pytest
import reference
import torch

from pddm_lab.errors import ConfigError
from pddm_lab.model import similarity as module
from pddm_lab.model.similarity import Mahalanobis, PDDMSimilarity, make_similarity
from pddm_lab.similarities import SIMILARITIES


def similarity_of(name, dim, **options):
    torch.manual_seed(0)
    similarity = make_similarity(name, dim, **options)
    if isinstance(similarity, Mahalanobis):
        torch.nn.init.normal_(similarity.map.weight)
    return similarity


@pytest.mark.parametrize("name", SIMILARITIES)
def test_the_matrix_equals_the_pairs(name):
    similarity = similarity_of(name, 16)
    queries = reference.unit_features(70, 16, 1, torch.float32)
    gallery = reference.unit_features(300, 16, 2, torch.float32)
    matrix = similarity.matrix(queries, gallery)
    assert matrix.shape == (70, 300)
    torch.testing.assert_close(matrix, similarity(queries[:, None], gallery[None]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(similarity.matrix(gallery, gallery), similarity.matrix(gallery, gallery.clone()))
    torch.testing.assert_close(similarity.pairs(queries, gallery[:70]), matrix.diagonal(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"hidden": 24}, {"normalize_input": True}, {"dropout": 0.5}])
def test_the_pddm_matrix_equals_the_slow_reference(options):
    similarity = similarity_of("pddm", 12, **options)
    queries, gallery = reference.unit_features(3, 12, 1), reference.unit_features(5, 12, 2)
    expected = [[reference.pddm_score(similarity.unit, a, b) for b in gallery.tolist()] for a in queries.tolist()]
    matrix = similarity.matrix(queries.float(), gallery.float())
    torch.testing.assert_close(matrix, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_a_unit_that_corrects_nothing_is_scored_without_its_network(monkeypatch):
    similarity = similarity_of("pddm", 12, hidden=6, global_weight=2.0)
    similarity.unit.score.bias.data.fill_(0.3)
    queries, gallery = (
        reference.unit_features(6, 12, 1, torch.float32),
        reference.unit_features(9, 12, 2, torch.float32),
    )
    expected = similarity(queries[:, None], gallery[None])
    monkeypatch.setattr(similarity.unit, "score_of", None)
    rows = torch.arange(9).expand(6, 9)
    for scores in (similarity.matrix(queries, gallery), similarity.candidates(queries, gallery, rows)):
        torch.testing.assert_close(scores, expected.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(expected, 0.3 - 2 * torch.cdist(queries, gallery))
    similarity.unit.score.weight.data.fill_(1.0)
    monkeypatch.undo()
    again = similarity.matrix(queries, gallery)
    torch.testing.assert_close(again, similarity(queries[:, None], gallery[None]).detach(), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(again, expected.detach())


def test_known_values():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert make_similarity("euclidean", 2)(a, b).item() == pytest.approx(-(2**0.5))
    assert make_similarity("cosine", 2)(a, b).item() == pytest.approx(0)
    mahalanobis = Mahalanobis(2)
    assert mahalanobis(a, b).item() == pytest.approx(-(2**0.5)), "starts as the Euclidean distance"
    with torch.no_grad():
        mahalanobis.map.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
    assert mahalanobis(a, b).item() == pytest.approx(-2)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_gradients_and_equal_items(name):
    similarity = similarity_of(name, 4).double()
    a, b = reference.unit_features(3, 4, 1).requires_grad_(), reference.unit_features(3, 4, 2).requires_grad_()
    assert torch.autograd.gradcheck(similarity, (a, b))
    similarity(a, a.detach()).sum().backward()
    assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize("name", SIMILARITIES)
def test_rerank_orders_the_shortlist_only(name):
    similarity = similarity_of(name, 8)
    query, gallery = (
        reference.unit_features(1, 8, 1, torch.float32)[0],
        reference.unit_features(40, 8, 2, torch.float32),
    )
    shortlist = torch.tensor([5, 31, 2, 17])
    rows, scores = similarity.rerank(query, gallery, shortlist)
    assert sorted(rows.tolist()) == sorted(shortlist.tolist())
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    torch.testing.assert_close(scores, similarity.pairs(query.expand(4, -1), gallery[rows]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("count", [0, 1, 7])
def test_candidates_are_scored_as_in_the_matrix(name, count):
    similarity = similarity_of(name, 8)
    queries = reference.unit_features(70, 8, 1, torch.float32)
    gallery = reference.unit_features(40, 8, 2, torch.float32)
    rows = torch.randint(40, (70, count), generator=torch.Generator().manual_seed(0))
    actual = similarity.candidates(queries, gallery, rows)
    torch.testing.assert_close(actual, similarity.matrix(queries, gallery).gather(1, rows), atol=2e-3, rtol=1e-5)
    exact = similarity(queries[:, None], gallery[rows])
    torch.testing.assert_close(actual, exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"normalize_input": True}, {"hidden": 5}, {"position": False}])
def test_candidates_of_a_unit_equal_the_slow_reference(options):
    similarity = similarity_of("pddm", 6, **options).double()
    queries, gallery = reference.unit_features(3, 6, 1), reference.unit_features(9, 6, 2)
    rows = torch.tensor([[4, 0], [8, 8], [1, 5]])
    expected = [
        [reference.pddm_score(similarity.unit, query, gallery[row].tolist()) for row in own]
        for query, own in zip(queries.tolist(), rows.tolist(), strict=True)
    ]
    torch.testing.assert_close(similarity.candidates(queries, gallery, rows), torch.tensor(expected).double())


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("chunk", [1, 4, 7, 1000])
def test_pairs_and_candidates_are_scored_in_chunks(monkeypatch, name, chunk):
    monkeypatch.setattr(module, "CHUNK_PAIRS", chunk)
    similarity = similarity_of(name, 8, **({"normalize_input": True} if name == "pddm" else {})).double()
    a, b = reference.unit_features(14, 8, 1), reference.unit_features(14, 8, 2)
    rows = torch.randint(14, (14, 3), generator=torch.Generator().manual_seed(0))
    expected = similarity(a, b), similarity(a[:, None], b[rows])
    most = []
    similarity.register_forward_hook(lambda module, inputs, scores: most.append(scores.numel()))
    torch.testing.assert_close(similarity.pairs(a, b), expected[0])
    assert max(most) == min(chunk, 14)
    most.clear()
    torch.testing.assert_close(similarity.candidates(a, b, rows), expected[1])
    assert max(most) == (42 if chunk == 1000 else 6 if chunk == 7 else 3), "whole rows of candidates, one at least"


@pytest.mark.parametrize("name", SIMILARITIES)
def test_scoring_records_no_gradient_drops_nothing_and_keeps_the_mode(name):
    similarity = similarity_of(name, 8, **({"dropout": 0.5} if name == "pddm" else {}))
    a, b = (reference.unit_features(5, 8, seed, torch.float32).requires_grad_() for seed in (1, 2))
    rows = torch.arange(5)[:, None]
    exact = similarity.eval()(a, b).detach()
    for mode in (True, False):
        similarity.train(mode)
        scores = (
            similarity.matrix(a, b).diagonal(), similarity.pairs(a, b), similarity.candidates(a, b, rows)[:, 0],
            similarity.rerank(a[0], b, torch.tensor([0]))[1],
        )  # fmt: skip
        for one in scores:
            assert not one.requires_grad
            torch.testing.assert_close(one, exact[: len(one)], atol=1e-3, rtol=1e-4)
        assert similarity.training == mode
    similarity.train()
    with pytest.raises(RuntimeError):
        similarity.matrix(a, b.double())
    assert similarity.training, "after an error, too"


@pytest.mark.parametrize("name", ["euclidean", "mahalanobis"])
def test_distances_of_equal_items_are_numbers(name):
    a = 30 * reference.unit_features(50, 8, 1, torch.float32)
    similarity = similarity_of(name, 8)
    matrix = similarity.matrix(a, a)
    assert (matrix <= 0).all(), "and none is NaN"
    torch.testing.assert_close(matrix.diagonal(), torch.zeros(50), atol=0.2, rtol=0)
    torch.testing.assert_close(matrix, similarity(a[:, None], a[None]), atol=0.2, rtol=0)


def test_cosines_have_no_length():
    a, b = reference.unit_features(3, 6, 1), reference.unit_features(4, 6, 2)
    cosine = make_similarity("cosine", 6)
    torch.testing.assert_close(cosine.matrix(2 * a, 5 * b), a @ b.T)
    torch.testing.assert_close(cosine(2 * a[:, None], 5 * b[None]), a @ b.T)


def test_a_unit_alone_is_a_network():
    assert [name for name in SIMILARITIES if make_similarity(name, 4).is_network] == ["pddm"]
    assert [make_similarity(name, 4).name for name in SIMILARITIES] == list(SIMILARITIES)
    mine = make_similarity("pddm", 4)
    mine.name = "mine"
    assert not mine.is_network, "unless it is known as one"


def test_options_reach_the_unit_alone():
    similarity = make_similarity("pddm", 4, hidden=7, dropout=0.25, normalize_input=True)
    assert isinstance(similarity, PDDMSimilarity)
    unit = similarity.unit
    assert (unit.score.in_features, unit.dropout.p, unit.normalize_input) == (7, 0.25, True)
    for name in ("euclidean", "cosine", "mahalanobis"):
        weights = {key: tuple(value.shape) for key, value in make_similarity(name, 4, hidden=7).state_dict().items()}
        assert weights == ({"map.weight": (4, 4)} if name == "mahalanobis" else {})


@pytest.mark.parametrize("name", SIMILARITIES)
def test_rerank_keeps_the_order_of_equal_items(name):
    query = reference.unit_features(1, 8, 1, torch.float32)[0]
    gallery = reference.unit_features(3, 8, 2, torch.float32).repeat(100, 1)
    shortlist = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    rows, scores = similarity_of(name, 8).rerank(query, gallery, shortlist)
    places = {row: place for place, row in enumerate(shortlist.tolist())}
    for kind in range(3):
        same = [places[row] for row in rows.tolist() if row % 3 == kind]
        assert len(same) == 100 and same == sorted(same)
    assert len(set(scores.tolist())) == 3


@pytest.mark.parametrize("name", SIMILARITIES)
def test_nothing_to_score(name):
    similarity = similarity_of(name, 4)
    nothing, some = torch.empty(0, 4), reference.unit_features(3, 4, dtype=torch.float32)
    assert similarity.matrix(nothing, some).shape == (0, 3)
    assert similarity.matrix(some, nothing).shape == (3, 0)
    assert similarity.pairs(nothing, nothing).shape == (0,)


def test_an_unknown_name():
    with pytest.raises(ConfigError, match=r"'manhattan'\. Expected one of euclidean, cosine, mahalanobis, pddm"):
        make_similarity("manhattan", 4)
