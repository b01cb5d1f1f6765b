"""A new class beside all items of the others: what is in the gallery, what is asked, and R@1 by slow loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pddm_lab import cli
from pddm_lab.applications.few_shot import Episodes
from pddm_lab.applications.new_class import new_classes, summary
from pddm_lab.errors import LabError
from pddm_lab.runs.local import load_local
from pddm_lab.runs.run import Run


@pytest.fixture(scope="module")
def table(local_run: Run) -> pd.DataFrame:
    return new_classes(local_run, 2, shots=(1, 5), seed=3)


def test_each_class_joins_all_items_of_the_others(local_run: Run, table: pd.DataFrame) -> None:
    items = local_run.gallery("unseen").items
    counts = items["class_name"].value_counts()
    assert set(table["class"]) == set(counts.index)
    assert set(table["similarity"]) == {"euclidean", "mahalanobis", "pddm", "local"}
    for row in table.to_dict("records"):
        assert row["items"] == len(items) - counts[row["class"]] + row["shots"]
        assert row["queries"] == counts[row["class"]] - 5, "the same queries for each number of pictures"


def test_the_nearest_item_equals_a_slow_search(local_run: Run, table: pd.DataFrame) -> None:
    gallery = local_run.gallery("unseen")
    labels, every = gallery.items["label"].to_numpy(), np.arange(len(gallery))
    features = np.array(gallery.features, dtype=np.float64)
    local = load_local(local_run)
    assert local is not None
    episode = Episodes(labels, every, every, shots=(1, 5), ways=0, queries=99, seed=3).episode(1)
    pretrained = None if gallery.pretrained is None else np.array(gallery.pretrained)
    pictures = episode.support[0]
    label, name = labels[pictures[0]], gallery.items["class_name"][pictures[0]]
    query = [q for q in episode.query.tolist() if labels[q] == label]
    assert not set(query) & set(pictures)
    kept = [i for i in every.tolist() if labels[i] != label] + pictures[:5].tolist()
    hits = [labels[min(kept, key=lambda i: ((features[i] - features[q]) ** 2).sum())] == label for q in query]
    of = table[(table["draw"] == 1) & (table["class"] == name) & (table["shots"] == 5)].set_index("similarity")
    assert of.loc["euclidean", "recall@1"] == pytest.approx(np.mean(hits))

    def z(rows: list[int]) -> torch.Tensor:
        return local.structure.space(gallery.features[rows], None if pretrained is None else pretrained[rows])

    reference = local.structure.reference(gallery.features[kept], None if pretrained is None else pretrained[kept])
    best = local.structure.matrix(reference, z(query)).argmax(1)
    assert of.loc["local", "recall@1"] == pytest.approx(np.mean(labels[np.array(kept)[best.numpy()]] == label))


def test_a_class_counts_as_much_as_another() -> None:
    fixed = {"protocol": "unseen", "shots": 1}
    values = {("euclidean", "a"): (0.2, 0.4), ("euclidean", "b"): (1.0, 1.0), ("local", "a"): (0.4, 0.8),
              ("local", "b"): (1.0, 0.8)}  # fmt: skip
    rows = [
        fixed | {"draw": draw, "class": c, "similarity": by, "queries": 9, "recall@1": value, "vote": 0.5}
        for (by, c), of in values.items() for draw, value in enumerate(of)
    ]  # fmt: skip
    means = summary(pd.DataFrame(rows)).set_index("similarity")
    assert means["recall@1"].to_dict() == pytest.approx({"euclidean": 0.65, "local": 0.75})
    assert means.loc["local", "recall@1 deviation"] == pytest.approx(0.05)
    assert means.loc["local", "recall@1 ahead"] == pytest.approx(0.1)
    ends = means.loc["local", ["recall@1 ahead low", "recall@1 ahead high"]].tolist()
    assert ends == pytest.approx([-0.1, 0.3]), "both classes drawn twice: 0.3 of the one, -0.1 of the other"
    assert means.loc["euclidean", ["vote ahead", "vote ahead low", "vote ahead high"]].tolist() == [0, 0, 0]


def test_too_few_pictures(local_run: Run) -> None:
    with pytest.raises(LabError, match="two classes with 50 pictures"):
        new_classes(local_run, 1, shots=(50,))


def test_the_command(local_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--new-class", "--shots", "1", "2", "--episodes", "1", "--csv", str(tmp_path / "new.csv"))
    cli.main(["recognise", str(local_run.path), *words])
    out = capsys.readouterr().out
    assert "unseen: a new class of 5 in turn" in out and "1 picture " in out and "2 pictures" in out
    assert out.count("Local structure") == 2
    assert set(pd.read_csv(tmp_path / "new.csv")["shots"]) == {1, 2}
