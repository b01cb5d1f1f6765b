"""A small training learns what a run's would, and wrong labels are as many and as wrong as asked for."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from pddm_lab.config import TrainConfig
from pddm_lab.data.dataset import Dataset, read_dataset
from pddm_lab.teaching.small_training import (
    PHASE,
    PICTURE,
    SmallTraining,
    ids_in,
    pictures,
    share_with,
    with_wrong_labels,
)
from pddm_lab.training.miner import mine


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return read_dataset("digits", tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def training(data: Dataset) -> SmallTraining:
    config = TrainConfig(dataset="digits", weights="none", classes_per_batch=5, images_per_class=4, lr=2e-3, dim=16)
    pooled = torch.zeros(len(data), 1280)
    order = [int(Path(item).stem) for item in data.ids]
    pooled[:, :64] = torch.tensor(load_digits().data[order] / 16, dtype=torch.float32)
    return SmallTraining(data, pooled, config)


def test_it_learns_and_keeps_what_it_mined(training: SmallTraining, data: Dataset) -> None:
    before, items = training.metrics("euclidean"), training.batch(1)
    state = {name: value.clone() for name, value in training.model.state_dict().items()}
    look = training.look(items)
    assert all(torch.equal(value, state[name]) for name, value in training.model.state_dict().items())
    f, labels = training.features(items), torch.from_numpy(data.labels[items])
    assert torch.allclose(f.norm(dim=1), torch.ones(len(items)))
    quads = mine(f, labels, training.model.similarity("pddm"), "anchor")
    assert torch.equal(look.quadruplets, torch.stack([quads.i, quads.j, quads.k, quads.l]))
    columns = training.columns(items, look)
    assert columns["i"].tolist() == [data.ids[items[place]] for place in quads.i]
    assert columns["class_k"].tolist() == [data.class_names[data.labels[items[place]]] for place in quads.k]
    assert columns["slack_ik"] == pytest.approx(0.5 + columns["s_ik"] - columns["s_ij"], abs=1e-5)

    training.train(20)
    training.train(20)
    assert len(training.losses) == 40
    assert training.metrics("euclidean")["map@r"] > before["map@r"] + 0.02
    mined = training.mined()
    assert mined.phases == [PHASE] and mined.span(PHASE) == (1, 40) and mined.has_euclidean
    first = mined.frame(mined.pick(PHASE, (1, 1)))
    assert set(first["i"]) | set(first["j"]) <= {data.ids[item] for item in items}
    assert ids_in(first) <= {data.ids[item] for item in items}


def test_the_same_seed_trains_the_same(training: SmallTraining) -> None:
    config = dataclasses.replace(training.config, mining="batch")
    one, other = (SmallTraining(training.dataset, training.pooled, config) for _ in range(2))
    for each in (one, other):
        each.train(3)
        torch.rand(5)
    assert one.losses == other.losses
    assert one.mined().one_a_batch


def test_wrong_labels_are_wrong_and_as_many_as_asked_for(data: Dataset) -> None:
    labels, wrong = with_wrong_labels(data.labels, data.train, 0.25, seed=3)
    assert wrong.sum() == round(0.25 * len(data.train))
    assert set(np.flatnonzero(wrong)) <= set(data.train)
    assert (labels[wrong] != data.labels[wrong]).all()
    assert (labels[~wrong] == data.labels[~wrong]).all()
    assert set(labels[data.train]) == set(data.labels[data.train])
    assert len(set(labels[wrong])) == len(set(data.labels[data.train])), "wrong in every way"


def test_quadruplets_that_hold_an_item_are_counted(training: SmallTraining) -> None:
    mined = training.mined()
    frame = mined.frame(np.arange(len(mined)))
    chosen = set(frame["i"].head(5))
    holds = frame[list("ijkl")].isin(chosen).any(axis=1)
    assert share_with(mined, chosen) == pytest.approx(holds.mean())
    worst = frame.assign(worst=frame[["slack_ik", "slack_jl"]].max(axis=1)).sort_values("worst", ascending=False)
    top = worst.head(round(0.1 * len(frame)))
    assert share_with(mined, chosen, 0.1) == pytest.approx(top[list("ijkl")].isin(chosen).any(axis=1).mean(), abs=0.02)


def test_a_small_picture_is_enlarged_smoothly(data: Dataset) -> None:
    (picture,) = pictures(data, [data.ids[0]] * 2).values()
    image = np.asarray(Image.open(io.BytesIO(picture)).convert("L"), dtype=float)
    assert image.shape == (PICTURE, PICTURE)
    cells = np.asarray(data.load(0).convert("L"), dtype=float)
    assert np.abs(image.reshape(8, 8, 8, 8).mean((1, 3)) - cells).mean() < 16, "the same picture"
    steps = np.abs(np.diff(cells, axis=1)).max()
    assert np.abs(np.diff(image, axis=1)).max() < 0.5 * steps, "no step is as high as between two pixels"
