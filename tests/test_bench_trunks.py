"""Pretrained trunks compared on small pictures: a row for each, with its cost and its quality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pddm_lab import cli
from pddm_lab.bench import trunks
from pddm_lab.data.dataset import read_dataset
from pddm_lab.metrics.retrieval import evaluate
from pddm_lab.model.similarity import Euclidean


@pytest.mark.slow
def test_a_row_for_each_trunk_and_size(data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "trunks.csv"
    options = [
        "--trunks",
        "efficientnet_lite0",
        "--sizes",
        "32",
        "64",
        "--items",
        "60",
        "--precision",
        "32",
        "--cores",
        "0",
    ]
    cli.main(["bench", "trunks", "--datasets", "digits", *options, "--data-root", str(data_root), "--csv", str(file)])
    table = pd.read_csv(file)
    assert table[["dataset", "trunk", "size", "precision"]].to_numpy().tolist() == [
        ["digits", "efficientnet_lite0", 32, 32], ["digits", "efficientnet_lite0", 64, 32],
    ]  # fmt: skip
    assert (table["cpu_seconds"] > 0).all() and table["images"].between(60, 700).all()
    for protocol in ("unseen", "known"):
        quality = table[[f"{protocol} recall@1", f"{protocol} map@r"]]
        assert quality.gt(20).all(axis=None) and quality.le(100).all(axis=None)
    assert "unseen recall@1" in capsys.readouterr().out


def test_some_classes_are_whole_and_all_means_all(data_root: Path) -> None:
    dataset = read_dataset("digits", data_root)
    for protocol in (dataset.unseen, dataset.known):
        assert protocol is not None
        every = trunks._some_classes(dataset, protocol, 0)
        assert np.array_equal(every.query, protocol.query) and np.array_equal(every.gallery, protocol.gallery)
        some = trunks._some_classes(dataset, protocol, 10)
        (kept,) = {*dataset.labels[some.query]} | {*dataset.labels[some.gallery]}
        assert len(some.query) == (dataset.labels[protocol.query] == kept).sum()
        assert some.leave_one_out == protocol.leave_one_out


def test_the_quality_is_that_of_the_protocol(data_root: Path) -> None:
    import torch

    dataset = read_dataset("digits", data_root)
    assert dataset.unseen is not None and dataset.known is not None
    features = torch.nn.functional.normalize(torch.randn(len(dataset), 8, generator=torch.Generator().manual_seed(0)))
    quality = trunks._quality(dataset, [dataset.known], np.arange(len(dataset)), features)
    known = dataset.known
    expected = evaluate(
        Euclidean(), features[known.query], features[known.gallery], dataset.labels[known.query],
        dataset.labels[known.gallery], False,
    ).metrics["recall@1"]  # fmt: skip
    assert quality["known recall@1"] == pytest.approx(100 * expected, abs=0.01)
