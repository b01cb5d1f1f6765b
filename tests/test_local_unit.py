"""The unit on local structure: what it starts at, its loss, its second pass, and what it learns on clusters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from local_reference import items

import pddm_lab
from pddm_lab.errors import DataError
from pddm_lab.local import fit
from pddm_lab.local.episodes import Episode, episode, folds, map_at_r, splits
from pddm_lab.local.evidence import evidence
from pddm_lab.local.fit import fit_local_structure, listwise_loss
from pddm_lab.local.neighbourhoods import Neighbourhoods
from pddm_lab.local.reciprocal import KReciprocal
from pddm_lab.local.similarity import CSLS, Expansion, Global
from pddm_lab.local.space import joined
from pddm_lab.local.unit import LocalStructure, NeighbourhoodUnit, first_inputs


def rings(classes: int, each: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes that are long arcs: their ends are far apart, and neighbours lead from one to the other."""
    random = torch.Generator().manual_seed(seed)
    planes = torch.linalg.qr(torch.randn(classes, 12, 2, generator=random)).Q
    angles = torch.rand(classes, each, generator=random) * 2.2
    circle = torch.stack([angles.cos(), angles.sin()], dim=-1)
    x = torch.einsum("cek,cdk->ced", circle, planes) + 0.12 * torch.randn(classes, each, 12, generator=random)
    return F.normalize(x.flatten(0, 1), dim=1), torch.arange(classes).repeat_interleave(each)


@pytest.fixture(scope="module")
def structure() -> LocalStructure:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "STEPS", 150)
        return fit_local_structure(*rings(16, 16, 0))


def test_the_unit_has_the_form_of_the_paper() -> None:
    """Against the equation, in float64 loops, with weights that are not 0."""
    torch.manual_seed(0)
    unit = NeighbourhoodUnit(5, 4).double()
    torch.nn.init.normal_(unit.score.weight)
    u, v = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    unit.standardise(torch.randn(50, 5) * 2 + 1, torch.randn(50, 4))
    weights = {name: value.detach().numpy() for name, value in unit.state_dict().items()}

    def layer(x: np.ndarray, name: str) -> np.ndarray:
        return np.maximum(weights[f"{name}.weight"] @ x + weights[f"{name}.bias"], 0)

    for row in range(3):
        a = np.clip((u[row].numpy() - weights["u_mean"]) / weights["u_deviation"], -5, 5)
        b = np.clip((v[row].numpy() - weights["v_mean"]) / weights["v_deviation"], -5, 5)
        left, right = layer(a, "agreement"), layer(b, "place")
        joint = layer(np.concatenate([left / np.linalg.norm(left), right / np.linalg.norm(right)]), "joint")
        expected = weights["skip"] @ a + weights["score.weight"][0] @ joint
        assert unit(u[row], v[row]).item() == pytest.approx(expected)


@pytest.mark.parametrize("pretrained", [False, True])
def test_it_is_small_and_starts_at_the_cosine(pretrained: bool) -> None:
    structure = LocalStructure(8, pretrained, 0.5, passes=1)
    assert sum(one.numel() for one in structure.first.parameters()) == pytest.approx(2900, abs=250)
    gallery, queries = items(50).float(), items(6, seed=5).float()
    z, q = (joined(part, part.flip(1), structure.weight) if pretrained else part for part in (gallery, queries))
    reference = Neighbourhoods.of(z, first_part=structure.first_part)
    torch.testing.assert_close(structure.matrix(reference, q), Global().matrix(reference, q))


def test_a_value_that_never_changes_stays_finite() -> None:
    unit = NeighbourhoodUnit(2, 1)
    unit.standardise(torch.tensor([[1.0, 7.0], [3.0, 7.0]]), torch.zeros(2, 1))
    assert unit.u_deviation[1] == 1 and unit(torch.tensor([2.0, 7.0]), torch.zeros(1)).isfinite()


def test_the_loss_is_what_plain_loops_give() -> None:
    torch.manual_seed(0)
    scores = torch.randn(6, 9, dtype=torch.float64, requires_grad=True)
    positive = torch.rand(6, 9) < 0.4
    positive[4], positive[5] = True, False  # all right and none right: nothing to learn
    each = []
    for q in range(4):
        row = scores[q].tolist()
        negatives = sum(math.exp(row[n]) for n in range(9) if not positive[q, n])
        losses = [math.log(1 + negatives / math.exp(row[i])) for i in range(9) if positive[q, i]]
        each.append(sum(losses) / len(losses))
    assert listwise_loss(scores, positive).item() == pytest.approx(np.mean(each))
    assert torch.autograd.gradcheck(lambda s: listwise_loss(s, positive), scores)
    nothing = listwise_loss(scores, torch.zeros_like(positive))
    nothing.backward()
    assert nothing == 0 and scores.grad is not None and not scores.grad.any()


def test_folds_share_no_class_and_hold_out_items() -> None:
    labels = torch.arange(20).repeat_interleave(9)
    divided = folds(labels, seed=1)
    assert torch.equal(torch.cat([fold.classes for fold in divided]).sort().values, torch.arange(180))
    for fold in divided:
        every = torch.cat([fold.classes, fold.queries, fold.rest])
        assert torch.equal(every.sort().values, torch.arange(180))
        assert not set(labels[fold.classes].tolist()) & set(labels[fold.rest].tolist())
        assert 0.1 < len(fold.queries) / (len(fold.queries) + len(fold.rest)) < 0.3
    assert torch.equal(folds(labels, seed=1)[0].classes, divided[0].classes)
    pairs = torch.arange(len(labels)) // 2
    for fold in folds(labels, 1, pairs):
        assert not set(pairs[fold.queries].tolist()) & set(pairs[fold.rest].tolist()), "near-duplicates stay together"


def test_thinned_galleries_have_so_many_items_a_class() -> None:
    labels = torch.arange(20).repeat_interleave(9)
    fold = folds(labels, seed=1)[0]
    unseen, known, *thinned = splits(fold, labels, 0)
    assert torch.equal(unseen.gallery, fold.classes) and unseen.own is not None and unseen.is_full
    assert torch.equal(known.gallery, fold.rest) and torch.equal(known.queries, fold.queries) and known.own is None
    counts = [labels[split.gallery].bincount() for split in thinned]
    assert [int(count.max()) for count in counts] == [1, 2, 4, 8, 1, 2, 4]
    for split in thinned:
        assert not set(split.gallery.tolist()) & set(split.queries.tolist()) and not split.is_full


def test_an_episode_ranks_as_the_lab_measures() -> None:
    features, labels = rings(12, 15, 0)
    split = next(iter(splits(folds(labels, 0)[0], labels, 0)))
    made = episode(split, features, labels, 0, seed=0)
    assert isinstance(made, Episode) and made.own is not None
    of = labels[split.gallery][made.rows]
    assert torch.equal(made.positive, of == labels[split.gallery][made.own, None])
    assert (made.rows != made.own[:, None]).all() and set(made.relevant.tolist()) == {14}
    gallery = pddm_lab.Cosine()
    expected = pddm_lab.evaluate(
        gallery, features[split.gallery], features[split.gallery], labels[split.gallery], labels[split.gallery], True
    )
    cosines = torch.einsum("qd,qcd->qc", made.features, made.reference.features[made.rows])
    assert map_at_r(cosines, made) == pytest.approx(expected.metrics["map@r"], abs=1e-6)


def test_it_ranks_classes_that_it_never_met_better(structure: LocalStructure) -> None:
    """Arcs in new directions: neither the unit nor the whitening has seen them."""
    features, labels = rings(24, 20, 7)
    own = torch.arange(len(features))
    frozen = features.numpy()
    frozen.setflags(write=False)  # as a gallery on disk has them
    reference = structure.reference(frozen)
    z = structure.space(frozen)
    quality = {
        name: pddm_lab.metrics.retrieval.average_precisions(scores, labels, own).mean().item()
        for name, scores in {
            "global": Global().matrix(reference, z, own),
            "first": structure.matrix(Neighbourhoods.of(z), z, own),
            "second": structure.matrix(reference, z, own),
        }.items()
    }
    assert quality["first"] > quality["global"] + 0.05
    assert quality["second"] > quality["first"] - 0.01


def test_the_second_pass_is_the_same_for_any_candidates(structure: LocalStructure) -> None:
    features, _ = rings(10, 20, 3)
    reference = structure.reference(features)
    z = structure.space(features[:4])
    own = torch.arange(4)
    whole = structure.matrix(reference, z, own)
    rows = torch.tensor([[50, 7, 120], [3, 9, 0], [199, 5, 60], [8, 4, 77]])
    torch.testing.assert_close(structure.candidates(reference, z, rows, own), whole.gather(1, rows), atol=1e-4, rtol=0)
    near = reference.shortlist(reference.queries(z, own), 150)
    torch.testing.assert_close(structure.candidates(reference, z, near, own), whole.gather(1, near), atol=1e-4, rtol=0)


def test_the_lists_of_the_second_pass_are_by_the_score_of_the_first(structure: LocalStructure) -> None:
    features, _ = rings(8, 12, 3)
    reference = structure.reference(features)
    assert reference.second is not None
    z, own = reference.features, torch.arange(96)
    rows = own.expand(96, -1)
    scores = structure.first(*first_inputs(reference, reference.queries(z, own), rows)).fill_diagonal_(-torch.inf)
    best, listed = scores.topk(41, dim=1)
    torch.testing.assert_close(reference.second.scores, best, atol=1e-4, rtol=0)
    assert (reference.second.neighbours == listed).float().mean() > 0.999
    torch.testing.assert_close(reference.second.weights, structure.probabilities(best), atol=1e-4, rtol=0)


def test_the_first_pass_ranks_a_query_as_without_it_in_the_gallery(structure: LocalStructure) -> None:
    features, _ = rings(10, 12, 5)
    z = structure.space(features).double()
    unit = LocalStructure(12, passes=1).double()
    unit.first.load_state_dict(structure.first.state_dict())
    scores = unit.matrix(Neighbourhoods.of(z), z, torch.arange(120))
    for row in (0, 50, 119):
        others = torch.cat([torch.arange(row), torch.arange(row + 1, 120)])
        expected = unit.matrix(Neighbourhoods.of(z[others]), z[row][None])[0]
        torch.testing.assert_close(scores[row, others], expected)


def test_items_of_a_gallery_are_as_similar_both_ways(structure: LocalStructure) -> None:
    features, _ = rings(10, 12, 5)
    reference = structure.reference(features)
    random = torch.Generator().manual_seed(0)
    left = torch.randint(0, 60, (200,), generator=random)
    right = torch.randint(60, 120, (200,), generator=random)
    z, every = reference.features, torch.arange(120)
    searched = structure.matrix(reference, z, every)
    for similarity in (structure, KReciprocal(), CSLS(), Expansion(4, both=True)):
        there, back = similarity.pairs(reference, left, right), similarity.pairs(reference, right, left)
        torch.testing.assert_close(there, back, atol=1e-5, rtol=1e-5)
        among = similarity.among(reference, every)
        torch.testing.assert_close(among[left, right], there, atol=1e-4, rtol=1e-4)
        assert torch.equal(among.isnan(), torch.eye(120).bool())
    torch.testing.assert_close(
        structure.pairs(reference, left, right), (searched[left, right] + searched[right, left]) / 2,
        atol=1e-4, rtol=1e-4,
    )  # fmt: skip


def test_only_neighbourhoods_tell_a_query_from_an_item() -> None:
    """What is the same both ways in a search: cosines and ranks."""
    reference, every = Neighbourhoods.of(items(80)), torch.arange(80)
    seen = evidence(reference, reference.queries(reference.features, every), every.expand(80, -1))
    off = ~torch.eye(80).bool()

    def is_symmetric(values: torch.Tensor) -> bool:
        return torch.allclose(values[off], values.T[off])

    assert is_symmetric(seen.cosine)
    assert is_symmetric(seen.ranks[0] + seen.ranks[1]) and is_symmetric((seen.ranks[0] - seen.ranks[1]).abs())
    assert not any(is_symmetric(values) for values in (*seen.both, *seen.shared, *seen.reciprocal))
    assert not is_symmetric(sum(seen.densities[0], torch.zeros(80, 80)))


def test_fitting_is_reproducible_and_reports_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "STEPS", 5)
    features, labels = rings(8, 12, 0)
    steps: list[tuple[int, int, str]] = []
    state = torch.random.get_rng_state()
    first = fit_local_structure(features.numpy(), labels.numpy(), progress=lambda *step: steps.append(step))
    torch.rand(3)
    second = fit_local_structure(features, labels * 3 + 5)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert [step for step, _, _ in steps] == list(range(1, 11)) and steps[-1] == (10, 10, "second pass")
    assert not torch.equal(state, torch.random.get_rng_state()) and torch.rand(1).isfinite()
    assert not any(parameter.requires_grad for parameter in first.parameters())


def test_pretrained_features_join_where_they_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedding is noise, the pretrained features are not: the chosen weight is the largest."""
    monkeypatch.setattr(fit, "STEPS", 2)
    features, labels = rings(12, 12, 0)
    noise = F.normalize(torch.randn(144, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    helped = fit_local_structure(noise, labels, features, passes=1)
    assert helped.weight == 1.5 and helped.first_part == 6 and helped.second is None
    z = helped.space(noise, features)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(144))
    assert helped.reference(noise, features).second is None
    assert helped.matrix(helped.reference(noise, features), z[:2]).shape == (2, 144)
    with pytest.raises(DataError, match="Expected pretrained features too"):
        helped.space(noise)
    alone = fit_local_structure(features, labels, noise, passes=1)
    assert alone.weight == 0 and alone.first_part == 0
    assert alone.space(features, noise).shape == (144, 12)


def test_folds_may_have_an_embedding_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "STEPS", 2)
    features, labels = rings(8, 12, 0)
    fitted: list[tuple[int, int]] = []

    def of(at: int, fold: object) -> torch.Tensor:
        fitted.append((at, len(fold.rest)))  # type: ignore[attr-defined]
        return features @ torch.randn(12, 5, generator=torch.Generator().manual_seed(at))

    structure = fit_local_structure(features, labels, fold_features=of)
    assert [at for at, _ in fitted] == [0, 1, 2] and all(count < 80 for _, count in fitted)
    assert structure.whitening.mean.shape == (12,)


def test_bad_input_gets_a_message() -> None:
    features, labels = rings(3, 6, 0)
    with pytest.raises(DataError, match="at least 4 classes with 2 or more items to learn from, got 3"):
        fit_local_structure(features, labels)
    features, labels = rings(6, 8, 0)
    with pytest.raises(DataError, match=r"one row each, got shapes \[\(48, 12\), \(40,\)\]"):
        fit_local_structure(features, labels[:40])
    features[3, 2] = torch.nan
    with pytest.raises(DataError, match="NaN or infinity"):
        fit_local_structure(features, labels)


@pytest.mark.filterwarnings("ignore:This gallery has 6 items")
def test_a_gallery_of_few_items_is_ranked_by_the_cosine(structure: LocalStructure) -> None:
    features, _ = rings(2, 3, 0)
    reference = structure.reference(features)
    assert reference.second is None and "ranked by the cosine" in reference.note
    z = structure.space(features)
    torch.testing.assert_close(structure.matrix(reference, z), z @ z.T)
