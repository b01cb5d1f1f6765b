"""What a GPU must compute like the CPU. `PDDM_LAB_DEVICE=cpu` rehearses it; without either, the tests are skipped."""

from __future__ import annotations

import copy
import os

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pddm_lab.config import TrainConfig
from pddm_lab.model.all_pairs import all_pairs
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.pddm import PDDM
from pddm_lab.model.similarity import make_similarity
from pddm_lab.similarities import SIMILARITIES
from pddm_lab.training.miner import mine
from pddm_lab.training.objectives import Objective

DEVICE = torch.device(os.environ.get("PDDM_LAB_DEVICE", "cuda"))
pytestmark = pytest.mark.skipif(
    DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA GPU, or PDDM_LAB_DEVICE=cpu"
)
BACKEND = "inductor" if DEVICE.type == "cuda" else "aot_eager"
"""A rehearsal traces without compiling, which takes minutes on a CPU."""
LABELS = torch.arange(16).repeat_interleave(4)


def features(count: int, dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=generator), dim=1)


def trainer(**choices: object) -> Objective:
    """An objective on the device."""
    torch.manual_seed(0)
    config = TrainConfig.from_parameters({"trunk": "efficientnet_lite0", "weights": "imagenet", **choices})
    return Objective(MetricModel(config), config, 16).to(DEVICE)


def gradients(objective: Objective) -> Tensor:
    """Gradients of the head and of both learned similarities, in one vector."""
    heads = [*objective.model.embedding.head.parameters(), *objective.model.learned.parameters()]
    return torch.cat([parameter.grad.flatten() for parameter in heads if parameter.grad is not None])


@pytest.mark.parametrize("items", [64, 700])
@pytest.mark.parametrize("compiled", [False, True] if BACKEND == "inductor" else [False])
def test_scores_of_all_pairs_equal_the_slow_formula(items: int, compiled: bool) -> None:
    torch.manual_seed(0)
    unit, a = PDDM(32).eval(), features(items, 32, 1)
    exact = copy.deepcopy(unit).double()(a[:, None].double(), a[None].double())
    on_device = a.to(DEVICE)
    near = all_pairs(unit.to(DEVICE), on_device, on_device, compiled=compiled)
    assert torch.equal(near, near.T)
    torch.testing.assert_close(near.cpu().double(), exact, atol=2e-5, rtol=1e-5)
    near = all_pairs(unit, on_device[:40], on_device.clone(), compiled=compiled, products=torch.bfloat16)
    torch.testing.assert_close(near.cpu().double(), exact[:40], atol=0.02, rtol=0.02)


@pytest.mark.parametrize("strategy", ["batch", "anchor"])
@pytest.mark.parametrize("name", SIMILARITIES)
def test_the_same_quadruplets_are_mined_as_on_a_cpu(name: str, strategy: str) -> None:
    torch.manual_seed(0)
    similarity, a = make_similarity(name, 32).double(), features(64, 32, 2).double()
    here = mine(a, LABELS, similarity, strategy)
    there = mine(a.to(DEVICE), LABELS.to(DEVICE), similarity.to(DEVICE), strategy)
    for end in "ijkl":
        assert torch.equal(getattr(here, end), getattr(there, end).cpu())


def test_a_step_on_a_frozen_trunk_equals_the_cpus() -> None:
    objective, pooled = trainer(), features(64, 1280, 3).abs()
    here = copy.deepcopy(objective).cpu()
    step = objective(pooled.to(DEVICE), LABELS.to(DEVICE))
    expected = here(pooled, LABELS)
    torch.testing.assert_close(step.loss.cpu(), expected.loss, atol=1e-4, rtol=1e-4)
    step.loss.backward()
    expected.loss.backward()
    assert F.cosine_similarity(gradients(objective).cpu(), gradients(here), dim=0) > 0.999


def test_mixed_precision_stays_near_32_bits() -> None:
    """The loss and the direction of a fine-tuning step, and the features that it starts from."""
    images = torch.randint(0, 256, (64, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    # Smooth pictures: bf16 rounds away what single noisy pixels differ in.
    images = F.interpolate(F.avg_pool2d(images.float(), 16), 96, mode="bilinear").round().to(torch.uint8).to(DEVICE)
    losses, directions, embedded = [], list[Tensor](), list[Tensor]()
    for enabled in (False, True):
        objective = trainer(freeze_trunk=False, pool_power=1.0).eval()
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=enabled):
            embedded.append(objective.model.embedding(images).detach())
            step = objective(images, LABELS.to(DEVICE))
        step.loss.backward()
        losses.append(step.loss.item())
        directions.append(gradients(objective))
    assert embedded[1].dtype == torch.float32
    assert F.cosine_similarity(embedded[0], embedded[1], dim=1).min() > 0.95  # of noise; of photos 0.99
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert F.cosine_similarity(directions[0], directions[1], dim=0) > 0.8  # some quadruplets are others


def test_a_compiled_step_equals_the_plain_one() -> None:
    objective, pooled = trainer(mining="batch"), features(64, 1280, 5).abs().to(DEVICE)
    plain = copy.deepcopy(objective)
    torch.compiler.reset()
    step = torch.compile(objective, backend=BACKEND)(pooled, LABELS.to(DEVICE))
    expected = plain(pooled, LABELS.to(DEVICE))
    torch.testing.assert_close(step.loss, expected.loss, atol=1e-4, rtol=1e-4)
    step.loss.backward()
    expected.loss.backward()
    torch.testing.assert_close(gradients(objective), gradients(plain), atol=1e-4, rtol=1e-3)
