"""Class scaling: sizes by hand, and times of arrays of those sizes."""

from __future__ import annotations

import pytest
import torch

from pddm_lab.applications.class_scaling import class_costs, embedding_seconds, sizes
from pddm_lab.config import TrainConfig
from pddm_lab.model.embedding import MetricModel


@pytest.fixture(scope="module")
def model() -> MetricModel:
    torch.manual_seed(0)
    return MetricModel(TrainConfig(trunk="resnet18", weights="none", dim=16, unit_hidden=0)).eval()


def test_sizes_by_hand(model: MetricModel) -> None:
    trunk, head, unit, matrix = 11_176_512, 512 * 16 + 16, 2 * (16 * 16 + 16) + 16 * 32 + 16 + 17 + 1, 16 * 16
    size = sizes(model, 1000, images=3)
    assert size["lab_parameters"] == trunk + head + unit + matrix
    assert size["classifier_parameters"] == trunk + 1000 * 513
    assert size["classifier_bytes"] == 4 * size["classifier_parameters"]
    assert size["gallery_bytes"] == 1000 * 3 * 16 * 4


def test_a_gallery_of_an_earlier_lab_holds_the_features_as_they_are() -> None:
    config = TrainConfig(familiarity=0.55, trunk="resnet18", weights="none", dim=16)
    model = MetricModel(config)
    features = model.embedding.project(torch.rand(2, 512))
    assert sizes(model, 1000, images=3)["gallery_bytes"] == 1000 * 3 * 4 * features.shape[1] == 1000 * 3 * 4 * 144


def test_costs_are_measured_for_each_number_of_classes(model: MetricModel) -> None:
    seen: list[tuple[int, int, str]] = []
    table = class_costs(model, (10, 300), images=2, progress=lambda *report: seen.append(report))
    assert table["classes"].tolist() == [10, 300]
    assert table["lab_parameters"].nunique() == 1, "the lab's model doesn't change with the classes"
    assert table["classifier_parameters"].diff().tolist()[1] == 290 * 513
    assert (table.filter(like="seconds") > 0).all().all()
    assert table["pass_measured"].all()
    assert seen[-1] == (2, 2, "numbers of classes")


def test_a_long_pass_is_estimated_from_a_step(model: MetricModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pddm_lab.applications.class_scaling.PASS_LIMIT", 0.0)
    (row,) = class_costs(model, (500,), images=2).to_dict("records")
    assert not row["pass_measured"]
    assert row["pass_seconds"] == pytest.approx(8 * row["step_seconds"])  # 501 classes x 2 images in batches of 128


def test_one_picture_takes_time(model: MetricModel) -> None:
    assert embedding_seconds(model, TrainConfig(image_size=32, resize=32), rounds=2) > 0
