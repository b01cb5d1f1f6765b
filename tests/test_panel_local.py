"""The study of local and global metrics, on the digits' pixels; rankings against a loop."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pixel_study import pixels

from pddm_lab.data.dataset import Protocol
from pddm_lab.errors import ConfigError
from pddm_lab.panel import local, local_ways, recipes
from pddm_lab.panel.local import galleries
from pddm_lab.panel.local_tables import GLOBAL
from pddm_lab.panel.local_ways import THIRDS, LinearMetric, Pairs, Ranked
from pddm_lab.panel.tables import write_panel
from pddm_lab.study.cells import Study


def test_queries_are_ranked_as_by_a_loop() -> None:
    torch.manual_seed(0)
    scores, items, classes = torch.rand(9, 30), torch.randint(4, (30,)), torch.randint(5, (9,))
    same = classes[:, None] == items
    ranked = Ranked.of(scores, same, same.sum(1), classes)
    hits, precisions, classes_of_queries = [], [], []
    for query in range(9):
        order = sorted(range(30), key=lambda item: -float(scores[query, item]))
        relevant = int(same[query].sum())
        if relevant:
            right = [bool(same[query, item]) for item in order[:relevant]]
            precisions.append(sum(sum(right[: at + 1]) / (at + 1) for at in range(relevant) if right[at]) / relevant)
            hits.append(right[0])
            classes_of_queries.append(int(classes[query]))
    assert ranked.hit.tolist() == hits and ranked.precision.tolist() == pytest.approx(precisions)
    assert ranked.means() == pytest.approx({"recall@1": np.mean(hits), "map@r": np.mean(precisions)})
    of_classes = ranked.of_classes()
    assert sum(of_classes["queries"]) == len(classes_of_queries) and sum(of_classes["hits"]) == sum(hits)
    assert of_classes["precisions"][0] == pytest.approx(
        sum(value for value, one in zip(precisions, classes_of_queries, strict=True) if one == min(classes_of_queries)),
        abs=1e-4,
    )


def test_a_threshold_tells_pairs_apart() -> None:
    torch.manual_seed(0)
    classes = torch.arange(8).repeat_interleave(30)
    same, own, density = classes[:, None] == classes, torch.arange(240), torch.rand(240)
    same[own, own] = False
    pairs = Pairs.of(same, own, density, 0)
    assert (pairs.rows != own[pairs.queries, None]).all() and (pairs.third.bincount() == 80).all()
    positive = classes[pairs.rows] == classes[pairs.queries, None]
    assert positive[:, 0].all() and not positive[:, 1:].any()
    dense = density[pairs.queries][pairs.third == 2]
    assert dense.min() > density[pairs.queries][pairs.third == 1].max()
    scores = torch.randn(pairs.rows.shape) + 2 * positive
    rates = pairs.rates(scores)
    threshold = scores[:, 1:].flatten().sort().values[-1 - scores[:, 1:].numel() // 100]
    assert rates["tpr@1%fpr"] == pytest.approx(float((scores[:, 0] > threshold).float().mean()))
    assert np.mean([rates[f"{third} fpr"] for third in THIRDS]) == pytest.approx(0.01, abs=1e-3)
    assert np.mean([rates[f"{third} tpr"] for third in THIRDS]) == pytest.approx(rates["tpr@1%fpr"])


def test_thinned_galleries_have_so_many_items_a_class() -> None:
    labels = np.repeat(np.arange(6), 13)
    items = np.arange(78)
    for protocol in (
        Protocol("unseen", items, items),
        Protocol("known", items[::13], np.setdiff1d(items, items[::13])),
    ):
        parts = dict(galleries(labels, protocol, 0))
        assert list(parts) == [0, 1, 2, 3, 5, 10] and parts[0] is protocol
        for count in (1, 2, 3, 5, 10):
            assert (np.bincount(labels[parts[count].gallery]) == count).all()
            assert not set(parts[count].query) & set(parts[count].gallery)


def test_a_linear_metric_learns_to_ignore_a_direction_in_which_classes_vary(monkeypatch) -> None:
    monkeypatch.setattr(local_ways, "METRIC_RATE", 1e-3)
    torch.manual_seed(0)
    centres = torch.nn.functional.one_hot(torch.arange(8), 9).float()
    labels = torch.arange(8).repeat_interleave(12)
    features = centres[labels]
    features[:, 8] = torch.randn(96)
    features = torch.nn.functional.normalize(features, dim=1)
    spaces = [(fold, features) for fold in local_ways.fit.folds(labels, 0)]
    metric = LinearMetric(9).fit(local_ways.episodes_of(spaces, None, 0.0, labels, 0, 0), 0)
    gains = metric.matrix.weight.norm(dim=0)
    assert gains[8] < 0.8 * gains[:8].min()


@pytest.mark.slow
def test_a_study_measures_every_way_on_every_gallery(data_root, tmp_path, monkeypatch) -> None:
    material = pixels(data_root)
    monkeypatch.setattr(local, "material_of", lambda config, folds: dataclasses.replace(material, config=config))
    monkeypatch.setattr(recipes.Material, "load", lambda config, folds, bar: material)
    monkeypatch.setattr(local_ways.fit, "STEPS", 8)
    monkeypatch.setattr(local_ways.fit, "WEIGHTS", (0.0, 0.5))
    monkeypatch.setattr("pddm_lab.local.episodes.PAIRS", 3000)
    fewer = {name: each[:1] if name == "k_reciprocal" else each[::4] for name, each in local_ways.RIVALS.items()}
    monkeypatch.setattr(local_ways, "RIVALS", fewer)
    monkeypatch.setattr(local, "THINNED", (2,))
    monkeypatch.setattr(local, "MOST_QUERIES", 50)
    study = Study.create("local", str(tmp_path))
    options: dict[str, Any] = {
        "base": {"classes_per_batch": 3, "dim": 8, "runs_root": str(tmp_path)}, "folds": 2, "seeds": 1, "steps": 3,
        "progress": False,
    }  # fmt: skip
    outcome = local.run_local(study, "local", ["digits"], ["quick", "pretrained"], **options)
    assert not outcome.failures and outcome.computed == 2
    for name in ("quick", "pretrained"):
        cell = study.cell(f"local-digits-{name}-test-0")
        assert set(cell["metrics"]) == {"unseen", "unseen, 2 a class", "known", "known, 2 a class"}
        ways = {"euclidean", "whitened", "joined", "linear", "cosines", "inductive", *local_ways.RIVALS, "local"}
        ways |= {"local, first pass"} | ({"pddm"} if name == "quick" else set())
        for values in cell["metrics"].values():
            assert set(values) == ways and all(0 < one["map@r"] <= 1 for one in values.values())
        for protocol in ("unseen", "known"):
            of_classes = cell["classes"][protocol]["local"]
            expected = sum(of_classes["precisions"]) / sum(of_classes["queries"])
            assert cell["metrics"][protocol]["local"]["map@r"] == pytest.approx(expected, abs=1e-3)
    values, differences = (pd.read_csv(path) for path in write_panel(study, "local", tmp_path))
    key = "embedding == 'quick' and protocol == 'unseen' and metric == 'map@r'"
    unseen = study.cell("local-digits-quick-test-0")["metrics"]["unseen"]
    of_cell = 100 * pd.Series({way: one["map@r"] for way, one in unseen.items()})
    row = differences.query(f"{key} and against == 'global'").iloc[0]
    assert row.rival == of_cell[list(GLOBAL)].idxmax() and row["rival's"] == pytest.approx(of_cell[row.rival], abs=0.01)
    assert row.difference == pytest.approx(of_cell["local"] - of_cell[row.rival], abs=0.01)
    assert row.low <= row.difference <= row.high
    assert values.query(f"{key} and way == 'local'").value.item() == pytest.approx(of_cell["local"], abs=0.01)
    with pytest.raises(ConfigError, match="pretrained"):
        local.run_local(study, "local", ["digits"], ["pretraind"], **options)
