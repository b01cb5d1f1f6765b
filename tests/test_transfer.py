"""Models used on data they weren't trained on: targets, coarse classes, iconic pictures, and the tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pddm_lab.applications.feature_spaces import Space
from pddm_lab.applications.transfer import Target, coarse, measure, summary, train_each, transfer, transfer_run
from pddm_lab.config import TrainConfig
from pddm_lab.data.dataset import Protocol
from pddm_lab.data.sources import grocery
from pddm_lab.errors import DataError
from pddm_lab.model.similarity import make_similarity
from pddm_lab.similarities import PRETRAINED
from pddm_lab.study.material import Material

COARSE = {str(digit): "round" if digit in (0, 3, 5, 6, 8, 9) else "straight" for digit in range(10)}


def digits_folder(root: Path, inverted: bool) -> Path:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for label in range(10):
        (root / str(label)).mkdir(parents=True)
        for number in np.flatnonzero(digits.target == label)[:6]:
            pixels = (digits.images[number] * (255 / 16)).astype(np.uint8)
            Image.fromarray(255 - pixels if inverted else pixels).save(root / f"{label}/{number}.png")
    return root


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> list[Material]:
    """White digits on black, and black ones on white."""
    root = tmp_path_factory.mktemp("transfer")
    return [
        Material.load(
            TrainConfig(
                dataset=f"folder:{digits_folder(root / name, name == 'black')}", runs_root=str(root / "runs"),
                image_size=32, resize=32, views=1, workers=0,
            )
        )
        for name in ("white", "black")
    ]  # fmt: skip


def test_a_table_beside_the_pretrained_features(materials: list[Material]) -> None:
    white, black = materials
    fits = train_each({"white": white, "black": black}, 3, (0, 1))
    target = Target.of(black.dataset)
    table = transfer(target, fits, black.config)
    assert list(dict.fromkeys(table["trained_on"])) == [PRETRAINED, "white", "black"]
    assert set(table["protocol"]) == {"unseen", "known"}
    means = summary(table).set_index(["protocol", "trained_on", "similarity", "metric"])
    assert means.loc[("unseen", "white", "euclidean", "recall@1"), "seeds"] == 2
    assert (
        means.loc[("unseen", "white", "pddm", "map@r"), "low"]
        <= means.loc[("unseen", "white", "pddm", "map@r"), "value"]
    )
    assert np.isnan(means.loc[("unseen", PRETRAINED, "euclidean", "map@r"), "low"]), "one number has no interval"
    assert "nmi" in set(table["metric"])


def test_the_same_seed_trains_the_same_embedding(materials: list[Material]) -> None:
    (one,), (again,) = (train_each({"white": materials[0]}, 2, [0]).values() for _ in range(2))
    assert one.model is not None and again.model is not None
    assert torch.equal(one.model.embedding.head.weight, again.model.embedding.head.weight)


def test_coarse_classes_are_trained_on_and_fine_ones_measured(materials: list[Material]) -> None:
    material = materials[0]
    made = coarse(material, COARSE)
    assert made.dataset.class_names == ["round", "straight"]
    assert [made.dataset.class_names[label] for label in made.dataset.labels] == [
        COARSE[material.dataset.class_names[label]] for label in material.dataset.labels
    ]
    assert np.array_equal(made.dataset.train, material.dataset.train)
    table = transfer(Target.of(material.dataset), train_each({"coarse": made}, 2, [0]), material.config)
    assert set(table["trained_on"]) == {PRETRAINED, "coarse"}
    with pytest.raises(DataError, match="has no coarse class for 9"):
        coarse(material, {name: name for name in "012345678"})


def test_one_iconic_picture_a_class(materials: list[Material]) -> None:
    data = materials[0].dataset
    icons = {str(digit): data.path(int(np.flatnonzero(data.labels == digit)[0])) for digit in range(9)}
    target = Target.iconic(data, icons)
    assert len(target.paths) == len(target.labels) == len(data) + 9
    for protocol in target.protocols:
        assert not protocol.leave_one_out
        assert set(target.labels[protocol.gallery]) == set(target.labels[protocol.query])
        assert len(protocol.gallery) == len(set(target.labels[protocol.gallery]))
        assert all(target.paths[row] == icons[str(target.labels[row])] for row in protocol.gallery)
        assert 9 not in target.labels[protocol.query]
    with pytest.raises(DataError, match=r"No class of folder:.* has an iconic picture"):
        Target.iconic(data, {})


def test_known_values() -> None:
    target = Target("made", [], np.array([0, 1, 0, 1, 0]), (Protocol("unseen", np.array([2, 3, 4]), np.array([0, 1])),))
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.6, 0.8], [0.6, 0.8]])
    table = measure(target, Space("a", features, {"euclidean": make_similarity("euclidean", 2)}), 3)
    values = table.set_index("metric")["value"]
    assert values["recall@1"] == pytest.approx(2 / 3)
    assert values["recall@2"] == 1
    assert "nmi" not in values, "one picture a class makes no clusters"
    assert set(table["seed"]) == {3} and set(table["target"]) == {"made"}


def test_a_run_on_its_own_data_measures_as_it_was_measured(digits_run) -> None:
    from pddm_lab.data.dataset import read_dataset

    config = digits_run.config
    data = read_dataset("digits", config.data_root)
    table = transfer_run(digits_run, Target.of(data), digits_run)
    own = table[table["trained_on"] == digits_run.name].groupby(["protocol", "similarity", "metric"])["value"].mean()
    for protocol, similarities in digits_run.info["metrics"].items():
        for similarity in ("euclidean", "pddm"):
            assert own[protocol, similarity, "map@r"] == pytest.approx(similarities[similarity]["map@r"], abs=2e-3)


def test_summaries_are_students() -> None:
    rows = [{"target": "t", "protocol": "unseen", "trained_on": "a", "similarity": "pddm", "metric": "map@r", "seed": s}
            for s in range(3)]  # fmt: skip
    (row,) = summary(pd.DataFrame(rows).assign(value=[0.1, 0.2, 0.3])).to_dict("records")
    half = 4.302653 * 0.1 / 3**0.5
    assert (row["value"], row["low"], row["high"]) == tuple(
        pytest.approx(x, abs=1e-6) for x in (0.2, 0.2 - half, 0.2 + half)
    )


def test_grocerys_official_coarse_classes_and_icons(tmp_path: Path) -> None:
    root = tmp_path / "GroceryStoreDataset" / "dataset"
    (root / "icons").mkdir(parents=True)
    head = "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic,Description"
    lines = [f"{name},{n},{of},{m},/icons/{name}.jpg,/d.txt" for n, (name, of, m) in enumerate(
        [("Pink-Lady", "Apple", 0), ("Granny-Smith", "Apple", 0), ("Avocado", "Avocado", 1)])]  # fmt: skip
    (root / "classes.csv").write_text("\n".join([head, *lines]) + "\n")
    Image.new("RGB", (8, 8)).save(root / "icons" / "Avocado.jpg")
    assert grocery.coarse_classes(tmp_path) == {"Pink-Lady": "Apple", "Granny-Smith": "Apple", "Avocado": "Avocado"}
    assert grocery.iconic_images(tmp_path) == {"Avocado": root / "icons" / "Avocado.jpg"}
    with pytest.raises(DataError, match="Cannot read"):
        grocery.coarse_classes(tmp_path / "elsewhere")


def test_a_target_has_the_protocols_of_its_data_set(materials: list[Material]) -> None:
    data = dataclasses.replace(materials[0].dataset, known=None)
    assert [protocol.name for protocol in Target.of(data).protocols] == ["unseen"]
