"""ImageNet's protocols on tiny copies in the official layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pddm_lab.commands.data import fetch_if_missing
from pddm_lab.config import TrainConfig
from pddm_lab.data.dataset import read_dataset
from pddm_lab.data.sources import imagenet
from pddm_lab.errors import DataError

WNIDS = [
    "n01440764", "n01443537", "n02084071", "n02121808", "n02958343",
    "n03000134", "n04254680", "n07739125", "n09193705", "n12985857",
]  # fmt: skip


def make_imagenet(data_root: Path, inner: str = "train", folder: str = "imagenet", each: int = 3) -> Path:
    root = data_root / folder
    rng = np.random.default_rng(0)
    for wnid in WNIDS:
        (root / inner / wnid).mkdir(parents=True)
        for number in range(each):
            pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / inner / wnid / f"{wnid}_{number}.JPEG")
    (root / "words.txt").write_text(f"{WNIDS[0]}\ttench, Tinca tinca\n{WNIDS[1]}\tgoldfish, Carassius auratus\n")
    return root


@pytest.mark.parametrize(
    ("folder", "inner"), [("imagenet", "train"), ("ILSVRC2010", ""), ("ILSVRC", "Data/CLS-LOC/train")]
)
def test_zero_shot_without_lists_in_each_layout(tmp_path: Path, folder: str, inner: str) -> None:
    make_imagenet(tmp_path, inner, folder)
    data = read_dataset("imagenet:zero-shot", tmp_path)
    assert len(data) == 30
    assert data.class_names[:3] == [f"tench ({WNIDS[0]})", f"goldfish ({WNIDS[1]})", WNIDS[2]]
    assert data.ids[0] == f"{inner}/{WNIDS[0]}/{WNIDS[0]}_0.JPEG".removeprefix("/")
    assert data.path(0).is_file()
    assert data.unseen is not None and data.unseen.leave_one_out
    unseen = set(data.labels[data.unseen.query])
    assert len(unseen) == 2, "a fifth of the classes"
    assert not unseen & set(data.labels[data.train])
    assert data.known is not None
    assert "were trained on the unseen classes too" in data.notes[0]
    assert "chooses 8 of 10 to train" in data.notes[1]
    other = read_dataset("imagenet:zero-shot", tmp_path, split_seed=1)
    assert other.unseen is not None and set(other.labels[other.unseen.query]) != unseen


def test_transfer_measures_all_classes_but_those_trained_on(tmp_path: Path) -> None:
    root = make_imagenet(tmp_path)
    with pytest.raises(DataError, match=r"imagenet:transfer trains on a list .*train_classes.txt is missing"):
        read_dataset("imagenet:transfer", tmp_path)
    (root / "train_classes.txt").write_text("\n".join([*WNIDS[:4], "n99999999"]) + "\n")
    data = read_dataset("imagenet:transfer", tmp_path)
    assert set(data.labels[data.train]) == set(range(4))
    assert data.unseen is not None and set(data.labels[data.unseen.query]) == set(range(4, 10))
    assert "1 classes of the lists are missing here, such as n99999999." in data.notes
    (root / "test_classes.txt").write_text(f"{WNIDS[7]} some words\n{WNIDS[8]}\n")
    data = read_dataset("imagenet:transfer", tmp_path)
    assert len(data.class_names) == 6
    assert data.unseen is not None and len(data.unseen.query) == 6


def test_zero_shot_by_lists(tmp_path: Path) -> None:
    root = make_imagenet(tmp_path)
    (root / "test_classes.txt").write_text("\n".join(WNIDS[5:]))
    data = read_dataset("imagenet:zero-shot", tmp_path)
    assert set(data.labels[data.train]) == set(range(5))


def test_bad_lists(tmp_path: Path) -> None:
    root = make_imagenet(tmp_path)
    for name in imagenet.LISTS:
        (root / name).write_text("\n".join(WNIDS[:5]))
    with pytest.raises(DataError, match=f"share 5 classes, such as {WNIDS[0]}. Expected none"):
        read_dataset("imagenet:zero-shot", tmp_path)
    (root / "test_classes.txt").write_text("n99999999\n")
    with pytest.raises(DataError, match="has none of the classes to train on, or none to measure on"):
        read_dataset("imagenet:zero-shot", tmp_path)


def test_where_there_is_none_one_message_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not imagenet.is_present(tmp_path)
    with pytest.raises(DataError, match=r"ImageNet is not in .*<wnid>/<image>.*image-net.org.*PDDM_LAB_DATA"):
        read_dataset("imagenet:zero-shot", tmp_path)
    with pytest.raises(DataError, match="Expected imagenet:zero-shot or imagenet:transfer"):
        read_dataset("imagenet:10k", tmp_path)


def test_a_training_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pddm_lab.study.material import Material

    make_imagenet(tmp_path)
    material = Material.load(
        TrainConfig(
            dataset="imagenet:zero-shot", data_root=str(tmp_path), runs_root=str(tmp_path / "runs"), image_size=32,
            resize=32, views=1, workers=0,
        )
    )  # fmt: skip
    assert material.inputs.shape[0] == 30
    assert [protocol.name for protocol in material.protocols] == ["unseen", "known"]
    fetch_if_missing("imagenet:zero-shot", str(tmp_path))
