"""The loop that runs, the study and teaching share: what a step does, and that it continues where it stopped."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from pddm_lab.config import LOSSES, TrainConfig
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.trunks import Trunk
from pddm_lab.training.loop import Loop, image_inputs, learning_rate_factor, view_inputs

LABELS = np.repeat([3, 5, 7, 9], 6)
TRAIN = np.flatnonzero(LABELS != 5)


def new_loop(views: int = 2, **choices) -> Loop:
    config = TrainConfig.from_parameters({"dim": 8, "classes_per_batch": 2, "steps": 8, "lr": 1e-2, **choices})
    torch.manual_seed(0)
    model = MetricModel(config, trunk=Trunk(torch.nn.Identity(), 12, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    features = torch.randn(views, len(TRAIN), 12, generator=torch.Generator().manual_seed(1))
    return Loop(model, config, LABELS, TRAIN, view_inputs(features, TRAIN, config.seed))


def weights(module) -> torch.Tensor:
    values = (value.flatten() for value in module.state_dict().values() if value.is_floating_point())
    return torch.cat([torch.zeros(0), *values])


def test_each_item_of_a_batch_is_seen_in_one_of_its_views() -> None:
    features = torch.arange(3 * len(TRAIN)).view(3, len(TRAIN), 1).float()  # view and row in one number
    batch = TRAIN[[4, 0, 9, 9]]
    (inputs,) = view_inputs(features, TRAIN, seed=5)([(2, batch, np.arange(4))])
    view = np.random.default_rng([5, 2]).integers(3, size=4)
    assert inputs.flatten().tolist() == [len(TRAIN) * v + row for v, row in zip(view, (4, 0, 9, 9), strict=True)]
    (half,) = view_inputs(features, TRAIN, seed=5)([(2, batch, np.arange(2, 4))])
    assert torch.equal(half, inputs[2:]), "a process of several sees its part of the same batch"


def test_a_step_is_the_optimisers_with_the_schedules_rate_and_moves_the_average() -> None:
    # Adam would turn the rounding of a gradient that is 0, such as that of b_s, into a step of full size.
    loop, by_hand = (new_loop(optimizer="sgd", schedule="cosine", warmup_steps=2, average=0.5) for _ in range(2))
    config, parameters = loop.config, by_hand.objective.groups()[0]["params"]
    optimizer = torch.optim.SGD(parameters, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
    kept = [parameter.detach().clone() for parameter in parameters]
    source = by_hand._source((step, by_hand.batch(step), np.arange(8)) for step in itertools.count(1))
    for step in range(1, 4):
        result = loop.take_step()
        torch.manual_seed(config.seed * 1_000_003 + step)
        loss = by_hand.objective.train()(next(source), by_hand.numbered(by_hand.batch(step))).loss
        optimizer.param_groups[0]["lr"] = config.lr * learning_rate_factor(config, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay = min(0.5, (1 + step) / (10 + step))
        kept = [decay * old + (1 - decay) * new.detach() for old, new in zip(kept, parameters, strict=True)]
        assert result.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    assert loop.step == 3 and loop.lr == pytest.approx(config.lr * learning_rate_factor(config, 3))
    torch.testing.assert_close(weights(loop.model), weights(by_hand.model))
    of_kept = [*loop.kept.embedding.head.parameters(), *loop.kept.learned.parameters()]
    for averaged, expected in zip(of_kept, kept, strict=True):
        torch.testing.assert_close(averaged, expected)


def test_classes_are_numbered_for_the_loss() -> None:
    loop = new_loop(loss="arcface")
    assert loop.numbered(TRAIN).tolist() == np.repeat([0, 1, 2], 6).tolist()
    assert loop.objective.rival and loop.objective.rival.loss.W.shape == (8, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loop_continues_where_it_stopped(loss: str) -> None:
    whole, first, second = (new_loop(loss=loss, unit_dropout=0.3) for _ in range(3))
    for _ in range(5):
        whole.take_step()
    for _ in range(2):
        first.take_step()
    second.load_state_dict(first.state_dict())
    results = [second.take_step() for _ in range(3)]
    assert second.step == 5 and torch.isfinite(results[-1].loss)
    for one, other in ((whole.model, second.model), (whole.kept, second.kept)):
        assert torch.equal(weights(one), weights(other))
    if whole.objective.rival and second.objective.rival:
        assert torch.equal(weights(whole.objective.rival), weights(second.objective.rival))


def test_a_closed_loop_leaves_no_process_and_can_go_on(tmp_path: Path) -> None:
    paths = []
    for item in range(len(LABELS)):
        paths.append(tmp_path / f"{item}.png")
        Image.new("RGB", (8, 8), (10 * item, 0, 0)).save(paths[-1])
    choices = {"dim": 8, "classes_per_batch": 2, "image_size": 8, "resize": 8, "freeze_trunk": False, "workers": 1}
    config = TrainConfig.from_parameters({**choices, "images_per_class": 2, "steps": 8})
    flat = Trunk(torch.nn.Flatten(), 3 * 8 * 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    loop = Loop(
        MetricModel(config, trunk=flat), config, LABELS, TRAIN, image_inputs(paths, config, torch.device("cpu"))
    )
    others = set(psutil.Process().children())
    loop.take_step()
    (process,) = set(psutil.Process().children()) - others
    loop.close()
    assert not psutil.wait_procs([process], timeout=300)[1], "it ends, though perhaps a moment later"
    loop.take_step()
    loop.close()
    assert loop.step == 2
