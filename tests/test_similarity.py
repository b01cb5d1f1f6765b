import pytest
import reference
import torch

from pddm_lab.errors import ConfigError
from pddm_lab.model.similarity import Mahalanobis, make_similarity
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


@pytest.mark.parametrize("name", SIMILARITIES)
def test_nothing_to_score(name):
    similarity = similarity_of(name, 4)
    nothing, some = torch.empty(0, 4), reference.unit_features(3, 4, dtype=torch.float32)
    assert similarity.matrix(nothing, some).shape == (0, 3)
    assert similarity.matrix(some, nothing).shape == (3, 0)
    assert similarity.pairs(nothing, nothing).shape == (0,)


def test_an_unknown_name():
    with pytest.raises(ConfigError, match="Expected one of euclidean, cosine, mahalanobis, pddm"):
        make_similarity("manhattan", 4)
